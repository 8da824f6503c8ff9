"""The manager ends at any moment and begins again: one outcome for each command, told with the same stanza id."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from tashi.errors import OurFault
from tashi.interfaces import Change
from tashi.store.memory import MemoryStore
from tests.builders import ADMIN, a_spec
from tests.small_cell import FakeAgent, SmallCell, result_of


class Disk(MemoryStore):
    """A store whose commits can be held up, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.held: list[Deferred[None]] = []
        self.holds = False
        self.begun = 0

    async def commit(self, changes: Sequence[Change]) -> None:
        self.begun += 1
        if self.full:
            raise OSError("disk full")
        if self.holds:
            self.held.append(Deferred())
            await self.held[-1]
        await super().commit(changes)

    def let_go(self) -> None:
        """The disk has written what it was given."""
        held, self.held = self.held, []
        for one in held:
            one.callback(None)


def _after(steps: int) -> Callable[[SmallCell], None]:
    """Let so many turns of the clock pass, with hosts at work after each."""

    def run(cell: SmallCell) -> None:
        for _ in range(steps):
            cell.clock.advance(0.005)
            for agent in cell.agents:
                agent.work()

    return run


@pytest.mark.parametrize("steps", range(12))
def test_a_restart_at_any_moment_ends_with_one_outcome(steps: int) -> None:
    """The cut comes later and later in a create's life, and the sender who repeats what was not answered always has one machine."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.create(a_spec(resource_id="r"), stanza="s1")
    _after(steps)(cell)
    cell.restart()
    cell.create(a_spec(resource_id="r"), stanza="s1")
    cell.work()
    assert {(reply["status"], tuple(reply["ids"])) for reply in cell.replies} == {("OK", (1,))}
    assert (cell.state(), agent.domains) == ("Running", {1: 1})


@pytest.mark.parametrize("steps", range(12))
def test_a_restart_at_any_moment_of_a_delete(steps: int) -> None:
    """So with a delete: repeated after the cut, it is answered OK, and nothing is left."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.create(a_spec(resource_id="r"))
    cell.work()
    cell.delete("r")
    _after(steps)(cell)
    cell.restart()
    cell.delete("r")
    cell.work()
    assert {reply["status"] for reply in cell.replies} == {"OK"}
    assert (cell.state(), agent.domains) == ("none", {})


def test_an_answer_not_sent_before_the_restart_is_sent_after_it() -> None:
    """A reply in the outbox survives, with its stanza id; one that has arrived does not come again."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.create(a_spec("vm1"), stanza="s1")
    cell.work()
    cell.deliver()
    cell.create(a_spec("vm2"), stanza="s2")
    cell.work()
    before = [row for row in cell.manager.outbox.pending() if row.to]
    cell.restart()
    after = [row for row in cell.manager.outbox.pending() if row.to]
    assert before == after
    assert len(after) == 1


def test_events_are_numbered_without_a_gap_across_restarts() -> None:
    """Every number is told once with one content, whatever was lost before it was written."""
    cell = SmallCell(hosts=[FakeAgent("h1")])
    for number in range(5):
        cell.create(a_spec(f"vm{number}"), stanza=f"s{number}")
        _after(number)(cell)
        cell.restart()
    cell.work()
    told = [(event["seq"], event["description"]) for event in cell.all_events]
    assert [seq for seq, _ in told] == list(range(1, len(told) + 1))


def test_a_number_is_never_given_twice() -> None:
    """What has been told of an id stays true: after deletion and restart the next instance gets a new one."""
    cell = SmallCell(hosts=[FakeAgent("h1")])
    for stanza in ("a", "b"):
        cell.create(a_spec(stanza), stanza=stanza)
        cell.work()
    cell.delete("b")
    cell.work()
    cell.restart()
    cell.create(a_spec("c"), stanza="c")
    cell.work()
    assert cell.replies[-1]["ids"] == [3]


def test_users_get_numbers_of_their_own_for_ever() -> None:
    """The number of a user who was unregistered is not given to another."""
    cell = SmallCell()
    carol = cell.call(ADMIN, "registerUser", name="carol")
    cell.call(ADMIN, "unregisterUser", userId=carol["id"])
    cell.restart()
    assert cell.call(ADMIN, "registerUser", name="dave")["id"] == carol["id"] + 1


def test_after_a_restart_a_silent_host_has_its_lease() -> None:
    """Instances of a host that does not come back are orphaned when a lease has passed, not before, and heal when it does."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.create()
    cell.work()
    cell.agents = []
    cell.restart()
    cell.live(29)
    assert (cell.state(), cell.manager.cluster.hosts[1].up) == ("Running", False)
    cell.live(3)
    assert cell.state() == "Orphaned"
    agent.login(cell)
    cell.settle()
    assert cell.state() == "Running"


def test_a_deadline_outlives_the_restart() -> None:
    """A create that was not carried out in time is answered, though the manager was away when the time was up: hosts have as long again to
    come back and to tell what has become of it."""
    cell = SmallCell()
    cell.create(a_spec(resource_id="r"))
    cell.settle()
    cell.process.kill()
    cell.clock.advance(100)
    cell.restart()
    cell.live(44)
    assert cell.replies == []
    cell.live(3)
    assert [reply["code"] for reply in cell.replies] == ["no-suitable-host"]


def test_nothing_is_told_before_it_is_written() -> None:
    """While the disk is at it there is no reply, no event, no order, and no answer to a verb; then there is."""
    disk, agent = Disk(), FakeAgent("h1")
    cell = SmallCell(disk, hosts=[agent])
    told = len(cell.outgoing)
    disk.holds = True
    cell.create(a_spec("vm1"))
    answer = Deferred.fromCoroutine(
        cell.manager.verbs.call(ADMIN, "createVm", {"name": "vm2", "userId": 1000, "disks": [{"uri": "tashi"}]})
    )
    cell.settle(3)
    assert (len(cell.outgoing), agent.orders, answer.called) == (told, [], False)
    while disk.held:
        disk.let_go()
        cell.settle()
    assert answer.called
    assert sorted(order.instance_id for order in agent.orders) == [1, 2]
    cell.store.holds = False  # type: ignore[attr-defined]
    cell.work()
    assert [reply["status"] for reply in cell.replies] == ["OK"]


def test_an_order_leaves_only_when_the_newest_wish_is_written() -> None:
    """A start that was overtaken by a delete is not given any more, and the destroy not before it is on the disk."""
    disk, agent = Disk(), FakeAgent("h1")
    cell = SmallCell(disk, hosts=[agent])
    disk.holds = True
    cell.create(a_spec())
    cell.clock.advance(0.02)
    disk.let_go()
    cell.clock.advance(0.02)
    disk.let_go()
    cell.delete("vm1")
    cell.settle()
    assert all(type(order).__name__ == "Start" for order in agent.orders)
    while disk.held:
        disk.let_go()
        cell.settle()
    assert type(agent.orders[-1]).__name__ == "Destroy"
    assert agent.orders[-1].generation == 2


def test_a_full_disk_holds_everything_up_and_loses_nothing() -> None:
    """What cannot be written is tried again until it can; until then nobody is told, and the log says so."""
    disk, agent = Disk(), FakeAgent("h1")
    cell = SmallCell(disk, hosts=[agent])
    disk.full = True
    begun = disk.begun
    logged: list[str] = []
    globalLogPublisher.addObserver(observer := lambda event: logged.append(str(event.get("log_format"))))  # type: ignore[arg-type,misc]
    try:
        cell.create(a_spec())
        cell.settle(10)
    finally:
        globalLogPublisher.removeObserver(observer)
    assert (cell.replies, agent.orders) == ([], [])
    assert 5 < disk.begun - begun < 20
    assert any("cannot write" in line for line in logged)
    disk.full = False
    cell.settle(2)
    cell.work()
    assert [reply["status"] for reply in cell.replies] == ["OK"]
    actions = [event["action"] for event in cell.events if event["type"] == "cellAction"]
    assert actions == ["storeAway", "storeBack"]


def test_h12_whoever_waits_for_a_full_disk_is_told() -> None:
    """H12: a verb that waits is answered busy within seconds, one that comes later at once, and what was asked for is done in the end."""
    disk, agent = Disk(), FakeAgent("h1")
    cell = SmallCell(disk, hosts=[agent])
    disk.full = True
    wanted = {"userId": 1000, "disks": [{"uri": "tashi"}]}
    waiting = Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "createVm", {"name": "vm1", **wanted}))
    cell.settle(4)
    assert not waiting.called
    cell.settle(3)
    with pytest.raises(OurFault, match="the store takes no changes: disk full; the request is kept in memory"):
        result_of(waiting)
    late = Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "createVm", {"name": "vm2", **wanted}))
    with pytest.raises(OurFault, match="the store takes no changes: disk full; nothing was changed, try again later"):
        result_of(late)
    assert cell.manager.store_status().state == "away"
    assert cell.call(ADMIN, "getInstances"), "reads are answered from memory"
    disk.full = False
    cell.settle(2)
    cell.work()
    assert (cell.state("vm1"), cell.state("vm2")) == ("Running", "none")
    assert cell.manager.store_status().state == "ok"


def test_one_turn_is_one_commit() -> None:
    """What many commands change in one turn is written together."""
    disk = Disk()
    cell = SmallCell(disk)
    cell.settle(2)
    begun = disk.begun
    for number in range(100):
        cell.create(a_spec(f"vm{number}"), stanza=f"s{number}")
    cell.clock.advance(0)
    assert disk.begun - begun <= 2


def test_a_cell_keeps_its_identity() -> None:
    """The cell's UUID, from which all domains are named, is made once."""
    cell = SmallCell()
    first = cell.manager.cluster.source
    cell.restart()
    assert cell.manager.cluster.source == first
