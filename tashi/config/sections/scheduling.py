"""Sections of the scheduler: which policy places the VMs, by which rules, on which servers first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from tashi.config.options import Key, Keys, Section
from tashi.config.values import Count, LoadFormula, Megabytes, OverRate, Part, Period, PositiveCount, Seconds, Share


class Scheduler(Section, frozen=True, kw_only=True):
    """Where VMs are placed and moved to. Section [Primitive] is read as this one."""

    scheduler: Annotated[Part, Key("The policy: Primitive, Balanced, Consolidated or the name of a plug-in's")] = "Primitive"
    schedule_delay: Annotated[Period, Key("Longest time between two passes", aliases=("Primitive.scheduleDelay",))] = 2.0
    dense_pack: Annotated[
        bool, Key("Primitive: fill the host with the most VMs first, not the one with the fewest", aliases=("Primitive.densePack",))
    ] = False
    hooks: Annotated[
        Mapping[str, Part],
        Keys(
            "Parts that are told before a VM is created and after it is gone, in the order of their keys",
            prefix="hook",
            example="hook1 = DhcpDns",
            also="Primitive",
        ),
    ] = msgspec.field(default_factory=dict)
    load_expression: Annotated[
        LoadFormula, Key("What counts as load: + - * / ( ) min max over memUsage (MB), coresUsage (cores) and cpuUsage (MHz)")
    ] = "memUsage + coresUsage * 512 + cpuUsage"
    cpu_cores_over_rate: Annotated[
        OverRate, Key("Cores that are given away for each core there is; 1: no over-provisioning", aliases=("cpuCoresOvercommit",))
    ] = 1.0
    cpu_speed_over_rate: Annotated[
        OverRate, Key("MHz that are reserved for each MHz there is; 1: no over-provisioning", aliases=("cpuSpeedOvercommit",))
    ] = 1.0
    minimal_vm_memory: Annotated[Megabytes, Key("No VM is shrunk below this to make room for a more important one")] = 64
    auto_migrations: Annotated[bool, Key("Whether running VMs are moved to where they are better off")] = False
    rebalance_interval: Annotated[Period, Key("autoMigrations: time between two rounds in which moves are looked for")] = 10.0
    min_gain: Annotated[Share, Key("autoMigrations: share by which moves must better the cluster to be worth while")] = 0.1
    hold_rounds: Annotated[PositiveCount, Key("autoMigrations: rounds in a row in which moves must pay before any is made")] = 3
    cooldown: Annotated[Seconds, Key("Time that a VM stays where it has been moved to, unless its host is drained")] = 21_600.0
    max_moves: Annotated[PositiveCount, Key("autoMigrations: moves that are under way at once in the cell")] = 5
    max_moves_per_host: Annotated[PositiveCount, Key("autoMigrations: moves that are under way at once out of one host")] = 2
    reschedule_after_start: Annotated[bool, Key("Whether VMs are moved at once when one has started, not at the next pass")] = False
    optimal_consolidation: Annotated[bool, Key("Consolidated: use the fewest hosts that an exact search finds")] = False
    optimal_seconds: Annotated[Period, Key("optimalConsolidation: longest time that the exact search takes")] = 10.0
    auto_powering: Annotated[bool, Key("Whether empty hosts are switched off, and on again when they are needed")] = False
    guaranteed_servers: Annotated[Count, Key("Hosts that stay switched on even when empty")] = 3
    power_off_delay: Annotated[Seconds, Key("autoPowering: time that a host has been empty before it is switched off")] = 300.0


class Servers(Section, frozen=True, kw_only=True):
    """Which hosts are the better ones."""

    priorities: Annotated[
        Mapping[int, int],
        Keys("Rating of each host by its id: the higher, the better, and the more important are the VMs it gets", example="1 = 3"),
    ] = msgspec.field(default_factory=dict)
