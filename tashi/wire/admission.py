"""Who may be in the middle of a login: at most eight connections a source and 64 in all, each for ten seconds.

A source is a user of this machine or an address of the network. The ninth connection of a source waits, unread, until one of the eight
has logged in or is closed. After a second it replaces one of them: the oldest that has sent nothing for a second, or else the oldest that
has had five seconds. Where there is none, it is refused. So neither idle connections nor a burst of clients keep anybody out for long.
Beyond 64, the source that has the most loses one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Final, Protocol

A_SOURCE: Final = 8
IN_ALL: Final = 64
LOGIN_SECONDS: Final = 10.0
GRACE_SECONDS: Final = 1.0
"""How long a connection waits for a place, and how long one that sends nothing has its place for sure."""
SLOW_SECONDS: Final = 5.0
"""How long a connection that has sent something has its place for sure: while many log in at once, each may take long."""
_LOOK: Final = 0.25


class Applicant(Protocol):
    """A connection that is not logged in."""

    @property
    def source(self) -> str:
        """Who is at the other end."""

    @property
    def heard(self) -> bool:
        """Whether it has sent anything."""

    def begin(self) -> None:
        """Read what the peer sends."""

    def end(self, why: str) -> None:
        """Close the connection."""


class Admission:
    """The connections of all listeners that are not logged in. ``reactor``: for its clock."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._places: dict[Applicant, _Place] = {}  # in the order of arrival
        self._look: Any = None

    def __len__(self) -> int:
        return len(self._places)

    def arrive(self, applicant: Applicant) -> None:
        """A new connection: it begins, waits, or is refused."""
        if len(self._places) >= IN_ALL:
            given_up = self._given_up_for(applicant)
            if given_up is None:
                applicant.end(f"{IN_ALL} connections are not logged in already")
                return
            self._end(given_up, f"more than {IN_ALL} connections that are not logged in, most of them from there")
        now = self._reactor.seconds()
        self._places[applicant] = _Place(arrived=now)
        self._begin_waiting(applicant.source)
        if self._look is None:
            self._look = self._reactor.callLater(_LOOK, self._check)

    def leave(self, applicant: Applicant) -> None:
        """The connection is logged in, or gone."""
        if self._places.pop(applicant, None) is not None:
            self._begin_waiting(applicant.source)
        if not self._places and self._look is not None:
            self._look.cancel()
            self._look = None

    def _of(self, source: str) -> list[tuple[Applicant, _Place]]:
        return [(one, place) for one, place in self._places.items() if one.source == source]

    def _begin_waiting(self, source: str) -> None:
        """Give the free places of this source to those that wait longest."""
        ours = self._of(source)
        free = A_SOURCE - sum(place.begun is not None for _, place in ours)
        for applicant, place in [one for one in ours if one[1].begun is None][: max(0, free)]:
            place.begun = self._reactor.seconds()
            applicant.begin()

    def _given_up_for(self, newcomer: Applicant) -> Applicant | None:
        """The connection that ends so that there is room for another one; None: the newcomer itself."""
        counts: dict[str, int] = {newcomer.source: 1}
        for one in self._places:
            counts[one.source] = counts.get(one.source, 0) + 1
        most = max(counts.values())
        if counts[newcomer.source] == most:
            return self._to_be_replaced((one, place.arrived) for one, place in self._places.items()) if most == 1 else None
        return next(one for one in reversed(self._places) if counts[one.source] == most)

    def _check(self) -> None:
        """End what has had its time."""
        self._look = self._reactor.callLater(_LOOK, self._check)
        now = self._reactor.seconds()
        for applicant, place in list(self._places.items()):
            if applicant not in self._places:
                continue
            if now - place.arrived >= LOGIN_SECONDS:
                self._end(applicant, f"it did not log in within {LOGIN_SECONDS:g} s")
            elif place.begun is None and now - place.arrived >= GRACE_SECONDS:
                began = [(one, other.begun) for one, other in self._of(applicant.source) if other.begun is not None]
                full = f"more than {A_SOURCE} connections of {applicant.source} that are not logged in"
                self._end(self._to_be_replaced(began) or applicant, full)

    def _to_be_replaced(self, since: Iterable[tuple[Applicant, float]]) -> Applicant | None:
        """The one that gives its place to another: the oldest that sends nothing, else the oldest that is slow; None: neither."""
        now, slow = self._reactor.seconds(), None
        for applicant, moment in sorted(since, key=lambda pair: pair[1]):
            if now - moment >= GRACE_SECONDS and not applicant.heard:
                return applicant
            if slow is None and now - moment >= SLOW_SECONDS:
                slow = applicant
        return slow

    def _end(self, applicant: Applicant, why: str) -> None:
        applicant.end(why)
        self.leave(applicant)


class _Place:
    """When a connection came, and since when it is read."""

    def __init__(self, arrived: float) -> None:
        self.arrived = arrived
        self.begun: float | None = None


def source_of(address: str) -> str:
    """The source that a network address belongs to: of IPv6 a subscriber has at least 64 bits' worth."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
