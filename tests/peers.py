"""Peers of a control plane whose connections are in memory, on a clock that only the test moves."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.testing import StringTransport
from twisted.spread import banana

from tashi.wire.admission import Admission
from tashi.wire.broker import BrokerFactory
from tashi.wire.codec import encode
from tashi.wire.gate import Gate, GateFactory
from tashi.wire.portal import Door
from tests.builders import a_login
from tests.small_cell import FakeAgent, SmallCell


class Transport(StringTransport):
    """A unix socket whose other end is this user; without one, a TCP connection."""

    def __init__(self, uid: int | None, number: int = 7) -> None:
        super().__init__()
        self.uid = uid
        self.number = number
        self.socket = self
        self.family = socket.AF_INET if uid is None else socket.AF_UNIX

    def getsockopt(self, *_: Any) -> bytes:
        """See socket."""
        return struct.pack("3i", 1, self.uid, 1)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ITCPTransport."""

    def fileno(self) -> int:
        """The number of its descriptor."""
        return self.number


class Peers:
    """A cell with two hosts, and peers whose connections are in memory."""

    def __init__(self) -> None:
        self.cell = SmallCell(hosts=[FakeAgent("h1"), FakeAgent("h2")])
        self.cell.create()
        self.cell.work()
        manager = self.cell.manager
        self.brokers = BrokerFactory(self.cell.clock, Door(self.cell.clock, manager.hosts, manager.verbs, manager.cluster.users))
        self.factory = GateFactory(self.cell.clock, self.brokers, self.brokers, Admission(self.cell.clock))
        self.errors: list[Any] = []

    def observe(self, event: Any) -> None:
        """Keep what is logged with a traceback."""
        if event.get("log_failure") is not None:
            self.errors.append(event["log_failure"])

    def connect(self, uid: int | None, number: int = 7) -> Gate:
        """A new connection, with its dialect chosen."""
        gate = self.factory.buildProtocol(None)
        gate.makeConnection(Transport(uid, number))
        gate.dataReceived(b"\x02\x82pb")
        return gate

    def log_in(self, uid: int | None, name: str = "evil") -> Gate:
        """A connection that is logged in as a user, or without one as an agent; its perspective is object 1."""
        gate = self.connect(uid)
        arguments = [b"tuple"] if uid is not None else [b"tuple", encode(a_login(name)), [b"remote", 1]]
        gate.dataReceived(message(b"root", b"login_user" if uid is not None else b"login_node", arguments))
        self.cell.settle(0.02)
        assert gate._inside
        return gate

    def hang_up(self, gate: Gate) -> None:
        """Its end, whoever wanted it."""
        gate.connectionLost(None)  # type: ignore[arg-type]
        self.cell.settle(0.02)


def message(target: Any, name: bytes, arguments: Any) -> bytes:
    """A call."""
    return bytes(banana.encode([b"message", 1, target, name, 1, arguments, [b"dictionary"]]))
