"""A Perspective Broker for peers that nobody trusts: bounded input, bounded output, no tracebacks for what a peer does wrong.

It takes calls of our objects and answers to our calls, nothing else of PB; arguments are plain data and references. A peer that
breaks the protocol is cut off with one log line, a call that cannot be made is answered with an error, and both are limited.
"""

from __future__ import annotations

import inspect
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.spread.flavors import NoSuchMethod
from twisted.spread.jelly import InsecureJelly, SecurityOptions

from tashi.clocks import LastResort
from tashi.limited_log import LimitedLog
from tashi.wire.bounded_banana import AFTER_LOGIN, BEFORE_LOGIN, NOTHING, OutOfBounds, Reader

MESSAGE_SECONDS: Final = 30.0
"""How long the rest of a message may take after its first byte."""
_COMMANDS: Final = frozenset({b"version", b"message", b"answer", b"error", b"decref", b"didNotUnderstand"})


def _plain_data_only() -> SecurityOptions:
    """What may come as an argument or an answer: plain data, references, and the description of a peer's exception."""
    security = SecurityOptions()
    security.allowedTypes = dict.fromkeys((b"None", b"boolean", b"unicode", b"list", b"tuple", b"dictionary", b"remote"), 1)
    return security


class Account(Protocol):
    """What is kept for one user over all connections: `tashi.wire.gate.Account`."""

    @property
    def exhausted(self) -> bool:
        """Whether more is kept than may be."""

    @property
    def resting(self) -> bool:
        """Whether no call of the user is served at the moment."""

    def charge(self, more: int) -> None:
        """So many bytes more (or fewer) are kept."""

    def spend(self, seconds: float) -> None:
        """A call of the user has taken so many seconds of this process."""

    def wait(self, broker: BoundedBroker) -> None:
        """Let the broker go on when the rest is over, after those that wait already."""


class Connection(Protocol):
    """What a broker's connection is to it: `tashi.wire.gate.Gate`."""

    @property
    def account(self) -> Account | None:
        """What is kept for the user; None before the login and over the network."""

    @property
    def source(self) -> str:
        """Who is at the other end, for the log."""

    @property
    def uid(self) -> int | None:
        """The user of this machine at the other end; None over the network."""

    def logged_in(self, *, as_user: bool = False) -> None:
        """The peer is somebody; YourMistake(busy) when that user has too many connections."""

    def charge(self, held: int) -> str | None:
        """Note how many bytes of an incomplete message are held; why that is too much, or None."""

    def rest(self) -> None:
        """Read nothing for now: the user's calls rest."""

    def go_on(self) -> None:
        """Read again."""


class BoundedBroker(pb.Broker):
    """One connection of a peer. ``gate`` is set by whoever accepts connections."""

    factory: BrokerFactory  # type: ignore[assignment]
    transport: Any
    knownDialects = [b"pb"]
    gate: Connection | None = None

    def __init__(self, isClient: bool = False, security: SecurityOptions | None = None) -> None:
        super().__init__(isClient, security)
        self._reader = Reader(BEFORE_LOGIN, self.incomingVocabulary)
        self._held = False  # what came is left where it is, for the peer does not read its answers
        self._resting = False  # the same, because the user's calls have taken their share of the time
        self._ended = False
        self._late: Any = None

    @property
    def source(self) -> str:
        """Who is at the other end, for the log."""
        return self.gate.source if self.gate is not None else "a peer"

    def logged_in(self) -> None:
        """The peer is somebody: it may send more at a time from now on."""
        self._reader.bounds = AFTER_LOGIN

    def dataReceived(self, chunk: bytes) -> None:
        """See IProtocol."""
        if not self._ended:
            self._reader.feed(chunk)
            self._go_on()

    def hold(self) -> None:
        """Take no further call for now."""
        self._held = True

    def release(self) -> None:
        """Go on with what has come meanwhile."""
        self._held = False
        self._go_on()

    def end(self, why: str) -> None:
        """Close the connection of a peer that breaks the protocol, or takes too much."""
        if not self._ended:
            self._ended = True
            self.factory.limited.warn(self.source, "protocol", "closed the connection of {source}: {why}", why=why)
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        self._ended = True
        self._watch(0)
        super().connectionLost(reason)

    def go_on_after_rest(self) -> None:
        """Go on with what has come, now that the user's calls have rested."""
        self._resting = False
        if not self._ended and self.gate is not None:
            self.gate.go_on()
            self._go_on()

    def _rests(self) -> bool:
        """Whether this connection waits until the user's calls have rested."""
        account = self.gate.account if self.gate is not None else None
        if self.gate is not None and account is not None and account.resting and not self._resting:
            self._resting = True
            self.gate.rest()
            account.wait(self)
        return self._resting

    def _take(self, message: Any) -> None:
        """Serve one message, and charge the user with the time that it takes."""
        account = self.gate.account if self.gate is not None else None
        began = self.factory.reactor.seconds()
        self.callExpressionReceived(message)
        if account is not None:
            account.spend(self.factory.reactor.seconds() - began)

    def _go_on(self) -> None:
        try:
            while not (self._held or self._ended or self._rests()):
                message = self._reader.next()
                if message is NOTHING:
                    break
                self._take(message)
        except OutOfBounds as error:
            self.end(str(error))
        except Exception as error:
            self.end(f"a message that is not of the protocol ({type(error).__name__})")
        if not self._ended:
            self._watch(self._reader.held)

    def _watch(self, held: int) -> None:
        """Give the rest of an incomplete message its time."""
        why = self.gate.charge(held) if self.gate is not None else None
        if why is not None and not self._ended:
            self.end(why)
        waits = self._held or self._resting
        if held and not waits and self._late is None:
            self._late = LastResort(self.factory.reactor, MESSAGE_SECONDS, self._too_late)
        elif (not held or waits) and self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        self.end(f"a message that was not complete after {MESSAGE_SECONDS:g} s")

    def callExpressionReceived(self, obj: Any) -> None:
        """See Banana: the first message names the dialect."""
        if self.currentDialect is None and obj != b"pb":
            raise pb.ProtocolError("no dialect")
        super().callExpressionReceived(obj)

    def expressionReceived(self, sexp: Any) -> None:
        """See Banana."""
        if not isinstance(sexp, list) or not sexp or sexp[0] not in _COMMANDS:
            raise pb.ProtocolError("no command")
        super().expressionReceived(sexp)

    def proto_didNotUnderstand(self, command: Any) -> None:
        """See Broker; we say nothing that a peer of our protocol does not understand."""

    def proto_answer(self, requestID: Any, netResult: Any) -> None:
        """See Broker."""
        _check_references([netResult])
        super().proto_answer(requestID, netResult)

    def proto_error(self, requestID: Any, fail: Any) -> None:
        """See Broker."""
        _check_references([fail])
        super().proto_error(requestID, fail)

    def proto_message(self, requestID: Any, objectID: Any, message: Any, answerRequired: Any, netArgs: Any, netKw: Any) -> None:
        """A call of one of our objects. What the peer does wrong is answered and counted, and what we do wrong is logged."""
        if not isinstance(requestID, int) or not isinstance(message, bytes) or not isinstance(objectID, bytes | int):
            raise pb.ProtocolError("no call")
        try:
            result = self._call(objectID, message.decode(errors="replace"), netArgs, netKw)
        except _BadCall as bad:
            words = f"{type(bad.error).__name__}: {str(bad.error)[:200]!a}"
            self.factory.limited.warn(self.source, "bad calls", "{source} made a call that is none: {why}", why=words)
            self._refuse(bad.error, requestID, answerRequired)
        except Exception:
            self.factory.limited.failure(self.source, "failed calls", "a call of {source} failed")
            self._refuse(pb.Error("internal error"), requestID, answerRequired)
        else:
            if answerRequired:
                if isinstance(result, Deferred):
                    result.addCallbacks(self._answer, self._failed, callbackArgs=(requestID,), errbackArgs=(requestID,))
                else:
                    self._answer(result, requestID)

    def _call(self, luid: bytes | int, name: str, arguments: Any, named: Any) -> Any:
        target = self.localObjectForID(luid)
        if target is None:
            raise _BadCall(pb.Error("Invalid Object ID"))
        method = getattr(target, f"remote_{name}", None)
        if method is None:
            raise _BadCall(NoSuchMethod(f"No such method: remote_{name[:60]}"))
        try:
            _check_references([arguments, named])
            positional, keywords = self.unserialize(arguments), self.unserialize(named)
            keywords = {key.decode() if isinstance(key, bytes) else key: value for key, value in keywords.items()}
            inspect.signature(method).bind(*positional, **keywords)
        except InsecureJelly as error:
            raise _BadCall(error) from None
        except Exception:
            raise _BadCall(TypeError(f"{name} does not take these arguments")) from None
        return method(*positional, **keywords)

    def _answer(self, result: Any, request: int) -> None:
        if not self.disconnected:
            self._sendAnswer(self.serialize(result), request)

    def _failed(self, failure: Failure, request: int) -> None:
        self.factory.limited.failure(self.source, "failed calls", "a call of {source} failed", failure=failure)
        self._refuse(pb.Error("internal error"), request, True)

    def _refuse(self, error: Exception, request: int, wanted: Any) -> None:
        if wanted and not self.disconnected:
            self._sendError(pb.CopyableFailure(error), request)


def _check_references(sexp: list[Any]) -> None:
    """TypeError where a reference has no number: PB would leave half an object behind, which complains when it is collected."""
    for one in sexp:
        if isinstance(one, list):
            if one[:1] == [b"remote"] and not (len(one) == 2 and isinstance(one[1], int | bytes)):
                raise TypeError("a reference without a number")
            _check_references(one)


class _BadCall(Exception):
    """The caller's mistake, as it will be told."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class BrokerFactory(pb.PBServerFactory):
    """Makes the brokers of one control plane, which share one limited log."""

    noisy = False
    protocol = BoundedBroker

    def __init__(self, reactor: Any, root: Any) -> None:
        super().__init__(root, security=_plain_data_only())
        self.reactor = reactor
        self.limited = LimitedLog(reactor, Logger("tashi.wire"))

    def stopFactory(self) -> None:
        """See Factory."""
        self.limited.close()
