"""Lower bounds: never above what the best packing needs, and tight where counting can tell."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tashi.scheduling.consolidating.bounds import as_integers, covering, lower_bound, martello_toth, with_residents

amounts = st.integers(1, 12)


def fewest(sizes: list[tuple[int, ...]], capacities: list[tuple[int, ...]]) -> int | None:
    """The fewest hosts that hold these, by trying everything; None: they do not fit."""
    free = [list(capacity) for capacity in capacities]
    best: int | None = None

    def put(index: int, used: frozenset[int]) -> None:
        nonlocal best
        if best is not None and len(used) >= best:
            return
        if index == len(sizes):
            best = len(used)
            return
        for host, room in enumerate(free):
            if all(have >= want for have, want in zip(room, sizes[index], strict=True)):
                free[host] = [have - want for have, want in zip(room, sizes[index], strict=True)]
                put(index + 1, used | {host})
                free[host] = room

    put(0, frozenset())
    return best


def columns(rows: list[tuple[int, ...]]) -> np.ndarray:
    """The rows as integers."""
    return np.array(rows, dtype=np.int64)


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=6), st.lists(st.tuples(amounts, amounts), min_size=1, max_size=4))
def test_no_packing_is_below_the_bound(sizes: list[tuple[int, ...]], capacities: list[tuple[int, ...]]) -> None:
    """Whatever the sizes and the hosts: the best packing uses at least as many hosts as the bound says."""
    best = fewest(sizes, capacities)
    if best is not None:
        assert 1 <= lower_bound(columns(sizes), columns(capacities)) <= best


@given(st.lists(amounts, min_size=1, max_size=6), st.integers(12, 20))
def test_the_bound_of_equal_hosts_is_no_packing_either(sizes: list[int], capacity: int) -> None:
    """L2 stays below the best packing, and never below the plain sum."""
    best = fewest([(size,) for size in sizes], [(capacity,)] * len(sizes))
    bound = martello_toth(np.array(sizes), capacity)
    assert best is not None
    assert -(-sum(sizes) // capacity) <= bound <= best


def test_big_ones_do_not_share() -> None:
    """Three of 6 need three hosts of 10, though two would hold their sum; what is left there takes no 5 either."""
    assert martello_toth(np.array([6, 6, 6]), 10) == 3
    assert martello_toth(np.array([6, 6, 6, 5, 5]), 10) == 4
    assert martello_toth(np.array([6, 6, 6, 4, 4]), 10) == 3


def test_the_biggest_hosts_come_first() -> None:
    """20 MB are on two hosts when one has 16 and the next 8, whatever small ones there are."""
    assert covering(20, np.array([1, 8, 16, 1])) == 2


def test_the_scarcest_resource_decides() -> None:
    """Memory would do with one host, cores need three."""
    assert lower_bound(columns([(1, 4)] * 6), columns([(100, 8)] * 9)) == 3


def test_hosts_that_are_in_use_anyway_are_filled_first() -> None:
    """One that stays leaves 3 MB beside it, so that four of 3 need two more hosts of 5; those in use count whatever else there is."""
    assert with_residents(columns([(3,)] * 4), columns([(5,)] * 4), columns([(7,)]), columns([(3,)])) == 3
    assert with_residents(columns([]).reshape(0, 1), columns([]).reshape(0, 1), columns([(1,), (1,)]), columns([(9,), (9,)])) == 2


def test_nothing_needs_no_host() -> None:
    """No instances, no hosts; and what is offered in parts of a core counts as whole ones."""
    assert lower_bound(columns([]).reshape(0, 2), columns([(1, 1)])) == 0
    assert as_integers(np.array([2.9, -1.0])).tolist() == [2, 0]
