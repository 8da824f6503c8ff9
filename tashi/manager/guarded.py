"""A loop that never dies: it runs when kicked and at least so often, never twice at once, and an exception only costs one round.

And work that goes on to its end when nobody waits for it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from tashi.errors import TashiError

Result = TypeVar("Result")


def to_its_end(work: Coroutine[Any, Any, Result]) -> Deferred[Result]:
    """What comes of the work; whoever no longer waits for that, cancelling it, does not stop the work."""
    told: Deferred[Result] = Deferred()

    def tell(result: Any) -> None:
        if not told.called:
            told.callback(result)
        elif isinstance(result, Failure) and not result.check(TashiError):
            KickableLoop.log.failure("what nobody waits for any more has failed", result)

    Deferred.fromCoroutine(work).addBoth(tell)
    return told


class KickableLoop:
    """Calls ``work()`` at least every ``interval`` seconds once started, and soon after `kick`.

    Work that goes on after its call returns a Deferred of its end, until which no other round begins.
    Kicks of one reactor turn make one round. Rounds that follow each other closely are held ``pause`` seconds apart, so that a
    flood of kicks becomes a few large rounds, and twice as long as the last one took, so that large rounds leave time for the rest; as
    long as it took, where it went on after its call.
    """

    log = Logger()

    def __init__(self, reactor: Any, interval: float, work: Callable[[], Deferred[None] | None], name: str, pause: float = 0.0) -> None:
        self._reactor = reactor
        self._interval = interval
        self._work = work
        self._name = name
        self._pause = pause
        self._next: DelayedCall | None = None
        self._kicked = self._working = False
        self._began = self._ended = float("-inf")
        self._took = 0.0
        self.running = False

    def start(self) -> None:
        self.running = True
        self.kick()

    def stop(self) -> None:
        self.running = self._kicked = False
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None

    def kick(self) -> None:
        """A round is wanted now."""
        if self.running and not self._kicked:
            self._kicked = True
            if self._working:
                return
            wait = self._ended + max(self._pause, 2 * self._took) - self._reactor.seconds()
            self._plan(min(max(0.0, wait), self._interval))  # the clock may have jumped

    def _plan(self, delay: float) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = self._reactor.callLater(delay, self._round)

    def _round(self) -> None:
        self._kicked, self._working = False, True
        self._began = self._reactor.seconds()
        work: Deferred[Any] = maybeDeferred(self._work)
        self._took = self._reactor.seconds() - self._began
        work.addErrback(self._failed)
        work.addCallback(self._end)

    def _failed(self, failure: Failure) -> None:
        self.log.failure("a round of {name} failed; the next is in {interval} s", failure, name=self._name, interval=self._interval)

    def _end(self, _: object) -> None:
        self._working = False
        self._ended = self._reactor.seconds()
        self._took = max(self._took, (self._ended - self._began) / 2)  # what goes on in a thread takes half of our time
        if not self.running:
            return
        if self._kicked:
            self._kicked = False
            self.kick()
        else:
            self._plan(self._interval)
