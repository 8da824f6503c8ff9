"""optimalConsolidation: as few hosts as there can be, with the proof of it, and as little memory moved as it finds."""

from __future__ import annotations

import sys
from itertools import product
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.scheduling.check import check
from tashi.scheduling.consolidating.emptying import rebalance
from tashi.scheduling.consolidating.knapsack import Knapsack
from tashi.scheduling.consolidating.optimal import MISSING
from tashi.scheduling.consolidating.patterns import Group, cost, fewest
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.moving.moves import Moves
from tashi.scheduling.plan import Plan
from tashi.scheduling.snapshot import Snapshot
from tests.builders import a_snapshot
from tests.strategies import snapshots
from tests.unit.test_scheduling_bounds import fewest as fewest_by_trying

amounts = st.integers(1, 9)
kinds = st.lists(st.tuples(amounts, amounts), min_size=1, max_size=4, unique=True)


def moved(snapshot: Snapshot) -> Moves:
    """The moves of an exact search, once they have passed the check."""
    exact = msgspec.structs.replace(
        snapshot, settings=msgspec.structs.replace(snapshot.settings, optimal_consolidation=True, optimal_seconds=4.0)
    )
    moves = rebalance(Fleet(exact))
    assert check(Plan(actions=moves.moves), exact) == ()
    return moves


@given(kinds, st.data())
@settings(max_examples=40)
def test_nothing_is_worth_more_than_the_best(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    """The content of a host that is found is worth what trying all of them gives, and those worth at least so much are all listed."""
    counts = [data.draw(st.integers(0, 3)) for _ in sizes]
    prices = [data.draw(st.integers(0, 5)) for _ in sizes]
    capacity = (data.draw(st.integers(0, 14)), data.draw(st.integers(0, 14)))
    contents = {
        tuple((kind, number) for kind, number in enumerate(numbers) if number): sum(n * p for n, p in zip(numbers, prices, strict=True))
        for numbers in product(*(range(count + 1) for count in counts))
        if all(sum(n * size[which] for n, size in zip(numbers, sizes, strict=True)) <= capacity[which] for which in (0, 1))
    }
    knapsack = Knapsack(np.array(sizes), np.array(counts), capacity)
    value, pattern = knapsack.best(prices)
    assert value == contents[pattern] == max(contents.values())
    listed = knapsack.worth(prices, value - 1, 10_000)
    assert listed is not None
    assert sorted(listed) == sorted(content for content, worth in contents.items() if worth >= value - 1)


@given(kinds, st.data())
@settings(max_examples=25, deadline=None)
def test_as_few_hosts_as_trying_everything_finds(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    """Tiny packings on hosts of two sizes: the patterns hold everything on as few hosts as there can be, and the bound is below."""
    counts = [data.draw(st.integers(1, 2)) for _ in sizes]
    items = [size for size, count in zip(sizes, counts, strict=True) for _ in range(count)]
    groups = [Group((12, 12), 2, 1, np.ones(len(sizes), dtype=bool)), Group((9, 15), 2, 1, np.ones(len(sizes), dtype=bool))]
    best = fewest_by_trying(items, [(12, 12), (12, 12), (9, 15), (9, 15)])
    chosen, bound = fewest(np.array(sizes), np.array(counts), groups, [], 5.0)
    if best is None:
        assert chosen is None
        return
    assert chosen is not None
    assert bound <= cost(chosen, groups) == best
    for kind, count in enumerate(counts):
        assert sum(number * dict(column.pattern).get(kind, 0) for column, number in chosen) >= count


@given(snapshots(5, 12))
@settings(max_examples=25, deadline=None)
def test_never_worse_than_without(snapshot: Snapshot) -> None:
    """Whatever the cluster: the plan is sound, the same each time, and on no more hosts than the quick one's."""
    moves, quick = moved(snapshot), rebalance(Fleet(snapshot))
    assert moved(snapshot) == moves
    assert moves.bound is not None
    assert moves.bound <= moves.after.hosts_in_use <= quick.after.hosts_in_use


@pytest.mark.parametrize("seed", [1, 2])
def test_triplets_are_packed_without_a_gap(seed: int) -> None:
    """Sixty sizes of which three each fill a host exactly: twenty hosts, where first fit needs more."""
    chance = Random(seed)
    items = []
    for _ in range(20):
        first = chance.randint(380, 490)
        second = chance.randint(250, (1000 - first) // 2)
        items += [first, second, 1000 - first - second]
    sizes, counts = np.unique(items, return_counts=True)
    groups = [Group((1000,), 60, 1, np.ones(len(sizes), dtype=bool))]
    chosen, bound = fewest(sizes.reshape(-1, 1), counts, groups, [], 10.0)
    assert chosen is not None
    assert cost(chosen, groups) == bound == 20


def test_what_greedy_cannot_find_is_found_and_proven() -> None:
    """Three hosts of triplets that lie crosswise: no host can be emptied, and packing big ones first takes three; two are enough."""
    snapshot = a_snapshot("h1 9c 100G | a 1c 41G, b 1c 26G", "h2 9c 100G | c 1c 33G, d 1c 42G", "h3 9c 100G | e 1c 31G, f 1c 27G")
    moves = moved(snapshot)
    assert (moves.after.hosts_in_use, moves.bound) == (2, 2)
    assert moves.remarks[-1] == "2 hosts, lower bound 2"


def test_the_least_memory_moves() -> None:
    """Either host could be emptied into the third: the one with less memory is, though it has more instances."""
    snapshot = a_snapshot("h1 8c 16G | a 1c 4G", "h2 8c 16G | b 1c 1G, c 1c 1G, d 1c 1G", "h3 8c 16G | e 1c 12G")
    moves = moved(snapshot)
    assert {move.instance_id for move in moves.moves} == {2, 3, 4}
    assert moves.remarks == ("no other layout on 2 hosts moves less memory", "2 hosts, lower bound 2")


def test_without_the_solver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ortools is missing the plan is made without it, with a remark that names the extra."""
    for name in ("patterns", "seating"):
        monkeypatch.setitem(sys.modules, f"tashi.scheduling.consolidating.{name}", None)
        monkeypatch.delattr(f"tashi.scheduling.consolidating.{name}", raising=False)
    moves = moved(a_snapshot("h1 8c 16G | a 1c 1G", "h2 8c 16G | b 1c 4G"))
    assert moves.remarks == (MISSING, "1 host, lower bound 1")
    assert len(moves.moves) == 1
