"""The time of day may jump, and the control plane may be stopped: no lease, deadline or rest becomes shorter or longer by that."""

from __future__ import annotations

import msgspec
import pytest

from tashi.scheduling.snapshot import SchedulingSettings
from tests.builders import ADMIN, a_spec
from tests.small_cell import FakeAgent, SmallCell

HOUR = 3600.0
jumps = pytest.mark.parametrize("jump", [HOUR, -HOUR])


def _running(*agents: FakeAgent, **settings: object) -> SmallCell:
    cell = SmallCell(hosts=agents or [FakeAgent("h1")], **settings)  # type: ignore[arg-type]
    cell.create(a_spec())
    cell.work()
    assert cell.state() == "Running"
    return cell


@jumps
def test_h5_a_jump_orphans_nothing_and_hides_nothing(jump: float) -> None:
    """H5: hosts that speak stay up over a jump, and one that dies after it is noticed when its lease ends."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    cell.wall.offset = jump
    cell.live(40)
    assert (cell.state(), cell.manager.cluster.hosts[1].up) == ("Running", True)
    agent.lose_link()
    cell.live(28)
    assert cell.state() == "Running"
    cell.live(4)
    assert cell.state() == "Orphaned"


@jumps
def test_h5_a_create_is_answered_within_its_limit(jump: float) -> None:
    """H5: a create that no host takes is answered at provisionTimeout, not at once and not an hour later."""
    cell = SmallCell()
    cell.create(a_spec(resource_id="r"))
    cell.live(20)
    cell.wall.offset = jump
    cell.live(24)
    assert cell.replies == []
    cell.live(3)
    assert [reply["code"] for reply in cell.replies] == ["no-suitable-host"]


@jumps
def test_h5_a_restart_after_a_jump_gives_a_create_its_whole_time_again(jump: float) -> None:
    """H5: the wall clock jumps while the control plane is away: the request has its limit once more from the restart, not an hour."""
    cell = SmallCell()
    cell.create(a_spec(resource_id="r"))
    cell.live(20)
    cell.wall.offset = jump
    cell.restart()
    cell.live(43)
    assert cell.replies == []
    cell.live(4)
    assert [reply["code"] for reply in cell.replies] == ["no-suitable-host"]


@jumps
def test_h5_a_guest_has_its_grace(jump: float) -> None:
    """H5: a guest that ignores shutdownVm is reported after shutdownGrace, whatever the wall clock does; a restart begins that anew."""
    agent = FakeAgent("h1")
    cell = _running(agent, shutdown_grace=20.0)
    agent.deaf = True
    cell.call(ADMIN, "shutdownVm", instance=1)
    cell.work()
    cell.wall.offset = jump
    cell.live(10)
    assert cell.instance().grace_until is not None
    cell.restart()
    cell.live(17)
    assert cell.instance().grace_until is not None
    cell.live(5)
    assert cell.instance().grace_until is None
    assert "shut down" in cell.instance().reason


@jumps
def test_h5_an_instance_that_has_moved_rests_as_long_as_it_should(jump: float) -> None:
    """H5: the rest after a move is monotonic; a restart begins it anew, also where an older version stored the time of day."""
    agents = FakeAgent("h1"), FakeAgent("h2")
    cell = _running(*agents, scheduling=SchedulingSettings(cooldown=300.0))
    moved_from = cell.instance().host_id
    cell.call(ADMIN, "migrateVm", instance=1, dst=3 - (moved_from or 1))
    cell.work()
    assert cell.instance().moved_at == pytest.approx(cell.clock.seconds(), abs=60)
    cell.wall.offset = jump
    with cell.manager.cluster.transaction("as_an_older_version_stored_it") as tx:
        tx.put_instance(msgspec.structs.replace(cell.instance(), moved_at=cell.clock.seconds() + 1e9, resize_failed_at=1.7e9))
    cell.settle()
    cell.restart()
    assert cell.instance().moved_at == pytest.approx(cell.clock.seconds(), abs=1)
    assert cell.instance().resize_failed_at == pytest.approx(cell.clock.seconds(), abs=1)


@jumps
def test_h5_an_answered_command_is_remembered_as_long_as_it_can_come_again(jump: float) -> None:
    """H5: the memory of answered commands is measured from the answer, so that a jump neither empties nor keeps it."""
    cell = _running(max_command_age=300.0)
    cell.deliver()
    cell.wall.offset = jump
    cell.live(500)
    assert len(cell.manager.cluster.requests) == 1
    cell.live(200)
    assert cell.manager.cluster.requests == {}
    assert cell.manager.cluster.request_since == {}


@pytest.mark.parametrize("seconds", [5, 20, 60])
def test_a10_a_control_plane_that_was_stopped_takes_no_host_for_silent(seconds: float) -> None:
    """A10: a host's silence grows by at most 1.5 s a look, and what hosts said meanwhile counts; true silence is noticed as before."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    for _ in range(27):
        cell.clock.advance(1.0)  # nearly a lease of silence before the stop
    cell.clock.advance(seconds - 0.01)
    assert (cell.state(), cell.manager.cluster.hosts[1].up) == ("Running", True)
    agent.tell()
    cell.live(3)
    agent.lose_link()
    cell.live(32)
    assert cell.state() == "Orphaned"


def test_a10_what_finished_during_a_stop_is_not_answered_with_a_timeout() -> None:
    """A10: the limit of a create passes while the control plane is stopped; what its host reported meanwhile is the outcome."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.create()
    cell.live(40)
    cell.clock.advance(60)
    agent.work()
    cell.settle()
    assert [reply["status"] for reply in cell.replies] == ["OK"]


def test_a10_a_look_comes_after_a_turn_of_reading() -> None:
    """A10: at the end of a lease the reactor reads once more before the host is judged."""
    agent = FakeAgent("h1")
    cell = _running(agent)
    cluster, hosts, look = cell.manager.cluster, cell.manager.hosts, cell.manager._loops[1]
    while cluster.awake.seconds() - hosts._heard[1] < 29.5:
        cell.clock.advance(0.5)
    assert look._next is not None
    before_the_look = look._next.getTime() - cell.clock.seconds() - 1e-6
    cell.clock.callLater(before_the_look, lambda: cell.clock.callLater(0, agent.tell))  # what the turn of reading finds
    cell.clock.advance(1.0)
    assert (cell.state(), agent.closed) == ("Running", 0)


def test_the_time_of_day_is_shown() -> None:
    """Events and replies carry the time of day as it is then, not the monotonic clock's."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent])
    cell.wall.offset = HOUR
    cell.create()
    cell.work()
    assert cell.replies[-1]["timestamp"].startswith("2027-01-15T09:00")
    assert cell.events[-1]["timestamp"].startswith("2027-01-15T09:00")
