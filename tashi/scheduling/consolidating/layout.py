"""A fleet's hosts that take part in consolidating, and the instances that may leave them, by kind: numbers to pack with.

Two instances are of one kind when they take the same and may be on the same hosts, so that it does not matter which of them is where. What
depends on neighbours is left out: a host with an instance that asked for isolation takes no part, and one with any that have asked, or
are asked for, by name or group is not emptied here.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from tashi.model.instance import Instance
from tashi.scheduling.consolidating.bounds import Integers, as_integers, with_residents
from tashi.scheduling.consolidating.packing import Mask, Order
from tashi.scheduling.filters import TO_BETTER
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.load import demand
from tashi.scheduling.terms import GROUP, hypervisor_of, is_ready, is_true


class Layout:
    """A *bin* is an index into ``places``: hosts in service that hold something. ``whole`` are those that everything may leave.

    ``instances`` are what the whole bins hold, ``kind_of`` and ``bin_of`` each one's kind and bin. ``sizes`` is what one of a kind takes of
    memory (MB), cores and speed (MHz); ``allowed`` says for each kind which bins it may be in. ``capacity`` is what a bin offers, ``free``
    what is left of it now.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        places = [place for place in range(len(fleet.hosts)) if _takes_part(fleet, place)]
        self.places: Order = np.array(places, dtype=np.intp)
        offered = np.stack([fleet.memory, fleet.cores, fleet.speed], axis=1)[self.places]
        used = np.stack([fleet.used_memory, fleet.used_cores, fleet.used_speed], axis=1)[self.places]
        self.capacity: Integers = as_integers(offered)
        self.free: Integers = as_integers(offered - used)
        self.load: Integers = used.astype(np.int64)
        self.whole: Mask = np.array([_may_all_leave(fleet, place) for place in places], dtype=bool)
        self._group()
        while self._leave_out_homeless():
            self._group()

    def _group(self) -> None:
        """Find the kinds of what the whole bins hold."""
        known: dict[Hashable, int] = {}
        masks: dict[bytes, tuple[int, Mask]] = {}
        rows: dict[Hashable, tuple[int, Mask]] = {}
        self.instances: list[Instance] = []
        sizes: list[tuple[int, int, int]] = []
        kinds: list[int] = []
        bins: list[int] = []
        self.allowed: list[Mask] = []
        terms = _Terms(self.fleet, self.places)
        for bin_, place in enumerate(self.places.tolist()):
            if not self.whole[bin_]:
                continue
            hypervisor = hypervisor_of(self.fleet.hosts[place])
            for instance in sorted(self.fleet.movable(place), key=_by_id):
                size, term = demand(instance), (hypervisor, *terms.of(instance))
                if term not in rows:
                    row = terms.allowed(instance, hypervisor)
                    rows[term] = masks.setdefault(row.tobytes(), (len(masks), row))
                which, row = rows[term]
                kind = known.setdefault((size, which), len(known))
                if kind == len(sizes):
                    sizes.append(size)
                    self.allowed.append(row)
                self.instances.append(instance)
                kinds.append(kind)
                bins.append(bin_)
        self.sizes: Integers = np.array(sizes, dtype=np.int64).reshape(-1, 3)
        self.kind_of: Order = np.array(kinds, dtype=np.intp)
        self.bin_of: Order = np.array(bins, dtype=np.intp)
        self.terms: list[Mask] = [row for _, row in masks.values()]

    def _leave_out_homeless(self) -> bool:
        """A bin that holds what no bin would take, were it empty, is not whole after all; whether there were any."""
        homeless = [
            not ((self.capacity >= size) | (size == 0)).all(axis=1)[row].any() for size, row in zip(self.sizes, self.allowed, strict=True)
        ]
        bins = np.unique(self.bin_of[np.array(homeless, dtype=bool)[self.kind_of]]) if any(homeless) else self.bin_of[:0]
        self.whole[bins] = False
        return bool(len(bins))

    def room(self, bin_: int) -> Integers:
        """What it has for instances that move, when those that may leave it have left."""
        return np.asarray((self.capacity if self.whole[bin_] else self.free)[bin_])

    def members(self, opened: Mask) -> dict[tuple[int, int], list[Instance]]:
        """Those in the opened bins, by kind and bin, by id."""
        found: dict[tuple[int, int], list[Instance]] = {}
        for index in np.flatnonzero(opened[self.bin_of]).tolist():
            found.setdefault((int(self.kind_of[index]), int(self.bin_of[index])), []).append(self.instances[index])
        return found

    def alike(self) -> Order:
        """A number for each bin: equal ones offer the same to all kinds."""
        columns = np.column_stack([self.capacity, *(row.astype(np.int64) for row in self.terms)])
        return np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1)


class _Terms:
    """What, beside its size, decides where an instance may be; only what makes a difference between these hosts counts."""

    def __init__(self, fleet: Fleet, places: Order) -> None:
        self._fleet, self._places = fleet, places
        hosts = [fleet.hosts[place] for place in places.tolist()]
        self._reservations = sorted({host.reserved for host in hosts if host.reserved})
        self._reserved: dict[int, Hashable] = {}
        self._cores = int(fleet.largest[places].min(initial=np.iinfo(np.int64).max))
        self._megahertz = int(fleet.megahertz[places].min(initial=np.iinfo(np.int64).max))
        self._hypervisors = np.array([hypervisor_of(host) for host in hosts], dtype=object)

    def of(self, instance: Instance) -> tuple[Hashable, ...]:
        """Equal for two that may be on the same hosts."""
        _, cores, speed = demand(instance)
        return (
            self._reserved_for(instance.user_id),
            tuple(sorted({nic.network for nic in instance.nics})),
            instance.hints.get("location"),
            is_true(instance.hints.get("auditability")),
            instance.refused_by,
            cores if cores > self._cores else 0,
            speed // cores if speed > cores * self._megahertz else 0,
        )

    def _reserved_for(self, user_id: int) -> Hashable:
        """Which reservations name this user."""
        known = self._reserved.get(user_id)
        if known is None:
            known = self._reserved[user_id] = tuple(which for which, users in enumerate(self._reservations) if user_id in users)
        return known

    def allowed(self, instance: Instance, hypervisor: str) -> Mask:
        """Which bins may have it, were they empty and big enough."""
        _, cores, speed = demand(instance)
        allowed: Mask = self._fleet.machines.allowed(instance, TO_BETTER) & (cores <= self._fleet.largest)
        allowed = (allowed & (speed <= cores * self._fleet.megahertz))[self._places] & (self._hypervisors == hypervisor)
        return allowed


def fewest_hosts(fleet: Fleet) -> int:
    """No plan that leaves empty hosts empty could do with fewer: what cannot move stays, each hypervisor's instances stay on its hosts."""
    groups: dict[str, _Group] = {}
    for place in np.flatnonzero(fleet.count).tolist():
        group = groups.setdefault(hypervisor_of(fleet.hosts[place]), _Group([], [], [], []))
        used = np.array([fleet.used_memory[place], fleet.used_cores[place], fleet.used_speed[place]]).astype(np.int64)
        offered = as_integers(np.array([fleet.memory[place], fleet.cores[place], fleet.speed[place]]))
        capacity = np.maximum(offered, used) if is_ready(fleet.hosts[place]) else used
        leaving = np.array([demand(one) for one in movables(fleet, place)], dtype=np.int64).reshape(-1, 3)
        group.sizes.extend(leaving)
        if len(leaving) < fleet.count[place]:
            group.residents.append(used - leaving.sum(axis=0))
            group.left.append(capacity - group.residents[-1])
        else:
            group.capacities.append(capacity)
    return sum(with_residents(*(np.array(rows, dtype=np.int64).reshape(-1, 3) for rows in group)) for group in groups.values())


class _Group(NamedTuple):
    """The hosts of one hypervisor and what is on them, as `with_residents` asks for them."""

    sizes: list[Integers]
    capacities: list[Integers]
    residents: list[Integers]
    left: list[Integers]


def movables(fleet: Fleet, place: int) -> list[Instance]:
    """Those that may leave this host in a plan that has not moved them yet."""
    return [one for one in fleet.movable(place) if one.host_id == fleet.hosts[place].id] if is_ready(fleet.hosts[place]) else []


def _takes_part(fleet: Fleet, place: int) -> bool:
    return bool(fleet.count[place]) and is_ready(fleet.hosts[place]) and not fleet.room(place).load.isolated


def _may_all_leave(fleet: Fleet, place: int) -> bool:
    leaving = movables(fleet, place)
    return len(leaving) == fleet.count[place] and not any(GROUP in one.hints or fleet.tie_of(one) is not None for one in leaving)


def _by_id(instance: Instance) -> int:
    return instance.id
