"""The audit log: one JSON line for each changing command and each refusal, at every door, with XMPP or without."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from tashi.errors import YourMistake
from tashi.manager.refused_calls import ONE_BY_ONE
from tashi.model.events import audit_record
from tashi.model.user import Principal
from tests.builders import ADMIN, ALICE, a_login, a_spec
from tests.fake_agent import result_of
from tests.small_cell import FakeAgent, SmallCell


class Audited(SmallCell):
    """A cell that keeps the lines of its audit log."""

    def __init__(self, **settings: Any) -> None:
        self.lines: list[str] = []
        super().__init__(**settings)

    def write_audit(self, line: str) -> None:
        """Keep the line."""
        self.lines.append(line)

    @property
    def records(self) -> list[tuple[str, str, str, str, str]]:
        """The records: door, who, verb, target, result."""
        read = map(json.loads, self.lines)
        return [(one["door"], one["who"], one["verb"], one["target"], one["result"]) for one in read]


@pytest.mark.parametrize("publishing", [True, False])
def test_o6_both_doors_are_audited_with_xmpp_and_without(publishing: bool) -> None:
    """O6: a create by message and a destroy by verb are lines, whether or not anybody reads events."""
    cell = Audited(hosts=[FakeAgent("h1")], publishing=publishing)
    cell.create(a_spec(resource_id="key"))
    cell.work()
    cell.call(ADMIN, "destroyVm", instance=1)
    assert cell.records == [
        ("xmpp", "ism@example.org", "createcompute", "key", "OK"),
        ("socket", "root", "destroyvm", "vm1 (1)", "OK"),
    ]
    assert all(json.loads(line)["timestamp"].startswith("2027-01-15T08:00") for line in cell.lines)


def test_o6_refusals_are_audited() -> None:
    """O6: what is not allowed or not possible is a line with its code, at both doors."""
    cell = Audited(hosts=[FakeAgent("h1")])
    cell.create(a_spec())
    cell.work()
    with pytest.raises(YourMistake):
        cell.call(ALICE, "registerUser", name="mallory", passwd="a secret")
    with pytest.raises(YourMistake):
        cell.call(ADMIN, "destroyVm", instance="nothing")
    cell.delete("nothing")
    cell.create(a_spec("vm1"), stanza="taken")
    cell.create(a_spec("1", resource_id="own key"), stanza="digits")
    cell.work()
    assert [(door, verb, target, result) for door, _, verb, target, result in cell.records[1:]] == [
        ("socket", "registeruser", "'mallory'", "forbidden"),
        ("socket", "destroyvm", "'nothing'", "unknown-id"),
        ("xmpp", "deletecompute", "'nothing'", "unknown-id"),
        ("xmpp", "createcompute", "'vm1'", "duplicate-hostname"),
        ("xmpp", "createcompute", "own key", "bad-argument"),
    ]
    assert "a secret" not in "".join(cell.lines)


def test_o6_a_record_shows_what_a_terminal_hides() -> None:
    """O6: a change of direction or an escape sequence in a verb is escaped in the line and in the event."""
    record = audit_record("uid 5", "\u202edestroyvm", "\x1b[2J", "unknown-verb")
    assert (record["verb"], record["target"]) == ("\\u202edestroyvm", "\\x1b[2J")
    assert str(record["description"]).isprintable()


def test_o6_a_record_is_the_event() -> None:
    """O6: the line and the published auditRecord say the same."""
    cell = Audited(hosts=[FakeAgent("h1")])
    cell.create(a_spec())
    cell.work()
    (event,) = [event for event in cell.events if event["type"] == "auditRecord"]
    line = json.loads(cell.lines[0])
    assert line == {name: event[name] for name in line}


def test_o6_nothing_is_audited_before_it_is_durable() -> None:
    """O6: the line is written after the commit, and not when the process ends before it."""
    cell = Audited()
    cell.create(a_spec())
    cell.manager.verbs.call(ADMIN, "destroyVm", {"instance": 1}).send(None)  # type: ignore[attr-defined]
    assert cell.lines == []
    cell.settle()
    assert [record[2] for record in cell.records] == ["createcompute", "destroyvm"]


def test_o6_refused_agents_are_audited_by_the_minute() -> None:
    """O6: an agent with a wrong secret is one line a minute with the count, however often it tries."""
    cell = Audited()
    for _ in range(50):
        with pytest.raises(YourMistake):
            FakeAgent("h1").login(cell, a_login("h1", join="wrong" * 10))
    cell.live(61)
    assert cell.records == [("node", "host h1", "login", "h1", "forbidden")]
    assert json.loads(cell.lines[0])["count"] == 50
    cell.live(61)
    assert len(cell.lines) == 1


def test_o6_a_users_refusals_are_a_hundred_lines_a_minute() -> None:
    """A12: of a user's refused calls a hundred a minute have a line and an event each; the rest are one with the count."""
    cell = Audited()
    stranger = Principal(name="uid 4711", uid=4711)

    def refused(who: Principal, verb: str, **arguments: Any) -> None:
        with pytest.raises(YourMistake):
            result_of(cell.manager.verbs.call(who, verb, arguments))

    for number in range(1000):
        refused(stranger, "createVm", name=f"v{number}", disks=[{"uri": "tashi"}])
        refused(stranger, "destroyMany", basename="nothing")
    refused(ALICE, "registerUser", name="mallory")
    cell.settle()
    assert [record[1] for record in cell.records] == ["uid 4711"] * ONE_BY_ONE + [ALICE.name]
    cell.live(61)
    counts = {record[2]: json.loads(line)["count"] for record, line in zip(cell.records, cell.lines, strict=True) if "count" in line}
    assert counts == {"createvm": 1000 - ONE_BY_ONE // 2, "destroymany": 1000 - ONE_BY_ONE // 2}
    assert len(cell.lines) == ONE_BY_ONE + 3
    refused(stranger, "destroyMany", basename="nothing")
    cell.settle()
    assert len(cell.lines) == ONE_BY_ONE + 4


def test_o6_many_names_fill_nothing() -> None:
    """O6: refusals under a thousand names a minute have lines of their own; the rest are counted together."""
    cell = Audited()
    for number in range(1100):
        with pytest.raises(YourMistake):
            FakeAgent("h1").login(cell, a_login(f"h{number}", join="wrong" * 10))
    cell.live(61)
    assert len(cell.lines) == 1001
    assert sum(json.loads(line).get("count", 1) for line in cell.lines) == 1100


def test_o6_strangers_are_audited() -> None:
    """O6: unknown senders get no answer and one line a minute each."""
    cell = Audited()
    for _ in range(3):
        cell.manager.commands.refuse_stranger("mallory@example.org", "createcompute")
    cell.live(61)
    assert cell.records == [("xmpp", "mallory@example.org", "createcompute", "", "ignored: unknown sender")]


@pytest.mark.parametrize("publishing", [True, False])
def test_o2_a_lost_instance_is_a_line_of_the_log(publishing: bool) -> None:
    """O2: an instance that its host has lost is logged with host and reason; one that was asked to go is not."""
    agent = FakeAgent("h1")
    cell = Audited(hosts=[agent], publishing=publishing)
    logged: list[str] = []
    globalLogPublisher.addObserver(
        observer := lambda event: logged.append(formatEvent(event)) if event["log_level"] is LogLevel.warn else None
    )
    try:
        for name in ("wanted", "lost"):
            cell.create(a_spec(name), stanza=name)
        cell.work()
        cell.delete("wanted")
        cell.work()
        agent.lose_link()
        cell.live(40)
        agent.domains.clear()
        agent.login(cell)
        cell.work()
        assert cell.state("lost") == "Orphaned"
        cell.live(10)
        agent.tell(full=True)
        cell.work()
    finally:
        globalLogPublisher.removeObserver(observer)
    (line,) = [line for line in logged if "lost an instance" in line]
    assert "lost (2) failed: Orphaned -> Exited on h1 (" in line
