"""What a peer that has logged in may call, and nothing else: an agent reports of its own host, a user calls verbs.

An agent's perspective:   -> report [Report as JSON]                                  <- b"ok"
A user's perspective:     -> call [{"verb", "arguments"} as JSON]                     <- [number of pages, token, first page]
                          -> more [token, index from 1]                               <- that page
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.spread import pb

from tashi.errors import INTERNAL, OurFault, TashiError
from tashi.interfaces import INodeDoor, INodeLink
from tashi.model.orders import Report
from tashi.model.user import Principal
from tashi.wire.answers import error_answer, result_answer
from tashi.wire.codec import decode, pages

MOST_OPEN_ANSWERS = 16
"""Long answers that one connection may have half read."""


class VerbTable(Protocol):
    """What a user may ask: `tashi.manager.verbs.Verbs`."""

    def call(self, who: Principal, verb: str, arguments: dict[str, Any]) -> Awaitable[Any]: ...


class Call(msgspec.Struct, frozen=True):
    """One call of a user."""

    verb: str
    arguments: dict[str, Any] = {}


class NodeAvatar(pb.Referenceable):
    """An agent, which speaks for the host it logged in as and for no other."""

    log = Logger()

    def __init__(self, hosts: INodeDoor, host_id: int, link: INodeLink) -> None:
        self._hosts = hosts
        self._host_id = host_id
        self._link = link

    def remote_report(self, text: bytes) -> bytes:
        """What the host has to say."""
        try:
            self._hosts.report(self._host_id, self._link, decode(text, Report))
        except TashiError as error:
            self.log.warn("host {host} sent a report that is none: {error}", host=self._host_id, error=error.message)
            return error_answer(error)
        return b"ok"

    def logout(self) -> None:
        """The connection is gone."""
        self._hosts.logout(self._host_id, self._link)


class UserAvatar(pb.Referenceable):
    """A user or admin of this machine."""

    log = Logger()

    def __init__(self, verbs: VerbTable, who: Principal) -> None:
        self._verbs = verbs
        self._who = who
        self._answers: dict[int, Sequence[bytes]] = {}
        self._token = 0
        self._calls: set[Deferred[tuple[int, int, bytes]]] = set()

    def remote_call(self, text: bytes) -> Deferred[tuple[int, int, bytes]]:
        """Carry out one verb."""
        call = Deferred.fromCoroutine(self._call(text))
        self._calls.add(call)
        return call.addBoth(self._ended, call)

    def logout(self) -> None:
        """The connection is gone: nobody waits for an answer any more."""
        for call in list(self._calls):
            call.cancel()

    def _ended(self, result: Any, call: Deferred[tuple[int, int, bytes]]) -> Any:
        self._calls.discard(call)
        return result

    def remote_more(self, token: int, index: int) -> bytes:
        """A further page of a long answer; the last one ends it."""
        parts = self._answers.get(token, ())
        if not isinstance(index, int) or not 0 < index < len(parts):
            return b""
        if index == len(parts) - 1:
            del self._answers[token]
        return parts[index]

    async def _call(self, text: bytes) -> tuple[int, int, bytes]:
        try:
            call: Call = decode(text, Call)
            answer = result_answer(await self._verbs.call(self._who, call.verb, call.arguments))
        except TashiError as error:
            answer = error_answer(error)
        except CancelledError:
            answer = b""  # for nobody
        except Exception:
            self.log.failure("a call of {who} failed", who=self._who.name)
            answer = error_answer(OurFault(INTERNAL, "the control plane failed to carry this out; its log says why"))
        parts = pages(answer)
        self._token += 1
        if len(parts) > 1:
            if len(self._answers) >= MOST_OPEN_ANSWERS:
                del self._answers[next(iter(self._answers))]
            self._answers[self._token] = parts
        return len(parts), self._token, parts[0]
