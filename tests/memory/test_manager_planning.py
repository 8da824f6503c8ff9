"""Plans that are made in a thread while the cell lives on, and policies that fail: nothing wrong is ever carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import globalLogPublisher

from tashi.manager.convergence import AT_ONCE
from tashi.model.instance import Disk
from tashi.scheduling.placing import primitive
from tashi.scheduling.plan import Place, Plan, PowerOff
from tashi.scheduling.policies import Policy
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tests.builders import ADMIN, a_spec, some_facts
from tests.fake_power import FakePower
from tests.small_cell import FakeAgent, SmallCell, result_of


class Thread:
    """A thread that works when the test says so."""

    def __init__(self) -> None:
        self.works: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, work: Callable[[], Any]) -> Deferred[Any]:
        self.works.append((work, Deferred()))
        return self.works[-1][1]

    def think(self) -> Callable[[], None]:
        """Do the work; its outcome is told when the test says so."""
        work, told = self.works.pop(0)
        outcomes: list[Any] = []
        maybeDeferred(work).addBoth(outcomes.append)
        return lambda: told.callback(outcomes[0])


def a_thinker(snapshot: Snapshot) -> Plan:
    """Primitive under another name, as a package's policy, which is always asked in the thread."""
    return primitive.plan(snapshot)


def a_cell(thread: Thread, *agents: FakeAgent, **settings: Any) -> SmallCell:
    """A cell that thinks in that thread."""
    return SmallCell(hosts=agents, policy=a_thinker, in_thread=thread, **settings)


def finish(cell: SmallCell, thread: Thread) -> None:
    """Let all plans be made that there are to make."""
    cell.work()
    while thread.works:
        thread.think()()
        cell.work()


def where(cell: SmallCell) -> dict[str, int | None]:
    """The host of each instance."""
    return {one.name: one.host_id for one in cell.manager.cluster.instances.values()}


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What is logged, in words."""
    found: list[str] = []

    def note(event: Any) -> None:
        found.append(str(event.get("words", "")))

    globalLogPublisher.addObserver(note)
    yield found
    globalLogPublisher.removeObserver(note)


def test_what_comes_meanwhile_is_planned_next() -> None:
    """While a plan is made the cell answers, no second one is made, and the next has all that has come."""
    thread = Thread()
    cell = a_cell(thread, FakeAgent("h1"), FakeAgent("h2"))
    cell.create(a_spec("vm1"), stanza="s1")
    cell.settle()
    tell = thread.think()
    for number in range(2, 8):
        cell.create(a_spec(f"vm{number}"), stanza=f"s{number}")
        cell.settle(1.0)
    assert (thread.works, set(where(cell).values())) == ([], {None})
    tell()
    cell.settle(3.0)
    assert where(cell)["vm1"] is not None
    assert len(thread.works) == 1
    finish(cell, thread)
    assert {one.state.name for one in cell.manager.cluster.instances.values()} == {"Running"}


def test_who_vanishes_meanwhile_is_not_placed() -> None:
    """One that was deleted while it was planned for stays deleted; the others are placed."""
    thread = Thread()
    cell = a_cell(thread, FakeAgent("h1"))
    cell.create(a_spec("vm1"), stanza="s1")
    cell.create(a_spec("vm2"), stanza="s2")
    cell.settle()
    tell = thread.think()
    cell.delete("vm1", stanza="d1")
    cell.settle()
    tell()
    finish(cell, thread)
    assert where(cell) == {"vm2": 1}
    assert cell.actions().count("placed") == 1


def test_a_host_that_is_lost_meanwhile_gets_nothing() -> None:
    """What was planned for a host that has gone is planned again, for another; what was planned for the others is carried out."""
    thread, agents = Thread(), [FakeAgent("h1"), FakeAgent("h2")]
    cell = a_cell(thread, *agents)
    for number in range(1, 5):
        cell.create(a_spec(f"vm{number}"), stanza=f"s{number}")
    cell.settle()
    tell = thread.think()
    agents[0].lose_link()
    tell()
    cell.settle()
    assert sorted(host_id for host_id in where(cell).values() if host_id) == [2, 2]
    finish(cell, thread)
    assert set(where(cell).values()) == {2}


def test_room_that_is_taken_meanwhile_is_not_given_twice() -> None:
    """A host that has become smaller while was planned gets only as many as fit."""
    thread, agent = Thread(), FakeAgent("h1", some_facts(cores=4))
    cell = a_cell(thread, agent)
    for number in range(1, 5):
        cell.create(a_spec(f"vm{number}"), stanza=f"s{number}")
    cell.settle()
    tell = thread.think()
    agent.facts = some_facts(cores=3)
    agent.tell()
    tell()
    finish(cell, thread)
    assert sorted(where(cell).values(), key=str) == [1, 1, 1, None]
    waiting = next(one for one in cell.manager.cluster.instances.values() if one.host_id is None)
    assert waiting.reason == "h1: 1 cores short"


def test_a_large_plan_is_carried_out_in_slices() -> None:
    """Between two slices the cell lives: a host that is lost then gets nothing of the next one."""
    thread, agents = (
        Thread(),
        [FakeAgent("h1", some_facts(cores=1000, memory=10**6)), FakeAgent("h2", some_facts(cores=1000, memory=10**6))],
    )
    cell = a_cell(thread, *agents)
    cell.create(*(a_spec(f"vm{number}") for number in range(3 * AT_ONCE)))
    cell.settle()
    thread.think()()
    placed = [host_id for host_id in where(cell).values() if host_id]
    assert len(placed) == AT_ONCE
    agents[0].lose_link()
    cell.settle()
    after = [host_id for host_id in where(cell).values() if host_id]
    assert after.count(1) == placed.count(1)
    assert after.count(2) > placed.count(2)
    finish(cell, thread)
    assert len([host_id for host_id in where(cell).values() if host_id]) == 3 * AT_ONCE


def test_a_persistent_disk_is_not_given_to_two() -> None:
    """A disk that another has got while was planned is not given away, though nobody else is on the host."""
    thread = Thread()
    cell = a_cell(thread, FakeAgent("h1"), FakeAgent("h2"))
    cell.own_disk("disk-1")
    disk = {"disks": (Disk(uri="disk-1", persistent=True),)}
    cell.create(a_spec("vm1", **disk), stanza="s1")
    finish(cell, thread)
    cell.call(ADMIN, "suspendVm", instance="vm1")
    cell.work()
    cell.create(a_spec("vm2", **disk), stanza="s2")
    finish(cell, thread)
    assert cell.instance("vm2").reason == "h1: the persistent disk disk-1 is in use by another instance; " + (
        "h2: the persistent disk disk-1 is in use by another instance"
    )
    cell.call(ADMIN, "destroyVm", instance="vm1")
    cell.settle()
    tell = thread.think()
    tell()
    finish(cell, thread)
    assert cell.state("vm2") == "Running"


def raising(snapshot: Snapshot) -> Plan:
    """A policy that fails."""
    raise KeyError("no such key")


def overfilling(snapshot: Snapshot) -> Plan:
    """A policy that puts everything on the first host, whether it fits or not."""
    first = min(snapshot.hosts, default=1)
    return Plan(actions=tuple(Place(instance_id=one.id, host_id=first) for one in snapshot.pending))


def speechless(snapshot: Snapshot) -> Any:
    """A policy that makes no plan."""


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (raising, "the policy Theirs failed: KeyError: 'no such key'"),
        (overfilling, "the policy Theirs made a plan that is not carried out: instance 2 is sent to h1, which 1 cores short"),
        (speechless, "the policy Theirs failed: TypeError: it made a NoneType instead of a plan"),
    ],
)
def test_a_policy_that_fails_costs_words(policy: Policy, words: str, logged: list[str]) -> None:
    """Nothing of its plan is carried out, what waits says whose fault it is, the log says so once, and the loop goes on."""
    broken = [True]

    def theirs(snapshot: Snapshot) -> Plan:
        return policy(snapshot) if broken[0] else primitive.plan(snapshot)

    agents = [FakeAgent("h1", some_facts(cores=1)), FakeAgent("h2")]
    cell = SmallCell(hosts=agents, policy=theirs, scheduling=SchedulingSettings(policy="Theirs"))
    cell.create(a_spec("vm1"), a_spec("vm2"))
    cell.live(10)
    assert set(where(cell).values()) == {None}
    assert {one.reason for one in cell.manager.cluster.instances.values()} == {words}
    assert logged.count(words) == 1
    assert cell.call(ADMIN, "explain", instance="vm1").startswith(f"vm1 (1) is Pending; {words}")
    broken[0] = False
    cell.live(3)
    cell.work()
    assert (cell.state("vm1"), cell.state("vm2")) == ("Running", "Running")


def test_many_hosts_are_explained_in_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why an instance is not on each of many hosts is worked out while the cell answers."""
    monkeypatch.setattr("tashi.manager.explanation.LIGHT", 0)
    thread = Thread()
    cell = a_cell(thread, FakeAgent("h1"), FakeAgent("h2"))
    cell.create(a_spec("vm1"))
    finish(cell, thread)
    asked = Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "explain", {"instance": "vm1"}))
    assert not asked.called
    thread.think()()
    assert result_of(asked).splitlines()[1].startswith("h2: would take it")


def test_who_asks_and_goes_away() -> None:
    """A plan that nobody waits for any more is made to its end all the same: until then no other is begun."""
    thread = Thread()
    cell = a_cell(thread, FakeAgent("h1"))
    asked = Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "plan", {}))
    asked.addErrback(lambda failure: failure.trap(CancelledError))
    asked.cancel()
    cell.create(a_spec("vm1"))
    cell.live(3)
    assert len(thread.works) == 1
    finish(cell, thread)
    assert cell.state("vm1") == "Running"


def test_who_applies_a_plan_and_goes_away() -> None:
    """What has been begun of a plan is carried out to its end, whether or not somebody waits for that."""

    def policy(snapshot: Snapshot) -> Plan:
        plan = primitive.plan(snapshot)
        return Plan(actions=(*plan.actions, PowerOff(host_id=2))) if snapshot.rebalance else plan

    hosts = [FakeAgent("h1", some_facts(cores=1000, memory=10**6)), FakeAgent("h2")]
    cell = SmallCell(
        policy=policy, power=FakePower({"h2"}), hosts=hosts, scheduling=SchedulingSettings(power_off_delay=0.0, guaranteed_servers=1)
    )
    cell.create(*(a_spec(f"vm{number}", hints={"targetHost": "h1"}) for number in range(2 * AT_ONCE)))
    asked = Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "plan", {"apply": True}))
    asked.addErrback(lambda failure: failure.trap(CancelledError))
    asked.cancel()
    cell.settle()
    assert cell.manager.cluster.hosts[2].state.name == "PoweredOff"
