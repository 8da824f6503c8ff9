"""Clusters made from a seed: the same numbers give the same cluster, on any machine."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from tashi.model.host import Host, HostFacts
from tashi.model.instance import Disk, Instance
from tashi.model.states import InstanceState
from tashi.scheduling.load import load_of
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot

Flavour = tuple[int, int]
"""Cores, and MB of memory."""

POWERS_OF_TWO: Final[tuple[Flavour, ...]] = ((1, 1024), (1, 2048), (2, 4096), (4, 8192), (4, 16384), (8, 16384))
ODD: Final[tuple[Flavour, ...]] = ((1, 1536), (2, 3000), (3, 2500), (3, 7000), (5, 6100), (6, 11000), (7, 20000))


def cluster(
    seed: int,
    hosts: int,
    instances: int,
    *,
    pending: int = 0,
    cores: int = 64,
    memory: int = 131_072,
    flavours: Sequence[Flavour] = POWERS_OF_TWO,
    skew: float = 1.0,
    **settings: Any,
) -> Snapshot:
    """A cluster of equal hosts; ``instances`` run, each on a host drawn at random that has room. ``skew`` above 1 crowds the first hosts.

    ValueError when they do not fit.
    """
    chance = Random(seed)
    machines = {number: _host(number, cores, memory) for number in range(1, hosts + 1)}
    free = {number: [cores, memory] for number in machines}
    placed: dict[int, list[Instance]] = {number: [] for number in machines}
    for number in range(1, instances + 1):
        flavour = chance.choice(flavours)
        host_id = _drawn(chance, free, flavour, skew)
        placed[host_id].append(instance(number, flavour, host_id))
        free[host_id][0] -= flavour[0]
        free[host_id][1] -= flavour[1]
    waiting = tuple(instance(instances + number, chance.choice(flavours), None) for number in range(1, pending + 1))
    groups = {number: tuple(group) for number, group in placed.items()}
    return Snapshot(
        hosts=machines,
        placed=groups,
        loads={number: load_of(group) for number, group in groups.items()},
        pending=waiting,
        settings=SchedulingSettings(**settings),
        time=1_000_000.0,
    )


def instance(number: int, flavour: Flavour, host_id: int | None) -> Instance:
    """One of this size; with a host it runs there."""
    return Instance(
        id=number,
        name=f"vm{number}",
        user_id=1000,
        disks=(Disk(uri="tashi.img"),),
        cores=flavour[0],
        memory=flavour[1],
        host_id=host_id,
        state=InstanceState.Pending if host_id is None else InstanceState.Running,
    )


def _host(number: int, cores: int, memory: int) -> Host:
    facts = HostFacts(memory=memory, cores=cores, cpu_speed=2400, version="1", hypervisor="qemu")
    return Host(id=number, name=f"node{number}", up=True, decayed=False, facts=facts)


def _drawn(chance: Random, free: dict[int, list[int]], flavour: Flavour, skew: float) -> int:
    """A host with room, after at most a few draws; then the first that has any."""
    count = len(free)
    for _ in range(50):
        host_id = 1 + int(count * chance.random() ** skew)
        if free[host_id][0] >= flavour[0] and free[host_id][1] >= flavour[1]:
            return host_id
    for host_id, (cores, memory) in free.items():
        if cores >= flavour[0] and memory >= flavour[1]:
            return host_id
    raise ValueError("the instances do not fit on these hosts; ask for more hosts or fewer instances")
