"""Clocks: monotonic time for every timer, lease and deadline; the time of day only to show, to store and to judge stamps of others.

A program calls `use_monotonic_time` before it schedules anything. What waits for a peer waits in time in which the peer could be heard:
after the process was stopped (SIGSTOP, a suspended machine, a long pause) what arrived meanwhile is read before anybody is given up.
"""

from __future__ import annotations

import time
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as OutOfTime
from twisted.python.failure import Failure

Result = TypeVar("Result")

LONGEST_STEP: Final = 1.5
"""Seconds by which an `AwakeClock` grows at most between two looks."""


class Clock(Protocol):
    """Seconds of some clock: the reactor's, the time of day, or a test's."""

    def seconds(self) -> float: ...


class WallClock:
    """The time of day, in seconds since the epoch. It may jump; nothing is measured by it."""

    def seconds(self) -> float:
        """Return the time of day."""
        return time.time()


def use_monotonic_time(reactor: Any) -> None:
    """Make this reactor measure time by the monotonic clock, whatever happens to the time of day.

    RuntimeError when something is scheduled already: its time was taken from the other clock.
    """
    if reactor.seconds is time.monotonic:
        return
    if reactor.getDelayedCalls():
        raise RuntimeError("expected a reactor without scheduled calls; use_monotonic_time comes first in a program")
    reactor.seconds = time.monotonic


class AwakeClock:
    """Seconds in which this process could hear others: a reactor's clock that grows by at most LONGEST_STEP between two looks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counted = 0.0
        self._looked = clock.seconds()

    def seconds(self) -> float:
        """Return the seconds since this clock was made, without those in which the process was stopped."""
        return self._counted + min(max(0.0, self._clock.seconds() - self._looked), LONGEST_STEP)

    def look(self) -> None:
        """Note that the process is awake. Call it about once a second, after a turn of reading."""
        self._counted, self._looked = self.seconds(), self._clock.seconds()


def within(answer: Deferred[Result], seconds: float, reactor: Any) -> Deferred[Result]:
    """Cancel the answer after these seconds, with TimeoutError; one that has arrived by then is read first."""
    is_late = False
    call: Any = None

    def give_up() -> None:
        nonlocal is_late
        is_late = True
        answer.cancel()

    def read_first() -> None:
        nonlocal call
        call = reactor.callLater(0, give_up)

    def end(result: Any) -> Any:
        if call.active():
            call.cancel()
        if is_late and isinstance(result, Failure) and result.check(CancelledError):
            raise OutOfTime(seconds, "Deferred")
        return result

    call = reactor.callLater(seconds, read_first)
    return answer.addBoth(end)
