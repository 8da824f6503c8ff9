"""A loop that never dies: it runs when kicked and at least so often, never twice at once, and an exception only costs one round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.logger import Logger


class KickableLoop:
    """Calls ``work()`` at least every ``interval`` seconds once started, and soon after `kick`.

    Kicks of one reactor turn make one round. Rounds that follow each other closely are held ``pause`` seconds apart, so that a
    flood of kicks becomes a few large rounds, and twice as long as the last one took, so that large rounds leave time for the rest.
    """

    log = Logger()

    def __init__(self, reactor: Any, interval: float, work: Callable[[], None], name: str, pause: float = 0.0) -> None:
        self._reactor = reactor
        self._interval = interval
        self._work = work
        self._name = name
        self._pause = pause
        self._next: DelayedCall | None = None
        self._kicked = False
        self._ended = float("-inf")
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
            wait = self._ended + max(self._pause, 2 * self._took) - self._reactor.seconds()
            self._plan(min(max(0.0, wait), self._interval))  # the clock may have jumped

    def _plan(self, delay: float) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = self._reactor.callLater(delay, self._round)

    def _round(self) -> None:
        self._kicked = False
        began = self._reactor.seconds()
        try:
            self._work()
        except Exception:
            self.log.failure("a round of {name} failed; the next is in {interval} s", name=self._name, interval=self._interval)
        self._ended = self._reactor.seconds()
        self._took = self._ended - began
        if self.running and not self._kicked:
            self._plan(self._interval)
