"""When an agent lists all its instances again over one link: soon after the first time, then once in a while, and soon again when something
is missing. Two complete lists prove that what neither names has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred

APART: Final = 10.5
"""Seconds between two lists that are compared; the control plane requires ten."""
SOON: Final = 1.0
SELDOM: Final = 60.0


class Listing:
    """Calls ``list_all``, which handles its own failures, until it is stopped; the first list of the link was sent just now."""

    def __init__(self, reactor: Any, list_all: Callable[[], Deferred[None]]) -> None:
        self._reactor = reactor
        self._list_all = list_all
        self._delays = [APART]
        self._call: Any = None
        self._running = True
        self._wait(None)

    def hasten(self) -> None:
        """List soon, and once more when that can be compared."""
        self._delays = [SOON, APART]
        if self._call is not None:
            self._call.cancel()
            self._call = None
            self._wait(None)

    def stop(self) -> None:
        """List no more; a list that is being sent is not finished."""
        self._running = False
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait(self, ignored: object) -> None:
        if self._running:
            self._call = self._reactor.callLater(self._delays.pop(0) if self._delays else SELDOM, self._list)

    def _list(self) -> None:
        self._call = None
        self._list_all().addBoth(self._wait)
