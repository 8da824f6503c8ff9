"""The complete lists that each host has sent over the link it has now, and which instances they lack.

A list counts only when all its pages came in order over one link. An instance that one list lacks is in doubt; one that all lists of at
least ten seconds lack has ended. A new link begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from tashi.model.causes import Cause
from tashi.model.orders import Observation, Report, Seen

APART: Final = 10.0
"""Seconds between two complete lists that prove together that an instance has ended."""


class HostLists:
    """The lists over one link of one host."""

    def __init__(self) -> None:
        self._page = 0
        self._pages = 0  # of the list that is being sent; 0: none is
        self._listed: set[int] = set()
        self.keys: set[tuple[int, str]] = set()
        """The ids and incarnations of all that the last list named, whether in the records or not."""
        self._missing: dict[int, float] = {}  # since which list, in the clock's seconds

    def take(self, report: Report, is_known: Callable[[Observation], bool]) -> frozenset[int] | None:
        """Note what the report names; the ids of all that is listed when it completes a list, else None.

        What is reported between two pages is as good as listed. ``is_known`` tells whether an observation is of a domain in the records.
        """
        known = [observation for observation in report.observations if is_known(observation)]
        if report.full and report.page == 1:
            self._page, self._pages, self._listed, self.keys = 0, report.pages, set(), set()
        if report.full and self._pages:
            self._page += 1
            if (report.page, report.pages) != (self._page, self._pages):
                self._pages = 0  # a page is missing: this is no list
        for observation in known:
            if observation.seen in (Seen.RUNNING, Seen.PAUSED) or observation.cause is Cause.UNMARKED:
                self._missing.pop(observation.instance_id, None)
        if not self._pages:
            return None
        self.keys.update((one.instance_id, one.incarnation) for one in report.observations)
        self._listed.update(one.instance_id for one in known if one.seen is not Seen.MISSING or one.cause is Cause.UNMARKED)
        if not report.full or self._page != self._pages:
            return None
        self._pages = 0
        return frozenset(self._listed)

    def lack(self, instance_ids: Iterable[int], now: float) -> frozenset[int]:
        """Note that the list which is complete now lacks these; those that were lacking for ten seconds of lists."""
        self._missing = {number: self._missing.get(number, now) for number in instance_ids}
        return frozenset(number for number, since in self._missing.items() if now - since >= APART)
