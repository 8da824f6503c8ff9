"""Best fit and first fit over columns: instances of one size at a time, all that fits on a host at once.

What is packed is a list of *kinds* (rows: what one of them takes of each resource; and how many there are), in the order in which they
are served. Filling a host leaves it the fullest of those that fit, and the first, so that many equals go where each by itself would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tashi.scheduling.bounds import Integers

Order = NDArray[np.intp]
Mask = NDArray[np.bool_]


class Packed(NamedTuple):
    """``number[i]`` of kind ``kind[i]`` go to bin ``place[i]``; ``free`` is what is left in each bin."""

    kind: Order
    place: Order
    number: Integers
    free: Integers


def scarcity(sizes: Integers, counts: Integers, free: Integers) -> NDArray[np.float64]:
    """What one unit of each resource weighs: the share of all there is that is asked for, so that the scarcest resource decides."""
    offered = np.maximum(np.maximum(free, 0).sum(axis=0), 1)
    asked = (sizes * counts[:, None]).sum(axis=0)
    return np.asarray(asked / offered / offered)


def decreasing(sizes: Integers, weights: NDArray[np.float64]) -> Order:
    """The kinds, the biggest first by weight, and of equally big ones the first."""
    return np.argsort(-(sizes @ weights), kind="stable")


def best_fit(
    sizes: Integers,
    counts: Integers,
    free: Integers,
    weights: NDArray[np.float64],
    *,
    allowed: Sequence[Mask] | None = None,
    closed: Order | None = None,
) -> Packed | None:
    """Each to the bin with the least left that takes it, by weight; None when one fits nowhere.

    ``allowed``: for each kind in which bins it may be. ``closed``: bins that are used only when no other takes an instance, in this order.
    """
    bins = len(free)
    reserve = np.full(bins, -1.0)  # rank among those that are closed; an open one's is -1
    if closed is not None:
        reserve[closed] = np.arange(len(closed))
    return _pack(sizes, counts, free, weights, reserve, allowed)


def first_fit(sizes: Integers, counts: Integers, free: Integers, *, allowed: Sequence[Mask] | None = None) -> Packed | None:
    """Each to the first bin that takes it; None when one fits nowhere."""
    return _pack(sizes, counts, free, None, np.full(len(free), -1.0), allowed)


def _pack(
    sizes: Integers,
    counts: Integers,
    free: Integers,
    weights: NDArray[np.float64] | None,
    reserve: NDArray[np.float64],
    allowed: Mask | None,
) -> Packed | None:
    free, left = free.copy(), np.zeros(len(free)) if weights is None else free @ weights
    found: list[tuple[int, Order, Integers]] = []
    for kind in range(len(sizes)):
        taken = _fill(sizes[kind], int(counts[kind]), free, left, reserve, None if allowed is None else allowed[kind])
        if taken is None:
            return None
        places, numbers = taken
        found.append((kind, places, numbers))
        free[places] -= numbers[:, None] * sizes[kind]
        reserve[places] = -1.0
        if weights is not None:
            left[places] = free[places] @ weights
    kinds = [np.full(len(places), kind, dtype=np.intp) for kind, places, _ in found]
    nothing = np.zeros(0, dtype=np.intp)
    return Packed(
        np.concatenate([nothing, *kinds]),
        np.concatenate([nothing, *(places for _, places, _ in found)]),
        np.concatenate([np.zeros(0, dtype=np.int64), *(numbers for _, _, numbers in found)]),
        free,
    )


def _fill(
    size: Integers, number: int, free: Integers, left: NDArray[np.float64], reserve: NDArray[np.float64], allowed: Mask | None
) -> tuple[Order, Integers] | None:
    """In which bins so many equals go, and how many in each; None: they do not all fit."""
    fits = (free >= size).all(axis=1) if size.all() else ((free >= size) | (size == 0)).all(axis=1)
    if allowed is not None:
        fits &= allowed
    places = np.flatnonzero(fits)
    if not number:
        return places[:0], np.zeros(0, dtype=np.int64)
    if number == 1:
        if not len(places):
            return None
        open_ones = places[reserve[places] < 0]
        best = open_ones[np.argmin(left[open_ones])] if len(open_ones) else places[np.argmin(reserve[places])]
        return np.array([best]), np.ones(1, dtype=np.int64)
    places = places[np.lexsort((left[places], reserve[places]))]
    room = np.full(len(places), number, dtype=np.int64)
    for resource in np.flatnonzero(size):
        room = np.minimum(room, free[places, resource] // size[resource])
    filled = np.cumsum(room)
    enough = int(np.searchsorted(filled, number))
    if enough == len(places):
        return None
    room = room[: enough + 1]
    room[enough] -= filled[enough] - number
    return places[: enough + 1], room
