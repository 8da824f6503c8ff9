"""What the cluster manager is told by its configuration: one small record, made where everything is wired together."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tashi.model.sla import SlaClass
from tashi.scheduling.snapshot import SchedulingSettings


class ManagerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds; a limit of 0 is no limit."""

    scheduling: SchedulingSettings = SchedulingSettings()
    schedule_delay: float = 2.0
    rebalance_interval: float = 10.0
    reschedule_after_start: bool = False
    provision_timeout: float = 45.0
    max_command_age: float = 300.0
    expire_host_time: float = 30.0
    shutdown_grace: float = 60.0
    wake_timeout: float = 300.0
    off_timeout: float = 180.0
    power_retry_delay: float = 600.0
    max_migrations: int = 20
    max_migrations_per_host: int = 4
    layout_interval: float = 60.0
    max_memory: int = 0
    max_cores: int = 0
    allow_duplicate_names: bool = False
    default_network: int = 0
    sla_classes: Mapping[str, SlaClass] = {}
    ratings: Mapping[int, int] = {}  # of hosts, by id: the higher, the better
    trusted: frozenset[str] = frozenset()  # bare JIDs, or domains with closed registration
    admins: frozenset[str] = frozenset()  # bare JIDs
    may_be_notified: frozenset[str] = frozenset()  # recipients
