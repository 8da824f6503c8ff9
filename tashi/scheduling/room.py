"""What is taken and what is left on one host while a plan is made or checked.

| resource | a host offers | an instance takes |
|---|---|---|
| memory (MB) | what its agent offers | memory; never over-committed |
| cores | cores x cpuCoresOverRate | cores; and no instance has more cores than its host |
| speed (MHz) | cores x cpuSpeed x cpuSpeedOverRate | cores x reserved cpu_speed, 0 when none is asked |
"""

from __future__ import annotations

from collections.abc import Iterable

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.scheduling.snapshot import SchedulingSettings
from tashi.scheduling.terms import wants_isolation


class Room:
    """The running account of one host: capacity once, use as instances are added."""

    def __init__(self, host: Host, settings: SchedulingSettings, instances: Iterable[Instance] = ()) -> None:
        facts = host.facts
        self.host = host
        self.memory = facts.memory if facts else 0
        self.cores = facts.cores * settings.cpu_cores_over_rate if facts else 0.0
        self.speed = facts.cores * facts.cpu_speed * settings.cpu_speed_over_rate if facts else 0.0
        self.largest = facts.cores if facts else 0
        self.used_memory = 0
        self.used_cores = 0
        self.used_speed = 0
        self.count = 0
        self.users: dict[int, int] = {}
        self.isolated = 0
        for instance in instances:
            self.add(instance)

    def add(self, instance: Instance) -> None:
        """The instance is here, or promised to be."""
        self.used_memory += instance.memory
        self.used_cores += instance.cores
        self.used_speed += instance.cores * (instance.cpu_speed or 0)
        self.count += 1
        self.users[instance.user_id] = self.users.get(instance.user_id, 0) + 1
        self.isolated += wants_isolation(instance)

    def remove(self, instance: Instance) -> None:
        """The instance is here no longer."""
        self.used_memory -= instance.memory
        self.used_cores -= instance.cores
        self.used_speed -= instance.cores * (instance.cpu_speed or 0)
        self.count -= 1
        self.users[instance.user_id] -= 1
        if not self.users[instance.user_id]:
            del self.users[instance.user_id]
        self.isolated -= wants_isolation(instance)

    def lacks_memory(self, instance: Instance) -> str | None:
        short = self.used_memory + instance.memory - self.memory
        return f"{short} MB short of memory" if short > 0 else None

    def lacks_cores(self, instance: Instance) -> str | None:
        if instance.cores > self.largest:
            return f"has {self.largest} cores, and the instance asks for {instance.cores}"
        short = self.used_cores + instance.cores - self.cores
        return f"{short:g} cores short" if short > 0 else None

    def lacks_speed(self, instance: Instance) -> str | None:
        if not instance.cpu_speed:
            return None
        if self.host.facts is not None and instance.cpu_speed > self.host.facts.cpu_speed:
            return f"its cores have {self.host.facts.cpu_speed} MHz, and the instance reserves {instance.cpu_speed} MHz a core"
        short = self.used_speed + instance.cores * instance.cpu_speed - self.speed
        return f"{short:g} MHz short of CPU speed" if short > 0 else None
