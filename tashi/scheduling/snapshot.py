"""What a scheduler sees: an immutable picture of the cluster at one moment, with the settings it is to obey."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.scheduling.load import HostUsage, Load


class SchedulingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the [Scheduler] section that a pure plan depends on. A rate of 1 allows no over-provisioning."""

    policy: str = "Primitive"
    dense_pack: bool = False
    cpu_cores_over_rate: float = 1.0
    cpu_speed_over_rate: float = 1.0
    allow_mismatched_versions: bool = False


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts by id, every instance that is on one (``placed``, by host id), and those that wait, in the order they are served.

    ``loads`` are the sums of what is placed, for the hosts for which they are known already. ``cursor`` is the id of the host
    that got the last instance. ``kept_disks``: the persistent disks of those that are suspended, each with its instance's id.
    ``usage`` is what is measured, on the hosts where anything is.
    """

    hosts: Mapping[int, Host]
    placed: Mapping[int, tuple[Instance, ...]]
    pending: tuple[Instance, ...]
    settings: SchedulingSettings
    loads: Mapping[int, Load] = {}
    kept_disks: Mapping[str, int] = {}
    usage: Mapping[int, HostUsage] = {}
    cursor: int = 0
    time: float = 0.0
