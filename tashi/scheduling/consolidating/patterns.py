"""The fewest hosts for instances by kind, exactly: patterns by column generation, the best of them chosen by an integer program.

A *pattern* is what one host holds. A linear program over the patterns found so far prices the kinds; the pattern worth most at these
prices is added until none pays. The prices bound the number of hosts from below, in exact integers, and tell which patterns a packing at
the bound can have at all. Out of all of those where they are few, else out of those found, an integer program chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
from ortools.linear_solver import pywraplp
from ortools.sat.python import cp_model

from tashi.scheduling.consolidating.bounds import Integers
from tashi.scheduling.consolidating.knapsack import Knapsack, Pattern
from tashi.scheduling.consolidating.packing import Mask

Key = TypeVar("Key")
SCALE: Final = 10**6
"""Prices are integers in parts of one host."""
_ROUNDS: Final = 1_500
_ROUNDS_OF_THE_SOLVER: Final = 200
_PRICING: Final = 1.0
"""Seconds for one pattern, where that takes the solver."""
_WORK: Final = 0.06
"""The solver's own seconds, which are several of a processor's, for each second that it may take."""
_PATIENCE: Final = 3
"""How many times the seconds a machine may take for that work before it is told to stop."""
_FEW: Final = 4_000
"""Patterns that are chosen from quickly."""
_MANY: Final = 40_000
"""More patterns than these are not listed."""
_UNSERVED: Final = 1_000.0
"""What the linear program pays for an instance on no host."""


class Group(NamedTuple):
    """``number`` hosts that are alike, with so much free; ``cost`` 0: in use anyway. ``allowed``: which kinds may be there."""

    capacity: tuple[int, ...]
    number: int
    cost: int
    allowed: Mask


class Column(NamedTuple):
    """A pattern of a host of this group."""

    group: int
    pattern: Pattern


class Known(NamedTuple):
    """What a host holds in a packing that is known, and how much memory stays there if it does."""

    host: int
    column: Column
    kept: int


Chosen = list[tuple[Column, int]]
"""On how many hosts each pattern is to be."""


def fewest(sizes: Integers, counts: Integers, groups: Sequence[Group], known: Sequence[Known], seconds: float) -> tuple[Chosen | None, int]:
    """The patterns that cost the least and hold everything, None when none were found; and the bound: nothing costs less.

    Of those that cost the same, it is patterns that are ``known`` where much memory stays. ``seconds``: for all of it, of which each
    integer program takes a part. The patterns may hold more of a kind than there is.
    """
    prices = _Prices(sizes, counts, groups, known)
    prices.find()
    bound = prices.proof.bound
    listed = prices.listed(bound, _FEW)
    best = None if listed is None else _chosen(counts, groups, listed, bound, seconds, at_most=bound)
    if best is None:
        best = _chosen(counts, groups, list(prices.columns), bound, seconds)
    if listed is None and (best is None or cost(best, groups) > bound):
        listed = prices.listed(bound, _MANY)
        best = (listed and _chosen(counts, groups, listed, bound, seconds, at_most=bound)) or best
    if best is not None:
        columns = list(dict.fromkeys([*prices.columns, *(column for column, _ in best)]))
        least = cost(best, groups)
        best = _chosen(counts, groups, columns, least, seconds / 3, at_most=least, known=known) or best
    return best, bound


def cost(chosen: Chosen, groups: Sequence[Group]) -> int:
    """How many hosts that are not in use anyway these take."""
    return sum(number * groups[column.group].cost for column, number in chosen)


class _Proof(NamedTuple):
    """Prices of the kinds, when a host is worth ``unit``; ``rents``: what a host of each group is worth beyond its cost at these prices."""

    unit: int
    prices: list[int]
    rents: list[int]
    total: int

    @property
    def bound(self) -> int:
        """No packing costs less."""
        return -(-self.total // self.unit)


class _Prices:
    """The linear program over the patterns, and the best proof from the prices it has found."""

    def __init__(self, sizes: Integers, counts: Integers, groups: Sequence[Group], known: Sequence[Known]) -> None:
        self._counts, self._groups = counts.tolist(), groups
        self._knapsacks = [Knapsack(sizes, np.where(group.allowed, counts, 0), group.capacity) for group in groups]
        self._program = pywraplp.Solver.CreateSolver("GLOP")
        endless = self._program.infinity()
        self._served = [self._program.Constraint(float(count), endless) for count in self._counts]
        self._hosts = [self._program.Constraint(-endless, float(group.number)) for group in groups]
        self._program.Objective().SetMinimization()
        for row in self._served:
            row.SetCoefficient(self._variable(_UNSERVED), 1.0)
        self.columns: dict[Column, None] = {}
        for one in known:
            self._add(one.column)
        self.proof = _Proof(SCALE, [0] * len(counts), [0] * len(groups), 0)

    def find(self) -> None:
        """Add patterns until none pays."""
        rounds = _ROUNDS if all(knapsack.is_small for knapsack in self._knapsacks) else _ROUNDS_OF_THE_SOLVER
        for _ in range(rounds):
            self._program.Solve()
            prices = [max(0, int(row.dual_value() * SCALE)) for row in self._served]
            found = [knapsack.best(prices) if knapsack.is_small else _best(knapsack, prices) for knapsack in self._knapsacks]
            self._learn(prices, [value for value, _ in found])
            pays = [
                Column(which, pattern)
                for which, (value, pattern) in enumerate(found)
                if value
                > (self._groups[which].cost - self._hosts[which].dual_value()) * SCALE + len(prices)  # more than is lost by rounding
            ]
            if sum(map(self._add, pays)) == 0:
                return

    def listed(self, most: int, limit: int) -> list[Column] | None:
        """All patterns that a packing of this cost could have, at least with more of some kind; None: too many."""
        unit, prices, rents, total = self.proof
        found: list[Column] = []
        for which, (knapsack, group) in enumerate(zip(self._knapsacks, self._groups, strict=True)):
            least = group.cost * unit + rents[which] - (most * unit - total)
            patterns = knapsack.worth(prices, least, limit - len(found)) if knapsack.is_small else None
            if patterns is None:
                return None
            found += [Column(which, pattern) for pattern in patterns]
        return found

    def _learn(self, prices: list[int], values: list[int]) -> None:
        """What these prices prove when a host is worth its price, and when it is worth the most that one can hold."""
        asked = sum(price * count for price, count in zip(prices, self._counts, strict=True))
        dearest = max((value for value, group in zip(values, self._groups, strict=True) if group.cost), default=SCALE)
        for unit in (SCALE, max(SCALE, dearest)):
            rents = [max(0, value - group.cost * unit) for value, group in zip(values, self._groups, strict=True)]
            total = asked - sum(rent * group.number for rent, group in zip(rents, self._groups, strict=True))
            proof = _Proof(unit, prices, rents, total)
            if proof.bound >= self.proof.bound:  # of equally good ones the last: its prices tell good patterns from bad ones best
                self.proof = proof

    def _add(self, column: Column) -> bool:
        """Let the program use this pattern; whether it is new."""
        if column in self.columns:
            return False
        self.columns[column] = None
        variable = self._variable(self._groups[column.group].cost)
        self._hosts[column.group].SetCoefficient(variable, 1.0)
        for kind, number in column.pattern:
            self._served[kind].SetCoefficient(variable, float(number))
        return True

    def _variable(self, price: float) -> pywraplp.Variable:
        variable = self._program.NumVar(0.0, self._program.infinity(), "")
        self._program.Objective().SetCoefficient(variable, float(price))
        return variable


def solver(seconds: float) -> cp_model.CpSolver:
    """One that takes about a quarter of these seconds at most. It stops after so much work rather than at a time, so that it finds the same
    each time; only on a machine that is much too slow for that the time ends it."""
    found = cp_model.CpSolver()
    found.parameters.max_deterministic_time = seconds * _WORK
    found.parameters.max_time_in_seconds = seconds * _PATIENCE
    found.parameters.num_workers = 1
    found.parameters.linearization_level = 2
    return found


def _best(knapsack: Knapsack, prices: Sequence[int]) -> tuple[int, Pattern]:
    """As `Knapsack.best`, where there are too many amounts."""
    model = cp_model.CpModel()
    kinds = [kind for kind, most in enumerate(knapsack.most) if most and prices[kind]]
    numbers = [model.new_int_var(0, knapsack.most[kind], "") for kind in kinds]
    for which, most in enumerate(knapsack.capacity):
        model.add(cp_model.LinearExpr.weighted_sum(numbers, [knapsack.sizes[kind][which] for kind in kinds]) <= most)
    model.maximize(cp_model.LinearExpr.weighted_sum(numbers, [prices[kind] for kind in kinds]))
    engine = solver(_PRICING)
    engine.solve(model)
    pattern = tuple((kind, engine.value(number)) for kind, number in zip(kinds, numbers, strict=True) if engine.value(number))
    return int(engine.best_objective_bound), pattern


def _chosen(
    counts: Integers,
    groups: Sequence[Group],
    columns: Sequence[Column],
    bound: int,
    seconds: float,
    at_most: int | None = None,
    known: Sequence[Known] = (),
) -> Chosen | None:
    """Whole numbers of these patterns that hold everything at the least cost, or with the most memory that is known to stay.

    None: there are none, or none were found."""
    model = cp_model.CpModel()
    holding: list[list[tuple[cp_model.IntVar, int]]] = [[] for _ in counts]
    numbers = []
    for column in columns:
        most = max((-(-int(counts[kind]) // number) for kind, number in column.pattern), default=0)
        variable = model.new_int_var(0, min(most, groups[column.group].number), "")
        numbers.append(variable)
        for kind, number in column.pattern:
            holding[kind].append((variable, number))
    for kind, count in enumerate(counts.tolist()):
        model.add(sum(variable * number for variable, number in holding[kind]) >= count)
    for which, group in enumerate(groups):
        model.add(sum(variable for variable, column in zip(numbers, columns, strict=True) if column.group == which) <= group.number)
    total = sum(variable for variable, column in zip(numbers, columns, strict=True) if groups[column.group].cost)
    model.add(total >= bound)
    if at_most is not None:
        model.add(total <= at_most)
    if known:
        stays = [model.new_bool_var("") for _ in known]
        times = dict(zip(columns, numbers, strict=True))
        for column, mine in _grouped((one.column, stay) for one, stay in zip(known, stays, strict=True)):
            model.add(sum(mine) <= times[column])
        for _, mine in _grouped((one.host, stay) for one, stay in zip(known, stays, strict=True)):
            model.add(sum(mine) <= 1)
        model.maximize(sum(stay * one.kept for stay, one in zip(stays, known, strict=True)))
    else:
        model.minimize(total)
    engine = solver(seconds)
    if engine.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return [(column, engine.value(number)) for column, number in zip(columns, numbers, strict=True) if engine.value(number)]


def _grouped(pairs: Iterable[tuple[Key, cp_model.IntVar]]) -> list[tuple[Key, list[cp_model.IntVar]]]:
    found: dict[Key, list[cp_model.IntVar]] = {}
    for key, variable in pairs:
        found.setdefault(key, []).append(variable)
    return list(found.items())
