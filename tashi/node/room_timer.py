"""When to look again whether a guest that was paused for want of space can continue: soon at first, then less and less often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tashi.node.life import Key

FIRST_SECONDS: Final = 3.0
LONGEST_SECONDS: Final = 60.0


class RoomTimer:
    """Calls ``look`` with an instance's id and incarnation some time after `wait` was called with it."""

    def __init__(self, clock: Any, look: Callable[[Key], None]) -> None:
        self._clock = clock
        self._look = look
        self._delays: dict[Key, tuple[float, float]] = {}  # by instance: the last delay, and when it ended
        self._waiting: dict[Key, Any] = {}  # the calls to come

    def wait(self, key: Key) -> None:
        """Have this instance looked at later; twice as late as the last time, unless that was long ago."""
        if key in self._waiting:
            return
        now = self._clock.seconds()
        last, ended = self._delays.get(key, (0.0, 0.0))
        recent = last > 0 and now - ended < LONGEST_SECONDS
        delay = min(2 * last, LONGEST_SECONDS) if recent else FIRST_SECONDS
        self._delays[key] = delay, now + delay
        self._waiting[key] = self._clock.callLater(delay, self._due, key)

    def forget(self, key: Key) -> None:
        """The instance is no more."""
        self._delays.pop(key, None)
        call = self._waiting.pop(key, None)
        if call is not None:
            call.cancel()

    def stop(self) -> None:
        """Look at nothing more."""
        for key in list(self._waiting):
            self.forget(key)

    def _due(self, key: Key) -> None:
        del self._waiting[key]
        self._look(key)
