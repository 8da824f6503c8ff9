"""Wishes about where instances should be become moves in an order in which every step fits when it is taken.

Room is made before it is used. Where instances wait for each other in a circle, one of them makes a stop-over on a third host, the
smallest that will do on the emptiest host that takes it, and goes on from there. What cannot be done even so is refused in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Final

import msgspec
import numpy as np

from tashi.model.instance import Instance
from tashi.scheduling.filters import FOR_A_MOVE, OF_THE_HOST, objection
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.room import Room
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import can_move, hypervisor_of

_FOR_GOOD: Final = tuple(one for one in FOR_A_MOVE if one in OF_THE_HOST)
"""Filters whose objection no other move does away with."""


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """Moves as (instance id, host id), to be made one after the other; why wishes cannot be fulfilled, by instance id.

    An instance is moved twice only when its first move is a stop-over. One that is refused stays where it is.
    """

    moves: tuple[tuple[int, int], ...] = ()
    refused: Mapping[int, str] = {}


def in_order(snapshot: Snapshot, wanted: Mapping[int, int]) -> Ordered:
    """The moves that bring the instances to the hosts they are wished on, both by id; those wished first go first where they can.

    A wish for the host that an instance is on is fulfilled already. That an instance has moved lately is no matter here.
    """
    return _Order(snapshot, wanted).found()


class _Order:
    """The cluster as it is after the moves so far, and who waits for whom to leave."""

    def __init__(self, snapshot: Snapshot, wanted: Mapping[int, int]) -> None:
        self._snapshot = snapshot
        self._wanted = wanted
        self._rank = {number: rank for rank, number in enumerate(wanted)}
        self._fleet = Fleet(snapshot)
        self._moves: list[tuple[Instance, int, int]] = []  # who, from where, to where
        self._refused: dict[int, str] = {}
        placed = [one for group in snapshot.placed.values() for one in group if one.id in wanted]
        self._open = {one.id: one for one in sorted(placed, key=lambda one: self._rank[one.id])}  # whose wish is not fulfilled yet
        self._at = {one.id: one.host_id or 0 for one in placed}
        self._leaving: dict[int, dict[int, Instance]] = {}  # those that are yet to leave a host
        # Each open one is either blocked or ready to be tried, those first that others wait for. One that is blocked is in the heap of its
        # target, small ones first, or waits for others that are asked for by name.
        self._blocked: set[int] = set()
        self._waiting: dict[int, list[tuple[int, int, int]]] = {}
        self._tied: dict[int, Instance] = {}
        self._ready: list[tuple[bool, int, int]] = []

    def found(self) -> Ordered:
        """Take each step as soon as it fits, then break circles as long as that helps."""
        fitting = self._refuse_for_good()
        for instance in self._open.values():
            self._leaving.setdefault(self._at[instance.id], {})[instance.id] = instance
        for instance in self._open.values():
            if instance.id in fitting:
                self._try_later(instance)
            else:
                self._wait(instance)
        self._take_all()
        while self._stop_over_one() or self._stop_over_some():
            pass
        for instance in self._open.values():
            self._refused[instance.id] = self._why_not(instance)
        moves = tuple((instance.id, target) for instance, _, target in self._moves)
        return Ordered(moves=moves, refused=dict(sorted(self._refused.items())))

    def _refuse_for_good(self) -> set[int]:
        """Leave out what is fulfilled or can never be; the ids of those of the others that fit at once."""
        fitting: set[int] = set()
        for number in self._wanted.keys() - self._open.keys():
            self._refused[number] = "is on no host"
        for instance in list(self._open.values()):
            here, there = (self._snapshot.hosts.get(host) for host in (self._at[instance.id], self._wanted[instance.id]))
            reason: str | None = None
            if here is None or there is None:
                reason = f"there is no host {self._wanted[instance.id] if there is None else self._at[instance.id]}"
            elif not can_move(instance) and here is not there:
                reason = "has something else to do"
            elif hypervisor_of(here) != hypervisor_of(there):
                reason = f"{there.name} runs another hypervisor than {here.name}"
            elif here is not there and self._objection(instance) is None:
                fitting.add(instance.id)
            elif here is not there:
                words = objection(instance, self._room(there.id), _FOR_GOOD)
                reason = f"{there.name}: {words}" if words else None
            if reason is not None:
                self._refused[instance.id] = reason
            if reason is not None or here is there:
                del self._open[instance.id]
        return fitting

    def _take_all(self) -> None:
        """Take every step that fits, and those for which it makes room."""
        moved = True
        while self._ready or (self._tied and moved):
            if not self._ready:
                tied, self._tied, moved = self._tied, {}, False
                for one in tied.values():
                    self._unblock(one)
                continue
            instance = self._open.get(heappop(self._ready)[-1])
            if instance is None or instance.id in self._blocked:
                continue
            if self._objection(instance) is None:
                self._move(instance, self._wanted[instance.id])
                moved = True
            else:
                self._wait(instance)

    def _stop_over_one(self) -> bool:
        """Break circles by single stop-overs, small instances first; whether any wish was fulfilled by that."""
        done = len(self._open)
        for instance in sorted(self._open.values(), key=_size):
            if instance.id in self._open and self._lets_in(instance):
                self._stop_over((instance,))
        return len(self._open) < done

    def _stop_over_some(self) -> bool:
        """Break circles in which several must leave a host to let one in; whether any wish was fulfilled by that."""
        done = len(self._open)
        for instance in sorted(self._open.values(), key=_size):
            if instance.id in self._open:
                self._stop_over(self._in_the_way(instance))
        return len(self._open) < done

    def _lets_in(self, instance: Instance) -> bool:
        """Whether one that waits for its host would fit if it were gone."""
        host_id = self._at[instance.id]
        waiting = [self._open[number] for _, _, number in self._waiting.get(host_id, ()) if number in self._open]
        return bool(waiting) and self._fits_without((instance,), host_id, waiting)

    def _in_the_way(self, instance: Instance) -> Sequence[Instance]:
        """As many of those that are to leave its target as must, to let it in; nobody: even all are too few."""
        host_id = self._wanted[instance.id]
        leaving = sorted(self._leaving.get(host_id, {}).values(), key=_size)
        for count in range(1, len(leaving) + 1):
            if self._fits_without(leaving[:count], host_id, (instance,)):
                return leaving[:count]
        return ()

    def _fits_without(self, gone: Sequence[Instance], host_id: int, waiting: Iterable[Instance]) -> bool:
        room = self._room(host_id)
        for one in gone:
            room.remove(one)
        fits = any(objection(one, room, FOR_A_MOVE) is None for one in waiting)
        for one in gone:
            room.add(one)
        return fits

    def _stop_over(self, group: Sequence[Instance]) -> None:
        """Have these wait elsewhere until their targets have room; nothing is changed when they would not get there."""
        begun = len(self._moves)
        for instance in group:
            third = self._third(instance)
            if third is None:
                break
            self._move(instance, third)
        else:
            self._take_all()
            if not any(instance.id in self._open for instance in group):
                return
        tried = [self._open[number] for *_, number in self._ready if number in self._open]
        self._ready.clear()
        while len(self._moves) > begun:
            tried.append(self._take_back())
        for instance in tried:
            self._wait(instance)

    def _third(self, instance: Instance) -> int | None:
        """The emptiest host that takes it, other than the one it is on and the one it is to be on."""
        fleet, here = self._fleet, self._at[instance.id]
        free = np.where(fleet.fitting(instance, FOR_A_MOVE), fleet.memory - fleet.used_memory, -1)
        free[[fleet.place_of[here], fleet.place_of[self._wanted[instance.id]]]] = -1
        while True:
            place = int(free.argmax())
            if free[place] < 0:
                return None
            same = hypervisor_of(fleet.hosts[place]) == hypervisor_of(self._snapshot.hosts[here])
            if same and fleet.objection(instance, place, FOR_A_MOVE) is None:
                return fleet.hosts[place].id
            free[place] = -1

    def _move(self, instance: Instance, target: int) -> None:
        source, fleet = self._at[instance.id], self._fleet
        self._moves.append((instance, source, target))
        fleet.remove(instance, fleet.place_of[source])
        del self._leaving[source][instance.id]
        if target == self._wanted[instance.id]:
            del self._open[instance.id]
        else:
            instance = self._open[instance.id] = msgspec.structs.replace(instance, host_id=target)
            self._leaving.setdefault(target, {})[instance.id] = instance
        fleet.add(instance, fleet.place_of[target])
        self._at[instance.id] = target
        self._wake(source)

    def _take_back(self) -> Instance:
        instance, source, target = self._moves.pop()
        fleet = self._fleet
        fleet.move(instance, fleet.place_of[target], fleet.place_of[source])
        self._leaving.get(target, {}).pop(instance.id, None)
        self._leaving[source][instance.id] = self._open[instance.id] = instance
        self._at[instance.id] = source
        return instance

    def _wait(self, instance: Instance) -> None:
        """Its target has no room for it: until somebody leaves that, there is no use in trying; those who can leave it go first."""
        if instance.id in self._blocked:
            return
        self._blocked.add(instance.id)
        if self._fleet.tied(instance, FOR_A_MOVE) is not None:
            self._tied[instance.id] = instance
            return
        target = self._wanted[instance.id]
        first = not self._waiting.get(target)
        heappush(self._waiting.setdefault(target, []), (instance.taken_memory, self._rank[instance.id], instance.id))
        if first:
            for one in self._leaving.get(target, {}).values():
                if one.id not in self._blocked:
                    self._try_later(one)

    def _wake(self, host_id: int) -> None:
        """Somebody has left this host: those that its memory suffices for now are tried again."""
        waiting, room = self._waiting.get(host_id, []), self._room(host_id)
        while waiting and waiting[0][0] <= room.memory - room.load.memory:
            instance = self._open[heappop(waiting)[-1]]
            self._unblock(instance)

    def _unblock(self, instance: Instance) -> None:
        self._blocked.discard(instance.id)
        self._try_later(instance)

    def _try_later(self, instance: Instance) -> None:
        heappush(self._ready, (not self._waiting.get(self._at[instance.id]), self._rank[instance.id], instance.id))

    def _objection(self, instance: Instance) -> str | None:
        return objection(instance, self._room(self._wanted[instance.id]), FOR_A_MOVE)

    def _why_not(self, instance: Instance) -> str:
        target = self._snapshot.hosts[self._wanted[instance.id]]
        words = f"{target.name}: {self._objection(instance)}"
        if self._leaving.get(target.id):
            words += ", until others have left it, which cannot leave before it does, nor wait on a third host meanwhile"
        return words

    def _room(self, host_id: int) -> Room:
        return self._fleet.room(self._fleet.place_of[host_id])


def _size(instance: Instance) -> tuple[int, int]:
    return instance.taken_memory, instance.id
