"""Instances that move while they run: the plain story, what is refused, and what becomes of them when something fails on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tashi.errors import YourMistake
from tashi.model.orders import Deed, Depart, Look, Migrate, Observation, Receive, Seen
from tashi.model.user import Principal
from tashi.scheduling.load import load_of
from tests.builders import ADMIN, ISM, a_spec, some_facts
from tests.small_cell import FakeAgent, SmallCell, result_of

ALICE = Principal(name="alice", user_id=1000)
BOB = Principal(name="bob", user_id=1001)


def a_cell(hosts: int = 2, *, running: int = 1, **settings: Any) -> tuple[SmallCell, FakeAgent, FakeAgent]:
    """A cell whose instances vm1, vm2, ... run on h1, and its first two hosts."""
    cell = SmallCell(**settings)
    cell.join(FakeAgent("h1", some_facts(cores=8, memory=4096, hypervisor="test")))
    for number in range(1, running + 1):
        cell.create(a_spec(f"vm{number}", resource_id=f"r{number}", memory=512), stanza=f"s{number}")
    cell.work()
    for number in range(2, hosts + 1):
        cell.join(FakeAgent(f"h{number}", some_facts(cores=8, memory=4096, hypervisor="test")))
    cell.deliver()
    return cell, cell.agents[0], cell.agents[1]


def move(cell: SmallCell, name: str = "vm1", dst: str = "h2", who: Principal = ALICE) -> Any:
    """The client's migrateVm."""
    return cell.call(who, "migrateVm", instance=name, dst=dst)


def refusal(cell: SmallCell, name: str = "vm1", dst: str = "h2", who: Principal = ALICE) -> tuple[str, str]:
    """The code and the words by which a move is refused; nothing of the instance has changed."""
    before = dict(cell.manager.cluster.instances)
    with pytest.raises(YourMistake) as caught:
        move(cell, name, dst, who)
    assert cell.manager.cluster.instances == before
    return caught.value.code, caught.value.message


def steps(cell: SmallCell) -> list[tuple[str, str, str]]:
    """Action, from and to of what happened to instances, since they first ran."""
    told = [(event["action"], event["from"], event["to"]) for event in cell.events if event["type"] == "vmAction"]
    return told[told.index(("stateChanged", "Activating", "Running")) + 1 :]


def until(cell: SmallCell, state: str, kind: type[Deed] | None = None) -> None:
    """Go on until vm1 is in this state and, where it is named, its order has reached a host that has not carried it out."""
    for _ in range(200):
        ordered = any(isinstance(order, kind) for agent in cell.agents for order in agent.orders) if kind else True
        if cell.state() == state and ordered:
            return
        cell.settle(0.04)
        if not (kind and any(isinstance(order, kind) for agent in cell.agents for order in agent.orders)):
            next((agent for agent in cell.agents if agent.work(1)), None)
    raise AssertionError(f"vm1 is {cell.state()} and has {[agent.orders for agent in cell.agents]}")


def is_whole(cell: SmallCell) -> None:
    """Records and hosts agree, nothing is left of any move, and the loads are the sum of what is there."""
    records = cell.manager.cluster
    assert [one for one in records.instances.values() if one.migration or one.residue or one.decayed] == []
    assert {number: agent.host_id for agent in cell.agents for number in agent.domains} == {
        number: one.host_id for number, one in records.instances.items() if one.host_id is not None
    }
    assert sum(len(agent.domains) for agent in cell.agents) == len([one for one in records.instances.values() if one.host_id])
    assert [agent.expected for agent in cell.agents if agent.expected] == []
    for host_id, load in records.loads.items():
        assert load == load_of(one for one in records.instances.values() if one.host_id == host_id)
    assert (records.moving, {key: value for key, value in records.errands.items() if value != records.on_host.get(key, set())}) == (
        set(),
        {},
    )


@pytest.mark.parametrize("tells", [True, False])
def test_the_plain_story(tells: bool) -> None:
    """An instance is prepared, moved, and runs on its new host, whether that tells so by itself or is asked."""
    cell, h1, h2 = a_cell()
    h2.tells_arrivals = tells
    assert move(cell)["state"] == "MigratePrep"
    until(cell, "MigrateTrans", Migrate)
    assert [load.memory for load in cell.manager.cluster.loads.values()] == [512, 512]
    wait = Deferred.fromCoroutine(cell.manager.verbs.call(ALICE, "waitFor", {"ids": [1], "until": "migrated"}))
    cell.work()
    assert result_of(wait) == [{"id": 1, "ok": True, "state": "Running", "reason": ""}]
    assert steps(cell) == [
        ("migrating", "Running", "MigratePrep"),
        ("migrating", "MigratePrep", "MigrateTrans"),
        ("migrated", "h1", "h2"),
    ]
    assert (h1.domains, list(h2.domains), cell.instance().host_id) == ({}, [1], 2)
    is_whole(cell)
    assert [load.memory for load in cell.manager.cluster.loads.values()] == [0, 512]


def test_what_is_refused() -> None:
    """Each move that cannot be is refused with its reason, and changes nothing."""
    cell, _, _ = a_cell(6, running=2)
    _, h4, h5, h6 = cell.agents[2:]
    cell.call(ADMIN, "setHostState", host="h3", state="Drained")
    h4.lose_link()
    h5.facts = some_facts(hypervisor="qemu", cores=8, memory=4096)
    h5.tell()
    h6.facts = some_facts(hypervisor="test", cores=8, memory=256)
    h6.tell()
    assert refusal(cell, dst="h9")[0] == "unknown-id"
    assert refusal(cell, "vm9")[0] == "unknown-id"
    assert refusal(cell, dst="h1") == ("conflict", "vm1 cannot move to h1: has it already")
    assert refusal(cell, dst="h3")[1] == "vm1 cannot move to h3: is drained"
    assert refusal(cell, dst="h4")[1] == "vm1 cannot move to h4: does not answer just now"
    cell.live(40)
    assert refusal(cell, dst="h4")[1] == "vm1 cannot move to h4: is down"
    assert refusal(cell, dst="h5")[1] == "vm1 cannot move to h5: runs qemu, and its host test"
    assert refusal(cell, dst="h6") == ("no-suitable-host", "vm1 cannot move to h6: 256 MB short of memory")
    assert refusal(cell, who=BOB)[0] == "forbidden"
    cell.call(ALICE, "adaptCpuShare", instance="vm1", share=77)
    assert refusal(cell) == ("busy", "vm1 is being adapted; move it when that is done")
    cell.work()
    cell.call(ALICE, "pauseVm", instance="vm1")
    cell.work()
    assert refusal(cell) == ("conflict", "VmState is not Running - it is Paused")
    move(cell, "vm2")
    assert refusal(cell, "vm2")[1] == "VmState is not Running - it is MigratePrep"
    cell.work()
    assert cell.instance("vm2").host_id == 2
    is_whole(cell)


def test_a_network_that_the_target_has_not() -> None:
    """An instance does not move to where its network is not."""
    cell, _, _ = a_cell()
    cell.join(FakeAgent("h3", some_facts(hypervisor="test", networks=(7,))))
    nics = [{"network": 7}]
    cell.call(ALICE, "createVm", name="web", disks=[{"uri": "tashi"}], nics=nics)
    cell.work()
    assert refusal(cell, "web", "h1")[1] == "web cannot move to h1: has no network 7"


@pytest.mark.parametrize("kind", [Depart, Receive, Migrate])
def test_a_host_that_cannot(kind: type[Deed]) -> None:
    """Whichever host cannot do its part, the instance runs on where it was, with the reason, and may try again."""
    cell, h1, _ = a_cell()
    for agent in cell.agents:
        agent.refuses = lambda deed: "the cable is out" if isinstance(deed, kind) else ""
    move(cell)
    wait = Deferred.fromCoroutine(cell.manager.verbs.call(ALICE, "waitFor", {"ids": [1], "until": "migrated"}))
    cell.work()
    reason = "not moved to h2: the cable is out"
    assert result_of(wait) == [{"id": 1, "ok": False, "state": "Running", "reason": reason}]
    assert (cell.instance().host_id, cell.instance().reason, list(h1.domains)) == (1, reason, [1])
    is_whole(cell)
    for agent in cell.agents:
        agent.refuses = lambda deed: ""
    move(cell)
    cell.work()
    assert (cell.instance().host_id, cell.instance().reason) == (2, "")
    is_whole(cell)


def test_a_target_that_falls_silent_before() -> None:
    """While nothing has moved, a target's silence is the end of the move; what was prepared there is cleared when it is back."""
    cell, _, h2 = a_cell()
    move(cell)
    until(cell, "MigratePrep", Receive)
    h2.work()
    h2.lose_link()
    cell.restart()
    h2.lose_link()
    cell.live(40)
    cell.work()
    assert (cell.state(), cell.instance().host_id, cell.instance().reason) == ("Running", 1, "not moved to h2: host h2 is silent")
    assert refusal(cell)[1] == "vm1 cannot move to h2: is down"
    h2.login(cell)
    cell.work()
    is_whole(cell)


def test_a_target_that_falls_silent_on_the_way() -> None:
    """While it moves only its own host's word ends the move: the target's silence alone changes nothing."""
    cell, h1, h2 = a_cell()
    move(cell)
    until(cell, "MigrateTrans", Migrate)
    h2.lose_link()
    cell.live(40)
    assert cell.state() == "MigrateTrans"
    h2.power_cut()
    h1.work()
    cell.settle()
    assert (cell.state(), cell.instance().host_id) == ("Running", 1)
    h2.login(cell)
    cell.work()
    is_whole(cell)


@pytest.mark.parametrize("kind", [Depart, Receive])
def test_a_source_that_falls_silent_before(kind: type[Deed]) -> None:
    """While nothing has moved, a silent source is like any silent host, and the move is forgotten."""
    cell, h1, h2 = a_cell()
    move(cell)
    until(cell, "MigratePrep", kind)
    h1.lose_link()
    cell.live(40)
    assert (cell.state(), cell.instance().migration) == ("Orphaned", None)
    cell.work()
    assert h2.expected == {}
    h1.login(cell)
    cell.work()
    assert (cell.state(), cell.instance().host_id) == ("Running", 1)
    is_whole(cell)


@pytest.mark.parametrize("fate", ["goes on", "power cut", "arrived", "arrived and told"])
def test_a_source_that_falls_silent_on_the_way(fate: str) -> None:
    """It is Orphaned until somebody knows: it goes on moving, is gone with its host, or has arrived."""
    cell, h1, h2 = a_cell()
    move(cell)
    until(cell, "MigrateTrans", Migrate)
    h1.lose_link()
    if fate.startswith("arrived"):
        h2.domains[1] = h2.expected.pop(1)
        h1.domains.clear()
    cell.live(29)
    assert cell.state() == "MigrateTrans"
    cell.live(5)
    assert cell.state() == "Orphaned"
    if fate == "arrived and told":
        h2.tell(*h2.all())
    cell.live(31)
    cell.work()
    arrived = fate.startswith("arrived")
    assert (cell.state(), cell.instance().host_id) == (("Running", 2) if arrived else ("Orphaned", 1))
    if fate == "power cut":
        h1.power_cut()
    h1.login(cell)
    cell.work()
    assert (cell.state(), list(h2.domains)) == (("Held", []) if fate == "power cut" else ("Running", [1]))
    assert steps(cell)[-1][0] == ("held" if fate == "power cut" else "migrated")
    is_whole(cell)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_domain_that_its_host_has_no_longer(arrived: bool) -> None:
    """When the source has lost it on the way, the target is asked: it has it, or it has failed."""
    cell, h1, h2 = a_cell()
    move(cell)
    until(cell, "MigrateTrans", Migrate)
    generation = h1.domains.pop(1)
    if arrived:
        h2.domains[1] = h2.expected.pop(1)
    h1.orders.clear()
    h1.tell(Observation(instance_id=1, generation=generation, seen=Seen.GONE, reason="crashed"))
    cell.settle()
    assert [type(order) for order in h2.orders] == [Look]
    cell.work()
    assert cell.state() == ("Running" if arrived else "none")
    assert ("migrated", "h1", "h2") in steps(cell) if arrived else "failed" in cell.actions()
    is_whole(cell)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_domain_that_stands_still(arrived: bool) -> None:
    """A source whose domain stands still after a failed move may have lost but the target's word: that is asked before it is cleared."""
    cell, h1, h2 = a_cell()
    h2.tells_arrivals = False
    move(cell)
    until(cell, "MigrateTrans", Migrate)
    (order,) = h1.orders
    h1.orders.clear()
    h1.paused.add(1)
    if arrived:
        h2.domains[1] = h2.expected.pop(1)
    h1.domains[1] = order.generation
    h1.tell(Observation(instance_id=1, generation=order.generation, seen=Seen.PAUSED, done=True, refused="libvirtd has ended"))
    cell.settle()
    assert [type(one) for one in (*h1.orders, *h2.orders)] == [Look]
    cell.work()
    if arrived:
        assert (cell.state(), cell.instance().host_id, h1.domains) == ("Running", 2, {})
    else:
        assert (cell.state(), cell.instance().host_id, cell.instance().reason) == ("Paused", 1, "not moved: libvirtd has ended")
        cell.call(ALICE, "unpauseVm", instance="vm1")
        cell.work()
        assert cell.state() == "Running"
    is_whole(cell)


def test_a_list_older_than_the_arrival() -> None:
    """What a target that has just come back lists was seen before the instance arrived there: it is asked, not believed."""
    cell, h1, h2 = a_cell()
    move(cell)
    until(cell, "MigrateTrans", Migrate)
    h2.lose_link()
    h2.login(cell, tell_all=False)
    h2.tells_arrivals = False
    h1.work()
    cell.settle()
    assert cell.instance().host_id == 2
    h2.tell(full=True)
    cell.settle()
    assert cell.state() == "MigrateTrans"
    cell.work()
    assert (cell.state(), cell.instance().host_id) == ("Running", 2)
    is_whole(cell)


def test_progress() -> None:
    """How far a move is, is told."""
    cell, h1, _ = a_cell()
    move(cell)
    until(cell, "MigrateTrans", Migrate)
    h1.tell(Observation(instance_id=1, generation=cell.instance().generation, seen=Seen.RUNNING, progress=40))
    cell.settle()
    assert (cell.events[-1]["action"], cell.events[-1]["progress"]) == ("migrating", 40)
    assert cell.state() == "MigrateTrans"
    cell.work()
    is_whole(cell)


def _play(cell: SmallCell, step: int, disturb: Callable[[], object]) -> None:
    """Let the hosts carry out what they are told, one order at a time; after so many of them the disturbance happens."""
    for number in range(60):
        if number == step:
            disturb()
        cell.settle(0.04)
        for agent in cell.agents:
            if agent.work(1):
                break
    cell.live(35)
    cell.work()


STEPS = range(8)


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("who", ["manager", "source", "target"])
def test_a_restart_at_any_step(who: str, step: int, tells: bool) -> None:
    """Whoever is killed and begins again, and whenever, the instance arrives, once."""
    cell, h1, h2 = a_cell()
    h2.tells_arrivals = tells
    move(cell)
    _play(cell, step, {"manager": cell.restart, "source": h1.restart, "target": h2.restart}[who])
    assert (cell.state(), cell.instance().host_id, list(h2.domains), h1.domains) == ("Running", 2, [1], {})
    assert steps(cell)[-1] == ("migrated", "h1", "h2")
    is_whole(cell)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("also", ["nothing", "manager", "source", "target"])
def test_a_destroy_at_any_step(step: int, also: str) -> None:
    """Destroyed while it moves, an instance is gone from both hosts, and its delete is answered once, whoever is killed right then."""
    cell, h1, h2 = a_cell()
    move(cell)

    def destroy() -> None:
        cell.delete("vm1")
        cell.settle(0.04)
        {"nothing": bool, "manager": cell.restart, "source": h1.restart, "target": h2.restart}[also]()

    _play(cell, step, destroy)
    assert (cell.state(), h1.domains, h2.domains, h1.expected, h2.expected) == ("none", {}, {}, {}, {})
    answers = [reply for reply in cell.replies if reply["verb"] == "deletecompute"]
    assert [answer["status"] for answer in answers] == ["OK"]
    is_whole(cell)


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step(step: int) -> None:
    """A qemu that dies while its instance moves is told as failed, and nothing is left of it anywhere."""
    cell, h1, h2 = a_cell()
    move(cell)

    def crash() -> None:
        agent = h1 if h1.domains else h2
        generation = agent.domains.pop(1)
        agent.tell(Observation(instance_id=1, generation=generation, seen=Seen.GONE, reason="crashed"))

    _play(cell, step, crash)
    assert (cell.state(), h1.domains, h2.domains) == ("none", {}, {})
    assert cell.actions().count("failed") == 1
    is_whole(cell)


def test_a_destroy_before_the_source_has_heard_of_its_move() -> None:
    """A target that has nothing yet is not done with the destroy: the source may still send it the domain, and then it is asked again."""
    cell, h1, h2 = a_cell()
    move(cell)
    until(cell, "MigrateTrans", Migrate)
    cell.delete("vm1")
    cell.settle()
    h2.expected[1] = cell.instance().generation - 2  # a host on which nothing prevents an arrival
    kept = dict(h2.expected)
    h2.work()
    h2.expected |= kept
    h1.work(1)
    assert list(h2.domains) == [1]
    cell.work()
    assert (cell.state(), h1.domains, h2.domains) == ("none", {}, {})
    is_whole(cell)


def test_limits() -> None:
    """Of many moves only so many are under way, in the cell and at each host; the others wait, and begin in their order."""
    cell, h1, h2 = a_cell(3, running=4, max_migrations=3, max_migrations_per_host=2)
    for number in range(1, 5):
        move(cell, f"vm{number}", "h2")
    cell.settle()
    under_way = [order.instance_id for order in h1.orders]
    assert under_way == [1, 2]
    assert {cell.state(f"vm{number}") for number in range(1, 5)} == {"MigratePrep"}
    h1.restart()
    cell.restart()
    assert sorted(order.instance_id for order in h1.orders) == [1, 2]
    cell.work()
    assert sorted(h2.domains) == [1, 2, 3, 4]
    moved = [event["id"] for event in cell.events if event.get("action") == "migrated"]
    assert sorted(moved[:2]) == [1, 2]
    is_whole(cell)


def test_one_that_waits_for_its_turn_can_be_destroyed() -> None:
    """A destroy does not wait for a move that waits."""
    cell, _, _ = a_cell(2, running=2, max_migrations=1)
    move(cell, "vm2")
    move(cell, "vm1")
    cell.delete("vm1")
    cell.work()
    assert (cell.state("vm1"), cell.state("vm2"), cell.instance("vm2").host_id) == ("none", "Running", 2)
    is_whole(cell)


def test_other_wishes_meanwhile() -> None:
    """Whatever else is asked of an instance that moves is refused in words; afterwards it can be had."""
    cell, _, _ = a_cell()
    move(cell)
    wishes = {"pauseVm": {}, "suspendVm": {}, "shutdownVm": {}, "adaptCpuShare": {"share": 5}, "vmmSpecificCall": {"arg": "reset"}}
    for state, kind in (("MigratePrep", Receive), ("MigrateTrans", Migrate)):
        until(cell, state, kind)
        for verb, arguments in wishes.items():
            with pytest.raises(YourMistake, match=f"VmState is not Running - it is {state}"):
                cell.call(ALICE, verb, instance="vm1", **arguments)
    cell.work()
    cell.call(ALICE, "adaptCpuShare", instance="vm1", share=5)
    cell.work()
    assert (cell.instance().cpu_share, cell.instance().host_id) == (5, 2)
    is_whole(cell)


def test_there_and_back() -> None:
    """It moves as often as it is asked; what a host said of an earlier stay says nothing of the present one."""
    cell, h1, h2 = a_cell()
    said: list[tuple[FakeAgent, Observation]] = []
    for turn in range(12):
        here, there = (h1, h2) if turn % 2 == 0 else (h2, h1)
        said += [(here, seen) for seen in here.all()]
        said.append((here, Observation(instance_id=1, generation=here.domains[1], seen=Seen.GONE, reason="crashed")))
        move(cell, dst=there.name)
        cell.work()
        for agent, observation in said:
            agent.tell(observation)
        cell.work()
        assert (cell.state(), cell.instance().host_id, list(there.domains), here.domains) == ("Running", there.host_id, [1], {})
        is_whole(cell)
    generations = [seen.generation for _, seen in said]
    assert generations == sorted(generations)


def test_a_host_still_to_be_cleared() -> None:
    """Until a host has cleared away what a move left there, its room is not given away, and the instance does not go back there."""
    cell, h1, _ = a_cell()
    move(cell)
    until(cell, "MigrateTrans", Migrate)
    h1.work()
    h1.lose_link()
    cell.work()
    assert (cell.state(), cell.instance().host_id) == ("Running", 2)
    assert [load.memory for load in cell.manager.cluster.loads.values()] == [512, 512]
    h1.login(cell)
    assert refusal(cell, dst="h1")[1] == "vm1 cannot move to h1: is still to be cleared of what an earlier stay left there"
    cell.work()
    is_whole(cell)


def test_a_host_that_dies_after_a_move_failed_over_it() -> None:
    """An instance whose source came back and could not move it is Orphaned again when that host dies, as any other."""
    cell, h1, _ = a_cell()
    h1.refuses = lambda deed: "no" if isinstance(deed, Migrate) else ""
    move(cell)
    until(cell, "MigrateTrans", Migrate)
    for expected in ("Orphaned", "Running", "Orphaned"):
        if expected == "Orphaned":
            h1.lose_link()
            cell.live(40)
        else:
            h1.login(cell)
            cell.work()
        assert cell.state() == expected


def test_an_open_create_is_not_confused() -> None:
    """While one of a group moves or is suspended and resumed, the others may still be starting: their create is answered all the same."""
    cell = SmallCell()
    h1 = cell.join(FakeAgent("h1", some_facts(hypervisor="test")))
    cell.create(a_spec("vm1"), a_spec("vm2"), who=ISM)
    cell.settle()
    late = [order for order in h1.orders if order.instance_id == 2]
    h1.orders = [order for order in h1.orders if order.instance_id == 1]
    h1.work()
    cell.settle()
    cell.call(ALICE, "suspendVm", instance="vm1")
    h1.work()
    cell.settle()
    cell.call(ADMIN, "setHostState", host="h1", state="Drained")
    cell.call(ALICE, "resumeVm", instance="vm1")
    assert cell.state("vm1") == "Pending"
    h1.orders = late
    h1.work()
    cell.settle()
    assert [reply["status"] for reply in cell.replies] == ["OK"]
    cell.live(60)
    assert (cell.state("vm1"), cell.state("vm2")) == ("Pending", "Running")
