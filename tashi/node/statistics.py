"""The agent's look at what its instances use: one call every interval, and what two of them make told.

A call that has not returned when the next is due has that one skipped; then it is given up and the next goes beside it, for libvirt
passes over the guest that hangs the first one. With too many such guests nothing is told until one of them goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from tashi.model.statistics import DAY, Sample, Statistics, statistics_between

MOST_CALLS: Final = 5
"""At once: libvirtd carries out so many of one connection."""


class Sampling:
    """``ask`` takes a sample, or returns None when there is nothing to ask; ``tell`` is given each result. Interval 0 s: never."""

    log = Logger()

    def __init__(
        self, reactor: Any, interval: float, ask: Callable[[], Deferred[Sample] | None], tell: Callable[[Statistics], None]
    ) -> None:
        self._interval = min(interval, DAY)
        self._ask = ask
        self._tell = tell
        self._before: Sample | None = None
        self._call: object | None = None
        self._late = False
        self._given_up = 0
        self._why = ""  # there are no statistics, as far as it was logged
        self._loop = task.LoopingCall(self._next)
        self._loop.clock = reactor

    def start(self) -> None:
        """Begin, if there is an interval."""
        if self._interval:
            self._loop.start(self._interval)

    def stop(self) -> None:
        """Ask no more; what is still under way is not told."""
        if self._loop.running:
            self._loop.stop()
        self._call = None

    def _next(self) -> None:
        if self._call is not None:
            if not self._late:
                self._late = True
                self.log.warn("libvirt has not told what instances use for {seconds:g} s; one look is skipped", seconds=self._interval)
                return
            if self._given_up == MOST_CALLS - 1:
                return
            self._given_up += 1
            self._call = None
        self._late = False
        answer = self._ask()
        if answer is not None:
            call = self._call = object()
            answer.addBoth(self._answered, call)

    def _answered(self, answer: Sample | Failure, call: object) -> None:
        if call is not self._call:  # it was given up, and what it says is old
            self._given_up = max(0, self._given_up - 1)
            return
        self._call = None
        if isinstance(answer, Failure):
            why = answer.getErrorMessage()
            if why != self._why:
                self.log.warn("what instances use is not known: {why}", why=why)
            self._why = why
            return
        self._why = ""
        before, self._before = self._before, answer
        statistics = statistics_between(before, answer, self._interval) if before is not None else None
        if statistics is not None:
            self._tell(statistics)
