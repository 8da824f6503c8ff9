"""The hosts of a snapshot as columns: numbers of all of them side by side, so that a plan need not walk them one by one.

The columns are for finding hosts quickly; whether a host takes an instance, and why not, is what the filters say of its room.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np

from tashi.model.instance import Instance
from tashi.scheduling.filters import ISOLATION, NOW, OF_NEIGHBOURS, Filter, homes_of, is_torn, objection
from tashi.scheduling.load import demand
from tashi.scheduling.machines import Column, Machines
from tashi.scheduling.room import NAMED, Room, Rooms
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import APART, GROUP, WITH, can_move, is_pinned, is_resting, is_tied, wants_isolation

__all__ = ["EVERYWHERE", "Column", "Fleet"]

EVERYWHERE: Final = slice(None)
"""All places. What is asked of a fleet for some places only takes their indices, or one of them."""


class Limits(NamedTuple):
    """For one kind of instance and each host: how much of it may be taken already. ``speed`` is None when none is reserved; ``apart`` are
    its user and whether it is to be alone, when that matters to anybody."""

    memory: Column
    cores: Column
    speed: Column | None
    apart: tuple[int, bool] | None


class Fleet:
    """Hosts in the order of their ids. A *place* is an index into the columns. Memory in MB, speed in MHz.

    ``memory``, ``cores``, ``speed`` are what each offers, ``used_...`` what is taken of it, ``count`` how many take it; ``busy`` is MHz in
    use or reserved, whichever is more of each instance. `add`, `remove` and `move` keep them true while a plan is made; ``changes`` are
    the places of which they have spoken so far. An ``earlier`` fleet of the same hosts, whatever was done with it, saves repeating work.
    """

    def __init__(self, snapshot: Snapshot, earlier: Fleet | None = None) -> None:
        self.snapshot = snapshot
        kept = earlier is not None and earlier.machines.serve(snapshot.hosts, snapshot.settings)
        self.machines: Machines = earlier.machines if earlier is not None and kept else Machines(snapshot.hosts, snapshot.settings)
        self.hosts, self.place_of = self.machines.hosts, self.machines.place_of
        self.memory, self.cores, self.speed = self.machines.memory, self.machines.cores, self.machines.speed
        self.largest, self.megahertz = self.machines.largest, self.machines.megahertz
        self.rooms = Rooms(snapshot)
        self.changes: list[int] = []
        loads = [self.rooms.load(host.id) for host in self.hosts]
        self.used_memory = np.array([load.memory for load in loads], dtype=np.int64)
        self.used_cores = np.array([load.cores for load in loads], dtype=np.float64)
        self.used_speed = np.array([load.speed for load in loads], dtype=np.float64)
        self.count = np.array([load.count for load in loads], dtype=np.int64)
        self._isolated = any(load.isolated for load in loads)
        self._tied = any(load.tied for load in loads)
        self._busy_before = self._measured(earlier if kept else None)
        self.busy = self._busy_before.copy()
        ratings = snapshot.ratings
        self.rating = np.array([ratings.get(host.id, 0) for host in self.hosts] if ratings else np.zeros(len(loads)), dtype=np.int64)

    def room(self, place: int) -> Room:
        """The account of one host, to ask the filters with."""
        room = self.rooms.of(self.hosts[place].id)
        assert room is not None
        return room

    def busy_of(self, instance: Instance) -> int:
        """MHz that this instance uses or has reserved, whichever is more."""
        usage = self.snapshot.usage.get(instance.host_id) if instance.host_id is not None else None
        return instance.cores * (instance.cpu_speed or 0) if usage is None else usage.speed((instance,))

    def fitting(self, instance: Instance, filters: tuple[Filter, ...] = NOW) -> Column:
        """Which hosts may take it as far as the columns tell, as booleans; `objection` has the last word."""
        fits = self.roomy(self.limits(instance, filters))
        tied = self.tied(instance, filters)
        return fits if tied is None else fits & tied

    def limits(self, instance: Instance, filters: tuple[Filter, ...] = NOW) -> Limits:
        """How much may be taken of each host already for it to fit beside that; nothing that is placed changes this."""
        memory, cores, speed = demand(instance)
        possible = self.machines.allowed(instance, filters) & (cores <= self.largest)
        if speed:
            possible &= (instance.cpu_speed or 0) <= self.megahertz
        alone = wants_isolation(instance)
        apart = (instance.user_id, alone) if ISOLATION in filters and (alone or self._isolating) else None
        return Limits(
            np.where(possible, self.memory - memory, -1), self.cores - cores, self.speed - speed if speed else None, apart
        )  # fmt: skip

    def roomy(self, limits: Limits, places: Any = EVERYWHERE) -> Column:
        """Which hosts are within these limits now; of a host this changes only when it is among ``changes``."""
        fits: Column = self.used_memory[places] <= limits.memory[places]
        fits &= self.used_cores[places] <= limits.cores[places]
        if limits.speed is not None:
            fits &= self.used_speed[places] <= limits.speed[places]
        if limits.apart is not None:
            user, alone = limits.apart
            users, sole, isolated = (column[places] for column in self._users)
            fits &= ~(((users > 1) | ((users == 1) & (sole != user))) & (alone | (isolated > 0)))
        return fits

    def tied(self, instance: Instance, filters: tuple[Filter, ...] = NOW) -> Column | None:
        """Which hosts it may be on for what it, or others of it, have asked by name; None: on any."""
        hints, moves = instance.hints, instance.host_id in self.place_of
        if not self._tied and not (hints and (is_tied(instance) or (moves and GROUP in hints))):
            return None
        asked = tuple(one for one in filters if one in OF_NEIGHBOURS)
        homes = homes_of(hints[WITH], instance, self.rooms) if hints.get(WITH) else []
        torn = moves and is_torn(instance, self.rooms)
        near = set(self.rooms.counts(APART, instance.name))
        near.update(self.rooms.counts(NAMED, hints[APART]) if hints.get(APART) else ())
        near.update(self.rooms.counts(GROUP, hints[GROUP]) if moves and hints.get(GROUP) else ())
        if not asked or not (homes or torn or near):
            return None
        found: Column = np.full(len(self.hosts), not homes and not torn)
        for host_id in [*near, *homes, *((instance.host_id,) if instance.host_id is not None and torn else ())]:
            place = self.place_of[host_id]
            found[place] = objection(instance, self.room(place), asked) is None
        return found

    def tie_of(self, instance: Instance) -> Hashable:
        """What tells it from others with equal needs: nothing, or who it is when it, or others of it, have asked by name."""
        if not self._tied:
            return None
        named = is_tied(instance) or self.rooms.counts(APART, instance.name) or is_torn(instance, self.rooms)
        return instance.id if named else None

    def members(self, group: str) -> Column:
        """How many of a group are on each host."""
        counts: Column = np.zeros(len(self.hosts), dtype=np.int64)
        for host_id, count in self.rooms.counts(GROUP, group).items():
            counts[self.place_of[host_id]] = count
        return counts

    def alike(self, instance: Instance) -> Hashable:
        """What decides where an instance may go and how good each host is for it, but for its disks and for who asks by name."""
        return self.refused_alike(instance), self.busy_of(instance)

    def refused_alike(self, instance: Instance) -> Hashable:
        """What decides where an instance may go, but for its disks and for who asks by name: two with an equal one are refused alike."""
        user = instance.user_id if self.machines.reserved or self._isolating else None
        networks = tuple(nic.network for nic in instance.nics)
        failures = (instance.refused_by, instance.reason) if instance.refused_by else ()
        hints = tuple(sorted(instance.hints.items())) if instance.hints else ()
        return demand(instance), user, networks, failures, instance.residue, hints

    def objection(self, instance: Instance, place: int, filters: tuple[Filter, ...] = NOW) -> str | None:
        """Why this host does not take this instance; None: it does."""
        return objection(instance, self.room(place), filters)

    def add(self, instance: Instance, place: int) -> None:
        """The instance is there, or promised to be."""
        self.room(place).add(instance)
        self._change(instance, place, 1)

    def remove(self, instance: Instance, place: int) -> None:
        """The instance is there no longer."""
        self.room(place).remove(instance)
        self._change(instance, place, -1)

    def move(self, instance: Instance, source: int, target: int) -> None:
        """The instance has gone from one to the other."""
        self.remove(instance, source)
        self.add(instance, target)

    def movable(self, place: int) -> list[Instance]:
        """Those that may be moved off a host now: running, with nothing else to do, not moved within the cooldown, and not there because
        they have asked for this host alone."""
        now, cooldown = self.snapshot.time, self.snapshot.settings.cooldown
        return [one for one in self.room(place).residents if can_move(one) and not is_pinned(one) and not is_resting(one, now, cooldown)]

    def _change(self, instance: Instance, place: int, by: int) -> None:
        memory, cores, speed = demand(instance)
        self.used_memory[place] += by * memory
        self.used_cores[place] += by * cores
        self.used_speed[place] += by * speed
        self.count[place] += by
        self.busy[place] += by * max(self.busy_of(instance), speed)
        self.changes.append(place)
        if instance.hints:
            self._isolated |= wants_isolation(instance)
            self._tied |= is_tied(instance)
        if "_users" in self.__dict__:
            self._note_users(place)

    @cached_property
    def _users(self) -> tuple[Column, Column, Column]:
        """How many users have instances on each host, which one has when it is one, and how many instances ask to be alone."""
        loads = [self.rooms.load(host.id) for host in self.hosts]
        users = np.array([len(load.users) for load in loads], dtype=np.int64)
        sole = np.array([next(iter(load.users), 0) for load in loads], dtype=np.int64)
        return users, sole, np.array([load.isolated for load in loads], dtype=np.int64)

    def _note_users(self, place: int) -> None:
        load = self.rooms.load(self.hosts[place].id)
        for column, value in zip(self._users, (len(load.users), next(iter(load.users), 0), load.isolated), strict=True):
            column[place] = value

    @cached_property
    def _isolating(self) -> bool:
        """Whether it matters to anybody whose the others on a host are."""
        return self._isolated or any(one.hints and wants_isolation(one) for one in self.snapshot.pending)

    def _measured(self, earlier: Fleet | None) -> Column:
        """MHz in use or reserved on each host; of one of which nothing new is known it is what it was."""
        busy = self.used_speed.copy()
        for host_id, measured in self.snapshot.usage.items():
            place = self.place_of.get(host_id)
            if place is None:
                continue
            guests = self.rooms.guests(host_id)
            same = earlier is not None and earlier.snapshot.usage.get(host_id) is measured and earlier.rooms.guests(host_id) == guests
            busy[place] = earlier._busy_before[place] if earlier is not None and same else measured.speed(guests)
        return busy
