"""What a peer may have open and make us keep, before its login and after it."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher

from tashi.wire.avatars import MOST_OPEN_CALLS
from tashi.wire.broker import MESSAGE_SECONDS
from tashi.wire.codec import encode
from tashi.wire.gate import CONNECTIONS_A_USER, RESERVED_DESCRIPTORS, UNREAD_SECONDS, Gate
from tests.builders import an_instance
from tests.peers import Peers, message


def call(verb: str, **arguments: Any) -> bytes:
    """A user's call."""
    return message(1, b"call", [b"tuple", encode({"verb": verb, "arguments": arguments})])


def answers(gate: Gate) -> bytes:
    """What was written to the peer since the last look."""
    written: bytes = gate.transport.value()
    gate.transport.clear()
    return written


def ended(gate: Gate) -> bool:
    """Whether the connection was cut off."""
    return bool(gate.transport.disconnecting or gate.transport.disconnected)


def test_eight_kibibytes_before_the_login() -> None:
    """A2: bytes are counted from the first one on, whatever they are part of."""
    peers = Peers()
    gate = peers.connect(1000)
    for _ in range(50):
        gate.dataReceived(message(b"root", b"x", [b"tuple", b"x" * 50]))
    assert not ended(gate)
    for _ in range(50):
        gate.dataReceived(message(b"root", b"x", [b"tuple", b"x" * 50]))
    assert ended(gate)
    peers.hang_up(gate)


def test_a_login_is_made_once() -> None:
    """A connection that is logged in cannot log in again and again, each time with another object of ours."""
    peers = Peers()
    gate = peers.log_in(1000)
    answers(gate)
    gate.dataReceived(message(b"root", b"login_user", [b"tuple"]))
    assert b"logged in already" in answers(gate)
    peers.hang_up(gate)


def test_a_user_s_connections_are_bounded() -> None:
    """A2: a user has so many connections; another one, and the same one after an end, is let in."""
    peers = Peers()
    gates = [peers.log_in(1000) for _ in range(CONNECTIONS_A_USER)]
    gate = peers.connect(1000)
    gate.dataReceived(message(b"root", b"login_user", [b"tuple"]))
    assert b'"busy"' in answers(gate)
    peers.hang_up(gate)
    peers.hang_up(peers.log_in(1001))
    peers.hang_up(gates.pop())
    peers.hang_up(peers.log_in(1000))
    for gate in gates:
        peers.hang_up(gate)
    assert peers.log_in(1001)._inside
    assert list(peers.factory._accounts) == [1001]


def test_descriptors_are_kept_for_agents() -> None:
    """A2: users are refused above the limit less 128, root's clients above the limit less 64, agents never."""
    peers = Peers()
    peers.factory.for_users = True
    limit = peers.factory._limit
    for uid, number, refused in (
        (1000, limit - RESERVED_DESCRIPTORS - 1, False), (1000, limit - RESERVED_DESCRIPTORS, True),
        (0, limit - RESERVED_DESCRIPTORS, False), (0, limit - RESERVED_DESCRIPTORS // 2, True),
    ):  # fmt: skip
        gate = peers.connect(uid, number)
        assert ended(gate) is refused, (uid, number)
        peers.hang_up(gate)
    peers.factory.for_users = False
    gate = peers.connect(None, limit - 1)
    assert not ended(gate)
    peers.hang_up(gate)


def test_open_calls_are_bounded() -> None:
    """A3: the 101st open call of a connection is answered busy; those that wait are forgotten when the caller hangs up."""
    peers = Peers()
    gate = peers.log_in(1000)
    answers(gate)
    for _ in range(MOST_OPEN_CALLS):
        gate.dataReceived(call("waitFor", ids=[1], until="gone", timeout=600))
    peers.cell.settle()
    assert answers(gate) == b""
    gate.dataReceived(call("waitFor", ids=[1], until="gone", timeout=600))
    peers.cell.settle()
    assert b"busy" in answers(gate)
    peers.hang_up(gate)
    assert peers.cell.manager.verbs._waiting._waiters == {}


def test_a_users_calls_leave_time_for_others() -> None:
    """A3: after each call a user's next one, over whatever connection, waits twice as long as it took; root's does not."""
    peers = Peers()
    gates = [peers.log_in(1000), peers.log_in(1000)]
    root = peers.log_in(0)
    served: list[str] = []
    took = 0.01

    def slow(who: Any, arguments: Any) -> str:
        served.append(who.name)
        peers.cell.clock.rightNow += took  # the time that the call takes, in which nothing else is done
        return "ok"

    peers.cell.manager.verbs._table["gethosts"] = slow
    for gate in gates:
        gate.dataReceived(call("getHosts") * 20)
    assert len(served) == 1
    assert [gate.transport.producerState for gate in gates] == ["paused", "paused"]
    root.dataReceived(call("getHosts") * 2)
    assert served[1:] == ["root", "root"]
    del served[:]
    peers.cell.clock.advance(0.019)  # beside the 0.02 that root's calls took
    assert len(served) == 1
    for _ in range(5):
        peers.cell.clock.advance(0.021)
    assert len(served) == 6
    assert [answers(gate).count(b"ok") for gate in gates] == [4, 3], "by turns"
    peers.hang_up(gates[0])
    peers.cell.clock.pump([0.02] * 40)
    assert answers(gates[1]).count(b"ok") > 10
    assert gates[1].transport.producerState == "producing"
    took = 1.0
    again = peers.log_in(1000)
    again.dataReceived(call("getHosts") * 2)
    peers.hang_up(again)
    peers.hang_up(gates[1])
    peers.hang_up(peers.log_in(1001))
    assert peers.factory.account(1000).resting, "hanging up does not end the rest"
    peers.hang_up(root)


def test_a_call_that_rests_is_not_late() -> None:
    """What waits in a connection's buffer because its user's calls rest is not taken for a message without an end."""
    peers = Peers()
    gate = peers.log_in(1000)

    def slow(who: Any, arguments: Any) -> str:
        peers.cell.clock.rightNow += MESSAGE_SECONDS
        return "ok"

    peers.cell.manager.verbs._table["gethosts"] = slow
    gate.dataReceived(call("getHosts") * 3)
    for _ in range(8):
        peers.cell.clock.advance(MESSAGE_SECONDS)
    assert answers(gate).count(b"ok") == 3
    assert not ended(gate)
    peers.hang_up(gate)


def test_a_message_has_its_time() -> None:
    """A2: a call whose end does not come is cut off, and what was kept of it is given back to its user."""
    peers = Peers()
    gate = peers.log_in(1000)
    gate.dataReceived(call("whoami")[:-5])
    account = gate.account
    assert account is not None
    assert account.bytes > 0
    peers.cell.settle(MESSAGE_SECONDS - 1)
    assert not ended(gate)
    peers.cell.settle(2)
    assert ended(gate)
    peers.hang_up(gate)
    assert (account.bytes, account.connections) == (0, 0)


def test_who_does_not_read_is_not_read_from() -> None:
    """A peer whose buffer is full is not read from until it reads, loses nothing, and is cut off after a minute."""
    peers = Peers()
    gate = peers.log_in(1000)
    answers(gate)
    gate.transport.producer.pauseProducing()
    gate.dataReceived(call("whoami"))
    assert (answers(gate), gate.transport.producerState) == (b"", "paused")
    gate.transport.producer.resumeProducing()
    peers.cell.settle()
    assert (b"alice" in answers(gate), gate.transport.producerState) == (True, "producing")
    gate.transport.producer.pauseProducing()
    peers.cell.settle(UNREAD_SECONDS + 1)
    assert ended(gate)
    peers.hang_up(gate)


def test_answers_that_are_not_fetched_are_bounded() -> None:
    """A user who fetches only the first page of long answers has four of them kept, and none after the end of the connection."""
    peers = Peers()
    with peers.cell.manager.cluster.transaction("fill") as tx:
        for number in range(100, 2100):
            tx.put_instance(an_instance(number, hints={"note": "n" * 50}))
    gate = peers.log_in(1000)
    account: Any = gate.account
    gate.dataReceived(call("getInstances"))
    peers.cell.settle()
    one = account.bytes
    assert one > 500_000
    for _ in range(9):
        gate.dataReceived(call("getInstances"))
        peers.cell.settle()
    assert account.bytes < 5 * one
    peers.hang_up(gate)
    assert account.bytes == 0


def test_what_outsiders_do_wrong_is_ten_lines() -> None:
    """A12: a thousand wrong logins, calls of no method and broken streams leave ten lines of each kind, and no traceback."""
    peers = Peers()
    lines: list[str] = []

    def observe(event: Any) -> None:
        assert event.get("log_failure") is None
        lines.append(formatEvent(event) or "")

    globalLogPublisher.addObserver(observe)
    try:
        for number in range(300):
            gate = peers.connect(1000 if number % 2 else None)
            for _ in range(4):
                gate.dataReceived(message(b"root", b"login_node", [b"tuple", b"{}", [b"remote", 1]]))
                gate.dataReceived(message(b"root", b"nothing", [b"tuple", b"\n" * 100]))
            gate.dataReceived(b"\xff")
            peers.hang_up(gate)
        for word in ("refused a login", "made a call that is none", "closed the connection"):
            assert sum(word in line for line in lines) == 20, word
        assert all(line.isprintable() for line in lines if "uid 1000" in line)
    finally:
        globalLogPublisher.removeObserver(observe)
        peers.brokers.stopFactory()


def test_a_fault_of_a_verb_is_told_without_its_words() -> None:
    """An error of ours reaches the caller as such, and its traceback the log."""
    peers = Peers()
    gate = peers.log_in(1000)
    answers(gate)
    peers.cell.manager.verbs._table["gethosts"] = lambda who, arguments: Deferred().result  # type: ignore[attr-defined]
    globalLogPublisher.addObserver(peers.observe)
    try:
        gate.dataReceived(call("getHosts"))
        peers.cell.settle()
    finally:
        globalLogPublisher.removeObserver(peers.observe)
    written = answers(gate)
    assert b"internal" in written and b"attribute" not in written
    assert len(peers.errors) == 1
    peers.hang_up(gate)


@pytest.mark.filterwarnings("error")
def test_a_reference_without_a_number_is_no_reference() -> None:
    """A12: half a reference is a bad call, and nothing is written to standard error when it is forgotten."""
    peers = Peers()
    gate = peers.log_in(1000)
    for half in ([b"remote"], [b"remote", [b"x"]], [b"list", [b"remote"]]):
        answers(gate)
        gate.dataReceived(message(1, b"call", [b"tuple", half]))
        assert b"TypeError" in answers(gate)
    gc.collect()
    peers.hang_up(gate)
