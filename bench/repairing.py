"""A cluster of 5,000 hosts and 30,000 instances of which every twentieth host is to be emptied: how long the plan takes that does it.

The plan is whole: every instance that has to leave has a target, and the check finds every step possible in its order. Beside it stands
what BtrPlace's authors have published for repairing a cluster of this size, on hardware of their own.
"""

from __future__ import annotations

import time
from random import Random
from typing import Final

import msgspec

from bench.clusters import cluster
from bench.figures import Figure
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import HostState
from tashi.scheduling.check import check
from tashi.scheduling.moving.ordering import in_order
from tashi.scheduling.plan import Migrate, Plan
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.snapshot import Snapshot

HOSTS: Final = 5_000
INSTANCES: Final = 30_000
PART: Final = 0.05
"""The share of hosts that are to be emptied."""
RUNS: Final = 5
GOAL: Final = 5.0
BTRPLACE: Final = 180.0
"""Seconds: 5,000 servers with 30,000 virtual machines, repaired by BtrPlace (F. Hermenier, J. Lawall, G. Muller, "BtrPlace: A Flexible
Consolidation Manager for Highly Available Applications", IEEE TDSC 10(5), 2013)."""
PUBLISHED: Final = "BtrPlace, as published"


def run() -> list[Figure]:
    """With room to spare, with little, with terms to keep, and places changed on hosts of which many are full."""
    return [
        *_emptied("37 % full", cluster(1, HOSTS, INSTANCES)),
        *_emptied("75 % full", cluster(2, HOSTS, INSTANCES, memory=65_536)),
        *_emptied("with terms", with_terms(cluster(3, HOSTS, INSTANCES))),
        _changed("two thirds of the hosts full", *full_circles()),
    ]


def maintenance(snapshot: Snapshot, seed: int) -> Snapshot:
    """The snapshot with some hosts to be emptied."""
    chosen = set(Random(seed).sample(sorted(snapshot.hosts), int(PART * len(snapshot.hosts))))
    hosts = {
        number: msgspec.structs.replace(host, state=HostState.Drained, draining=True) if number in chosen else host
        for number, host in snapshot.hosts.items()
    }
    return msgspec.structs.replace(snapshot, hosts=hosts)


def with_terms(snapshot: Snapshot) -> Snapshot:
    """The snapshot with two locations, of which a tenth of the instances ask for theirs; every hundredth host is one user's alone."""
    hosts = {
        number: msgspec.structs.replace(host, config={"location": "ie" if number % 5 else "de"}) for number, host in snapshot.hosts.items()
    }
    placed: dict[int, tuple[Instance, ...]] = {}
    for number, group in snapshot.placed.items():
        where = hosts[number].config["location"]
        if number % 100 == 0:
            placed[number] = tuple(msgspec.structs.replace(one, user_id=number, hints={"isolation": "True"}) for one in group)
        else:
            placed[number] = tuple(one if one.id % 10 else msgspec.structs.replace(one, hints={"location": where}) for one in group)
    return msgspec.structs.replace(snapshot, hosts=hosts, placed=placed, loads={})


def full_circles() -> tuple[Snapshot, dict[int, int]]:
    """Hosts in pairs, two thirds of them full; two instances of the same size are to change places in as many pairs as have them."""
    snapshot = cluster(4, HOSTS, INSTANCES)
    hosts: dict[int, Host] = {}
    wanted: dict[int, int] = {}
    for number, host in snapshot.hosts.items():
        group, facts = snapshot.placed[number], host.facts
        assert facts is not None
        full = number % 3 and group
        taken = sum(one.memory for one in group)
        hosts[number] = msgspec.structs.replace(host, facts=msgspec.structs.replace(facts, memory=taken)) if full else host
        other = number + 1 if number % 2 else number - 1
        mine = [one for one in group if one.memory == 4096]
        if mine and any(one.memory == 4096 for one in snapshot.placed[other]):
            wanted[mine[0].id] = other
    return msgspec.structs.replace(snapshot, hosts=hosts), wanted


def _emptied(name: str, whole: Snapshot) -> list[Figure]:
    planned, checked = [], []
    for seed in range(RUNS):
        snapshot = maintenance(whole, seed)
        leaving = sum(len(snapshot.placed[number]) for number, host in snapshot.hosts.items() if host.draining)
        began = time.perf_counter()
        plan = POLICIES["Balanced"](snapshot)
        planned.append(time.perf_counter() - began)
        assert not plan.remarks, plan.remarks[0]
        assert len(plan.actions) == leaving
        checked.append(_checked(snapshot, plan))
    what = f"{PART:.0%} of {HOSTS:,} hosts emptied, {INSTANCES:,} VMs, {name}"
    return [
        Figure(name=f"{what}: plan", unit="s", runs=planned, goal=GOAL, floor=PUBLISHED, floor_runs=[BTRPLACE]),
        Figure(name=f"{what}: check", unit="s", runs=checked),
    ]


def _changed(name: str, snapshot: Snapshot, wanted: dict[int, int]) -> Figure:
    runs = []
    for _ in range(RUNS):
        began = time.perf_counter()
        found = in_order(snapshot, wanted)
        runs.append(time.perf_counter() - began)
    assert not found.refused, next(iter(found.refused.values()))
    _checked(snapshot, Plan(actions=tuple(Migrate(instance_id=number, host_id=host_id) for number, host_id in found.moves)))
    over = len(found.moves) - len(wanted)
    return Figure(name=f"{len(wanted):,} change places, {name}, {over:,} stop over: order", unit="s", runs=runs)


def _checked(snapshot: Snapshot, plan: Plan) -> float:
    began = time.perf_counter()
    problems = check(plan, snapshot)
    took = time.perf_counter() - began
    assert not problems, problems[0]
    return took
