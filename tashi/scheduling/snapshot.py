"""What a scheduler sees: an immutable picture of the cluster at one moment, with the settings it is to obey."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.sla import SlaClass
from tashi.scheduling.load import HostUsage, Load


class SchedulingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the [Scheduler] section that a pure plan depends on. A rate of 1 allows no over-provisioning.

    Memory in MB, times in seconds. ``min_gain`` is the share by which a plan of moves must better what it is about.
    """

    policy: str = "Primitive"
    dense_pack: bool = False
    cpu_cores_over_rate: float = 1.0
    cpu_speed_over_rate: float = 1.0
    allow_mismatched_versions: bool = False
    load_expression: str = "memUsage + coresUsage * 512 + cpuUsage"
    minimal_vm_memory: int = 64
    auto_migrations: bool = False
    min_gain: float = 0.1
    hold_rounds: int = 3
    cooldown: float = 21_600.0
    most_moves: int = 5
    most_moves_per_host: int = 2
    optimal_consolidation: bool = False
    optimal_seconds: float = 10.0
    auto_powering: bool = False
    guaranteed_servers: int = 3
    power_off_delay: float = 300.0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts by id, every instance that is on one (``placed``, by host id), and those that wait, in the order they are served.

    ``loads`` are the sums of what takes room, for the hosts for which they are known already. ``cursor`` is the id of the host
    that got the last instance. ``remains`` are the instances on no host of which something may be left on some: they take room
    there until it is cleared away. ``kept_disks``: the persistent disks of those that are suspended, each with its instance's id.
    ``usage`` is what is measured, on the hosts where anything is. ``priorities`` are the users', ``ratings`` the hosts', by id.
    ``empty_since``: since when the hosts that hold nothing have done so. ``rebalance``: whether moves that only better things are
    looked for now, too.
    """

    hosts: Mapping[int, Host]
    placed: Mapping[int, tuple[Instance, ...]]
    pending: tuple[Instance, ...]
    settings: SchedulingSettings
    loads: Mapping[int, Load] = {}
    remains: tuple[Instance, ...] = ()
    kept_disks: Mapping[str, int] = {}
    usage: Mapping[int, HostUsage] = {}
    priorities: Mapping[int, int] = {}
    sla_classes: Mapping[str, SlaClass] = {}
    ratings: Mapping[int, int] = {}
    empty_since: Mapping[int, float] = {}
    cursor: int = 0
    time: float = 0.0
    rebalance: bool = False

    def priority(self, instance: Instance) -> int:
        """Its user's priority and its SLA class's offset: higher is served first."""
        sla = self.sla_classes.get(instance.sla) if instance.sla else None
        return self.priorities.get(instance.user_id, 0) + (sla.priority if sla else 0)

    def floor(self, instance: Instance) -> int:
        """MB below which it is never shrunk: minimalVmMemory or what its SLA class guarantees, whichever is more; at most all it has."""
        sla = self.sla_classes.get(instance.sla) if instance.sla else None
        return min(instance.memory, max(self.settings.minimal_vm_memory, sla.memory if sla else 0, 1))
