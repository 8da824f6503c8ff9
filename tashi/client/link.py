"""The client's end of the wire: one unix socket, one login by who we are on this machine, one JSON text a call.

-> login_user                      <- (avatar or None, {"user": ...} or {"error": {"code", "message"}})
-> call {"verb", "arguments"}      <- (pages, token, the first page)      -> more(token, index)      <- a further page
The pages joined are {"result": ...} or {"error": {"code", "message"}}.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as OutOfTime
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.task import deferLater
from twisted.spread import banana, pb

from tashi.client.unreachable import CannotReach
from tashi.clocks import within
from tashi.errors import BAD_ARGUMENT, INTERNAL, OurFault, TashiError, YourMistake
from tashi.model.names import shown
from tashi.wire.codec import decode, encode

_GONE = (pb.DeadReferenceError, pb.PBConnectionLost, ConnectionDone, ConnectionLost)
_LONGEST_PATH = 107  # of a unix socket on Linux; Twisted waits for its time-out on a longer one
_START = "start it with `twistd -n tashi` or `tashi sandbox`, or name its socket in $TASHI_CONF or [Client] socket"
_WHY = {
    errno.ENOENT: f"there is no such socket; {_START}",
    errno.ECONNREFUSED: f"nobody listens on it; {_START}",
    errno.EACCES: "you may not open it; ask whoever runs the control plane to open its directory to you",
}


class _Told(msgspec.Struct):
    """An error as the control plane tells it."""

    code: str
    message: str


class _Answer(msgspec.Struct):
    """Any answer: of login_user and of call."""

    error: _Told | None = None
    result: Any = None


class Link:
    """A login that lasts until `close`; every call has its time, and ends in a result, a TashiError or CannotReach."""

    def __init__(self, reactor: Any, connector: Any, avatar: Any, path: str) -> None:
        self._reactor = reactor
        self._connector = connector
        self._avatar = avatar
        self._path = path

    async def call(self, verb: str, content: Mapping[str, Any], seconds: float) -> Any:
        """The result of the verb, with all its pages."""
        return await _within(self._reactor, seconds, self._call(verb, content), f"{verb} at {self._path}")

    async def _call(self, verb: str, content: Mapping[str, Any]) -> Any:
        try:
            text = encode({"verb": verb, "arguments": content})
        except UnicodeEncodeError as error:
            words = f"expected text in UTF-8, got {shown(error.object)}; correct what you typed"
            raise YourMistake(BAD_ARGUMENT, words) from None
        if len(text) > banana.SIZE_LIMIT:
            raise YourMistake(
                BAD_ARGUMENT, f"{len(text)} bytes are more than one call carries ({banana.SIZE_LIMIT}); ask for less at a time"
            )
        count, token, first = await self._avatar.callRemote("call", text)
        parts = [first]
        for index in range(1, count):
            parts.append(await self._avatar.callRemote("more", token, index))
        return _result(b"".join(parts))

    def close(self) -> None:
        """Log out and hang up."""
        self._connector.disconnect()


async def open_link(reactor: Any, path: str, seconds: float) -> Link:
    """Log in at the control plane behind the socket, within this many seconds."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise _unreachable(path, f"no socket's path is longer than {_LONGEST_PATH} bytes; name another in [Client] socket")
    end = reactor.seconds() + seconds
    while True:
        try:
            return await _log_in(reactor, path, max(0.1, end - reactor.seconds()))
        except _ClosedBeforeLogin:
            pause = random.uniform(0.1, 0.5)  # too many log in at this moment; each comes back at another one
            if reactor.seconds() + pause >= end:
                raise _unreachable(path, "it closes the connection before the login; too many clients log in") from None
            await deferLater(reactor, pause)


async def _log_in(reactor: Any, path: str, seconds: float) -> Link:
    factory = pb.PBClientFactory()
    # Not an endpoint: the module of endpoints loads TLS, which is a quarter of the time until the first answer.
    connector = reactor.connectUNIX(path, factory, timeout=seconds)
    try:
        return Link(reactor, connector, await _within(reactor, seconds, _login(factory), f"the login at {path}"), path)
    except ConnectError as error:
        raise _unreachable(path, _WHY.get(error.osError) or f"{error}; {_START}") from None
    except BaseException:
        connector.disconnect()
        raise


class _ClosedBeforeLogin(Exception):
    """The control plane closed the connection, and nothing was asked of it yet."""


def _unreachable(path: str, why: str) -> CannotReach:
    return CannotReach(f"cannot reach the control plane at {path}: {why}")


async def _login(factory: pb.PBClientFactory) -> Any:
    try:
        root = await factory.getRootObject()
        avatar, text = await root.callRemote("login_user")
    except _GONE:
        raise _ClosedBeforeLogin from None
    _result(text)
    return avatar


def _result(text: bytes) -> Any:
    answer = decode(text, _Answer)
    if answer.error is not None:
        raise TashiError(answer.error.code, answer.error.message)
    return answer.result


async def _within(reactor: Any, seconds: float, work: Coroutine[Deferred[Any], Any, Any], what: str) -> Any:
    deferred = within(Deferred.fromCoroutine(work), seconds, reactor)
    try:
        return await deferred
    except OutOfTime:
        raise CannotReach(f"no answer to {what} within {seconds:g} s; look at the log of the control plane, then try again") from None
    except _GONE:
        raise CannotReach(
            f"the control plane hung up during {what}; whether it was done is not known: look with `tashi getInstances`"
        ) from None
    except pb.RemoteError as error:
        raise OurFault(INTERNAL, f"the control plane failed at {what}: {error}; its log says more") from None
