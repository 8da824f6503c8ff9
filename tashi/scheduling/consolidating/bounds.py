"""How many hosts there must be at least, whoever packs: lower bounds by counting, in exact integers.

`martello_toth` is the bound L2 of bin packing for hosts that are alike; `covering` lets them differ and takes the biggest first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def lower_bound(sizes: Integers, capacities: Integers) -> int:
    """No packing uses fewer hosts: the most that any one resource asks for.

    ``sizes``: a row for each instance, a column for each resource; ``capacities``: a row for each host, with the same columns. What fits
    on no host counts as if it filled the biggest.
    """
    if not len(sizes) or not len(capacities):
        return 0
    return max(
        max(
            covering(int(sizes[:, resource].sum()), capacities[:, resource]),
            martello_toth(sizes[:, resource], int(capacities[:, resource].max())),
        )
        for resource in range(sizes.shape[1])
    )


def with_residents(sizes: Integers, capacities: Integers, residents: Integers, left: Integers) -> int:
    """As `lower_bound`, when some hosts are in use anyway, by ``residents`` that stay; ``left``: the room beside each."""
    everything, hosts = np.concatenate([sizes, residents]), np.concatenate([capacities, residents + left])
    spilled = np.maximum(sizes.sum(axis=0) - left.sum(axis=0), 0).tolist()
    more = max((covering(wanted, capacities[:, resource]) for resource, wanted in enumerate(spilled)), default=0)
    return max(lower_bound(everything, hosts), len(residents) + more)


def covering(wanted: int, capacities: Integers) -> int:
    """The fewest hosts that offer so much together, the biggest first; all of them when even those do not."""
    if wanted <= 0:
        return 0
    offered = np.cumsum(np.sort(capacities)[::-1])
    return min(int(np.searchsorted(offered, wanted)) + 1, len(capacities))


def martello_toth(sizes: Integers, capacity: int) -> int:
    """The bound L2 for hosts of one capacity.

    Instances of more than half a host never share one with each other. For any threshold, those bigger than the capacity without it are
    alone; what the others that are bigger than half leave free is all that those between the threshold and half can use without
    further hosts.
    """
    if not len(sizes):
        return 0
    if capacity <= 0:
        return 1
    ordered = np.sort(np.minimum(sizes, capacity))
    below = np.concatenate(([0], np.cumsum(ordered)))
    half = int(np.searchsorted(ordered, capacity // 2, side="right"))  # the first of more than half
    thresholds = np.unique(np.concatenate(([0], ordered[:half])))
    alone = np.searchsorted(ordered, capacity - thresholds, side="right")  # the first that is alone
    small = np.searchsorted(ordered, thresholds, side="left")
    alone = np.maximum(alone, half)
    left = (alone - half) * capacity - (below[alone] - below[half])
    spilled = below[half] - below[small] - left
    more = np.maximum(0, -(-spilled // capacity))
    return max(int((len(ordered) - half + more).max()), 1)


def as_integers(values: NDArray[Any]) -> Integers:
    """What integers can use of these: rounded down, and nothing where something is missing already."""
    return np.maximum(np.floor(values), 0).astype(np.int64)
