"""Peers that send anything: before the login, after a user's, after an agent's. ``TASHI_FUZZ=100000`` tries more than the usual rounds.

Nothing that a peer sends may raise an error of ours, be kept beyond the bounds, change another's records or stop the cell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from random import Random
from typing import Any, Final

import pytest
from twisted.logger import globalLogPublisher
from twisted.spread import banana

from tashi.model.bounds import MOST_CORES, MOST_MEMORY
from tashi.wire.bounded_banana import AFTER_LOGIN
from tashi.wire.codec import encode
from tashi.wire.gate import Gate
from tests.builders import ALICE, a_login, a_report, an_instance, seen
from tests.peers import Peers, message

ROUNDS: Final = int(os.environ.get("TASHI_FUZZ", "300"))
SEED: Final = int(os.environ.get("TASHI_FUZZ_SEED", "22"))
ODD: Final = (
    0, 1, -1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**400, 1.5, -0.0, 1e308, True, False, None, "", "x", "x" * 2000, "\ud800", "\x00", "é",
    "../x", "web", "1", [], {}, [[]], {"": 0}, [1] * 2000, {"a": {"b": {"c": [1, {"d": None}]}}}, "running", "gone", "paused",
)  # fmt: skip
WORDS: Final = (
    b"message", b"answer", b"error", b"decref", b"version", b"didNotUnderstand", b"cachemessage", b"decache", b"uncache", b"tuple",
    b"dictionary", b"remote", b"local", b"lcache", b"cache", b"copy", b"None", b"unicode", b"boolean", b"true", b"reference", b"list",
    b"root", b"call", b"more", b"report", b"login_user", b"login_node", b"decimal", b"datetime", b"set", b"frozenset", b"instance",
    b"dereference", b"class",
    b"module", b"function", b"persistent", b"twisted.spread.pb.CopyableFailure", b"tashi.errors.TashiError", b"os.system", b"",
)  # fmt: skip


def sexp(chance: Random, depth: int = 0) -> Any:
    """Some list or word of the protocol."""
    if depth < 4 and chance.random() < 0.5:
        return [sexp(chance, depth + 1) for _ in range(chance.randint(0, 5))]
    return chance.choice([*WORDS, 0, 1, 2, 6, -1, 2**40, 1.5, b"{}", b"[", encode({"verb": "whoami"})])


def stream(chance: Random, target: Any, calls: Callable[[Random], bytes]) -> bytes:
    """A few messages: meaningful calls, calls of anything, lists of anything; some with bytes changed, cut off or put in."""
    parts = []
    for _ in range(chance.randint(1, 4)):
        kind = chance.random()
        if kind < 0.4:
            part = calls(chance)
        elif kind < 0.7:
            part = message(chance.choice([target, b"root", 99, []]), chance.choice(WORDS), [b"tuple", *(sexp(chance, 2) for _ in range(2))])
        else:
            part = bytes(banana.encode(sexp(chance)))
        if chance.random() < 0.3:
            changed = bytearray(part)
            for _ in range(chance.randint(1, 6)):
                at = chance.randrange(len(changed) + 1)
                changed[at : at + chance.randint(0, 2)] = bytes(chance.randrange(256) for _ in range(chance.randint(0, 3)))
            part = bytes(changed)
        parts.append(part)
    return b"".join(parts)


def send(gate: Gate, data: bytes, chance: Random) -> None:
    """The bytes, cut anywhere."""
    while data and not gate._ended:
        cut = chance.choice([1, 3, 50, len(data)])
        gate.dataReceived(data[:cut])
        data = data[cut:]
        if gate._begun:
            assert gate.broker._reader.held <= AFTER_LOGIN.bytes + 70_000


def changed(value: Any, chance: Random) -> Any:
    """The plain data with one thing in it replaced."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        return {**value, (chance.choice(["", "x", key]) if chance.random() < 0.05 else key): changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        at = chance.randrange(len(value))
        return [*value[:at], changed(value[at], chance), *value[at + 1 :]]
    return chance.choice(ODD)


def as_json(value: Any) -> bytes:
    """JSON, also of what is none."""
    return json.dumps(value).encode()


def logins(chance: Random) -> bytes:
    """A login that may be none."""
    login = changed(json.loads(encode(a_login("evil", join="wrong"))), chance)
    return message(b"root", b"login_node", [b"tuple", as_json(login), chance.choice([[b"remote", 1], b"x", [b"None"]])])


def user_calls(verbs: list[str]) -> Callable[[Random], bytes]:
    """Calls of a user with arguments of all kinds."""
    names = ("instance", "name", "ids", "until", "timeout", "instances", "disks", "nics", "hints", "host", "dst", "share", "limit", "data",
             "session", "elemName", "value", "basename", "userId", "cores", "memory", "arg", "offset")  # fmt: skip

    def call(chance: Random) -> bytes:
        arguments = {chance.choice(names): chance.choice(ODD) for _ in range(chance.randint(0, 4))}
        text = as_json({"verb": chance.choice(verbs), "arguments": arguments})
        return message(1, b"call", [b"tuple", text]) if chance.random() < 0.9 else message(1, b"more", [b"tuple", 1, 1])

    return call


def reports(chance: Random) -> bytes:
    """A report of an agent in which one or two things may be anything."""
    instance = an_instance(chance.choice([1, 2, 99]), host_id=1, generation=chance.choice([0, 1, 5]))
    report = json.loads(encode(a_report(seen(instance), seen(instance, reason="r", done=True), full=chance.random() < 0.5)))
    for _ in range(chance.randint(0, 2)):
        report = changed(report, chance)
    return message(1, b"report", [b"tuple", as_json(report)])


@pytest.mark.parametrize("who", ["nobody", "user", "agent"])
def test_peers_that_send_anything(who: str) -> None:
    """A2, A5, A12: whatever comes, the cell goes on, nothing is kept, nothing of ours fails."""
    peers = Peers()
    cell = peers.cell
    chance = Random(f"{SEED} {who}")
    verbs = sorted(cell.manager.verbs._table)
    calls = {"nobody": logins, "user": user_calls(verbs), "agent": reports}[who]
    globalLogPublisher.addObserver(peers.observe)
    try:
        for _ in range(ROUNDS):
            gate = peers.connect(chance.choice([None, 1000])) if who == "nobody" else peers.log_in(1001 if who == "user" else None)
            state = chance.getstate()
            send(gate, stream(chance, 1, calls), chance)
            cell.settle(0.02)
            peers.hang_up(gate)
            assert peers.errors == [], (state[1][-1], peers.errors[0].getTraceback())
        cell.live(2)
    finally:
        globalLogPublisher.removeObserver(peers.observe)
        peers.brokers.stopFactory()
    cluster = cell.manager.cluster
    assert cluster.instances[1].host_id in (1, 2) and cluster.instances[1].user_id == 1000
    for host in cluster.hosts.values():
        assert host.facts is None or (0 < host.facts.cores <= MOST_CORES and 0 <= host.facts.memory <= MOST_MEMORY)
    if who == "nobody":
        assert sorted(cluster.hosts) == [1, 2]
    assert len(peers.factory.admission) == 0
    assert cell.call(ALICE, "whoami")["name"] == ALICE.name
