"""What one host holds that is worth most: a bounded knapsack with several resources, and all that are worth at least so much.

The resources are counted in their greatest common divisors; where the grid of all amounts is small, it is dynamic programming over that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd, prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tashi.scheduling.consolidating.bounds import Integers

Pattern = tuple[tuple[int, int], ...]
"""Kinds, and how many of each."""

MOST_CELLS: Final = 4_000_000
"""Amounts times kinds beyond which a grid takes too much time and memory."""
_NOTHING: Final[Pattern] = ()


class Knapsack:
    """Hosts of one capacity. ``counts``: at most so many of each kind; 0 for those that may not be there."""

    def __init__(self, sizes: Integers, counts: Integers, capacity: Sequence[int]) -> None:
        fit = [
            int(count) if all(s <= c for s, c in zip(size, capacity, strict=True)) else 0
            for size, count in zip(sizes.tolist(), counts, strict=True)
        ]
        here = np.array(fit) > 0
        asked = (sizes[here] * counts[here, None]).sum(axis=0).tolist()
        used = _binding(sizes[here], capacity, [which for which, total in enumerate(asked) if total > 0])
        units = [gcd(*sizes[here, which].tolist()) for which in used]
        self.capacity = tuple(min(capacity[which], asked[which]) // unit for which, unit in zip(used, units, strict=True))
        self.sizes = [tuple(size[which] // unit for which, unit in zip(used, units, strict=True)) for size in sizes.tolist()]
        self.most = [
            min([count, *(c // s for c, s in zip(self.capacity, size, strict=True) if s)])
            for count, size in zip(fit, self.sizes, strict=True)
        ]
        self.is_small = prod(c + 1 for c in self.capacity) * max(int(here.sum()), 1) <= MOST_CELLS

    def best(self, prices: Sequence[int]) -> tuple[int, Pattern]:
        """The most that a host's content can be worth, and such a content."""
        grid = self._grid()
        steps: list[tuple[int, int, NDArray[Any]]] = []
        for kind, number in self._portions(prices):
            before = grid.copy()
            self._offer(grid, before, kind, number, prices)
            steps.append((kind, number, grid > before))
        found: dict[int, int] = {}
        at = self.capacity
        for kind, number, better in reversed(steps):
            if better[at]:
                found[kind] = found.get(kind, 0) + number
                at = tuple(c - number * s for c, s in zip(at, self.sizes[kind], strict=True))
        return int(grid[self.capacity]), tuple(sorted(found.items()))

    def worth(self, prices: Sequence[int], least: int, limit: int) -> list[Pattern] | None:
        """All contents that are worth at least so much; None: they are more than the limit, or too hard to find."""
        kinds = sorted((kind for kind, most in enumerate(self.most) if most), key=lambda kind: [-s for s in self.sizes[kind]])
        after = [self._grid()]  # what can still be won in so much room by the kinds from here on
        for kind in reversed(kinds):
            grid = after[-1].copy()
            for _, number in self._portions(prices, (kind,), worthless=True):
                self._offer(grid, grid.copy(), kind, number, prices)
            after.append(grid)
        after.reverse()
        found: list[Pattern] = []
        stack: list[tuple[int, tuple[int, ...], int, Pattern]] = [(0, self.capacity, 0, _NOTHING)]
        work = 0
        while stack:
            place, room, value, pattern = stack.pop()
            work += 1
            if len(found) > limit or work > 50 * limit:
                return None
            if place == len(kinds):
                found.append(tuple(sorted(pattern)))
                continue
            kind = kinds[place]
            size = self.sizes[kind]
            most = min([self.most[kind], *(c // s for c, s in zip(room, size, strict=True) if s)])
            for number in range(most + 1):
                left = tuple(c - number * s for c, s in zip(room, size, strict=True))
                if value + number * prices[kind] + int(after[place + 1][left]) >= least:
                    stack.append((place + 1, left, value + number * prices[kind], (*pattern, (kind, number)) if number else pattern))
        return found

    def _grid(self) -> NDArray[np.int64]:
        return np.zeros(tuple(c + 1 for c in self.capacity), dtype=np.int64)

    def _portions(self, prices: Sequence[int], kinds: Sequence[int] | None = None, worthless: bool = False) -> Iterator[tuple[int, int]]:
        """Kinds in portions of 1, 2, 4, ... and the rest, out of which any number up to the most can be put together."""
        for kind in range(len(self.most)) if kinds is None else kinds:
            left, portion = self.most[kind] if prices[kind] > 0 or worthless else 0, 1
            while left > 0:
                yield kind, min(portion, left)
                left, portion = left - portion, portion * 2

    def _offer(self, grid: NDArray[np.int64], before: NDArray[np.int64], kind: int, number: int, prices: Sequence[int]) -> None:
        """Take this portion wherever that is worth more."""
        taken = [number * s for s in self.sizes[kind]]
        rich = tuple(slice(t, None) for t in taken)
        poor = tuple(slice(None, c + 1 - t) for c, t in zip(self.capacity, taken, strict=True))
        np.maximum(grid[rich], before[poor] + number * prices[kind], out=grid[rich])


def _binding(sizes: Integers, capacity: Sequence[int], resources: list[int]) -> list[int]:
    """The resources that can be short: not those of which every kind takes no greater a share than of another that is counted."""
    kept = list(resources)
    for one in resources:
        if any((sizes[:, one] * capacity[other] <= sizes[:, other] * capacity[one]).all() for other in kept if other != one):
            kept.remove(one)
    return kept
