"""Running instances are moved to where they are better off: after a hold, a few at once, in the plan's order, and not again soon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tashi.errors import YourMistake
from tashi.manager.convergence import AT_ONCE
from tashi.manager.rebalancing import AT_ONCE as STEPS_AT_ONCE
from tashi.manager.rebalancing import Rebalancing
from tashi.model.orders import Migrate as MigrateOrder
from tashi.model.orders import Receive
from tashi.model.statistics import InstanceUse, Statistics
from tashi.model.user import Principal
from tashi.scheduling.placing import primitive
from tashi.scheduling.plan import Migrate, Plan
from tashi.scheduling.policies import Policy
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tashi.scheduling.terms import can_move, is_resting
from tests.builders import ADMIN, a_spec, some_facts
from tests.small_cell import FakeAgent, SmallCell, result_of

ALICE = Principal(name="alice", user_id=1000)


def moving(wanted: Callable[[Snapshot], list[tuple[str, int]]]) -> Policy:
    """Primitive, and these moves by name to host id, as far as they may be made."""

    def policy(snapshot: Snapshot) -> Plan:
        placed = primitive.plan(snapshot)
        if not snapshot.rebalance:
            return placed
        here = {one.name: one for group in snapshot.placed.values() for one in group}
        moves = []
        for name, host_id in wanted(snapshot):
            one = here.get(name)
            resting = one is not None and is_resting(one, snapshot.time, snapshot.settings.cooldown)
            if one is not None and can_move(one) and one.host_id != host_id and not resting:
                moves.append(Migrate(instance_id=one.id, host_id=host_id, why="it is better there"))
        return Plan(actions=(*placed.actions, *moves))

    return policy


def a_cell(
    wanted: Callable[[Snapshot], list[tuple[str, int]]], *, running: int = 2, cores: tuple[int, ...] = (8, 8, 8), **settings: Any
) -> tuple[SmallCell, list[FakeAgent]]:
    """vm1, vm2, ... run on h1, and there are further hosts with so many cores."""
    scheduling = SchedulingSettings(**{"auto_migrations": True, "hold_rounds": 3, "cooldown": 3600.0, **settings})
    cell = SmallCell(policy=moving(wanted), scheduling=scheduling)
    cell.join(FakeAgent("h1", some_facts(hypervisor="test", cores=cores[0])))
    for number in range(1, running + 1):
        cell.create(a_spec(f"vm{number}"), stanza=f"s{number}")
    cell.work()
    for number, count in enumerate(cores[1:], start=2):
        cell.join(FakeAgent(f"h{number}", some_facts(hypervisor="test", cores=count)))
    return cell, cell.agents


def where(cell: SmallCell) -> dict[str, int | None]:
    """The host of each instance."""
    return {one.name: one.host_id for one in cell.manager.cluster.instances.values()}


def moves(cell: SmallCell) -> list[str]:
    """Who has been told to move, once for each move, in the order they were begun."""
    return [event["fqdn"] for event in cell.events if event.get("action") == "migrating" and event["to"] == "MigratePrep"]


def live(cell: SmallCell, seconds: float) -> None:
    """Let time pass, in which hosts live and do as they are told."""
    end = cell.clock.seconds() + seconds
    while cell.clock.seconds() < end:
        cell.live(1)
        cell.work()


def test_moves_wait_for_the_third_round() -> None:
    """For two rounds nothing moves; after the third all does, and the events and the record say who wanted it and why."""
    cell, _ = a_cell(lambda snapshot: [("vm1", 2), ("vm2", 3)])
    live(cell, 25)
    assert moves(cell) == []
    live(cell, 10)
    assert where(cell) == {"vm1": 2, "vm2": 3}
    reasons = [event["reason"] for event in cell.events if event.get("action") in ("migrating", "migrated") and event["fqdn"] == "vm1"]
    assert reasons[0] == "moves to h2, asked by the scheduler: it is better there"
    assert reasons[-1] == "a move asked by the scheduler: it is better there"
    assert cell.instance("vm1").moved_at > 1_800_000_000
    assert "placed there by a move asked by the scheduler" in cell.call(ALICE, "explain", instance="vm1")


def test_a_spike_moves_nothing() -> None:
    """What pays in two rounds and not in the next begins its row anew."""
    cell, agents = a_cell(lambda snapshot: [("vm1", 2)] if sum(snapshot.usage[1].instances.values()) > 1000 else [], running=1)

    def use(percent: float) -> None:
        for _ in range(10):
            agents[0].tell(statistics=Statistics(interval=10.0, seconds=60.0, instances=(InstanceUse(instance_id=1, cpu=percent),)))

    for percent in (90.0, 90.0, 5.0, 90.0, 90.0, 5.0, 90.0, 90.0, 5.0):
        use(percent)
        live(cell, 10)
    assert moves(cell) == []
    for _ in range(4):
        use(90.0)
        live(cell, 10)
    assert moves(cell) == ["vm1"]


def test_off_by_default() -> None:
    """Without autoMigrations nobody is moved, whatever would pay."""
    cell, _ = a_cell(lambda snapshot: [("vm1", 2)], auto_migrations=False)
    live(cell, 60)
    assert moves(cell) == []


def test_who_has_moved_rests() -> None:
    """Within its cooldown nobody is moved again, but an operator's word is heard; a move that failed counts, too."""
    target = {"vm1": 2, "vm2": 2}
    cell, agents = a_cell(lambda snapshot: list(target.items()), hold_rounds=1, cooldown=300.0)
    agents[1].refuses = lambda deed: "no" if isinstance(deed, Receive) and deed.name == "vm2" else ""
    live(cell, 30)
    assert where(cell) == {"vm1": 2, "vm2": 1}
    target.update(vm1=3)
    agents[1].refuses = lambda deed: ""
    live(cell, 200)
    assert moves(cell) == ["vm1", "vm2"]
    live(cell, 150)
    assert (where(cell), moves(cell)) == ({"vm1": 3, "vm2": 2}, ["vm1", "vm2", "vm1", "vm2"])
    cell.call(ADMIN, "migrateVm", instance="vm1", dst="h1")
    live(cell, 5)
    assert where(cell)["vm1"] == 1


def test_a_few_at_once() -> None:
    """At most five move in the cell and two out of a host, and every one of a plan has its turn before there is another plan."""
    made: list[float] = []

    def wanted(snapshot: Snapshot) -> list[tuple[str, int]]:
        made.append(snapshot.time)
        return [(f"vm{number}", 2) for number in range(1, 7)]

    cell, agents = a_cell(wanted, running=6, hold_rounds=1)
    most = 0
    while where(cell) != {f"vm{number}": 2 for number in range(1, 7)}:
        cell.live(1)
        most = max(most, len(cell.manager.cluster.moving))
        assert len(cell.manager.cluster.moving) <= 2
        if moves(cell):
            assert len(made) == 1
        for agent in agents:
            agent.work(1)
    assert most == 2


def test_steps_are_taken_as_they_fit() -> None:
    """A move into a full host waits until the one before it has left, and what it left behind is cleared away."""
    cell, _ = a_cell(lambda snapshot: [("vm1", 2), ("vm2", 1)], running=1, cores=(1, 1, 1), hold_rounds=1)
    cell.create(a_spec("vm2", hints={"targetHost": "h3", "allowElsewhere": "True"}), stanza="s2")
    cell.work()
    assert where(cell) == {"vm1": 1, "vm2": 3}
    cell.live(10)
    assert moves(cell) == ["vm1"]
    live(cell, 10)
    assert (where(cell), moves(cell)) == ({"vm1": 2, "vm2": 1}, ["vm1", "vm2"])


def test_what_depends_on_a_move_that_fails_is_dropped() -> None:
    """Nobody is sent to where room was to be made; the others of the plan go on."""
    cell, agents = a_cell(lambda snapshot: [("vm1", 2), ("vm2", 1), ("vm3", 4)], running=1, cores=(1, 1, 1, 1), hold_rounds=1)
    cell.create(a_spec("vm2", hints={"targetHost": "h3", "allowElsewhere": "True"}), stanza="s2")
    cell.work()
    cell.join(FakeAgent("h5", some_facts(hypervisor="test", cores=1)))
    cell.create(a_spec("vm3", hints={"targetHost": "h5", "allowElsewhere": "True"}), stanza="s3")
    cell.work()
    agents[0].refuses = lambda deed: "the wire is cut" if isinstance(deed, MigrateOrder) else ""
    live(cell, 15)
    assert (where(cell), moves(cell)) == ({"vm1": 1, "vm2": 3, "vm3": 4}, ["vm1", "vm3"])
    assert cell.instance("vm1").reason == "not moved to h2: the wire is cut"


def test_a_programme_survives_what_happens_to_its_instances() -> None:
    """One that is destroyed, and one whose host is drained meanwhile, cost the programme only their own steps."""
    cell, _ = a_cell(lambda snapshot: [(f"vm{number}", 2) for number in range(1, 6)], running=5, hold_rounds=1)
    cell.live(10)
    assert moves(cell) == ["vm1", "vm2"]
    cell.call(ADMIN, "destroyVm", instance="vm1")
    cell.call(ADMIN, "destroyVm", instance="vm4")
    cell.call(ADMIN, "migrateVm", instance="vm5", dst="h3")
    live(cell, 10)
    assert where(cell) == {"vm2": 2, "vm3": 2, "vm5": 3}


def test_a_restarted_manager_finishes_what_was_begun_and_no_more() -> None:
    """The moves that were begun come to their end; those that were not are planned anew, after a hold."""
    cell, _ = a_cell(lambda snapshot: [(f"vm{number}", 2) for number in range(1, 5)], running=4)
    cell.live(31)
    assert moves(cell) == ["vm1", "vm2"]
    cell.restart()
    live(cell, 20)
    assert where(cell) == {"vm1": 2, "vm2": 2, "vm3": 1, "vm4": 1}
    live(cell, 20)
    assert where(cell) == {"vm1": 2, "vm2": 2, "vm3": 2, "vm4": 2}


def test_at_once_after_a_start() -> None:
    """With rescheduleAfterStart a round follows the start of an instance, and not the interval."""
    rounds: list[float] = []

    def wanted(snapshot: Snapshot) -> list[tuple[str, int]]:
        rounds.append(snapshot.time)
        return []

    scheduling = SchedulingSettings(auto_migrations=True)
    for at_once, expected in ((False, 0), (True, 1)):
        rounds.clear()
        cell = SmallCell(
            policy=moving(wanted), scheduling=scheduling, hosts=[FakeAgent("h1")], reschedule_after_start=at_once, rebalance_interval=1e6
        )
        cell.create()
        cell.work()
        assert (cell.state(), len(rounds)) == ("Running", expected)


def test_plan_shows_and_apply_makes_moves() -> None:
    """`plan` shows everybody the moves that nobody makes by himself; `--apply` is for admins, and begins them without a hold."""
    cell, _ = a_cell(lambda snapshot: [("vm1", 2), ("vm2", 2), ("vm3", 2)], running=3, auto_migrations=False)
    shown = cell.call(ALICE, "plan")
    assert shown["lines"] == [f"move vm{number} h1 -> h2: it is better there" for number in (1, 2, 3)]
    assert [row["action"] for row in shown["actions"]] == ["move"] * 3
    live(cell, 5)
    assert moves(cell) == []
    with pytest.raises(YourMistake, match="for admins"):
        cell.call(ALICE, "plan", apply=True)
    with pytest.raises(YourMistake, match="apply is 'yes'"):
        cell.call(ADMIN, "plan", apply="yes")
    assert cell.call(ADMIN, "plan", apply=True) == shown
    assert moves(cell) == ["vm1", "vm2"]
    with pytest.raises(YourMistake, match="moves of an earlier plan are still to be made"):
        cell.call(ADMIN, "plan", apply=True)
    live(cell, 10)
    assert where(cell) == {"vm1": 2, "vm2": 2, "vm3": 2}
    assert cell.call(ALICE, "plan")["lines"] == ["nothing to do"]
    audit = [(event["who"], event["target"], event["result"]) for event in cell.events if event.get("verb") == "plan"]
    assert audit == [("alice", "", "forbidden"), ("root", "apply, 3 moves", "OK"), ("root", "apply, 1 moves", "conflict")]


def test_two_who_apply_a_plan_at_once() -> None:
    """Who comes second, while a large plan is being carried out, is told so, and nothing is noted as done that was not."""
    cell, _ = a_cell(lambda snapshot: [("vm1", 2)], running=1, cores=(800, 8), auto_migrations=False)
    for number in range(3 * AT_ONCE):
        cell.create(a_spec(f"more{number}", hints={"targetHost": "h1"}), stanza=f"m{number}")
    calls = [Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "plan", {"apply": True})) for _ in range(2)]
    cell.settle()
    assert [action["action"] for action in result_of(calls[0])["actions"]].count("move") == 1
    with pytest.raises(YourMistake, match="moves of an earlier plan are still to be made"):
        result_of(calls[1])
    assert [event["result"] for event in cell.events if event.get("verb") == "plan"] == ["OK", "conflict"]


def test_steps_in_vain_do_not_hold_the_reactor() -> None:
    """Of a programme of which nothing can be done any more a few steps are dropped at a time."""
    cell, _ = a_cell(lambda snapshot: [], running=4 * STEPS_AT_ONCE, cores=(1000, 8), auto_migrations=False)
    rebalancing = Rebalancing(cell.manager.cluster, cell.settings)
    rebalancing.begin([Migrate(instance_id=number, host_id=9) for number in cell.manager.cluster.instances])
    turns = 1
    while rebalancing.is_moving:
        rebalancing.proceed()
        turns += 1
    assert turns == 4
