"""Memory for the more important: what runs is shrunk for what waits, and grown back when there is room again. Nobody is ended.

The room that a shrink frees is there when its host has done it: the plan that orders it places nobody in it. Until then it is *coming*,
and whoever it is freed for is counted as if it were there, so that nothing else takes the room and no later pass frees it twice.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from typing import Final

import msgspec
import numpy as np

from tashi.model.instance import Instance, Resources, Task
from tashi.model.states import InstanceState
from tashi.scheduling.fleet import Column, Fleet
from tashi.scheduling.load import demand
from tashi.scheduling.plan import Grow, Postpone, Shrink
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import can_move, persistent_disks

RETRY_AFTER: Final = 600.0
"""Seconds for which a guest is left alone that did not give back memory, or did not take it."""
LEAST_STEP: Final = 16
"""MB that a guest is shrunk or grown by at least: a balloon may stop a little short of what it was set to. Only the last step of growing,
to all that it had, may be smaller."""
_ANY: Final = -(2**40)  # MB asked for by an instance to which memory is no matter


def squeeze(fleet: Fleet, postponed: Sequence[Postpone]) -> list[Shrink]:
    """What `Squeezing` does for all that wait, the most important first."""
    snapshot, squeezing = fleet.snapshot, Squeezing(fleet)
    names = {action.instance_id for action in postponed}
    waiting = sorted((one for one in snapshot.pending if one.id in names), key=lambda one: (-snapshot.priority(one), one.id))
    return [shrink for instance in waiting for shrink in squeezing.next(instance)]


class Squeezing:
    """Makes room while a plan is made; ask for one instance after another, by priority, before anything less important is placed.

    ``promised``: whether anybody counts as being where it has no room yet.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.promised = False
        self._hopeless: set[Hashable] = set()

    def next(self, instance: Instance) -> list[Shrink]:
        """Shrink just enough, to `LEAST_STEP`, on one host for this one, which fits nowhere; nothing when it lacks more than memory.

        The host where guests lose least is taken; of equal ones that where the fewest are shrunk, then the best rated. On a host the least
        important give first, and of equals whoever has most to give. The instance then counts as being there.
        """
        fleet, snapshot = self._fleet, self._fleet.snapshot
        kind = snapshot.priority(instance), fleet.refused_alike(instance)
        way = None if kind in self._hopeless or fleet.rooms.disks_in_use(instance) else self._memory.cheapest(instance)
        if way is None:
            if not persistent_disks(instance) and fleet.tied(instance) is None:
                self._hopeless.add(kind)  # there is only less to win while a plan is made
            return []
        shrinks: list[Shrink] = []
        for giver, limit in way.limits:
            why = f"to make room for {instance.name} (priority {snapshot.priority(instance)}, its own is {snapshot.priority(giver)})"
            shrinks.append(Shrink(instance_id=giver.id, memory=limit, why=why))
            _resize(fleet, giver, limit, way.place)
        fleet.add(instance, way.place)
        self.promised = True
        self._memory.changed(way.place)
        return shrinks

    @cached_property
    def _memory(self) -> _Memory:
        return _Memory(self._fleet)


def grow(fleet: Fleet) -> list[Grow]:
    """Give those that were shrunk back what they had, or a part of it: the most important first, and none for whose memory somebody more
    important waits. What moves away in this plan has not left yet."""
    snapshot, grown = fleet.snapshot, []
    shrunk = [
        (instance, place)
        for place in _places_of_shrunk(fleet)
        if (host := fleet.hosts[place]).up and not host.decayed
        for instance in fleet.room(place).residents
        if instance.shrunk_from is not None and instance.host_id == host.id and _can_resize(instance, snapshot)
    ]
    waiting = unplaced(fleet, snapshot.pending) if shrunk else []
    memory = _Memory(fleet) if waiting else None
    for instance, place in sorted(shrunk, key=lambda one: (-snapshot.priority(one[0]), one[0].id)):
        now, most = instance.resources.memory or 0, instance.shrunk_from or 0
        more_important = [one for one in waiting if snapshot.priority(one) > snapshot.priority(instance)]
        if now > most or (memory is not None and any(memory.could_win(one, place) for one in more_important)):
            continue
        free = int(fleet.memory[place] - fleet.used_memory[place]) - _leaving(fleet, place)
        # who was refused counts as grown, and is asked again
        limit = most if instance.taking(most) - instance.taken_memory <= free else min(most - 1, instance.taken_memory + free)
        if limit == most or limit >= now + LEAST_STEP:
            why = f"{free} MB are free on {fleet.hosts[place].name}, and it had {most} MB before it was shrunk"
            grown.append(Grow(instance_id=instance.id, memory=limit, why=why))
            _resize(fleet, instance, limit, place)
            if memory is not None:
                memory.changed(place)
    return grown


def unplaced(fleet: Fleet, instances: Iterable[Instance]) -> list[Instance]:
    """Those of them that no host has been found for yet, nor room that is coming; those that wait for a disk are left out."""
    here = {one.id for place in set(fleet.changes) for one in fleet.room(place).residents}
    return [one for one in instances if one.id not in here and not fleet.rooms.disks_in_use(one)]


class _Way(msgspec.Struct, frozen=True, kw_only=True):
    """How room can be made on one host: who may use how many MB from now on, and how many they lose together."""

    place: int
    limits: tuple[tuple[Instance, int], ...]
    loss: int
    left_over: int


class _Memory:
    """What there is to win on each host: memory that is coming, and what those of lower priority can give."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._givers: dict[int, list[tuple[int, Instance]]] = {}
        self._columns: dict[int, tuple[Column, Column]] = {}
        self.coming = np.zeros(len(fleet.hosts), dtype=np.int64)
        for place in {*_places_of_shrunk(fleet), *fleet.changes}:
            self.coming[place] = self._coming_at(place)

    def cheapest(self, instance: Instance) -> _Way | None:
        """The host where room for it costs least, and how; None: no shrinking makes room for it."""
        priority = self._fleet.snapshot.priority(instance)
        winnable, idle = self._winnable(priority)
        short = self._short(instance)
        least = np.maximum(short - idle, 0)  # what guests lose at least
        places = np.flatnonzero(self._fleet.fitting(_weightless(instance)) & (short <= winnable))
        best: tuple[tuple[int, ...], _Way] | None = None
        for place in places[np.argsort(least[places], kind="stable")].tolist():
            if best is not None and least[place] > best[1].loss:
                break
            if self._fleet.objection(_weightless(instance), place) is not None:
                continue
            way = self._way(place, priority, int(short[place]))
            rank = (way.loss, len(way.limits), way.left_over, -int(self._fleet.rating[place]), place)
            if best is None or rank < best[0]:
                best = rank, way
        return None if best is None else best[1]

    def could_win(self, instance: Instance, place: int) -> bool:
        """Whether this host could be made to hold it."""
        winnable, _ = self._winnable(self._fleet.snapshot.priority(instance))
        return bool(self._short(instance)[place] <= winnable[place]) and self._fleet.objection(_weightless(instance), place) is None

    def changed(self, place: int) -> None:
        """Something else is there now."""
        self._givers.pop(place, None)
        self.coming[place] = self._coming_at(place)
        for priority, (winnable, idle) in self._columns.items():
            winnable[place], idle[place] = self._sums(place, priority)

    def _short(self, instance: Instance) -> Column:
        """MB that each host lacks for it when all that is coming has come."""
        fleet = self._fleet
        return fleet.used_memory + demand(instance)[0] - fleet.memory - self.coming

    def _way(self, place: int, priority: int, short: int) -> _Way:
        limits: list[tuple[Instance, int]] = []
        loss = 0
        for rank, giver in self._givers_at(place):
            if short <= 0 or rank >= priority:
                break
            now, taken = giver.resources.memory or 0, giver.taken_memory
            # whoever does without a part of what it takes gives all of that with the first step
            limit = max(min(now - LEAST_STEP, taken - short), self._fleet.snapshot.floor(giver))
            limits.append((giver, limit))
            loss += now - limit
            short -= taken - limit
        return _Way(place=place, limits=tuple(limits), loss=loss, left_over=-short)

    def _winnable(self, priority: int) -> tuple[Column, Column]:
        """MB that those below this priority can give on each host, and how much of that their guests do without already."""
        columns = self._columns.get(priority)
        if columns is None:
            sums = [self._sums(place, priority) for place in range(len(self._fleet.hosts))]
            given, idle = np.array(sums, dtype=np.int64).reshape(-1, 2).T.copy()
            columns = self._columns[priority] = given, idle
        return columns

    def _sums(self, place: int, priority: int) -> tuple[int, int]:
        givers = [giver for rank, giver in self._givers_at(place) if rank < priority]
        given = sum(giver.taken_memory - self._fleet.snapshot.floor(giver) for giver in givers)
        return given, sum(giver.taken_memory - (giver.resources.memory or 0) for giver in givers)

    def _givers_at(self, place: int) -> list[tuple[int, Instance]]:
        """Those that can be shrunk, each with its priority: who gives first stands first."""
        givers = self._givers.get(place)
        if givers is None:
            snapshot = self._fleet.snapshot
            host_id = self._fleet.hosts[place].id
            found = [
                (snapshot.priority(one), snapshot.floor(one) - one.taken_memory, one.id, one)
                for one in self._fleet.room(place).residents
                if one.host_id == host_id and _can_resize(one, snapshot) and snapshot.floor(one) + LEAST_STEP <= (one.resources.memory or 0)
            ]
            givers = self._givers[place] = [(rank, one) for rank, _, _, one in sorted(found, key=lambda each: each[:3])]
        return givers

    def _coming_at(self, place: int) -> int:
        """MB that those who are being shrunk there will have given back."""
        return sum(_coming(one) for one in self._fleet.room(place).residents if one.tasks and one.shrunk_from is not None)


def _coming(instance: Instance) -> int:
    """MB less that it takes when its tasks are done; a guest that stands still gives nothing back."""
    if instance.state is not InstanceState.Running:
        return 0
    limits = [task.adapt.memory for task in instance.tasks if task.adapt is not None and task.adapt.memory]
    return demand(instance)[0] - instance.taking(limits[-1]) if limits else 0


def _can_resize(instance: Instance, snapshot: Snapshot) -> bool:
    """Whether it runs, answers, has nothing else to do, and did as it was asked the last time."""
    failed = instance.resize_failed_at
    return can_move(instance) and not instance.decayed and not (failed and snapshot.time < failed + RETRY_AFTER)


def _resize(fleet: Fleet, instance: Instance, limit: int, place: int) -> None:
    """It has been asked to: it takes the more of what it has and what it will have, and has something to do."""
    shrunk_from = instance.resources.memory if instance.shrunk_from is None else instance.shrunk_from
    asked = Task(adapt=Resources(memory=limit))
    fleet.remove(instance, place)
    fleet.add(msgspec.structs.replace(instance, shrunk_from=shrunk_from, tasks=(asked,)), place)


def _weightless(instance: Instance) -> Instance:
    """The same, as if memory were no matter."""
    return msgspec.structs.replace(instance, memory=_ANY, memory_limit=None, shrunk_from=None)


def _places_of_shrunk(fleet: Fleet) -> list[int]:
    """Where there is anybody who has been shrunk, or is to be by an earlier plan."""
    placed = fleet.snapshot.placed
    return [
        fleet.place_of[host_id]
        for host_id, group in placed.items()
        if host_id in fleet.place_of and any(one.shrunk_from is not None for one in group)
    ]


def _leaving(fleet: Fleet, place: int) -> int:
    """MB of those that leave the host in this plan."""
    residents = {one.id for one in fleet.room(place).residents}
    before = fleet.snapshot.placed.get(fleet.hosts[place].id, ())
    return sum(demand(one)[0] for one in before if one.id not in residents)
