"""What a group of instances takes together: the sum that a host's room is measured against, kept up to date one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from tashi.model.instance import Instance
from tashi.scheduling.terms import is_tied, persistent_disks, wants_isolation

Key = TypeVar("Key", int, str)


class Load(msgspec.Struct, kw_only=True):
    """Memory in MB, cores, reserved speed in MHz; ``users`` and ``disks`` (the persistent ones) count who uses them. ``isolated`` and
    ``tied`` count those that have asked to be alone, and to be beside another or apart from it."""

    memory: int = 0
    cores: int = 0
    speed: int = 0
    count: int = 0
    isolated: int = 0
    tied: int = 0
    users: dict[int, int] = {}
    disks: dict[str, int] = {}

    def add(self, instance: Instance) -> None:
        """The instance is among them."""
        self._change(instance, 1)

    def remove(self, instance: Instance) -> None:
        """The instance is among them no longer."""
        self._change(instance, -1)

    def copy(self) -> Load:
        """The same, to be changed apart."""
        return msgspec.structs.replace(self, users=dict(self.users), disks=dict(self.disks))

    def _change(self, instance: Instance, by: int) -> None:
        memory, cores, megahertz = instance.memory, instance.cores, instance.cpu_speed
        if instance.tasks or instance.becoming is not None or instance.shrunk_from is not None:
            memory, cores, megahertz = _promised(instance)
        self.memory += by * memory
        self.cores += by * cores
        if megahertz:
            self.speed += by * cores * megahertz
        self.count += by
        _count(self.users, instance.user_id, by)
        if instance.hints:
            self.isolated += by * wants_isolation(instance)
            self.tied += by * is_tied(instance)
        for uri in persistent_disks(instance):
            _count(self.disks, uri, by)


class HostUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured on a host: MHz that each of its instances uses, and those that the machine spends on whatever it does."""

    machine: int | None = None
    instances: Mapping[int, int] = {}

    def speed(self, instances: Iterable[Instance]) -> int:
        """MHz that these use or have reserved, whichever is more of each."""
        return sum(max(self.instances.get(one.id, 0), one.cores * (one.cpu_speed or 0)) for one in instances)


def load_of(instances: Iterable[Instance]) -> Load:
    """What these take together."""
    load = Load()
    for instance in instances:
        load.add(instance)
    return load


def demand(instance: Instance) -> tuple[int, int, int]:
    """MB of memory, cores, and MHz of all its cores together that one instance takes."""
    if instance.tasks or instance.becoming is not None or instance.shrunk_from is not None:
        memory, cores, megahertz = _promised(instance)
        return memory, cores, cores * megahertz
    return instance.memory, instance.cores, instance.cores * (instance.cpu_speed or 0)


def _promised(instance: Instance) -> tuple[int, int, int]:
    """The memory, cores and MHz of each that it has, or will have when its host has done what is asked, whichever is more."""
    memories, cores, speeds = [instance.taken_memory], instance.cores, [instance.cpu_speed]
    for task in instance.tasks:
        if task.adapt is not None:
            memories.append(instance.taking(task.adapt.memory) if task.adapt.memory else 0)
            speeds.append(task.adapt.cpu_speed)
    if instance.becoming is not None:
        limit = instance.becoming.memory_limit  # with none it is not shrunk any more
        memories.append(instance.becoming.memory if limit is None else instance.taking(limit))
        cores = max(cores, instance.becoming.cores)
        speeds.append(instance.becoming.resources.cpu_speed)
    return max(memories), cores, max(speed or 0 for speed in speeds)


def _count(counts: dict[Key, int], key: Key, by: int) -> None:
    counts[key] = counts.get(key, 0) + by
    if not counts[key]:
        del counts[key]
