"""Balanced against Ganeti's hbal on the same clusters: hbal's own score after as many moves, the moves for most of its gain, the time.

hbal adds up standard deviations: of the memory that is free, of the cores that are used, each as a share, and with its "dynamic" loads,
which are 1 for each instance where nothing is measured, four times that of the instances of a host. The load expression says the same,
with one MHz as the measured usage of each instance. Its scores, those of our layouts too, are what it prints.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from bench import hbal
from bench.clusters import cluster
from bench.figures import Figure
from tashi.model.host import HostFacts
from tashi.model.instance import Instance
from tashi.scheduling.check import check
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.load import HostUsage, load_of
from tashi.scheduling.moving.balancing import rebalance
from tashi.scheduling.moving.moves import Moves
from tashi.scheduling.plan import Migrate, Plan
from tashi.scheduling.snapshot import Snapshot

SEEDS: Final = (1, 2, 3)
REPEATS: Final = 5
FIRST: Final = 5
CAP: Final = 120.0
LARGE_CAP: Final = 150.0
WAYS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "instances counted": ("memUsage / 131072 + coresUsage / 64 + 4 * cpuUsage", ()),
    "--ignore-dynu": ("memUsage / 131072 + coresUsage / 64", ("--ignore-dynu",)),
}
"""How hbal is asked, and the load expression that says the same."""


class Ours(NamedTuple):
    """A plan that passed the check, and the seconds that each of its makings took, that of its fleet among them."""

    moves: Moves
    seconds: list[float]


def run() -> list[Figure]:
    """All rows; hbal runs alone, and each layout once."""
    figures: list[Figure] = []
    for way in WAYS:
        figures += _small(way)
    for way in WAYS:
        figures += _medium(way)
    figures += _large("instances counted")
    figures += _two_kinds("--ignore-dynu")
    return figures


def _small(way: str) -> list[Figure]:
    """Full plans of 20 hosts and 200 instances."""
    _, options = WAYS[way]
    scores, moves, seconds, its_seconds, gains, whole = [], [], [], [], [], []
    for seed in SEEDS:
        snapshot = _snapshot(way, seed, 20, 200)
        theirs, ours = hbal.balance(snapshot, options), _planned(snapshot)
        layouts = [hbal.score(_after(snapshot, ours.moves.moves[:count]), options) for count in range(len(ours.moves.moves) + 1)]
        same = min(len(layouts), len(theirs.scores)) - 1
        scores.append(layouts[same] / theirs.scores[same])
        gains.append(layouts[-1] / theirs.scores[-1])
        moves.append(_needed(layouts, theirs.scores) / _needed(theirs.scores, theirs.scores))
        seconds.append(statistics.median(_planned(snapshot, len(theirs.moves)).seconds))
        whole.append(statistics.median(ours.seconds))
        its_seconds.append(theirs.whole)
        _say(
            f"20/200 {way} seed {seed}: hbal {theirs.scores[0]:.4f} -> {theirs.scores[-1]:.4f} in {len(theirs.moves)} moves, "
            f"ours {layouts[-1]:.4f} in {len(ours.moves.moves)}, after {same}: {layouts[same]:.6f} against {theirs.scores[same]:.6f}"
        )
    what = f"balance 20/200, {way}:"
    return [
        Figure(name=f"{what} hbal's score after as many moves, ours / hbal's", unit="", runs=scores, goal=1.0),
        Figure(name=f"{what} hbal's score after all moves, ours / hbal's", unit="", runs=gains),
        Figure(name=f"{what} moves for 95 % of hbal's gain, ours / hbal's", unit="", runs=moves, goal=1.0),
        _time(f"{what} as many moves", seconds, its_seconds),
        Figure(name=f"{what} full plan", unit="s", runs=whole, floor="hbal", floor_runs=its_seconds),
    ]


def _medium(way: str) -> list[Figure]:
    """The first moves at 100 hosts and 1,000 instances, and our whole plan."""
    _, options = WAYS[way]
    snapshot = _snapshot(way, 1, 100, 1000)
    theirs = hbal.balance(snapshot, [*options, "-l", str(FIRST)], CAP)
    ours, whole = _planned(snapshot, len(theirs.moves)), _planned(snapshot)
    layouts = [hbal.score(_after(snapshot, ours.moves.moves[:count]), options) for count in range(len(ours.moves.moves) + 1)]
    _say(f"100/1000 {way}: hbal {theirs.scores}, ours {layouts}; hbal {theirs.seconds} s, ours {ours.seconds} s, "
         f"{len(whole.moves.moves)} moves in {whole.seconds} s")  # fmt: skip
    what = f"balance 100/1,000, {way}:"
    return [
        Figure(name=f"{what} hbal's score after {len(theirs.moves)} moves", unit="", runs=[layouts[-1]], goal=theirs.scores[-1],
               floor="hbal", floor_runs=[theirs.scores[-1]]),
        Figure(name=f"{what} moves for 95 % of its gain", unit="moves", runs=[_needed(layouts, theirs.scores)],
               goal=_needed(theirs.scores, theirs.scores), floor="hbal", floor_runs=[_needed(theirs.scores, theirs.scores)]),
        _time(f"{what} {len(theirs.moves)} moves", ours.seconds, [theirs.whole]),
        Figure(name=f"{what} full plan, {len(whole.moves.moves)} moves", unit="s", runs=whole.seconds),
    ]  # fmt: skip


def _large(way: str) -> list[Figure]:
    """A full plan at 1,000 hosts and 10,000 instances."""
    _, options = WAYS[way]
    snapshot = _snapshot(way, 1, 1000, 10_000)
    ours = _planned(snapshot)
    usual = _planned(_with(snapshot, min_gain=0.1))
    theirs = hbal.balance(snapshot, [*options, "-l", "1"], LARGE_CAP)
    layout = hbal.score(_after(snapshot, ours.moves.moves), options)
    _say(f"1000/10000 {way}: ours {len(ours.moves.moves)} moves, {ours.seconds} s, {ours.moves.before} -> {ours.moves.after}; "
         f"with min_gain 0.1 {len(usual.moves.moves)} moves, {usual.seconds} s; hbal's score {theirs.scores[0]:.4f} -> {layout:.4f}, "
         f"and {len(theirs.moves)} moves of its own")  # fmt: skip
    what = f"balance 1,000/10,000, {way}:"
    return [
        Figure(name=f"{what} full plan, {len(ours.moves.moves)} moves", unit="s", runs=ours.seconds, goal=2.0,
               floor=f"hbal's first {len(theirs.moves)} moves", floor_runs=[theirs.whole]),
        Figure(name=f"{what} plan that pays, {len(usual.moves.moves)} moves", unit="s", runs=usual.seconds, goal=2.0),
        Figure(name=f"{what} hbal's score of ours", unit="", runs=[layout], floor="before", floor_runs=[theirs.scores[0]]),
    ]  # fmt: skip


def _two_kinds(way: str) -> list[Figure]:
    """Every third host has twice the memory and cores: hbal wants equal shares of both, and so do we."""
    _, options = WAYS[way]
    scores = []
    for seed in SEEDS:
        snapshot = _snapshot(way, seed, 20, 200)
        hosts = dict(snapshot.hosts)
        for number in list(hosts)[::3]:
            hosts[number] = msgspec.structs.replace(hosts[number], facts=_larger(hosts[number].facts))
        snapshot = msgspec.structs.replace(snapshot, hosts=hosts)
        theirs, ours = hbal.balance(snapshot, options), _planned(snapshot)
        same = min(len(theirs.moves), len(ours.moves.moves))
        layout = hbal.score(_after(snapshot, ours.moves.moves[:same]), options)
        scores.append(layout / theirs.scores[same])
        _say(f"two kinds, 20/200 {way} seed {seed}: after {same} moves hbal {theirs.scores[same]:.4f}, ours {layout:.4f}")
    return [Figure(name=f"balance 20/200, hosts of two kinds, {way}: hbal's score, ours / hbal's", unit="", runs=scores)]


def _larger(facts: HostFacts | None) -> HostFacts | None:
    return facts and msgspec.structs.replace(facts, memory=262_144, cores=128)


def _time(name: str, seconds: Sequence[float], its_seconds: Sequence[float]) -> Figure:
    """Ours beside hbal's; the goal is a hundredth."""
    goal = statistics.median(its_seconds) / 100
    return Figure(name=f"{name}", unit="s", runs=seconds, goal=goal, floor="hbal", floor_runs=its_seconds)


def _snapshot(way: str, seed: int, hosts: int, instances: int) -> Snapshot:
    """Every instance uses one MHz, and every move that wins anything is made."""
    snapshot = cluster(seed, hosts, instances, load_expression=WAYS[way][0], min_gain=0.0)
    usage = {host_id: HostUsage(instances={one.id: 1 for one in group}) for host_id, group in snapshot.placed.items()}
    return msgspec.structs.replace(snapshot, usage=usage)


def _with(snapshot: Snapshot, min_gain: float) -> Snapshot:
    return msgspec.structs.replace(snapshot, settings=msgspec.structs.replace(snapshot.settings, min_gain=min_gain))


def _planned(snapshot: Snapshot, most: int | None = None) -> Ours:
    """Our plan, made a few times; RuntimeError when it does not pass the check."""
    seconds: list[float] = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        moves = rebalance(Fleet(snapshot), most)
        seconds.append(time.perf_counter() - begun)
    problems = check(Plan(actions=moves.moves), snapshot)
    if problems:
        raise RuntimeError(f"the plan does not pass the check: {problems[0]}")
    return Ours(moves, seconds)


def _after(snapshot: Snapshot, moves: Sequence[Migrate]) -> Snapshot:
    """The cluster when these have been made."""
    where = {move.instance_id: move.host_id for move in moves}
    everyone = [one for group in snapshot.placed.values() for one in group]
    placed: dict[int, list[Instance]] = {host_id: [] for host_id in snapshot.hosts}
    for one in everyone:
        host_id = where.get(one.id, one.host_id)
        placed[host_id].append(msgspec.structs.replace(one, host_id=host_id))
    groups = {host_id: tuple(group) for host_id, group in placed.items()}
    return msgspec.structs.replace(snapshot, placed=groups, loads={host_id: load_of(group) for host_id, group in groups.items()})


def _needed(scores: Sequence[float], its_scores: Sequence[float]) -> int:
    """After how many moves 95 % of hbal's gain is won; one more than there are when it never is."""
    wanted = its_scores[0] - 0.95 * (its_scores[0] - its_scores[-1])
    return next((count for count, score in enumerate(scores) if score <= wanted), len(scores))


def _say(text: str) -> None:
    print(text, file=sys.stderr)
