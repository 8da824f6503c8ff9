"""Consolidated on clusters and on the classic instances of bin packing: how many hosts are in use after the plan, and what it costs.

Beside it stand best fit and first fit decreasing, which pack everything from scratch, and the lower bounds: Martello and Toth's L2 for the
quick plans, the linear program's for the exact ones. The classic instances are made from seeds in the manner of E. Falkenauer ("A hybrid
grouping genetic algorithm for bin packing", Journal of Heuristics 2, 1996): `u` are sizes of 20 to 100 for hosts of 150, `t` are triplets
that fill hosts of 1,000 exactly. Each size begins on a host of its own. Every plan has passed the check.
"""

from __future__ import annotations

import time
from random import Random
from typing import Final, NamedTuple

import numpy as np

from bench.clusters import ODD, POWERS_OF_TWO, cluster, instance
from bench.figures import Figure
from tashi.model.host import Host, HostFacts
from tashi.scheduling.check import check
from tashi.scheduling.consolidating.emptying import rebalance
from tashi.scheduling.consolidating.layout import Layout
from tashi.scheduling.consolidating.packing import best_fit, decreasing, first_fit, scarcity
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.plan import Plan
from tashi.scheduling.snapshot import SchedulingSettings, Snapshot

SEEDS: Final = (1, 2, 3)


class Run(NamedTuple):
    """What came of one cluster; memory in GB."""

    hosts: int
    bound: int
    best_fit: int
    first_fit: int
    moves: int
    moved: float
    seconds: float


def run() -> list[Figure]:
    """The quick plans of big clusters, then the exact ones of smaller clusters and of the classic instances."""
    figures = []
    for name, options, goal in (
        ("powers of two", {"flavours": POWERS_OF_TWO}, 2.0),
        ("odd sizes", {"flavours": ODD}, None),
        ("powers of two, skewed", {"flavours": POWERS_OF_TWO, "skew": 2.0}, 2.0),
        ("odd sizes, skewed", {"flavours": ODD, "skew": 1.5}, None),
    ):
        runs = [_plan(cluster(seed, 1_000, 10_000, **options)) for seed in SEEDS]
        figures += _figures(f"1,000 hosts, {name}", runs, goal, 2.0)
    for name, flavours in (("powers of two", POWERS_OF_TWO), ("odd sizes", ODD)):
        runs = [_plan(cluster(seed, 100, 1_000, flavours=flavours, optimal_consolidation=True)) for seed in SEEDS]
        figures += _figures(f"exact: 100 hosts, {name}", runs, 1.0, 30.0)
    for kind, count, goal, limit in (("u", 120, 0.0, 10.0), ("t", 120, 0.0, 10.0), ("u", 250, 1.2, 30.0), ("u", 500, 1.2, 30.0),
                                     ("t", 249, 1.2, 30.0), ("t", 501, 1.2, 30.0)):  # fmt: skip
        runs = [_plan(classic(kind, count, seed)) for seed in SEEDS]
        figures += _figures(f"exact: {kind}{count}", runs, goal, limit)
    return figures


def classic(kind: str, count: int, seed: int) -> Snapshot:
    """So many sizes in the manner of Falkenauer's classes u and t, each on a host of its own, for an exact search."""
    chance = Random(f"{kind}{count}-{seed}")
    if kind == "u":
        capacity, sizes = 150, [chance.randint(20, 100) for _ in range(count)]
    else:
        capacity, sizes = 1_000, []
        for _ in range(count // 3):
            first = chance.randint(380, 490)
            second = chance.randint(250, (1_000 - first) // 2)
            sizes += [first, second, 1_000 - first - second]
    facts = HostFacts(memory=capacity, cores=64, cpu_speed=2_400, version="1")
    hosts = {number: Host(id=number, name=f"node{number}", up=True, decayed=False, facts=facts) for number in range(1, count + 1)}
    placed = {number: (instance(number, (1, size), number),) for number, size in enumerate(sizes, start=1)}
    return Snapshot(hosts=hosts, placed=placed, pending=(), settings=SchedulingSettings(optimal_consolidation=True))


def _plan(snapshot: Snapshot) -> Run:
    fleet = Fleet(snapshot)
    layout = Layout(fleet)
    counts = np.bincount(layout.kind_of)
    weights = scarcity(layout.sizes, counts, layout.capacity)
    order = decreasing(layout.sizes, weights)
    fullest = best_fit(layout.sizes[order], counts[order], layout.capacity, weights, closed=np.arange(len(layout.capacity)))
    first = first_fit(layout.sizes[order], counts[order], layout.capacity)
    started = time.perf_counter()
    moves = rebalance(fleet)
    seconds = time.perf_counter() - started
    problems = check(Plan(actions=moves.moves), snapshot)
    if problems or moves.bound is None or fullest is None or first is None:
        raise AssertionError(f"the plan is unsound: {problems[:1]}")
    memory = {one.id: one.memory for group in snapshot.placed.values() for one in group}
    return Run(
        hosts=moves.after.hosts_in_use,
        bound=moves.bound,
        best_fit=len(np.unique(fullest.place)),
        first_fit=len(np.unique(first.place)),
        moves=len(moves.moves),
        moved=sum(memory[move.instance_id] for move in moves.moves) / 1024,
        seconds=seconds,
    )


def _figures(name: str, runs: list[Run], goal: float | None, seconds: float) -> list[Figure]:
    print(name, *(f"{one.hosts} hosts, lower bound {one.bound}, BFD {one.best_fit}, FFD {one.first_fit};" for one in runs), flush=True)
    best_fit_decreasing = [_beyond(one.best_fit, one.bound) for one in runs]
    return [
        Figure(
            name=f"{name}: hosts beyond the lower bound",
            unit="%",
            runs=[_beyond(one.hosts, one.bound) for one in runs],
            goal=min(best_fit_decreasing) if goal is None else goal,
            floor="best fit decreasing" if all(best_fit_decreasing) else "",
            floor_runs=best_fit_decreasing if all(best_fit_decreasing) else (),
        ),
        Figure(name=f"{name}: the same of first fit decreasing", unit="%", runs=[_beyond(one.first_fit, one.bound) for one in runs]),
        Figure(name=f"{name}: time", unit="s", runs=[one.seconds for one in runs], goal=seconds),
        Figure(name=f"{name}: moves", unit="", runs=[one.moves for one in runs]),
        Figure(name=f"{name}: memory that moves", unit="GB", runs=[one.moved for one in runs]),
    ]


def _beyond(hosts: int, bound: int) -> float:
    return 100 * (hosts / bound - 1)
