"""What is taken and what is left on one host while a plan is made or checked.

| resource | a host offers | an instance takes |
|---|---|---|
| memory (MB) | what its agent offers | memory; never over-committed |
| cores | cores x cpuCoresOverRate | cores; and no instance has more cores than its host |
| speed (MHz) | cores x cpuSpeed x cpuSpeedOverRate | cores x reserved cpu_speed, 0 when none is asked |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.scheduling.load import Load, load_of
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot
from tashi.scheduling.terms import persistent_disks


class Room:
    """The running account of one host: capacity once, and the load that grows as instances are added."""

    def __init__(self, host: Host, settings: SchedulingSettings, load: Load | None = None, residents: Iterable[Instance] = ()) -> None:
        facts = host.facts
        self.host = host
        self.memory = facts.memory if facts else 0
        self.cores = facts.cores * settings.cpu_cores_over_rate if facts else 0.0
        self.speed = facts.cores * facts.cpu_speed * settings.cpu_speed_over_rate if facts else 0.0
        self.largest = facts.cores if facts else 0
        self.residents = list(residents)
        self.load = load or load_of(self.residents)

    def add(self, instance: Instance) -> None:
        """The instance is here, or promised to be."""
        self.load.add(instance)
        self.residents.append(instance)

    def remove(self, instance: Instance) -> None:
        """The instance is here no longer."""
        self.load.remove(instance)
        self.residents = [one for one in self.residents if one.id != instance.id]

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


def rooms_of(snapshot: Snapshot) -> dict[int, Room]:
    """An account of each host, to plan or to check with. One that moves takes room at both ends."""
    guests = guests_of(snapshot)
    return {host_id: room_of(snapshot, host, guests.get(host_id, ())) for host_id, host in snapshot.hosts.items()}


def room_of(snapshot: Snapshot, host: Host, guests: Iterable[Instance]) -> Room:
    """The account of one host, with those that take room on it."""
    known = snapshot.loads.get(host.id)
    return Room(host, snapshot.settings, None if known is None else known.copy(), guests)


def guests_of(snapshot: Snapshot) -> dict[int, list[Instance]]:
    """Those that take room on each host: the ones it has, those on their way to it, and those it has not been cleared of."""
    guests = {host_id: list(instances) for host_id, instances in snapshot.placed.items()}
    for host_id, instances in snapshot.placed.items():
        for instance in instances:
            if instance.migration is not None or instance.residue:
                for other in instance.rooms:
                    if other != host_id:
                        guests.setdefault(other, []).append(instance)
    return guests


def disks_in_use(instance: Instance, rooms: Mapping[int, Room], kept: Mapping[str, int]) -> list[str]:
    """The persistent disks that the instance asks for and another one has, be it suspended (``kept``, as in Snapshot)."""
    return [
        disk
        for disk in sorted(persistent_disks(instance))
        if kept.get(disk, instance.id) != instance.id or any(disk in room.load.disks for room in rooms.values())
    ]
