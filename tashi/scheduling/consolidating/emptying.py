"""Few hosts serve: the least loaded ones are emptied into the fullest that fit, each whole or not at all.

As many of the least loaded hosts as possible are emptied together into the others; when that leaves more hosts in use than packing anew
does, as few as possible are packed anew; then those that are left are tried one by one, with every filter's word. With
optimalConsolidation the number of hosts is minimised by an exact solver first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tashi.model.instance import Instance
from tashi.scheduling.consolidating.layout import Layout, fewest_hosts, movables
from tashi.scheduling.consolidating.packing import Order, best_fit, decreasing, scarcity
from tashi.scheduling.consolidating.rearranging import assigned, carried_out, matched, ordered, step
from tashi.scheduling.filters import TO_BETTER
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.moving.balancing import imbalance
from tashi.scheduling.moving.moves import Moves
from tashi.scheduling.plan import Figures, Migrate
from tashi.scheduling.terms import hypervisor_of, is_ready

Weights = NDArray[np.float64]
_TRIALS: Final = 16
"""How many sizes of a group to be packed anew are tried before the best is looked at closely."""
_MOST_KINDS: Final = 30_000
"""Fewer of them where that would pack more kinds than this; at least two are tried."""
_TRIES: Final = 3
"""How many ways of packing anew are put into an order before emptying alone has to do."""


class Packing(NamedTuple):
    """What the bins ``opened`` hold goes into the bins ``into``, so many of each kind; ``won`` of those that are opened stay empty."""

    opened: list[int]
    won: int
    into: dict[int, dict[int, int]]


def rebalance(fleet: Fleet) -> Moves:
    """The moves after which the fewest hosts are in use; the fleet is as it is after them. Empty hosts stay empty."""
    before, bound, remarks = _figures(fleet), fewest_hosts(fleet), list[str]()
    moves: list[Migrate] = []
    if fleet.snapshot.settings.optimal_consolidation:
        from tashi.scheduling.consolidating import optimal  # here, for it needs a solver that not everybody has installed

        moves, exact, remarks = optimal.consolidate(fleet)
        bound = max(bound, exact)
    moves = moves or emptied_together(fleet)
    moves += emptied_one_by_one(fleet, {move.instance_id for move in moves})
    after = _figures(fleet)
    remarks.append(f"{after.hosts_in_use} {'host' if after.hosts_in_use == 1 else 'hosts'}, lower bound {bound}")
    return Moves(moves=tuple(moves), before=before, after=after, bound=bound, remarks=tuple(remarks))


def emptied_together(fleet: Fleet) -> list[Migrate]:
    """Empty as many of the least loaded hosts as go together, packing some anew where that empties more."""
    layout = Layout(fleet)
    for packing in packings(layout):
        wanted = _wishes(layout, packing)
        anew = packing.won < len(packing.opened)
        moves = ordered(fleet, wanted) if anew else list(wanted.items())
        if moves is not None:
            return carried_out(fleet, moves)
    return []


def emptied_one_by_one(fleet: Fleet, moved: Iterable[int]) -> list[Migrate]:
    """Empty each host for itself, the least loaded first, unless it took part in moving these already."""
    used = fleet.count > 0
    resting = {place for place in np.flatnonzero(used).tolist() if any(one.id in moved for one in fleet.room(place).residents)}
    moves: list[Migrate] = []
    for place in _least_loaded_first(fleet, np.flatnonzero(used)).tolist():
        leaving = movables(fleet, place)
        if place in resting or len(leaving) < fleet.count[place]:
            continue
        steps = _emptied(fleet, place, leaving, used)
        moves += [step(fleet, one, place, target) for one, target in steps]
        resting |= {target for _, target in steps}
        used[place] &= not steps
    return moves


def packings(layout: Layout) -> list[Packing]:
    """Ways of packing that leave hosts empty, the best first."""
    sources = np.flatnonzero(layout.whole)
    if not len(sources):
        return []
    weights = scarcity(layout.sizes, np.bincount(layout.kind_of), layout.capacity)
    trial = _Trial(layout, sources[_by_load(layout.fleet, layout.places[sources], layout.load[sources] @ weights)], weights)
    emptied = trial.most()
    trials = max(2, min(_TRIALS, _MOST_KINDS // len(layout.sizes)))
    steps = np.unique(np.linspace(len(emptied.opened), len(sources), trials + 1).astype(int))[1:]
    others = [packing for opened in steps.tolist() if (packing := trial.of(opened)) is not None and packing.won > emptied.won]
    if others:
        others.sort(key=lambda packing: (-packing.won, len(packing.opened)))
        others[0] = trial.fewest(others[0], len(emptied.opened))
    return [*others[:_TRIES], *([emptied] if emptied.won else [])]


def _wishes(layout: Layout, packing: Packing) -> dict[int, int]:
    """Which instance goes to which host, by id; as many as can stay where they are."""
    mask = np.zeros(len(layout.places), dtype=bool)
    mask[packing.opened] = True
    members = layout.members(mask)
    again = [bin_ for bin_ in packing.into if mask[bin_]]
    seats = matched(layout, [packing.into[bin_] for bin_ in again], again, packing.opened, members)
    contents = {bin_: content for bin_, content in packing.into.items() if not mask[bin_]}
    contents |= {seat: packing.into[bin_] for bin_, seat in zip(again, seats, strict=True)}
    return assigned(layout, packing.opened, contents, members)


class _Trial:
    """What comes of opening the first so many sources."""

    def __init__(self, layout: Layout, sources: Order, weights: Weights) -> None:
        self._layout, self._sources, self._weights = layout, sources, weights
        self._rank = np.full(len(layout.places), len(sources))
        self._rank[sources] = np.arange(len(sources))
        self._kinds = decreasing(layout.sizes, weights)
        self._roomy_first = sources[np.lexsort((-self._rank[sources], -(layout.capacity[sources] @ weights)))]

    def of(self, opened: int) -> Packing | None:
        """Pack what they hold into the others, and into as few of them as must be; None when that does not go."""
        layout = self._layout
        counts = np.bincount(layout.kind_of[self._rank[layout.bin_of] < opened], minlength=len(layout.sizes))
        kinds = self._kinds[counts[self._kinds] > 0]
        free = layout.free.copy()
        first = self._sources[:opened]
        free[first] = layout.capacity[first]
        closed = self._roomy_first[self._rank[self._roomy_first] < opened]
        allowed = [layout.allowed[kind] for kind in kinds.tolist()]
        packed = best_fit(layout.sizes[kinds], counts[kinds], free, self._weights, allowed=allowed, closed=closed)
        if packed is None:
            return None
        into: dict[int, dict[int, int]] = {}
        for kind, bin_, number in zip(kinds[packed.kind].tolist(), packed.place.tolist(), packed.number.tolist(), strict=True):
            into.setdefault(bin_, {})[kind] = number
        return Packing(first.tolist(), opened - sum(bool(self._rank[bin_] < opened) for bin_ in into), into)

    def most(self) -> Packing:
        """As many as can all be emptied, by halving."""
        best = Packing([], 0, {})
        low, high = 0, len(self._sources)
        while low < high:
            middle = (low + high + 1) // 2
            packing = self.of(middle)
            if packing is not None and packing.won == middle:
                low, best = middle, packing
            else:
                high = middle - 1
        return best

    def fewest(self, good: Packing, low: int) -> Packing:
        """As few opened as leave as many empty, by halving between so many, that are too few, and these."""
        while low + 1 < len(good.opened):
            middle = (low + len(good.opened)) // 2
            packing = self.of(middle)
            if packing is not None and packing.won >= good.won:
                good = packing
            else:
                low = middle
        return good


def _emptied(fleet: Fleet, place: int, leaving: Sequence[Instance], used: NDArray[np.bool_]) -> list[tuple[Instance, int]]:
    """Where everything on this host goes, big ones first, each to the fullest that takes it; nothing when one is taken by none."""
    steps: list[tuple[Instance, int]] = []
    for instance in sorted(leaving, key=lambda one: (-one.taken_memory, -one.cores, one.id)):
        target = _fullest(fleet, instance, place, used)
        if target is None:
            for one, there in reversed(steps):
                fleet.move(one, there, place)
            return []
        fleet.move(instance, place, target)
        steps.append((instance, target))
    return steps


def _fullest(fleet: Fleet, instance: Instance, place: int, used: NDArray[np.bool_]) -> int | None:
    fits = fleet.fitting(instance, TO_BETTER) & used
    fits[place] = False
    places = np.flatnonzero(fits)
    hypervisor = hypervisor_of(fleet.hosts[place])
    for target in reversed(_least_loaded_first(fleet, places).tolist()):
        if (
            is_ready(fleet.hosts[target])
            and hypervisor_of(fleet.hosts[target]) == hypervisor
            and fleet.objection(instance, target, TO_BETTER) is None
        ):
            return target
    return None


def _least_loaded_first(fleet: Fleet, places: Order) -> Order:
    offered = np.maximum(np.array([fleet.memory[places], fleet.cores[places]], dtype=np.float64), 1)
    taken = np.array([fleet.used_memory[places], fleet.used_cores[places]], dtype=np.float64)
    return places[_by_load(fleet, places, (taken / offered).max(axis=0))]


def _by_load(fleet: Fleet, places: Order, load: Weights) -> Order:
    """The order by load, the worst-rated first where it is equal, then by id."""
    return np.lexsort((places, fleet.rating[places], load))


def _figures(fleet: Fleet) -> Figures:
    return Figures(hosts_in_use=int((fleet.count > 0).sum()), imbalance=imbalance(fleet))
