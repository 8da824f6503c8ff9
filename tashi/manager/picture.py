"""What schedulers see: the records as an immutable snapshot. What has not changed since the last one is not put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tashi.manager.cluster import Cluster
from tashi.manager.settings import ManagerSettings
from tashi.manager.usage import Usage
from tashi.model.instance import Instance
from tashi.scheduling.load import Load
from tashi.scheduling.plan import Action, Migrate, Place, Postpone
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import persistent_disks

_TIES: Final = ("with", "apart", "group")
"""Hints about other instances, wherever those are."""


class Picture:
    """Makes snapshots. ``cursor`` is the id of the host that got the last instance."""

    def __init__(self, cluster: Cluster, settings: ManagerSettings, usage: Usage) -> None:
        self._cluster = cluster
        self._settings = settings
        self._usage = usage
        self.cursor = 0
        self._placed: dict[int, tuple[Instance, ...]] = {}
        self._loads: dict[int, Load] = {}
        self._empty_since: dict[int, float] = {}
        self._remains: dict[int, set[int]] = {}
        """By host, the instances on no host of which something may be left there."""

    def whole(self, *, rebalance: bool = False) -> Snapshot:
        """The cluster now. Nothing in it ever changes, so that a thread may look at it at leisure."""
        cluster = self._cluster
        touched = self._look_again()
        priorities = {user.id: user.priority for user in cluster.users.values()}
        settings = self._settings
        return Snapshot(
            hosts=dict(cluster.hosts),
            placed=dict(self._placed),
            loads=dict(self._loads),
            remains=tuple(cluster.instances[number] for number in sorted(set().union(*self._remains.values()))),
            empty_since=dict(self._empty_since),
            usage=self._usage.by_host(touched),
            pending=self._queue(priorities),
            settings=settings.scheduling,
            kept_disks=self._kept_disks(),
            priorities=priorities,
            sla_classes=settings.sla_classes,
            ratings=settings.ratings,
            cursor=self.cursor,
            time=cluster.clock.seconds(),
            rebalance=rebalance,
        )

    def around(self, actions: Sequence[Action]) -> Snapshot:
        """As much of the cluster now as tells whether these actions are sound. It is to be looked at in this turn of the reactor only."""
        cluster, settings = self._cluster, self._settings
        named: set[int] = set()
        pending: list[Instance] = []
        for action in actions:
            if not isinstance(action, Place | Postpone | Migrate):
                return self.whole()  # these are few, and what makes them sound lies anywhere
            instance = cluster.instances.get(action.instance_id)
            if instance is not None and instance.id in cluster.pending:
                pending.append(instance)
            elif instance is not None and instance.host_id is not None:
                named.add(instance.host_id)
            if not isinstance(action, Postpone):
                named.add(action.host_id)
        beside: dict[int, list[Instance]] = {}
        remains: list[Instance] = []
        for number in sorted({number for host_id in named for number in cluster.errands.get(host_id, ())}):
            instance = cluster.instances[number]
            if instance.host_id is not None:
                beside.setdefault(instance.host_id, []).append(instance)
            else:
                remains.append(instance)
        if any(_is_tied(one) for group in (pending, remains, *beside.values()) for one in group):
            return self.whole()
        disks = {uri for instance in pending for uri in persistent_disks(instance)}
        return Snapshot(
            hosts={host_id: cluster.hosts[host_id] for host_id in named if host_id in cluster.hosts},
            placed={host_id: tuple(instances) for host_id, instances in beside.items()},
            loads={host_id: cluster.loads[host_id] for host_id in named if host_id in cluster.loads},
            remains=tuple(remains),
            pending=tuple(pending),
            settings=settings.scheduling,
            kept_disks={uri: holder for uri in disks if (holder := self._holder(uri)) is not None},
            time=cluster.clock.seconds(),
        )

    def _look_again(self) -> set[int]:
        """Take note of the hosts that have changed; which these are."""
        cluster, now = self._cluster, self._cluster.clock.seconds()
        touched, cluster.touched = cluster.touched, set()
        for host_id in touched:
            numbers = cluster.on_host.get(host_id)
            if numbers:
                self._placed[host_id] = tuple(map(cluster.instances.__getitem__, sorted(numbers)))
            else:
                self._placed.pop(host_id, None)
            remains = {number for number in cluster.errands.get(host_id, ()) if cluster.instances[number].host_id is None}
            if remains:
                self._remains[host_id] = remains
            else:
                self._remains.pop(host_id, None)
            load, host = cluster.loads.get(host_id), cluster.hosts.get(host_id)
            if load is not None:
                self._loads[host_id] = load.copy()
            if host is not None and host.up and not host.strays and not (load and load.count):
                self._empty_since.setdefault(host_id, now)
            else:
                self._empty_since.pop(host_id, None)
        return touched

    def _queue(self, priorities: Mapping[int, int]) -> tuple[Instance, ...]:
        """Those that wait for a place, the higher priority first, then the older."""
        classes = self._settings.sla_classes
        known: dict[tuple[int, str | None], int] = {}

        def urgency(instance: Instance) -> int:
            key = (instance.user_id, instance.sla)
            if key not in known:
                sla = classes.get(instance.sla) if instance.sla else None
                known[key] = -priorities.get(instance.user_id, 0) - (sla.priority if sla else 0)
            return known[key]

        return tuple(sorted(map(self._cluster.instances.__getitem__, sorted(self._cluster.pending)), key=urgency))

    def _kept_disks(self) -> dict[str, int]:
        """The disks that somebody's saved memory belongs to, until it goes on with both."""
        saved = (self._cluster.instances[number] for number in sorted(self._cluster.saved))
        return {uri: instance.id for instance in saved if instance.host_id is None for uri in persistent_disks(instance)}

    def _holder(self, uri: str) -> int | None:
        """Who has this persistent disk, on a host or with its saved memory."""
        having = (self._cluster.instances[number] for number in sorted(self._cluster.by_disk.get(uri, ())))
        return next((one.id for one in having if one.saved or one.host_id is not None), None)


def _is_tied(instance: Instance) -> bool:
    return bool(instance.hints) and any(hint in instance.hints for hint in _TIES)
