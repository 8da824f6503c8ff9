"""Callers and agents that ask for too much: bounded, refused in words, and forgotten when they hang up."""

from __future__ import annotations

import time
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from tashi.errors import BUSY, YourMistake
from tashi.manager.waiting import MOST_IDS, MOST_WAITED
from tashi.model.instance import Instance
from tashi.model.orders import Seen
from tashi.model.user import Principal
from tashi.scheduling.policies import POLICIES
from tests.builders import ADMIN, ALICE, BOB, a_report, an_instance, seen
from tests.small_cell import FakeAgent, SmallCell


def waiting(cell: SmallCell, ids: list[int], until: str = "gone", who: Any = ALICE) -> Deferred[Any]:
    """A call that waits; cancelling it is what the end of its connection does."""
    return Deferred.fromCoroutine(cell.manager.verbs.call(who, "waitFor", {"ids": ids, "until": until, "timeout": 600}))


def cell_with(count: int) -> SmallCell:
    """A cell of so many instances that run nowhere."""
    cell = SmallCell()
    with cell.manager.cluster.transaction("fill") as tx:
        for number in range(1, count + 1):
            tx.put_instance(an_instance(number))
    cell.settle()
    return cell


def refusal(cell: SmallCell, verb: str, **arguments: Any) -> YourMistake:
    """The mistake that this call is."""
    with pytest.raises(YourMistake) as raised:
        cell.call(ALICE, verb, **arguments)
    return raised.value


def test_a_wait_for_too_many_is_refused() -> None:
    """A3: 200,000 copies of one id, and more than 1,000 different ones, are refused in words."""
    cell = cell_with(1)
    assert "200000" in refusal(cell, "waitFor", ids=[1] * 200_000, until="gone").message
    assert str(MOST_IDS) in refusal(cell, "waitFor", ids=list(range(MOST_IDS + 1)), until="gone").message
    assert cell.manager.verbs._waiting._waiters == {}


def test_copies_of_an_id_are_one() -> None:
    """A3, D14: 10,000 copies of one id take one place and are answered by one row."""
    cell = cell_with(1)
    call = waiting(cell, [1] * 10_000)
    assert [len(waiters) for waiters in cell.manager.verbs._waiting._waiters.values()] == [1]
    cell.call(ALICE, "destroyVm", instance="vm1")
    assert [row["id"] for row in cell_result(call)] == [1]


def cell_result(call: Deferred[Any]) -> Any:
    """What the call came to."""
    found: list[Any] = []
    call.addCallback(found.append)
    return found[0]


def test_who_hangs_up_is_forgotten() -> None:
    """A3: forty calls that wait for a thousand instances each begin and end in time in proportion, and leave nothing."""
    cell = cell_with(MOST_IDS)
    began = time.process_time()
    calls = [waiting(cell, list(range(1, MOST_IDS + 1))) for _ in range(40)]
    for call in calls:
        call.addErrback(lambda failure: failure.trap(CancelledError))
        call.cancel()
    assert time.process_time() - began < 2.0
    table = cell.manager.verbs._waiting
    assert (table._waiters, table._waited) == ({}, {})


def test_one_user_s_waits_keep_nobody_else_from_waiting() -> None:
    """A3: one user's calls wait for 50,000 instances at most; another user waits all the same."""
    cell = cell_with(MOST_IDS)
    calls = [waiting(cell, list(range(1, MOST_IDS + 1))) for _ in range(MOST_WAITED // MOST_IDS)]
    assert refusal(cell, "waitFor", ids=[1], until="gone").code == "busy"
    calls.append(waiting(cell, [1], who=BOB))
    assert not any(call.called for call in calls)
    for call in calls:
        call.addErrback(lambda failure: failure.trap(CancelledError))
        call.cancel()
    calls = [waiting(cell, [1])]
    assert not calls[0].called


def test_a_malformed_report_costs_the_host_its_trust() -> None:
    """A5: a host whose agent sends malformed reports takes nothing new, says why, and is trusted again after a good list."""
    cell = SmallCell()
    agent = cell.join(FakeAgent("h1"))
    other = cell.join(FakeAgent("h2"))
    hosts = cell.manager.hosts
    link = hosts._links[1]
    for _ in range(3):
        hosts.malformed(1, link, "Expected `int` <= 4096 - at `$.facts.cores`")
    cell.settle()
    (row,) = [row for row in cell.call(ALICE, "getHosts") if row["id"] == 1]
    assert row["decayed"]
    assert "malformed report" in row["notes"]
    assert [event["action"] for event in cell.events if event["type"] == "hostAction" and event["id"] == 1][1:] == ["faulty"]
    cell.create()
    cell.work()
    assert cell.instance().host_id == 2
    assert other.name == "h2"
    agent.login(cell)
    cell.settle()
    (row,) = [row for row in cell.call(ALICE, "getHosts") if row["id"] == 1]
    assert (row["decayed"], row["notes"]) == (False, "")


def test_a_stranger_s_malformed_report_says_nothing_of_the_host() -> None:
    """A link that is no longer the host's cannot spoil its name."""
    cell = SmallCell()
    cell.join(FakeAgent("h1"))
    cell.manager.hosts.malformed(1, None, "x")  # type: ignore[arg-type]
    cell.manager.hosts.malformed(99, None, "x")  # type: ignore[arg-type]
    assert not cell.manager.cluster.hosts[1].decayed


def test_a_million_unknown_instances_are_ten_lines() -> None:
    """A5: what an agent says of instances that are in no record is logged ten times a minute, then counted."""
    cell = SmallCell()
    cell.join(FakeAgent("h1"))
    lines: list[Any] = []

    def observe(event: Any) -> None:
        lines.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        link = cell.manager.hosts._links[1]
        for page in range(10):
            strangers: list[Instance] = [an_instance(1000 * page + number) for number in range(1000, 2000)]
            cell.manager.hosts.report(1, link, a_report(*(seen(one, Seen.RUNNING) for one in strangers)))
        about = [event for event in lines if event.get("source") == "host h1"]
        assert len(about) == 10
        cell.live(61)
        about = [event for event in lines if event.get("source") == "host h1"]
        assert about[10]["more"] == 9990
    finally:
        globalLogPublisher.removeObserver(observe)
        cell.manager._limited.close()


def test_progress_is_told_twice_a_second_at_most() -> None:
    """A5: an agent that says its progress ten thousand times makes no ten thousand events."""
    cell = SmallCell()
    cell.join(FakeAgent("h1"))
    cell.create()
    cell.work()
    instance = cell.instance()
    link = cell.manager.hosts._links[1]
    before = len(cell.events)
    for percent in range(1000):
        cell.manager.hosts.report(1, link, a_report(seen(instance, progress=percent % 100)))
    cell.settle()
    assert len(cell.events) - before <= 2


def test_users_without_a_record_do_not_share_their_waits() -> None:
    """A3: a user of the machine who is not registered takes nothing of what another such user may wait for."""
    cell = cell_with(MOST_IDS)
    calls = [waiting(cell, list(range(1, MOST_IDS + 1)), who=Principal(name="uid 1", uid=1)) for _ in range(MOST_WAITED // MOST_IDS)]
    other = waiting(cell, [1], who=Principal(name="uid 2", uid=2))
    assert not other.called
    for call in (*calls, other):
        call.addErrback(lambda failure: failure.trap(CancelledError)).cancel()


def test_a_user_takes_a_share_of_the_scheduler() -> None:
    """A3: of one user four plans and explanations are open at a time, so that nobody queues up before the scheduler."""
    threads: list[Deferred[Any]] = []

    def in_thread(work: Any) -> Deferred[Any]:
        threads.append(Deferred())
        return threads[-1].addCallback(lambda _: work())

    cell = SmallCell(hosts=[FakeAgent("h1")], in_thread=in_thread, policy=lambda snapshot: POLICIES["Primitive"](snapshot))

    def go_on() -> None:
        for _ in range(100):
            cell.settle(0.02)
            for thread in [one for one in threads if not one.called]:
                thread.callback(None)

    cell.create()
    go_on()

    def ask(who: Principal, verb: str, **arguments: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(cell.manager.verbs.call(who, verb, arguments))

    alice = [ask(ALICE, "plan") for _ in range(6)]
    assert [_code(call) for call in alice if call.called] == [BUSY, BUSY]
    assert _code(ask(ALICE, "explain", instance=1)) == BUSY
    others = [ask(ADMIN, "plan") for _ in range(6)] + [ask(BOB, "plan")]
    assert not any(call.called for call in others)
    go_on()
    assert all(call.called for call in (*alice, *others))
    told: list[str] = []
    ask(ALICE, "explain", instance=1).addCallback(told.append)
    assert "h1" in told[0]


def _code(call: Deferred[Any]) -> str:
    """The code of what the call has failed by."""
    failed: list[Failure] = []
    call.addErrback(failed.append)
    return str(failed[0].value.code)
