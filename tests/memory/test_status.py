"""The status of a cell: what is well, what an operator should look at, and that a part that fails hides no other."""

from __future__ import annotations

from typing import Any

from tashi.errors import TIMEOUT, OurFault
from tashi.manager.status import MOST_NAMED, hosts_part
from tashi.model.states import HostState
from tashi.model.status import StatusPart, counted, duration
from tests.builders import ALICE, a_host, a_spec
from tests.small_cell import FakeAgent, SmallCell


def _status(cell: SmallCell) -> dict[str, Any]:
    return cell.call(ALICE, "status")


def test_o6_a_healthy_cell_says_so_to_every_user() -> None:
    """A cell that works has counts for each part and no warning."""
    cell = SmallCell(hosts=[FakeAgent("h1"), FakeAgent("h2")])
    cell.create()
    cell.work()
    cell.deliver()
    cell.live(90)
    cell.deliver()
    status = _status(cell)
    assert (status["healthy"], status["warnings"], status["version"]) == (True, [], "1")
    assert status["since"].startswith("2027-01-15T08:00:00")
    assert 90 <= status["uptime"] <= 95
    assert (status["hosts"]["up"], status["hosts"]["down"], status["hosts"]["states"]) == (2, 0, {"Normal": 2})
    assert status["instances"] == {"total": 1, "decayed": 0, "states": {"Running": 1}}
    assert (status["queues"]["openCommands"], status["outbox"]["rows"], status["store"]["kind"]) == (0, 0, "memory")
    assert status["lines"][0].startswith("version: 1, up for 9")


def test_a_dead_host_and_what_was_on_it_are_warnings() -> None:
    """A host that is down and instances in doubt make the cell degraded, by name and number."""
    agent = FakeAgent("h1")
    cell = SmallCell(hosts=[agent, FakeAgent("h2")])
    cell.create(a_spec(hints={"targetHost": "h1"}))
    cell.work()
    agent.lose_link()
    cell.live(40)
    status = _status(cell)
    assert status["healthy"] is False
    assert any(warning.startswith("host h1 is down") for warning in status["warnings"])
    assert any(warning.startswith("1 instance is Orphaned") for warning in status["warnings"])
    assert (status["hosts"]["up"], status["hosts"]["down"]) == (1, 1)


def test_what_nobody_takes_is_a_warning_with_its_age() -> None:
    """The outbox tells how many messages wait and since when; when they were delivered that is over."""
    cell = SmallCell(hosts=[FakeAgent("h1")])
    cell.create()
    cell.work()
    cell.live(310)
    status = _status(cell)
    assert status["outbox"]["rows"] > 0
    assert 305 <= status["outbox"]["oldest"] <= 320
    assert any("wait to be delivered, the oldest for 5 min" in warning for warning in status["warnings"])
    cell.deliver()
    assert _status(cell)["outbox"] == {"rows": 0, "oldest": 0.0, "setAside": 0, "lastSetAside": []}


def test_an_open_command_is_counted_with_its_age() -> None:
    """A create that waits for a host stands in the queues."""
    cell = SmallCell()
    cell.create()
    cell.live(20)
    queues = _status(cell)["queues"]
    assert (queues["pending"], queues["openCommands"], queues["senders"]) == (1, 1, 1)
    assert 19 <= queues["oldestCommand"] <= 22


def test_a_store_that_takes_nothing_is_a_warning() -> None:
    """While commits fail the status still answers, and says so."""
    cell = SmallCell()

    async def full(changes: object) -> None:
        raise OurFault(TIMEOUT, "disk full")

    cell.store.commit = full  # type: ignore[method-assign]
    cell.create()
    cell.live(10)
    status = _status(cell)
    assert status["store"]["state"] == "away"
    assert status["healthy"] is False


def test_a_part_that_fails_hides_no_other() -> None:
    """A part is one function; one that raises is a warning, and the rest is shown."""
    cell = SmallCell()
    cell.manager.status.add("good", lambda: StatusPart(words="3 of them", data={"count": 3}, notes=("advice",)))
    cell.manager.status.add("bad", lambda: StatusPart(words=str(1 // 0)))
    status = _status(cell)
    assert (status["good"], status["notes"]) == ({"count": 3}, ["advice"])
    assert "good: 3 of them" in status["lines"]
    assert status["warnings"] == ["the status of bad cannot be told; the log says why"]


def test_hosts_that_are_off_are_no_warning_and_many_are_counted() -> None:
    """A host that was switched off is as it should be; beyond twenty the rest is a number."""
    off = a_host(1, "off", up=False, state=HostState.PoweredOff)
    dead = {number: a_host(number, f"h{number}", up=False) for number in range(2, 50)}
    part = hosts_part({1: off, **dead})
    assert (part.data["off"], part.data["down"]) == (1, 48)
    assert len(part.warnings) == MOST_NAMED + 1
    assert not any("off" in warning for warning in part.warnings)


def test_spans_and_counts_in_words() -> None:
    """Durations are short, and counts keep their order."""
    assert [duration(seconds) for seconds in (0, 119, 600, 12_000, 700_000)] == ["0 s", "119 s", "10 min", "3 h 20 min", "8 d 2 h"]
    assert counted({"up": 1200, "down": 1}) == "1,200 up, 1 down"


def test_d3_what_was_set_aside_is_kept_and_told() -> None:
    """D3: a message that the server does not take survives a restart, is not offered again, and stands in the status with its size."""
    cell = SmallCell(hosts=[FakeAgent("h1")])
    cell.create()
    cell.work()
    (row,) = [row for row in cell.manager.outbox.pending() if row.to]
    cell.manager.outbox.set_aside(row.id, "90,000 bytes: the server ended the stream twice for it", 90_000)
    cell.deliver()
    for _ in range(2):
        assert row.id not in [other.id for other in cell.manager.outbox.pending()]
        status = _status(cell)
        assert status["outbox"]["setAside"] == 1
        assert [one["id"] for one in status["outbox"]["lastSetAside"]] == [row.stanza_id]
        assert any(warning.startswith("1 message was set aside") for warning in status["warnings"])
        cell.settle()
        cell.restart()
    cell.create()  # the same stanza again: its answer was never delivered, and is told anew
    cell.settle()
    assert [other.stanza_id for other in cell.manager.outbox.pending() if other.to] == [row.stanza_id]


def test_d3_layouts_become_smaller_for_a_server_that_takes_less() -> None:
    """D3: after a layout that was too large the parts are small enough."""
    cell = SmallCell(hosts=[FakeAgent(f"h{number}") for number in range(300)])
    cell.live(3)
    layouts = [row for row in cell.outgoing if not row.to and '"vmLayout"' in row.body]
    largest = max(layouts, key=lambda row: len(row.body))
    assert len(largest.body) > 40_000
    cell.manager.outbox.set_aside(largest.id, "too large", 40_000)
    last = max(row.id for row in cell.outgoing)
    cell.live(70)
    later = [row for row in cell.outgoing if row.id > last and '"vmLayout"' in row.body]
    assert later
    assert all(len(row.body) < 40_000 for row in later)
