"""What is taken and what is left on one host while a plan is made or checked.

| resource | a host offers | an instance takes |
|---|---|---|
| memory (MB) | what its agent offers, less what strays take | memory; never over-committed |
| cores | cores x cpuCoresOverRate, less those of strays | cores; and no instance has more cores than its host |
| speed (MHz) | cores x cpuSpeed x cpuSpeedOverRate | cores x reserved cpu_speed, 0 when none is asked |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import Final, Protocol

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.scheduling.load import Load, load_of
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tashi.scheduling.terms import APART, GROUP, persistent_disks

NAMED: Final = ""
"""What the index of neighbours has the names themselves under; the others are hints."""
_INDEXED: Final = (APART, GROUP)


class Neighbours(Protocol):
    """What the room of one host knows of the others."""

    def of(self, host_id: int) -> Room | None:
        """The room of another host, if there is such a host."""

    def where(self, name: str) -> Collection[int]:
        """The ids of the hosts on which an instance of this name takes room."""

    def note(self, instance: Instance, host_id: int, by: int) -> None:
        """An instance is on this host now (1), or there no longer (-1)."""


class Room:
    """The running account of one host: capacity once, and the load that grows as instances are added.

    One that knows of no others (``rooms``) is not asked what an instance has to do with those there.
    """

    def __init__(
        self,
        host: Host,
        settings: SchedulingSettings,
        load: Load | None = None,
        residents: Iterable[Instance] = (),
        rooms: Neighbours | None = None,
    ) -> None:
        facts = host.facts
        self.host = host
        self.memory = facts.memory - host.stray_memory if facts else 0
        self.cores = facts.cores * settings.cpu_cores_over_rate - host.stray_cores if facts else 0.0
        self.speed = facts.cores * facts.cpu_speed * settings.cpu_speed_over_rate if facts else 0.0
        self.largest = facts.cores if facts else 0
        self.residents = list(residents)
        self.load = load or load_of(self.residents)
        self.rooms = rooms

    def add(self, instance: Instance) -> None:
        """The instance is here, or promised to be."""
        self.load.add(instance)
        self.residents.append(instance)
        if self.rooms is not None:
            self.rooms.note(instance, self.host.id, 1)

    def remove(self, instance: Instance) -> None:
        """The instance is here no longer."""
        self.load.remove(instance)
        self.residents = [one for one in self.residents if one.id != instance.id]
        if self.rooms is not None:
            self.rooms.note(instance, self.host.id, -1)

    def lacks_memory(self, instance: Instance) -> str | None:
        """What is short of memory, in words."""
        short = self.load.memory + instance.taken_memory - self.memory
        return f"{short} MB short of memory" if short > 0 else None

    def lacks_cores(self, instance: Instance) -> str | None:
        """What is short of cores, in words."""
        if instance.cores > self.largest:
            return f"has {self.largest} cores, and the instance asks for {instance.cores}"
        short = self.load.cores + instance.cores - self.cores
        return f"{short:g} cores short" if short > 0 else None

    def lacks_speed(self, instance: Instance) -> str | None:
        """What is short of speed, in words."""
        if not instance.cpu_speed:
            return None
        if self.host.facts is not None and instance.cpu_speed > self.host.facts.cpu_speed:
            return f"its cores have {self.host.facts.cpu_speed} MHz, and the instance reserves {instance.cpu_speed} MHz a core"
        short = self.load.speed + instance.cores * instance.cpu_speed - self.speed
        return f"{short:g} MHz short of CPU speed" if short > 0 else None


class Rooms:
    """The rooms of all hosts of a snapshot, each made when it is first asked for, and what is asked of all of them together.

    Of a cluster in which nobody asks about others, only the rooms that are named are ever looked at.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._made: dict[int, Room] = {}
        self._arriving: dict[int, list[Instance]] | None = None
        self._index: dict[tuple[str, str], dict[int, int]] | None = None
        self._disks: dict[str, int] | None = None

    def of(self, host_id: int) -> Room | None:
        """The account of one host, with those that take room on it; None: there is no such host."""
        room = self._made.get(host_id)
        if room is None:
            host = self.snapshot.hosts.get(host_id)
            if host is None:
                return None
            known = self.snapshot.loads.get(host_id)
            load = None if known is None else known.copy()
            room = self._made[host_id] = Room(host, self.snapshot.settings, load, self.guests(host_id), self)
        return room

    def load(self, host_id: int) -> Load:
        """What is taken of one host now, to be read only."""
        made = self._made.get(host_id)
        if made is not None:
            return made.load
        known = self.snapshot.loads.get(host_id)
        return load_of(self.guests(host_id)) if known is None else known

    def guests(self, host_id: int) -> tuple[Instance, ...]:
        """Those that take room on a host in the snapshot: the ones it has, those on their way to it, those it has not been cleared of."""
        group = self.snapshot.placed.get(host_id, ())
        known = self.snapshot.loads.get(host_id)
        if known is not None and known.count == len(group):
            return group
        if self._arriving is None:
            self._arriving = _elsewhere(self.snapshot)
        return (*group, *self._arriving.get(host_id, ()))

    def note(self, instance: Instance, host_id: int, by: int) -> None:
        """An instance is on this host now (1), or there no longer (-1): what has been asked already is kept true."""
        if self._index is not None:
            self._count(instance, host_id, by)
        if self._disks is not None:
            for uri in persistent_disks(instance):
                self._disks[uri] += by

    def where(self, name: str) -> Collection[int]:
        """The ids of the hosts on which an instance of this name takes room."""
        return self.counts(NAMED, name)

    def counts(self, what: str, name: str) -> dict[int, int]:
        """How many on each host have this name, or for ``what`` say apart or group with this name; hosts with none are left out."""
        if self._index is None:
            self._index = {}
            for host_id in self.snapshot.hosts:
                made = self._made.get(host_id)
                for one in self.guests(host_id) if made is None else made.residents:
                    self._count(one, host_id, 1)
        return self._index.get((what, name), {})

    def disks_in_use(self, instance: Instance) -> list[str]:
        """The persistent disks that the instance asks for and another one has, be it suspended."""
        wanted = persistent_disks(instance)
        if not wanted:
            return []
        if self._disks is None:
            self._disks = defaultdict(int)
            for host_id in self.snapshot.hosts:
                for uri, count in self.load(host_id).disks.items():
                    self._disks[uri] += count
            for uri in self._strays_with:
                self._disks[uri] += 1
        kept = self.snapshot.kept_disks
        return [uri for uri in sorted(wanted) if kept.get(uri, instance.id) != instance.id or self._disks.get(uri)]

    def holder(self, disk: str) -> str:
        """Who has a persistent disk that is in use, in words."""
        return self._strays_with.get(disk, "another instance")

    @cached_property
    def _strays_with(self) -> dict[str, str]:
        """The disks of domains without a record, each with the words for that domain."""
        return {
            disk: f"stray {stray.instance_id} on {host.name}, see `tashi getStrays`"
            for host in self.snapshot.hosts.values()
            for stray in host.strays
            for disk in stray.disks
        }

    def _count(self, instance: Instance, host_id: int, by: int) -> None:
        assert self._index is not None
        for key in _keys(instance):
            counts = self._index.setdefault(key, {})
            counts[host_id] = counts.get(host_id, 0) + by
            if not counts[host_id]:
                del counts[host_id]


def rooms_of(snapshot: Snapshot) -> dict[int, Room]:
    """An account of each host, to plan or to check with. One that moves takes room at both ends."""
    rooms = Rooms(snapshot)
    return {host_id: room for host_id in snapshot.hosts if (room := rooms.of(host_id)) is not None}


def guests_of(snapshot: Snapshot) -> dict[int, list[Instance]]:
    """Those that take room on each host: the ones it has, those on their way to it, and those it has not been cleared of."""
    guests = {host_id: list(instances) for host_id, instances in snapshot.placed.items()}
    for host_id, instances in _elsewhere(snapshot).items():
        guests.setdefault(host_id, []).extend(instances)
    return guests


def _keys(instance: Instance) -> Iterator[tuple[str, str]]:
    yield NAMED, instance.name
    if instance.hints:
        for hint in _INDEXED:
            name = instance.hints.get(hint)
            if name:
                yield hint, name


def _elsewhere(snapshot: Snapshot) -> dict[int, list[Instance]]:
    """Those that take room on a host other than their own, by that host."""
    found: dict[int, list[Instance]] = {}
    for instance in chain(*snapshot.placed.values(), snapshot.remains):
        if instance.migration is not None or instance.residue:
            for other in instance.rooms:
                if other != instance.host_id:
                    found.setdefault(other, []).append(instance)
    return found
