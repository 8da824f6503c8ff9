"""The hosts of a snapshot as columns: numbers of all of them side by side, so that a plan need not walk them one by one.

The columns are for finding hosts quickly; whether a host takes an instance, and why not, is what the filters say of its room.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tashi.model.instance import Instance
from tashi.scheduling.filters import FOR_A_MOVE, NOW, OF_THE_HOST, Filter, objection
from tashi.scheduling.load import HostUsage, demand
from tashi.scheduling.room import Room, guests_of, room_of
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import can_move, is_pinned, is_resting

Column = NDArray[Any]
_NOTHING: Final = HostUsage()
HINTS: Final = frozenset({"targetHost", "allowElsewhere", "location", "auditability"})
"""Those that decide on which hosts an instance may be, whoever else is there."""


class Fleet:
    """Hosts in the order of their ids. A *place* is an index into the columns. Memory in MB, speed in MHz.

    ``memory``, ``cores``, ``speed`` are what each offers, ``used_...`` what is taken of it, ``count`` how many take it; ``busy`` is MHz in
    use or reserved, whichever is more of each instance. `add`, `remove` and `move` keep them true while a plan is made.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.hosts = [snapshot.hosts[host_id] for host_id in sorted(snapshot.hosts)]
        self.place_of = {host.id: place for place, host in enumerate(self.hosts)}
        self._guests = guests_of(snapshot)
        self._rooms: dict[int, Room] = {}
        self._allowed: dict[Hashable, Column] = {}
        rooms = [self.room(place) for place in range(len(self.hosts))]
        self.memory = np.array([room.memory for room in rooms], dtype=np.int64)
        self.cores = np.array([room.cores for room in rooms], dtype=np.float64)
        self.speed = np.array([room.speed for room in rooms], dtype=np.float64)
        self.largest = np.array([room.largest for room in rooms], dtype=np.int64)
        self.megahertz = np.array([host.facts.cpu_speed if host.facts else 0 for host in self.hosts], dtype=np.int64)
        self.used_memory = np.array([room.load.memory for room in rooms], dtype=np.int64)
        self.used_cores = np.array([room.load.cores for room in rooms], dtype=np.float64)
        self.used_speed = np.array([room.load.speed for room in rooms], dtype=np.float64)
        self.count = np.array([room.load.count for room in rooms], dtype=np.int64)
        self.busy = np.array([self._busy(room) for room in rooms], dtype=np.float64)
        self.rating = np.array([snapshot.ratings.get(host.id, 0) for host in self.hosts], dtype=np.int64)

    def room(self, place: int) -> Room:
        """The account of one host, to ask the filters with."""
        room = self._rooms.get(place)
        if room is None:
            host = self.hosts[place]
            room = self._rooms[place] = room_of(self.snapshot, host, self._guests.get(host.id, ()))
        return room

    def busy_of(self, instance: Instance) -> int:
        """MHz that this instance uses or has reserved, whichever is more."""
        usage = self.snapshot.usage.get(instance.host_id or 0, _NOTHING)
        return usage.speed((instance,))

    def fitting(self, instance: Instance, filters: tuple[Filter, ...] = NOW) -> Column:
        """Which hosts may take it as far as the columns tell, as booleans; `objection` has the last word, on neighbours above all."""
        memory, cores, speed = demand(instance)
        fits = self._allowed_by(instance, filters)
        fits = fits & (self.used_memory + memory <= self.memory) & (self.used_cores + cores <= self.cores) & (cores <= self.largest)
        if speed:
            fits &= (self.used_speed + speed <= self.speed) & (speed <= cores * self.megahertz)
        return fits

    def objection(self, instance: Instance, place: int, filters: tuple[Filter, ...] = NOW) -> str | None:
        """Why this host does not take this instance; None: it does."""
        return objection(instance, self.room(place), filters)

    def add(self, instance: Instance, place: int) -> None:
        """The instance is there, or promised to be."""
        self._change(instance, place, 1)
        self.room(place).add(instance)

    def remove(self, instance: Instance, place: int) -> None:
        """The instance is there no longer."""
        self._change(instance, place, -1)
        self.room(place).remove(instance)

    def move(self, instance: Instance, source: int, target: int) -> None:
        """The instance has gone from one to the other."""
        self.remove(instance, source)
        self.add(instance, target)

    def movable(self, place: int) -> list[Instance]:
        """Those that may be moved off a host now: running, with nothing else to do, not moved within the cooldown, and not there because
        they have asked for this host alone."""
        now, cooldown = self.snapshot.time, self.snapshot.settings.cooldown
        return [one for one in self.room(place).residents if can_move(one) and not is_pinned(one) and not is_resting(one, now, cooldown)]

    def _allowed_by(self, instance: Instance, filters: tuple[Filter, ...]) -> Column:
        """Which hosts may take it as long as there is room, whoever is there already."""
        of_the_host = tuple(one for one in filters if one in OF_THE_HOST)
        key = (filters is FOR_A_MOVE, _kind(instance))
        known = self._allowed.get(key)
        if known is None:
            answers = [objection(instance, self.room(place), of_the_host) is None for place in range(len(self.hosts))]
            known = self._allowed[key] = np.array(answers, dtype=bool)
        return known

    def _change(self, instance: Instance, place: int, by: int) -> None:
        memory, cores, speed = demand(instance)
        self.used_memory[place] += by * memory
        self.used_cores[place] += by * cores
        self.used_speed[place] += by * speed
        self.count[place] += by
        self.busy[place] += by * max(self.busy_of(instance), speed)

    def _busy(self, room: Room) -> int:
        usage = self.snapshot.usage.get(room.host.id)
        return room.load.speed if usage is None else usage.speed(room.residents)


def _kind(instance: Instance) -> Hashable:
    """What decides on which hosts it may be at all."""
    networks = tuple(nic.network for nic in instance.nics)
    hints = tuple(sorted((name, instance.hints[name]) for name in instance.hints.keys() & HINTS))
    residue = tuple(one.host_id for one in instance.residue)
    failures = (instance.refused_by, instance.reason) if instance.refused_by else ()
    return instance.user_id, networks, hints, residue, failures
