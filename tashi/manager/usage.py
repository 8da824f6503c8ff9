"""What instances and hosts use, as their agents tell it: kept in memory, and for three of an agent's intervals only.

What is not told again is forgotten, so a silent host or a cell that has just started shows nothing. The processor time that is scheduled
by is smoothed: after a change it has gone two thirds of the way in a minute, so that nothing moves for a spike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tashi.manager.cluster import Cluster
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.statistics import Statistics, Use
from tashi.scheduling.load import HostUsage

SMOOTHING_SECONDS: Final = 60.0
INTERVALS: Final = 3
FRESH_SECONDS: Final = 1.0
"""Sums over all instances are not made anew for each of a flood of plans."""
_FIELDS: Final = tuple(zip(Use.__struct_fields__, Use.__struct_encode_fields__, strict=True))


class _Measured(msgspec.Struct, frozen=True, gc=False):
    """The last use that was told. ``speed``: MHz, smoothed; it counts ``until`` this time of the cluster's clock."""

    host_id: int
    use: Use
    speed: float | None
    until: float

    def counts(self, host_id: int | None, now: float) -> bool:
        """Whether it is still true of what is on this host now."""
        return self.host_id == host_id and now < self.until


class Usage:
    """The use of all that is measured now."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._instances: dict[int, _Measured] = {}
        self._hosts: dict[int, _Measured] = {}
        self._by_host: Mapping[int, HostUsage] = {}
        self._added_up = -math.inf

    def take(self, host: Host, statistics: Statistics) -> None:
        """What a host tells; what it says of instances that are not its own is not heard."""
        until = self._cluster.clock.seconds() + INTERVALS * statistics.interval
        weight = 1 - math.exp(-statistics.seconds / SMOOTHING_SECONDS)
        if statistics.host is not None:
            self._hosts[host.id] = self._measured(self._hosts.get(host.id), host, statistics.host, until, weight)
        ours = self._cluster.on_host.get(host.id, ())
        for use in statistics.instances:
            if use.instance_id in ours:
                self._instances[use.instance_id] = self._measured(self._instances.get(use.instance_id), host, use, until, weight)

    def forget(self) -> None:
        """Let go of what counts no more; it is not shown before that either."""
        for table, living in ((self._instances, self._cluster.instances), (self._hosts, self._cluster.hosts)):
            now = self._cluster.clock.seconds()
            for key in [key for key, measured in table.items() if measured.until <= now or key not in living]:
                del table[key]

    def of_instance(self, instance: Instance) -> dict[str, Any] | None:
        """The fields of Use, and the MHz it is scheduled by; None when nothing is known."""
        return _row(self._live(self._instances.get(instance.id), instance.host_id))

    def of_host(self, host: Host) -> dict[str, Any] | None:
        """The same of the machine as a whole."""
        return _row(self._live(self._hosts.get(host.id), host.id))

    def by_host(self) -> Mapping[int, HostUsage]:
        """The MHz that a scheduler goes by, for each host of which any are known; as they were within the last second."""
        now = self._cluster.clock.seconds()
        if not self._added_up <= now < self._added_up + FRESH_SECONDS:
            self._added_up = now
            self._by_host = self._add_up(now)
        return self._by_host

    def _add_up(self, now: float) -> dict[int, HostUsage]:
        instances: dict[int, dict[int, int]] = {}
        for instance_id, measured in self._instances.items():
            instance = self._cluster.instances.get(instance_id)
            if instance is not None and measured.speed is not None and measured.counts(instance.host_id, now):
                instances.setdefault(measured.host_id, {})[instance_id] = round(measured.speed)
        machines = {
            host_id: round(measured.speed)
            for host_id, measured in self._hosts.items()
            if measured.speed is not None and measured.counts(host_id, now)
        }
        return {
            host_id: HostUsage(machine=machines.get(host_id), instances=instances.get(host_id, {}))
            for host_id in self._cluster.hosts
            if host_id in machines or host_id in instances
        }

    def _measured(self, before: _Measured | None, host: Host, use: Use, until: float, weight: float) -> _Measured:
        speed = None
        if use.cpu is not None and host.facts is not None:
            speed = use.cpu / 100 * host.facts.cpu_speed
            before = self._live(before, host.id)
            if before is not None and before.speed is not None:
                speed = before.speed + weight * (speed - before.speed)
        return _Measured(host.id, use, speed, until)

    def _live(self, measured: _Measured | None, host_id: int | None) -> _Measured | None:
        return measured if measured is not None and measured.counts(host_id, self._cluster.clock.seconds()) else None


def _row(measured: _Measured | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    row = {name: getattr(measured.use, field) for field, name in _FIELDS}
    return row | {"cpuUsage": None if measured.speed is None else round(measured.speed)}
