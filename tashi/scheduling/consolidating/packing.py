"""Best fit and first fit over columns: instances of one size at a time, all that fits on a host at once.

What is packed is a list of *kinds* (rows: what one of them takes of each resource; and how many there are), in the order in which they
are served. Filling a host leaves it the fullest of those that fit, and the first, so that many equals go where each by itself would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tashi.scheduling.consolidating.bounds import Integers

Order = NDArray[np.intp]
Mask = NDArray[np.bool_]
_CLOSED: Final = 1e12
"""More than anything that can be left in an open bin, by weight."""
_NOWHERE: Final[Order] = np.zeros(0, dtype=np.intp)
_NONE: Final[Integers] = np.zeros(0, dtype=np.int64)
_ONE: Final[Integers] = np.ones(1, dtype=np.int64)


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
    rank = free @ weights
    if closed is not None:
        rank[closed] = _CLOSED + np.arange(len(closed))
    return _pack(sizes, counts, free, rank, weights, allowed)


def first_fit(sizes: Integers, counts: Integers, free: Integers, *, allowed: Sequence[Mask] | None = None) -> Packed | None:
    """Each to the first bin that takes it; None when one fits nowhere."""
    return _pack(sizes, counts, free, np.arange(len(free), dtype=np.float64), None, allowed)


def _pack(
    sizes: Integers,
    counts: Integers,
    free: Integers,
    rank: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    allowed: Sequence[Mask] | None,
) -> Packed | None:
    """Each to the bin of the lowest rank that takes it, which with weights then is what is left there."""
    rows = [row.copy() for row in free.T]  # one resource of all bins lies side by side
    found: list[tuple[int, Order, Integers]] = []
    for kind, (size, count) in enumerate(zip(sizes.tolist(), counts.tolist(), strict=True)):
        taken = _fill(size, count, rows, rank, None if allowed is None else allowed[kind])
        if taken is None:
            return None
        places, numbers = taken
        found.append((kind, places, numbers))
        for row, each in zip(rows, size, strict=True):
            if each:
                row[places] -= numbers * each
        if weights is not None:
            rank[places] = sum(row[places] * weight for row, weight in zip(rows, weights.tolist(), strict=True))
    kinds = [np.full(len(places), kind, dtype=np.intp) for kind, places, _ in found]
    return Packed(
        np.concatenate([_NOWHERE, *kinds]),
        np.concatenate([_NOWHERE, *(places for _, places, _ in found)]),
        np.concatenate([_NONE, *(numbers for _, _, numbers in found)]),
        np.stack(rows, axis=1),
    )


def _fill(
    size: list[int], number: int, rows: list[Integers], rank: NDArray[np.float64], allowed: Mask | None
) -> tuple[Order, Integers] | None:
    """In which bins so many equals go, and how many in each; None: they do not all fit."""
    if not number:
        return _NOWHERE, _NONE
    counted = [(row, each) for row, each in zip(rows, size, strict=True) if each]
    fits = np.ones(len(rank), dtype=bool) if allowed is None else allowed
    for row, each in counted:
        fits = fits & (row >= each)
    if number == 1:
        best = int(np.where(fits, rank, np.inf).argmin()) if len(rank) else 0
        return (np.array([best], dtype=np.intp), _ONE) if len(rank) and fits[best] else None
    places = np.flatnonzero(fits)
    places = places[np.argsort(rank[places], kind="stable")]
    room = np.full(len(places), number, dtype=np.int64)
    for row, each in counted:
        room = np.minimum(room, row[places] // each)
    filled = np.cumsum(room)
    enough = int(np.searchsorted(filled, number))
    if enough == len(places):
        return None
    room = room[: enough + 1]
    room[enough] -= filled[enough] - number
    return places[: enough + 1], room
