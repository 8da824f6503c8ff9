"""Which host holds what, when it is known how few hosts do: so that the memory that moves is the least.

Patterns are seated on hosts by an assignment problem; from there an integer program looks for any other layout on as few hosts that moves
less, and proves that there is none where it can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from ortools.graph.python import linear_sum_assignment
from ortools.sat.python import cp_model

from tashi.scheduling.consolidating.layout import Layout
from tashi.scheduling.consolidating.patterns import solver
from tashi.scheduling.consolidating.rearranging import Content

_MOST: Final = 5_000
"""Kinds times hosts beyond which no other layout is looked for."""


def seated(layout: Layout, contents: Sequence[Content], bins: Sequence[int], held: Mapping[int, Content]) -> dict[int, Content]:
    """Each content on one of these bins, which are alike, so that the most memory stays where it is; ``held`` is what they hold now."""
    memory = layout.sizes[:, 0].tolist()
    column = {bin_: place for place, bin_ in enumerate(bins)}
    holders: dict[int, list[tuple[int, int]]] = {}
    for bin_, content in held.items():
        if bin_ in column:
            for kind, number in content.items():
                holders.setdefault(kind, []).append((column[bin_], number))
    kept = np.zeros((len(bins), len(bins)), dtype=np.int64)  # rows beyond the contents are seats that stay empty
    for row, content in enumerate(contents):
        for kind, number in content.items():
            for place, there in holders.get(kind, ()):
                kept[row, place] += memory[kind] * min(number, there)
    task = linear_sum_assignment.SimpleLinearSumAssignment()
    rows, columns = np.indices(kept.shape).reshape(2, -1)
    task.add_arcs_with_cost(rows, columns, -kept.reshape(-1))
    task.solve()
    return {bins[task.right_mate(row)]: content for row, content in enumerate(contents)}


def least_moved(
    layout: Layout, held: Mapping[int, Content], contents: Mapping[int, Content], hosts: int, seconds: float
) -> tuple[dict[int, Content], bool]:
    """A layout on at most so many whole bins that moves the least memory, starting from ``contents``; and whether none moves less.

    ``held``: what each whole bin holds now. ``seconds``: for all of the exact search, of which this takes a part.
    """
    bins = range(len(layout.places))
    if len(layout.sizes) * len(bins) > _MOST:
        return dict(contents), False
    counts = np.bincount(layout.kind_of, minlength=len(layout.sizes)).tolist()
    model = cp_model.CpModel()
    used = {bin_: model.new_bool_var("") for bin_ in bins if layout.whole[bin_]}
    inside: dict[int, list[tuple[int, cp_model.IntVar]]] = {bin_: [] for bin_ in bins}
    stays: list[cp_model.IntVar] = []
    worth: list[int] = []
    for kind, (size, row, count) in enumerate(zip(layout.sizes.tolist(), layout.allowed, counts, strict=True)):
        numbers = []
        for bin_ in bins:
            room = layout.room(bin_).tolist()
            most = min([count, *(have // want for have, want in zip(room, size, strict=True) if want)]) if row[bin_] else 0
            if not most:
                continue
            number = model.new_int_var(0, most, "")
            hint = contents.get(bin_, {}).get(kind, 0)
            model.add_hint(number, hint)
            numbers.append(number)
            inside[bin_].append((kind, number))
            here = held.get(bin_, {}).get(kind, 0)
            if here:
                stay = model.new_int_var(0, min(here, most), "")
                model.add(stay <= number)
                model.add_hint(stay, min(here, hint))
                stays.append(stay)
                worth.append(size[0])
        model.add(sum(numbers) == count)
    for bin_, numbers_here in inside.items():
        room = layout.room(bin_).tolist()
        for resource, most in enumerate(room):
            taken = sum(number * int(layout.sizes[kind, resource]) for kind, number in numbers_here if layout.sizes[kind, resource])
            model.add(taken <= most * used[bin_] if bin_ in used else taken <= most)
    for bin_, variable in used.items():
        model.add_hint(variable, bool(contents.get(bin_)))
    model.add(sum(used.values()) <= hosts)
    model.maximize(sum(stay * memory for stay, memory in zip(stays, worth, strict=True)))
    engine = solver(seconds)
    status = engine.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return dict(contents), False
    found: dict[int, Content] = {}
    for bin_, numbers_here in inside.items():
        content = {kind: engine.value(number) for kind, number in numbers_here if engine.value(number)}
        if content:
            found[bin_] = content
    return found, status == cp_model.OPTIMAL
