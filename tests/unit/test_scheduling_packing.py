"""Packing many equals at once comes to what packing them one by one does."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tashi.scheduling.consolidating.packing import Packed, best_fit, decreasing, first_fit, scarcity

amounts = st.integers(0, 6)
kinds = st.lists(st.tuples(st.tuples(amounts, amounts), st.integers(0, 5)), min_size=1, max_size=5)
bins = st.lists(st.tuples(st.integers(-2, 20), st.integers(-2, 20)), min_size=1, max_size=6)
WEIGHTS = np.array([1.0, 1.5])


def one_by_one(sizes: np.ndarray, counts: np.ndarray, free: np.ndarray, closed: list[int], by_room: bool) -> np.ndarray | None:
    """The numbers per kind and bin by walking all bins for each; None: one fits nowhere."""
    free, closed, found = free.copy(), list(closed), np.zeros((len(sizes), len(free)), dtype=np.int64)
    for kind, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        for _ in range(count):
            fits = [place for place, room in enumerate(free) if all(room[size > 0] >= size[size > 0])]
            if not fits:
                return None
            rank = {place: closed.index(place) if place in closed else -1 for place in fits}
            best = min(fits, key=lambda place: (rank[place], free[place] @ WEIGHTS if by_room else place, place))
            free[best] -= size
            found[kind, best] += 1
            closed = [place for place in closed if place != best]
    return found


def table(packed: Packed | None, shape: tuple[int, int]) -> np.ndarray | None:
    """The numbers per kind and bin."""
    if packed is None:
        return None
    found = np.zeros(shape, dtype=np.int64)
    np.add.at(found, (packed.kind, packed.place), packed.number)
    return found


def equal(ours: np.ndarray | None, theirs: np.ndarray | None) -> bool:
    """Whether both packed alike, or neither could."""
    return ours is theirs if ours is None or theirs is None else bool((ours == theirs).all())


@given(kinds, bins, st.integers(0, 6))
def test_best_fit_is_as_if_one_by_one(asked: list[tuple[tuple[int, int], int]], rooms: list[tuple[int, int]], shut: int) -> None:
    """Each goes to the fullest open bin that takes it, and to the first closed one when none does."""
    sizes, counts, free = np.array([size for size, _ in asked]), np.array([count for _, count in asked]), np.array(rooms)
    counts = np.where((sizes == 0).all(axis=1), 0, counts)
    closed = np.arange(len(free))[::-1][:shut]
    ours = table(best_fit(sizes, counts, free, WEIGHTS, closed=closed), (len(sizes), len(free)))
    assert equal(ours, one_by_one(sizes, counts, free, closed.tolist(), by_room=True))


@given(kinds, bins)
def test_first_fit_is_as_if_one_by_one(asked: list[tuple[tuple[int, int], int]], rooms: list[tuple[int, int]]) -> None:
    """Each goes to the first bin that takes it."""
    sizes, counts, free = np.array([size for size, _ in asked]), np.array([count for _, count in asked]), np.array(rooms)
    counts = np.where((sizes == 0).all(axis=1), 0, counts)
    assert equal(table(first_fit(sizes, counts, free), (len(sizes), len(free))), one_by_one(sizes, counts, free, [], by_room=False))


def test_who_may_not_be_there_goes_elsewhere() -> None:
    """The fuller bin would be best, and is not allowed."""
    packed = best_fit(np.array([[2]]), np.array([2]), np.array([[3], [9]]), np.array([1.0]), allowed=np.array([[False, True]]))
    assert packed is not None
    assert packed.place.tolist() == [1]
    assert packed.free.tolist() == [[3], [5]]


def test_the_scarcest_resource_decides_what_is_big() -> None:
    """Where memory is short and cores are plenty, the one with more memory is served first."""
    sizes = np.array([[1, 4], [3, 1]])
    weights = scarcity(sizes, np.array([5, 5]), np.array([[20, 100]]))
    assert decreasing(sizes, weights).tolist() == [1, 0]
