"""What the hosts of a cluster are and offer, as columns: all that no plan changes, so that it serves from one pass to the next."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.scheduling.filters import OF_ITS_SORT, OF_THE_HOST, TARGET, Filter, objection, sort_of
from tashi.scheduling.room import Room
from tashi.scheduling.snapshot import SchedulingSettings
from tashi.scheduling.terms import is_true

Column = NDArray[Any]
_MOST_KINDS: Final = 256
"""Of how many kinds of instances it is remembered which hosts they may be on."""


class Machines:
    """Hosts in the order of their ids. A *place* is an index into the columns. Memory in MB, speed in MHz, over-rates counted in."""

    def __init__(self, hosts: Mapping[int, Host], settings: SchedulingSettings) -> None:
        self._by_id, self._settings = hosts, settings
        self.hosts = [hosts[host_id] for host_id in sorted(hosts)]
        self.ids = np.array([host.id for host in self.hosts], dtype=np.int64)
        self.place_of = {host.id: place for place, host in enumerate(self.hosts)}
        facts = [(0, 0, 0) if one is None else (one.memory, one.cores, one.cpu_speed) for one in (host.facts for host in self.hosts)]
        offered = np.array(facts, dtype=np.int64).reshape(-1, 3)
        self.memory, self.largest, self.megahertz = (np.ascontiguousarray(offered[:, row]) for row in range(3))
        self.cores = self.largest * settings.cpu_cores_over_rate
        if any(host.strays for host in self.hosts):
            known = np.array([host.facts is not None for host in self.hosts])
            self.memory = self.memory - known * np.array([host.stray_memory for host in self.hosts], dtype=np.int64)
            self.cores = self.cores - known * np.array([host.stray_cores for host in self.hosts], dtype=np.int64)
        self.speed = self.largest * self.megahertz * settings.cpu_speed_over_rate
        self.reserved = any(host.reserved for host in self.hosts)
        sorts: dict[Hashable, int] = {}
        self._sort_at = np.array([sorts.setdefault(sort_of(host), len(sorts)) for host in self.hosts], dtype=np.intp)
        _, first = np.unique(self._sort_at, return_index=True)
        self._sorts = [Room(self.hosts[place], settings) for place in first]
        self._allowed: dict[Hashable, Column] = {}

    def serve(self, hosts: Mapping[int, Host], settings: SchedulingSettings) -> bool:
        """Whether these are the columns of such hosts under such settings."""
        return settings == self._settings and hosts == self._by_id

    def named(self, target: str) -> list[int]:
        """The places of the hosts that a targetHost means: by name or by id."""
        return self._named.get(target, [])

    def allowed(self, instance: Instance, filters: tuple[Filter, ...]) -> Column:
        """Which hosts may take it as far as they themselves are asked, whoever is there and however full they are."""
        hints, user = instance.hints, instance.user_id if self.reserved else None
        terms = (hints.get("location"), hints.get("auditability")) if hints else None
        key = (filters, user, tuple(nic.network for nic in instance.nics), terms)
        known = self._allowed.get(key)
        if known is None:
            if len(self._allowed) >= _MOST_KINDS:
                self._allowed.clear()
            asked = tuple(one for one in filters if one in OF_ITS_SORT)
            answers = [objection(instance, room, asked) is None for room in self._sorts]
            known = self._allowed[key] = np.array(answers, dtype=bool)[self._sort_at]
        if instance.refused_by or instance.residue or "targetHost" in hints:
            known = self._without(known, instance, filters)
        return known

    def _without(self, allowed: Column, instance: Instance, filters: tuple[Filter, ...]) -> Column:
        """The same, but for those that are refused by who they are."""
        asked = tuple(one for one in filters if one in OF_THE_HOST and one not in OF_ITS_SORT)
        target = instance.hints.get("targetHost")
        if target is not None and TARGET in filters and not is_true(instance.hints.get("allowElsewhere")):
            chosen, at = np.zeros_like(allowed), self.named(target)
            chosen[at] = allowed[at]
        else:
            chosen = allowed.copy()
        for host_id in (*instance.refused_by, *(one.host_id for one in instance.residue)):
            place = self.place_of.get(host_id)
            if place is not None and chosen[place]:
                chosen[place] = objection(instance, Room(self.hosts[place], self._settings), asked) is None
        return chosen

    @cached_property
    def _named(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place, host in enumerate(self.hosts):
            for name in {host.name, str(host.id)}:
                found.setdefault(name, []).append(place)
        return found

    @cached_property
    def in_order_of_names(self) -> list[int]:
        """The places, as their hosts are listed for people."""
        return sorted(range(len(self.hosts)), key=lambda place: self.hosts[place].name)
