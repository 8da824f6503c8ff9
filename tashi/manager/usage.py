"""What instances and hosts use, as their agents tell it: kept in memory, and for three of an agent's intervals only.

What is not told again is forgotten, so a silent host or a cell that has just started shows nothing. The processor time that is scheduled
by is smoothed: after a change it has gone two thirds of the way in a minute, so that nothing moves for a spike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from tashi.manager.cluster import Cluster
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.statistics import Statistics, Use
from tashi.scheduling.load import HostUsage

SMOOTHING_SECONDS: Final = 60.0
INTERVALS: Final = 3
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
        self._by_host: dict[int, HostUsage] = {}
        self._true_until: dict[int, float] = {}

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

        self._add_up(host.id, self._cluster.clock.seconds())

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

    def by_host(self, changed: Iterable[int] = ()) -> Mapping[int, HostUsage]:
        """The MHz that a scheduler goes by, for each host of which any are known; ``changed``: the hosts from which instances have gone, or
        to which some have come, since this was asked last. It is never changed afterwards."""
        now = self._cluster.clock.seconds()
        for host_id in {*changed, *(host_id for host_id, until in self._true_until.items() if until <= now)}:
            self._add_up(host_id, now)
        return dict(self._by_host)

    def _add_up(self, host_id: int, now: float) -> None:
        """Put together what is known of one host; it stays true until the first part of it counts no more."""
        speeds: dict[int, int] = {}
        machine = self._hosts.get(host_id)
        untils: list[float] = []
        for number in sorted(self._cluster.on_host.get(host_id, ())):
            measured = self._instances.get(number)
            if measured is not None and measured.speed is not None and measured.counts(host_id, now):
                speeds[number] = round(measured.speed)
                untils.append(measured.until)
        if machine is None or machine.speed is None or not machine.counts(host_id, now):
            machine = None
        else:
            untils.append(machine.until)
        if not untils or host_id not in self._cluster.hosts:
            self._by_host.pop(host_id, None)
            self._true_until.pop(host_id, None)
            return
        speed = None if machine is None or machine.speed is None else round(machine.speed)
        self._by_host[host_id] = HostUsage(machine=speed, instances=speeds)
        self._true_until[host_id] = min(untils)

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
