"""What a peer that has logged in may call, and nothing else: an agent reports of its own host, a user calls verbs.

An agent's perspective:   -> report [Report as JSON]                                  <- b"ok"
A user's perspective:     -> call [{"verb", "arguments"} as JSON]                     <- [number of pages, token, first page]
                          -> more [token, index from 1]                               <- that page
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.spread import pb

from tashi.errors import BUSY, INTERNAL, OurFault, TashiError, YourMistake
from tashi.interfaces import INodeDoor, INodeLink
from tashi.limited_log import LimitedLog
from tashi.model.orders import Report
from tashi.model.user import Principal
from tashi.wire.answers import error_answer, result_answer
from tashi.wire.broker import Account
from tashi.wire.codec import decode, pages

MOST_OPEN_ANSWERS = 4
"""Long answers that one connection may have half read."""
MOST_OPEN_CALLS = 100
"""Calls of one connection that are not answered yet."""


class VerbTable(Protocol):
    """What a user may ask: `tashi.manager.verbs.Verbs`."""

    def call(self, who: Principal, verb: str, arguments: dict[str, Any]) -> Awaitable[Any]: ...


class Call(msgspec.Struct, frozen=True):
    """One call of a user."""

    verb: str
    arguments: dict[str, Any] = {}


class NodeAvatar(pb.Referenceable):
    """An agent, which speaks for the host it logged in as and for no other."""

    def __init__(self, hosts: INodeDoor, host_id: int, link: INodeLink, limited: LimitedLog) -> None:
        self._hosts = hosts
        self._host_id = host_id
        self._link = link
        self._limited = limited

    def remote_report(self, text: bytes) -> bytes:
        """What the host has to say. A malformed report changes nothing but the host's notes."""
        source = f"host {self._host_id}"
        try:
            self._hosts.report(self._host_id, self._link, decode(text, Report))
        except TashiError as error:
            self._limited.warn(source, "malformed reports", "{source} sent a malformed report: {error}", error=error.message)
            self._hosts.malformed(self._host_id, self._link, error.message)
            return error_answer(error)
        except Exception:
            self._limited.failure(source, "failed reports", "a report of {source} was not taken")
            return error_answer(OurFault(INTERNAL, "the control plane failed to take this report; its log says why"))
        return b"ok"

    def logout(self) -> None:
        """The connection is gone."""
        self._hosts.logout(self._host_id, self._link)


class UserAvatar(pb.Referenceable):
    """A user or admin of this machine; ``account`` is charged for answers that are not fetched."""

    def __init__(self, verbs: VerbTable, who: Principal, limited: LimitedLog, account: Account | None) -> None:
        self._verbs = verbs
        self._who = who
        self._limited = limited
        self._account = account
        self._answers: dict[int, Sequence[bytes]] = {}
        self._token = 0
        self._calls: set[Deferred[tuple[int, int, bytes]]] = set()

    def remote_call(self, text: bytes) -> Deferred[tuple[int, int, bytes]]:
        """Carry out one verb."""
        if len(self._calls) >= MOST_OPEN_CALLS:
            busy = YourMistake(BUSY, f"{MOST_OPEN_CALLS} calls of this connection are not answered yet; wait for some of them")
            return succeed((1, 0, error_answer(busy)))
        call = Deferred.fromCoroutine(self._call(text))
        self._calls.add(call)
        return call.addBoth(self._ended, call)

    def logout(self) -> None:
        """The connection is gone: nobody waits for an answer any more."""
        for call in list(self._calls):
            call.cancel()
        while self._answers:
            self._forget(next(iter(self._answers)))

    def _ended(self, result: Any, call: Deferred[tuple[int, int, bytes]]) -> Any:
        self._calls.discard(call)
        return result

    def remote_more(self, token: int, index: int) -> bytes:
        """A further page of a long answer; the last one ends it."""
        parts = self._answers.get(token, ()) if isinstance(token, int) else ()
        if not isinstance(index, int) or not 0 < index < len(parts):
            return b""
        part = parts[index]
        if index == len(parts) - 1:
            self._forget(token)
        return part

    async def _call(self, text: bytes) -> tuple[int, int, bytes]:
        try:
            call: Call = decode(text, Call)
            answer = result_answer(await self._verbs.call(self._who, call.verb, call.arguments))
        except TashiError as error:
            answer = error_answer(error)
        except CancelledError:
            answer = b""  # for nobody
        except Exception:
            self._limited.failure(self._who.name, "failed calls", "a call of {who} failed", who=self._who.name)
            answer = error_answer(OurFault(INTERNAL, "the control plane failed to carry this out; its log says why"))
        parts = pages(answer)
        self._token += 1
        if len(parts) > 1:
            self._keep(self._token, parts, len(answer))
        return len(parts), self._token, parts[0]

    def _keep(self, token: int, parts: Sequence[bytes], size: int) -> None:
        """Keep a long answer until its last page is fetched, at the cost of older ones."""
        while len(self._answers) >= MOST_OPEN_ANSWERS or (self._answers and self._account is not None and self._account.exhausted):
            self._forget(next(iter(self._answers)))
        self._answers[token] = parts
        if self._account is not None:
            self._account.charge(size)

    def _forget(self, token: int) -> None:
        parts = self._answers.pop(token)
        if self._account is not None:
            self._account.charge(-sum(map(len, parts)))
