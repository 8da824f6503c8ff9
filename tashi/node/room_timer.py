"""When to look again whether a guest that was paused for want of space can continue: soon at first, then less and less often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

FIRST_SECONDS: Final = 3.0
LONGEST_SECONDS: Final = 60.0


class RoomTimer:
    """Calls ``look`` with an instance's id some time after `wait` was called with it."""

    def __init__(self, clock: Any, look: Callable[[int], None]) -> None:
        self._clock = clock
        self._look = look
        self._delays: dict[int, tuple[float, float]] = {}  # by instance: the last delay, and when it ended
        self._waiting: set[int] = set()

    def wait(self, instance_id: int) -> None:
        """Have this instance looked at later; twice as late as the last time, unless that was long ago."""
        if instance_id in self._waiting:
            return
        now = self._clock.seconds()
        last, ended = self._delays.get(instance_id, (0.0, 0.0))
        recent = last > 0 and now - ended < LONGEST_SECONDS
        delay = min(2 * last, LONGEST_SECONDS) if recent else FIRST_SECONDS
        self._delays[instance_id] = delay, now + delay
        self._waiting.add(instance_id)
        self._clock.callLater(delay, self._due, instance_id)

    def forget(self, instance_id: int) -> None:
        """The instance is no more."""
        self._delays.pop(instance_id, None)

    def _due(self, instance_id: int) -> None:
        self._waiting.discard(instance_id)
        self._look(instance_id)
