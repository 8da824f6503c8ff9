"""Few hosts serve: the least loaded ones are emptied into the fullest that fit, each whole or not at all.

As many of the least loaded hosts as possible are emptied together into the others; when that leaves more hosts in use than packing anew
does, as few as possible are packed anew; then those that are left are tried one by one, with every filter's word. With
optimalConsolidation the number of hosts is minimised by an exact solver first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tashi.model.instance import Instance
from tashi.scheduling.filters import FOR_A_MOVE
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.layout import Layout, fewest_hosts, in_service, movables
from tashi.scheduling.load import demand
from tashi.scheduling.moves import Moves
from tashi.scheduling.ordering import in_order
from tashi.scheduling.packing import Order, Packed, best_fit, decreasing, scarcity
from tashi.scheduling.plan import Figures, Migrate
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import hypervisor_of

Weights = NDArray[np.float64]
_TRIALS: Final = 16
"""How many sizes of a group to be packed anew are tried before the best is looked at closely."""
_TRIES: Final = 3
"""How many ways of packing anew are put into an order before emptying alone has to do."""


class Packing(NamedTuple):
    """The first ``opened`` of the sources are emptied, and ``packed`` says where what they hold goes; ``won``: how many stay empty."""

    opened: int
    won: int
    kinds: Order
    packed: Packed


def rebalance(fleet: Fleet) -> Moves:
    """The moves after which the fewest hosts are in use; the fleet is as it is after them. Empty hosts stay empty."""
    before, bound, remarks = _figures(fleet), fewest_hosts(fleet), list[str]()
    moves: list[Migrate] = []
    if fleet.snapshot.settings.optimal_consolidation:
        from tashi.scheduling import optimal  # here, for it needs a solver that not everybody has installed

        moves, exact, remarks = optimal.consolidate(fleet)
        bound = max(bound, exact)
    moves = moves or emptied_together(fleet)
    moves += emptied_one_by_one(fleet, {move.instance_id for move in moves})
    after = _figures(fleet)
    remarks.append(f"{after.hosts_in_use} hosts, lower bound {bound}")
    return Moves(moves=tuple(moves), before=before, after=after, bound=bound, remarks=tuple(remarks))


def emptied_together(fleet: Fleet) -> list[Migrate]:
    """Empty as many of the least loaded hosts as go together, packing some anew where that empties more."""
    layout = Layout(fleet)
    for packing, sources in _packings(layout):
        wanted = wishes(layout, sources[: packing.opened], packing)
        anew = packing.won < packing.opened
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
        moves += [_migrate(fleet, one, place, target) for one, target in steps]
        resting |= {target for _, target in steps}
        used[place] &= not steps
    return moves


def carried_out(fleet: Fleet, moves: Iterable[tuple[int, int]]) -> list[Migrate]:
    """These moves, from instance to host by id, as the steps of a plan; the fleet is as it is after them."""
    where = {one.id: (one, place) for place in np.flatnonzero(fleet.count).tolist() for one in fleet.room(place).residents}
    steps: list[Migrate] = []
    for instance_id, host_id in moves:
        instance, source = where[instance_id]
        target = fleet.place_of[host_id]
        fleet.move(instance, source, target)
        where[instance_id] = instance, target
        steps.append(_migrate(fleet, instance, source, target))
    return steps


def ordered(fleet: Fleet, wanted: Mapping[int, int]) -> list[tuple[int, int]] | None:
    """These wishes in an order in which each fits; None when there is none."""
    found = in_order(as_it_is(fleet), wanted)
    return None if found.refused else list(found.moves)


def as_it_is(fleet: Fleet) -> Snapshot:
    """A snapshot of what the plan has decided so far: whatever was placed or moved is where it is to be."""
    placed: dict[int, tuple[Instance, ...]] = {}
    for place, host in enumerate(fleet.hosts):
        residents = fleet.room(place).residents
        placed[host.id] = tuple(
            one if one.host_id == host.id else msgspec.structs.replace(one, host_id=host.id)
            for one in residents
            if one.host_id == host.id or host.id not in one.rooms
        )
    return msgspec.structs.replace(fleet.snapshot, placed=placed, loads={})


def wishes(layout: Layout, opened: Order, packing: Packing) -> dict[int, int]:
    """Which instance goes to which host, by id, when the opened bins are packed like this; as many as can stay where they are."""
    into: dict[int, dict[int, int]] = {}
    for kind, bin_, number in zip(packing.packed.kind, packing.packed.place, packing.packed.number, strict=True):
        content = into.setdefault(int(bin_), {})
        content[int(packing.kinds[kind])] = content.get(int(packing.kinds[kind]), 0) + int(number)
    mask = np.zeros(len(layout.places), dtype=bool)
    mask[opened] = True
    members = layout.members(mask)
    again = [bin_ for bin_ in into if mask[bin_]]
    seats = matched(layout, [into[bin_] for bin_ in again], again, opened, members)
    content_of = {bin_: content for bin_, content in into.items() if not mask[bin_]}
    content_of |= {seat: into[bin_] for bin_, seat in zip(again, seats, strict=True)}
    return assigned(layout, opened, content_of, members)


def matched(
    layout: Layout,
    contents: Sequence[Mapping[int, int]],
    bins: Sequence[int],
    opened: Order,
    members: Mapping[tuple[int, int], list[Instance]],
) -> list[int]:
    """Which of the opened bins gets which content, so that much memory stays where it is: the biggest first, each where most of it is."""
    held: dict[int, tuple[list[int], list[int]]] = {}
    for (kind, bin_), group in members.items():
        places, numbers = held.setdefault(kind, ([], []))
        places.append(bin_)
        numbers.append(len(group))
    columns = {kind: (np.array(places), np.array(numbers)) for kind, (places, numbers) in held.items()}
    alike = layout.alike()
    vacant = np.zeros(len(layout.places), dtype=bool)
    vacant[opened] = True
    seats = list(bins)
    memory = layout.sizes[:, 0]
    by_size = sorted(range(len(bins)), key=lambda which: (-sum(int(memory[kind]) * n for kind, n in contents[which].items()), which))
    for which in by_size:
        kept = np.zeros(len(vacant), dtype=np.int64)
        for kind, number in contents[which].items():
            places, numbers = columns[kind]
            kept[places] += memory[kind] * np.minimum(numbers, number)
        kept[~vacant | (alike != alike[bins[which]])] = -1
        seats[which] = int(kept.argmax())
        vacant[seats[which]] = False
    return seats


def assigned(
    layout: Layout, opened: Order, content_of: Mapping[int, Mapping[int, int]], members: Mapping[tuple[int, int], list[Instance]]
) -> dict[int, int]:
    """The instances of the opened bins by name: those that may stay do; the others go where their kind is wanted, host by host."""
    leaving: dict[int, list[Instance]] = {}
    rank = {bin_: rank for rank, bin_ in enumerate(opened.tolist())}
    staying: dict[tuple[int, int], int] = {}
    for (kind, bin_), group in sorted(members.items(), key=lambda item: rank[item[0][1]]):
        stay = min(len(group), content_of.get(bin_, {}).get(kind, 0)) if bin_ in rank else 0
        staying[kind, bin_] = stay
        leaving.setdefault(kind, []).extend(group[stay:])
    hosts = [layout.fleet.hosts[place].id for place in layout.places.tolist()]
    found: dict[int, int] = {}
    for bin_, content in sorted(content_of.items()):
        for kind, number in content.items():
            wanted = number - staying.get((kind, bin_), 0)
            group = leaving.get(kind, [])
            found |= {one.id: hosts[bin_] for one in group[:wanted]}
            del group[:wanted]
    by_source = {host: rank[bin_] for bin_, host in enumerate(hosts) if bin_ in rank}
    moving = sorted((one for group in members.values() for one in group if one.id in found), key=lambda one: _big_first(by_source, one))
    return {one.id: found[one.id] for one in moving}


def _big_first(rank: Mapping[int, int], instance: Instance) -> tuple[int, int, int]:
    return rank[instance.host_id or 0], -instance.taken_memory, instance.id


def _packings(layout: Layout) -> list[tuple[Packing, Order]]:
    """Ways of packing, the best first: each with the sources it opens, in their order."""
    sources = np.flatnonzero(layout.whole)
    if not len(sources):
        return []
    counts = np.bincount(layout.kind_of, minlength=len(layout.sizes))
    weights = scarcity(layout.sizes, counts, layout.capacity)
    sources = sources[_by_load(layout.fleet, layout.places[sources], layout.load[sources] @ weights)]
    trial = _Trial(layout, sources, weights)
    whole = trial.most()
    found = [whole] if whole.won else []
    steps = np.unique(np.linspace(whole.opened, len(sources), _TRIALS + 1).astype(int))[1:]
    others = [packing for opened in steps.tolist() if (packing := trial.of(opened)) is not None and packing.won > whole.won]
    if others:
        others.sort(key=lambda packing: (-packing.won, packing.opened))
        found = [trial.fewest(others[0], whole.opened), *others[1:_TRIES], *found]
    return [(packing, sources) for packing in found]


class _Trial:
    """What comes of opening the first so many sources."""

    def __init__(self, layout: Layout, sources: Order, weights: Weights) -> None:
        self._layout, self._sources, self._weights = layout, sources, weights
        self._rank = np.full(len(layout.places), len(sources))
        self._rank[sources] = np.arange(len(sources))
        self._order = decreasing(layout.sizes, weights)
        self._roomy_first = sources[np.lexsort((-self._rank[sources], -(layout.capacity[sources] @ weights)))]

    def of(self, opened: int) -> Packing | None:
        """Pack what they hold into the others, and into as few of them as must be; None when that does not go."""
        layout = self._layout
        counts = np.bincount(layout.kind_of[self._rank[layout.bin_of] < opened], minlength=len(layout.sizes))
        kinds = self._order[counts[self._order] > 0]
        free = layout.free.copy()
        first = self._sources[:opened]
        free[first] = layout.capacity[first]
        closed = self._roomy_first[self._rank[self._roomy_first] < opened]
        allowed = [layout.allowed[kind] for kind in kinds.tolist()]
        packed = best_fit(layout.sizes[kinds], counts[kinds], free, self._weights, allowed=allowed, closed=closed)
        if packed is None:
            return None
        again = np.unique(packed.place[self._rank[packed.place] < opened])
        return Packing(opened, opened - len(again), kinds, packed)

    def most(self) -> Packing:
        """As many as can all be emptied, by halving."""
        best = Packing(0, 0, self._order[:0], Packed(self._order[:0], self._order[:0], self._order[:0], self._layout.free))
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
        while low + 1 < good.opened:
            middle = (low + good.opened) // 2
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
    fits = fleet.fitting(instance, FOR_A_MOVE) & used
    fits[place] = False
    places = np.flatnonzero(fits)
    hypervisor = hypervisor_of(fleet.hosts[place])
    for target in reversed(_least_loaded_first(fleet, places).tolist()):
        if (
            in_service(fleet, target)
            and hypervisor_of(fleet.hosts[target]) == hypervisor
            and fleet.objection(instance, target, FOR_A_MOVE) is None
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


def _migrate(fleet: Fleet, instance: Instance, source: int, target: int) -> Migrate:
    memory, cores, _ = demand(instance)
    host, used = fleet.hosts[target], f"{fleet.used_memory[target]} of {fleet.memory[target]} MB"
    why = (
        f"Consolidated: its {memory} MB and {cores} cores leave {fleet.hosts[source].name}; "
        f"{host.name} then has {used} and {fleet.used_cores[target]:g} of {fleet.cores[target]:g} cores in use"
    )
    return Migrate(instance_id=instance.id, host_id=host.id, why=why)


def _figures(fleet: Fleet) -> Figures:
    used = fleet.count > 0
    share = fleet.used_memory / np.maximum(fleet.memory, 1)
    return Figures(hosts_in_use=int(used.sum()), imbalance=float(share[used].std()) if used.any() else 0.0)
