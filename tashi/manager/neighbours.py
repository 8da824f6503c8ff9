"""The rooms of a cell's hosts as they are now, for the filters that look at who is beside whom; made only when they are asked for."""

from __future__ import annotations

from collections.abc import Collection

from tashi.manager.cluster import Cluster
from tashi.model.instance import Instance
from tashi.scheduling.room import Room
from tashi.scheduling.snapshot import SchedulingSettings


class CellRooms:
    """Looked at and forgotten: it does not follow what changes later."""

    def __init__(self, cluster: Cluster, settings: SchedulingSettings) -> None:
        self._cluster = cluster
        self._settings = settings

    def of(self, host_id: int) -> Room | None:
        """The room of one host, with all that take room there, if there is such a host."""
        host = self._cluster.hosts.get(host_id)
        if host is None:
            return None
        residents = [self._cluster.instances[number] for number in sorted(self._cluster.errands.get(host_id, ()))]
        return Room(host, self._settings, self._cluster.loads[host_id].copy(), residents, self)

    def where(self, name: str) -> Collection[int]:
        """The ids of the hosts on which an instance of this name takes room."""
        return {host_id for number in self._cluster.by_name.get(name, ()) for host_id in self._cluster.instances[number].rooms}

    def note(self, instance: Instance, host_id: int, by: int) -> None:
        """Nothing is kept that this would change."""
