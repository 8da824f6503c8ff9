"""Clocks: monotonic time for every timer, lease and deadline; the time of day only to show, to store and to judge stamps of others.

A program calls `use_monotonic_time` before it schedules anything. What waits for a peer waits in time in which the peer could be heard:
after the process was stopped (SIGSTOP, a suspended machine, a long pause) what arrived meanwhile is read before anybody is given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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


class LastResort:
    """A call that gives somebody up after these seconds: made in the turn after the sockets were read, so that what has arrived by then,
    also while this process was stopped, can cancel it."""

    def __init__(self, reactor: Any, seconds: float, give_up: Callable[[], object]) -> None:
        self._reactor = reactor
        self._give_up = give_up
        self._call = reactor.callLater(seconds, self._read_first)

    def active(self) -> bool:
        """Whether it is still to come."""
        return bool(self._call.active())

    def cancel(self) -> None:
        """Do not make the call."""
        self._call.cancel()

    def _read_first(self) -> None:
        self._call = self._reactor.callLater(0, self._give_up)


def within(answer: Deferred[Result], seconds: float, reactor: Any) -> Deferred[Result]:
    """Cancel the answer after these seconds, with TimeoutError; one that has arrived by then is read first."""
    is_late = False

    def give_up() -> None:
        nonlocal is_late
        is_late = True
        answer.cancel()

    def end(result: Any) -> Any:
        if late.active():
            late.cancel()
        if is_late and isinstance(result, Failure) and result.check(CancelledError):
            raise OutOfTime(seconds, "Deferred")
        return result

    late = LastResort(reactor, seconds, give_up)
    return answer.addBoth(end)
