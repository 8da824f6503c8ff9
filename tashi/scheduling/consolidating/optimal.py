"""optimalConsolidation: the fewest hosts, then the least memory that moves, by exact methods that stop after a fixed amount of work.

What they need is the extra ``tashi[optimal]``. Where it is missing, or where hosts differ too much, a remark says so, and nothing is moved
here: consolidating does what it does without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from tashi.scheduling.consolidating.emptying import packings
from tashi.scheduling.consolidating.layout import Layout, movables
from tashi.scheduling.consolidating.rearranging import Content, assigned, carried_out, ordered
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.plan import Migrate

MISSING: Final = "optimalConsolidation needs ortools, which is not installed: pip install 'tashi[optimal]'; planned without it"
_MOST_GROUPS: Final = 16
_MOST_KINDS: Final = 600
_MOST_BINS: Final = 1_500


def consolidate(fleet: Fleet) -> tuple[list[Migrate], int, list[str]]:
    """The moves, which the fleet has made; the number of hosts below which no plan is (0: not known); and what is to be said."""
    try:
        from tashi.scheduling.consolidating import patterns as optimal_patterns
        from tashi.scheduling.consolidating import seating as optimal_moves
    except ImportError:
        return [], 0, [MISSING]
    layout = Layout(fleet)
    if not len(layout.sizes):
        return [], 0, []
    alike = _alike(layout)
    if len(alike) > _MOST_GROUPS or len(layout.sizes) > _MOST_KINDS or len(layout.places) > _MOST_BINS:
        sizes = f"{len(layout.places)} hosts of {len(alike)} kinds and {len(layout.sizes)} kinds of instances"
        return [], 0, [f"{sizes} are too many for the exact search; planned without it"]
    seconds = fleet.snapshot.settings.optimal_seconds
    held, contents = _held(layout), _greedy(layout)
    groups = []
    for bins in alike:
        room, allowed = layout.room(bins[0]), np.array([row[bins[0]] for row in layout.allowed])
        groups.append(optimal_patterns.Group(tuple(room.tolist()), len(bins), int(layout.whole[bins[0]]), allowed))
    which = {bin_: group for group, bins in enumerate(alike) for bin_ in bins}
    known = [
        optimal_patterns.Known(
            bin_, optimal_patterns.Column(which[bin_], tuple(sorted(content.items()))), _kept(layout, content, held.get(bin_))
        )
        for packing in (held, contents)
        for bin_, content in packing.items()
        if bin_ in which and _fits(layout, bin_, content)
    ]
    counts = np.bincount(layout.kind_of, minlength=len(layout.sizes))
    chosen, bound = optimal_patterns.fewest(layout.sizes, counts, groups, known, seconds)
    hosts = _hosts(layout, contents)
    if chosen is not None and optimal_patterns.cost(chosen, groups) < hosts:
        hosts = optimal_patterns.cost(chosen, groups)
        filled = _without_surplus(
            [(column.group, dict(column.pattern)) for column, number in chosen for _ in range(number)], counts.tolist()
        )
        contents = {}
        for group, bins in enumerate(alike):
            contents |= optimal_moves.seated(layout, [content for where, content in filled if where == group], bins, held)
    aside = int(fleet.count.astype(bool).sum() - layout.whole.sum())
    proof = aside + bound if _decided_here(layout) else 0
    if hosts == layout.whole.sum():
        return [], proof, []  # none can be freed, and nothing that stays moves less
    better, least = optimal_moves.least_moved(layout, held, contents, hosts, seconds)
    for wish in (better, contents):
        moves = _moves(layout, wish)
        if moves is not None:
            said = [f"no other layout on {hosts + aside} hosts moves less memory"] if least and wish is better and moves else []
            return carried_out(fleet, moves), proof, said
    return (
        [],
        proof,
        [f"{hosts + aside} hosts would do, but cannot be reached by moves that each fit; planned without the exact search"],
    )


def _alike(layout: Layout) -> list[list[int]]:
    """The bins in groups that offer the same, but for those in use anyway that have no room for anything."""
    kinds = layout.alike().tolist()
    groups: dict[tuple[int, ...], list[int]] = {}
    for bin_, whole in enumerate(layout.whole.tolist()):
        if whole:
            groups.setdefault((kinds[bin_],), []).append(bin_)
        elif any(row[bin_] and (layout.free[bin_] >= size).all() for row, size in zip(layout.allowed, layout.sizes, strict=True)):
            groups.setdefault((kinds[bin_], *layout.free[bin_].tolist()), []).append(bin_)
    return list(groups.values())


def _held(layout: Layout) -> dict[int, dict[int, int]]:
    """What each whole bin holds now."""
    held: dict[int, dict[int, int]] = {}
    for kind, bin_ in zip(layout.kind_of.tolist(), layout.bin_of.tolist(), strict=True):
        content = held.setdefault(bin_, {})
        content[kind] = content.get(kind, 0) + 1
    return held


def _greedy(layout: Layout) -> dict[int, Content]:
    """What each bin holds, of what can move, when consolidating without an exact search is through."""
    held = _held(layout)
    for packing in packings(layout)[:1]:
        for bin_ in packing.opened:
            del held[bin_]
        for bin_, content in packing.into.items():
            there = held.setdefault(bin_, {})
            for kind, number in content.items():
                there[kind] = there.get(kind, 0) + number
    return dict(held)


def _without_surplus(filled: Sequence[tuple[int, dict[int, int]]], counts: Sequence[int]) -> list[tuple[int, dict[int, int]]]:
    """The same contents with no more of any kind than there are."""
    left = list(counts)
    found = []
    for group, content in filled:
        kept = {kind: min(number, left[kind]) for kind, number in content.items() if left[kind]}
        for kind, number in kept.items():
            left[kind] -= number
        if kept:
            found.append((group, kept))
    return found


def _kept(layout: Layout, content: Content, held: Content | None) -> int:
    """MB that stay on a host that holds these now."""
    return sum(int(layout.sizes[kind, 0]) * min(number, (held or {}).get(kind, 0)) for kind, number in content.items())


def _fits(layout: Layout, bin_: int, content: Content) -> bool:
    """Whether another host like this one could have it: not where more is on a host than fits, or may be there."""
    taken = sum((layout.sizes[kind] * number for kind, number in content.items()), start=np.zeros(3, dtype=np.int64))
    return bool((taken <= layout.room(bin_)).all()) and all(layout.allowed[kind][bin_] for kind in content)


def _hosts(layout: Layout, contents: Mapping[int, Content]) -> int:
    return sum(bool(layout.whole[bin_]) for bin_ in contents)


def _decided_here(layout: Layout) -> bool:
    """Whether all that can move at all is among what is packed here, so that what bounds this bounds every plan."""
    whole = set(layout.places[layout.whole].tolist())
    return not any(movables(layout.fleet, place) for place in np.flatnonzero(layout.fleet.count).tolist() if place not in whole)


def _moves(layout: Layout, contents: Mapping[int, Content]) -> list[tuple[int, int]] | None:
    """The moves to this layout in an order in which each fits; None when there is none."""
    load = layout.load[:, 0]
    opened = sorted(np.flatnonzero(layout.whole).tolist(), key=lambda bin_: (bin_ in contents, load[bin_], bin_))
    return ordered(layout.fleet, assigned(layout, opened, contents, layout.members(layout.whole)))
