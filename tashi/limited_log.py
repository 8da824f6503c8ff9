"""Log lines that somebody outside can cause: ten a minute for each source and kind, then one line with the count of the rest."""

from __future__ import annotations

from typing import Any, Final

from twisted.logger import Logger

LINES: Final = 10
SECONDS: Final = 60.0
MOST_WINDOWS: Final = 100
"""Pairs of source and kind that are counted apart; any further ones share one count."""


class LimitedLog:
    """A logger for what outsiders cause. ``clock``: the reactor, or a test's clock."""

    def __init__(self, clock: Any, log: Logger) -> None:
        self._clock = clock
        self._log = log
        self._windows: dict[tuple[str, str], _Window] = {}
        self._call: Any = None

    def warn(self, source: str, kind: str, format: str, /, **fields: Any) -> None:
        """Log this warning about what ``source`` did, or count it when there were ten of this kind within the
        minute. ``{source}`` stands for the source in ``format``."""
        if self._may(source, kind):
            self._log.warn(format, source=source, **fields)

    def failure(self, source: str, kind: str, format: str, /, **fields: Any) -> None:
        """Log the exception being handled with its traceback, under the same limit."""
        if self._may(source, kind):
            self._log.failure(format, source=source, **fields)

    def close(self) -> None:
        """Log the counts that are still open."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        for key in list(self._windows):
            self._end(key)

    def _may(self, source: str, kind: str) -> bool:
        now = self._clock.seconds()
        key = (source, kind)
        if key not in self._windows and len(self._windows) >= MOST_WINDOWS:
            self._end_old(now)
            if len(self._windows) >= MOST_WINDOWS:
                key = ("other sources", "any kind")
        window = self._windows.get(key)
        if window is not None and now >= window.end:
            self._end(key)
            window = None
        if window is None:
            window = self._windows[key] = _Window(now + SECONDS)
        window.lines += 1
        if window.lines > LINES and self._call is None:
            self._call = self._clock.callLater(window.end - now, self._tell)
        return window.lines <= LINES

    def _tell(self) -> None:
        self._call = None
        now = self._clock.seconds()
        self._end_old(now)
        ends = [window.end for window in self._windows.values() if window.lines > LINES]
        if ends:
            self._call = self._clock.callLater(max(0.0, min(ends) - now), self._tell)

    def _end_old(self, now: float) -> None:
        for key in [key for key, window in self._windows.items() if now >= window.end]:
            self._end(key)

    def _end(self, key: tuple[str, str]) -> None:
        more = self._windows.pop(key).lines - LINES
        if more > 0:
            self._log.warn("{source}: {more} more lines about {kind} were left out", source=key[0], kind=key[1], more=more)


class _Window:
    """What was logged of one kind about one source until ``end``."""

    def __init__(self, end: float) -> None:
        self.end = end
        self.lines = 0
