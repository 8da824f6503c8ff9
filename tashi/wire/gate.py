"""The outermost layer of every connection to the control plane, below TLS: who is at the other end, and how much of us it may use.

Before the login: at most 8 KiB received in all, the TLS handshake included, and a place in `Admission`. After it: a limit of connections
and of bytes for each user of this machine, and a share of the time. A peer that does not read what it is sent is not read from, and is
closed after a minute.
"""

from __future__ import annotations

import resource
import socket
import struct
from collections import deque
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from tashi.clocks import LastResort
from tashi.errors import BUSY, YourMistake
from tashi.wire.admission import Admission, source_of
from tashi.wire.broker import BoundedBroker, BrokerFactory

BYTES_BEFORE_LOGIN: Final = 8 * 1024
RESERVED_DESCRIPTORS: Final = 128
"""File descriptors kept for agents, the XMPP server and the store; half of them may be used by root's clients, too."""
CONNECTIONS_A_USER: Final = 256
BYTES_A_USER: Final = 64 * 2**20
"""Most bytes kept for all the connections of one user together: incomplete calls and answers that were not fetched."""
UNREAD_SECONDS: Final = 60.0
UNREAD_BYTES: Final = 64 * 2**20
MOST_DESCRIPTORS: Final = 65_536
REST_FACTOR: Final = 2.0
"""How long a user's calls wait after one was served, in multiples of the time that it took: they take a third of the time at most."""
LEAST_REST: Final = 0.005
"""Seconds; shorter rests are added up."""


class Account:
    """What one user of this machine has open and takes: `open_one` and `close_one` for each connection, `charge` for bytes, `spend`
    for time. ``most``: connections; ``rests``: whether the user's calls give way to other peers after each (root's do not)."""

    def __init__(self, reactor: Any, source: str, most: int, *, rests: bool) -> None:
        self._reactor = reactor
        self._source = source
        self._most = most
        self._rests = rests
        self._owed = 0.0  # seconds of rest
        self._timer: Any = None
        self._waiting: deque[BoundedBroker] = deque()
        self.connections = 0
        self.bytes = 0

    @property
    def resting(self) -> bool:
        """Whether no call of the user is served at the moment."""
        return self._timer is not None

    def spend(self, seconds: float) -> None:
        """A call of the user has taken so many seconds of this process."""
        if self._rests:
            self._owed += REST_FACTOR * seconds
            if self._timer is None and self._owed >= LEAST_REST:
                self._timer = self._reactor.callLater(self._owed, self._rested)
                self._owed = 0.0

    def wait(self, broker: BoundedBroker) -> None:
        """Let the broker go on when the rest is over, after those that wait already."""
        self._waiting.append(broker)

    def _rested(self) -> None:
        self._timer = None
        while self._waiting and not self.resting:
            self._waiting.popleft().go_on_after_rest()

    def open_one(self) -> None:
        """One more connection is logged in; YourMistake(busy) when there are too many."""
        if self.connections >= self._most:
            raise YourMistake(BUSY, f"{self._source} has {self.connections} connections open; close some first")
        self.connections += 1

    def close_one(self) -> None:
        """A connection that was logged in is gone."""
        self.connections -= 1

    def charge(self, more: int) -> None:
        """So many bytes more (or fewer) are kept for the user."""
        self.bytes += more

    @property
    def exhausted(self) -> bool:
        """Whether more is kept for the user than may be."""
        return self.bytes > BYTES_A_USER


class Gate(ProtocolWrapper):
    """One connection. Its ``source`` is ``uid N`` or an address; ``uid`` is None over the network."""

    factory: GateFactory
    transport: Any

    broker: BoundedBroker

    def __init__(self, factory: GateFactory, address: Any) -> None:
        super().__init__(factory, None)  # type: ignore[arg-type]
        self._address = address
        self.uid: int | None = None
        self.source = "?"
        self.account: Account | None = None  # once a user is logged in
        self._received = 0
        self._begun = self._inside = self._ended = self._resting = False
        self._charged = 0
        self._unread: int | None = None  # bytes written since the peer stopped reading
        self._patience: Any = None

    def makeConnection(self, transport: Any) -> None:
        """See IProtocol: nothing is read before there is a place for it."""
        self.transport = transport
        self.connected = 1
        self.uid = peer_uid(transport)
        self.source = source_of(str(getattr(transport.getPeer(), "host", ""))) if self.uid is None else f"uid {self.uid}"
        transport.pauseProducing()
        if self.factory.for_users and transport.fileno() >= self.factory.most_descriptors(self.uid):
            self.end("too few file descriptors are left")
            return
        self.factory.admission.arrive(self)

    @property
    def heard(self) -> bool:
        """See Applicant."""
        return self._received > 0

    def begin(self) -> None:
        """See Applicant: only now is there anything behind the gate."""
        self._begun = True
        inner = self.factory.wrappedFactory.buildProtocol(self._address)
        self.wrappedProtocol = inner
        self.broker = getattr(inner, "wrappedProtocol", inner)
        self.broker.gate = self
        self.transport.registerProducer(_Output(self), True)
        super().makeConnection(self.transport)
        self.transport.resumeProducing()

    def logged_in(self, *, as_user: bool = False) -> None:
        """The peer is somebody. YourMistake(busy) when that user has too many connections."""
        if as_user and self.uid is not None:
            account = self.factory.account(self.uid)
            account.open_one()
            self.account = account
        self._inside = True
        self.factory.admission.leave(self)

    def end(self, why: str) -> None:
        """Close the connection, and log why."""
        if not self._ended:
            self._ended = True
            self.factory.limited.warn(self.source, "connections", "closed a connection of {source}: {why}", why=why)
            self.transport.abortConnection()

    def charge(self, held: int) -> str | None:
        """See Connection."""
        if self.account is None:
            return None
        self.account.charge(held - self._charged)
        self._charged = held
        return f"more than {BYTES_A_USER} bytes are kept for {self.source}" if held and self.account.exhausted else None

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        if self._ended:
            return
        if not self._inside:
            self._received += len(data)
            if self._received > BYTES_BEFORE_LOGIN:
                self.end(f"it sent more than {BYTES_BEFORE_LOGIN} bytes without logging in")
                return
        super().dataReceived(data)

    def write(self, data: bytes) -> None:
        """See ITransport."""
        if self._unread is not None:
            self._unread += len(data)
            if self._unread > UNREAD_BYTES:
                self.end(f"it left more than {UNREAD_BYTES} bytes unread")
                return
        super().write(data)

    def rest(self) -> None:
        """See Connection."""
        self._resting = True
        self.transport.pauseProducing()

    def go_on(self) -> None:
        """See Connection."""
        self._resting = False
        if self._unread is None:
            self.transport.resumeProducing()

    def unread(self) -> None:
        """The peer does not read: take nothing more from it."""
        if self._unread is None:
            self._unread = 0
            self.broker.hold()
            self.transport.pauseProducing()
            why = f"it did not read what it was sent for {UNREAD_SECONDS:g} s"
            self._patience = LastResort(self.factory.reactor, UNREAD_SECONDS, lambda: self.end(why))

    def read_again(self) -> None:
        """The peer has read what it was sent."""
        if self._unread is not None:
            self._unread = None
            self._patience.cancel()
            if not self._resting:
                self.transport.resumeProducing()
            self.broker.release()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        self._ended = True
        self.factory.admission.leave(self)
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        if self._begun:
            super().connectionLost(reason)
        if self.account is not None:
            self.account.charge(-self._charged)
            self.account.close_one()
            self.account = None


@implementer(IPushProducer)
class _Output:
    """Hears from a transport whether what was written leaves."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def pauseProducing(self) -> None:
        """The buffer is full."""
        self._gate.unread()

    def resumeProducing(self) -> None:
        """The buffer is empty."""
        self._gate.read_again()

    def stopProducing(self) -> None:
        """The connection is gone."""


class GateFactory(WrappingFactory):  # type: ignore[type-arg]
    """Puts a gate before each connection of a listener; ``inner`` makes brokers, or TLS with brokers in it."""

    noisy = False
    protocol = Gate

    def __init__(self, reactor: Any, inner: Any, brokers: BrokerFactory, admission: Admission, *, for_users: bool = False) -> None:
        super().__init__(inner)
        self.reactor = reactor
        self.limited = brokers.limited
        self.admission = admission
        self.for_users = for_users
        self._accounts: dict[int, Account] = {}
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._limit = MOST_DESCRIPTORS if limit == resource.RLIM_INFINITY else limit

    def buildProtocol(self, addr: Any) -> Gate:
        """See IProtocolFactory."""
        return Gate(self, addr)

    def most_descriptors(self, uid: int | None) -> int:
        """A user's connection whose descriptor has this number or a higher one is refused: descriptors are given out from below."""
        return self._limit - (RESERVED_DESCRIPTORS if uid else RESERVED_DESCRIPTORS // 2)

    def account(self, uid: int) -> Account:
        """The account of this user; those that have nothing open are forgotten."""
        accounts = self._accounts
        for other in [other for other, one in accounts.items() if not (one.connections or one.resting or other == uid)]:
            del accounts[other]
        if uid not in accounts:
            most = CONNECTIONS_A_USER if uid else self._limit
            accounts[uid] = Account(self.reactor, f"uid {uid}", most, rests=uid != 0)
        return accounts[uid]


def peer_uid(transport: Any) -> int | None:
    """The user at the other end of a unix socket, as the kernel says; None of any other transport."""
    handle = getattr(transport, "socket", None)
    if handle is None or handle.family != socket.AF_UNIX:
        return None
    _, uid, _ = struct.unpack("3i", handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)


def raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as its hard limit allows, up to MOST_DESCRIPTORS: each agent and client takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
