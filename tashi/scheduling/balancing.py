"""The Balanced policy's moves: one after another the move that lessens the imbalance most, while that pays.

The load of a host is the load expression of what it is used for, divided by that of all it offers. The imbalance adds up, over the addends
of the expression, the standard deviation of that addend's share in the load over the hosts in service: so a sum cannot hide a host full of
memory beside one full of cores. An expression of another shape, such as a product, is one addend. 0: all hosts are loaded alike.

An instance moves once in a plan. The plan ends where a further move would win less than ``min_gain`` times what those before it won on
average, and comes to nothing when all together would not lessen the imbalance by the share ``min_gain``.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, NamedTuple

import numpy as np

from tashi.model.instance import Instance
from tashi.scheduling.expression import parse
from tashi.scheduling.filters import TO_BETTER
from tashi.scheduling.fleet import Column, Fleet
from tashi.scheduling.load import demand
from tashi.scheduling.moves import Moves
from tashi.scheduling.plan import Figures, Migrate
from tashi.scheduling.terms import hypervisor_of, is_ready, needs

EXACT: Final = 20_000
"""As many pairs of a group and a host are all looked at exactly in every step."""
AT_ONCE: Final = 100
"""For each so many hosts one step is taken of those that one look at the cluster finds; of any number of hosts one at least."""
CLOSE: Final = 0.9
"""Of the same look are steps that win at least this share of what the best of it does."""
BREADTH: Final = 8
"""For each step to be taken so many groups, and so many targets of each of their kinds, are looked at exactly."""
MOST_KINDS: Final = 16
"""As many kinds have their best target looked up every time."""
FRESH_STARTS: Final = 3
"""So many times the best targets of all kinds are looked up anew when no step is found."""
NOISE: Final = 1e-9
"""The share of the imbalance that is no gain but what sums get wrong."""


def imbalance(fleet: Fleet) -> float:
    """How unevenly the hosts in service are loaded: 0 is evenly."""
    return _Loads(fleet).imbalance()


def rebalance(fleet: Fleet) -> Moves:
    """The moves that pay, made in the fleet, too; none when together they do not."""
    min_gain = fleet.snapshot.settings.min_gain
    descent = _Descent(fleet)
    first = last = descent.loads.imbalance()
    before = _figures(fleet, first)
    moves: list[Migrate] = []
    steps: list[_Step] = []

    def least() -> float:
        return max(NOISE * first, min_gain * (first - last) / max(1, len(steps)))

    while found := descent.steps(last - least()):
        for step in found:
            words = descent.take(step)
            now = descent.loads.imbalance()
            if last - now <= least():
                descent.take_back(step)
                break
            steps.append(step)
            why = f"Balanced: imbalance {last:.4g} -> {now:.4g}; {words}"
            moves.append(Migrate(instance_id=step.instance.id, host_id=fleet.hosts[step.target].id, why=why))
            last = now
    if first - last < min_gain * first:
        for step in reversed(steps):
            fleet.move(step.instance, step.target, step.source)
        return Moves(before=before, after=before)
    return Moves(moves=tuple(moves), before=before, after=_figures(fleet, last))


def _figures(fleet: Fleet, imbalance: float) -> Figures:
    return Figures(hosts_in_use=int((fleet.count > 0).sum()), imbalance=imbalance)


class _Loads:
    """The hosts in service, by an index of their own, and ``shares``: for each addend its share in the load of each of them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        expression = parse(fleet.snapshot.settings.load_expression)
        self._addends = expression.addends()
        capacity = np.broadcast_to(expression.value(fleet.memory, fleet.cores, fleet.speed), (len(fleet.hosts),))
        ready = np.array([is_ready(host) for host in fleet.hosts], dtype=bool)
        self.places = np.flatnonzero(ready & (capacity > 0))
        self._scale = 1.0 / capacity[self.places]
        self.shares = self.shares_of(slice(None))

    def imbalance(self) -> float:
        """The deviations of all addends together."""
        return float(self.shares.std(axis=1).sum()) if self.places.size else 0.0

    def shares_of(self, hosts: Any, memory: Any = 0, cores: Any = 0, speed: Any = 0) -> Column:
        """The shares of these hosts, were they used for so much more."""
        fleet, places = self._fleet, self.places[hosts]
        uses = fleet.used_memory[places] + memory, fleet.used_cores[places] + cores, fleet.busy[places] + speed
        return np.stack([addend.value(*uses) for addend in self._addends]) * self._scale[hosts]

    def update(self, hosts: list[int]) -> None:
        """These have changed."""
        self.shares[:, hosts] = self.shares_of(hosts)


class _Step(NamedTuple):
    """A move that lessens the imbalance; ``source`` and ``target`` are places in the fleet."""

    instance: Instance
    source: int
    target: int
    group: int


class _Targets(NamedTuple):
    """What it comes to when an instance of each of these kinds comes to each host.

    ``more``: how the shares grow, ``squares``: how their squared distances from the mean do, by addend, kind and host; ``slope`` is the
    latter's sum over the addends, each by its weight, and endless where an instance of the kind cannot go.
    """

    kinds: Column
    more: Column
    squares: Column
    slope: Column


class _Descent:
    """Steepest descent: every step is the best that there is, as far as it is looked for.

    A *group* are the instances of one host that are of one *kind*: they take the same and may go to the same hosts, so one speaks for all.
    While there are few pairs of a group and a host (`EXACT`), every one is looked at. In larger clusters the slope of the imbalance ranks
    them first: the squared distance from the mean, each addend's divided by its deviation. It falls into a part of the source, which is
    worked out for every group, and one of the target, whose least is remembered for each kind (``reach``) and worked out anew for those
    that rank first, until those are true. Only the best groups and their best targets are then looked at exactly, and where there are
    hundreds of hosts, more than one step is taken of what one look finds, if they have no host in common and win nearly as much.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.loads = _Loads(fleet)
        self._members: list[list[Instance]] = []
        self._examples: list[Instance] = []
        sources, kinds = self._group()
        self._source = np.array(sources, dtype=np.int64)
        self._kind = np.array(kinds, dtype=np.int64)
        self._empty = np.zeros(len(sources), dtype=bool)
        self._groups_on = np.split(np.arange(len(sources)), np.searchsorted(self._source, np.arange(1, len(self.loads.places))))
        wanted = [(*demand(one), fleet.busy_of(one)) for one in self._examples]
        self._demand = np.array([(memory, cores, max(busy, speed)) for memory, cores, speed, busy in wanted]).reshape(-1, 3).T
        self._hypervisors = np.array([hypervisor_of(fleet.hosts[place]) for place in self.loads.places])
        self._refused: dict[int, Column] = {}
        self._reach = np.full(len(self._examples), -np.inf)
        self._fresh_starts = FRESH_STARTS
        self._shares_without = self._without(np.arange(len(sources)))

    def steps(self, limit: float) -> list[_Step]:
        """The best steps, the best one first, that bring the imbalance below this limit."""
        while len(self.loads.places) > 1 and not self._empty.all():
            found = self._search(limit)
            steps = [step for step in found if self._is_agreed(step)]
            if steps:
                return steps
            if not found and (len(self._reach) <= MOST_KINDS or not self._fresh_starts):
                return []
            if not found:
                self._fresh_starts -= 1
                self._reach[:] = -np.inf
        return []

    def take(self, step: _Step) -> str:
        """Make the move; what it does to the two hosts, in words."""
        hosts = list(np.searchsorted(self.loads.places, [step.source, step.target]))
        before = self.loads.shares[:, hosts].sum(axis=0)
        self._members[step.group].pop()
        self._move(step, step.source, step.target)
        after = self.loads.shares[:, hosts].sum(axis=0)
        source, target = (self._fleet.hosts[place].name for place in (step.source, step.target))
        return f"{source}'s load {before[0]:.3g} -> {after[0]:.3g}, {target}'s {before[1]:.3g} -> {after[1]:.3g}"

    def take_back(self, step: _Step) -> None:
        """Undo the last move."""
        self._members[step.group].append(step.instance)
        self._move(step, step.target, step.source)

    def _move(self, step: _Step, source: int, target: int) -> None:
        self._empty[step.group] = not self._members[step.group]
        self._fleet.move(step.instance, source, target)
        hosts = list(np.searchsorted(self.loads.places, [source, target]))
        self.loads.update(hosts)
        groups = np.concatenate([self._groups_on[host] for host in hosts])
        self._shares_without[:, groups] = self._without(groups)

    def _is_agreed(self, step: _Step) -> bool:
        """Whether the filters agree to the last; if not, they are asked about this kind on all hosts: it is neighbours that they mind."""
        if self._fleet.objection(step.instance, step.target, TO_BETTER) is None:
            return True
        refused = [self._fleet.objection(step.instance, place, TO_BETTER) is not None for place in self.loads.places]
        self._refused[int(self._kind[step.group])] = np.array(refused)
        return False

    def _group(self) -> tuple[list[int], list[int]]:
        """Sort the instances into groups and kinds; the source and the kind of each group. The lowest id goes first."""
        fleet, sources, kinds = self._fleet, [], []
        numbers: dict[Hashable, int] = {}
        for index, place in enumerate(self.loads.places):
            host = fleet.hosts[place]
            groups: dict[int, list[Instance]] = {}
            for instance in sorted(fleet.movable(place), key=lambda one: -one.id):
                if instance.host_id != host.id:
                    continue  # this very plan has moved it here
                alike = needs(instance), demand(instance), fleet.busy_of(instance), hypervisor_of(host), fleet.tie_of(instance)
                kind = numbers.setdefault(alike, len(numbers))
                if kind == len(self._examples):
                    self._examples.append(instance)
                groups.setdefault(kind, []).append(instance)
            self._members += groups.values()
            sources += [index] * len(groups)
            kinds += groups
        return sources, kinds

    def _without(self, groups: Column) -> Column:
        """The shares of the sources of these groups, were one of the group gone."""
        return self.loads.shares_of(self._source[groups], *-self._demand[:, self._kind[groups]])

    def _search(self, limit: float) -> list[_Step]:
        """The best pairs of a group and a target, the best one first, that bring the imbalance below this limit."""
        shares, source, count = self.loads.shares, self._source, self.loads.shares.shape[1]
        most, every = max(1, count // AT_ONCE), len(source) * count <= EXACT
        mean, deviation = shares.mean(axis=1, keepdims=True), shares.std(axis=1)
        weight = 1 / np.maximum(deviation, 1e-3 * deviation.max() or 1.0)
        weight /= weight.sum()
        squares = (shares - mean) ** 2
        relief = (self._shares_without - mean) ** 2 - squares[:, source]
        rank = np.where(self._empty, np.inf, weight @ relief)
        known = np.arange(len(self._reach) if every or len(self._reach) <= MOST_KINDS else 0)
        targets = self._targets(known, mean, squares, weight)
        while self._kind[np.argmin(rank + self._reach[self._kind])] not in targets.kinds:
            best = _least(rank + self._reach[self._kind], BREADTH * most)
            targets = self._targets(np.unique(self._kind[best]), mean, squares, weight)
        groups = np.arange(len(source)) if every else _least(rank + self._reach[self._kind], BREADTH * most)
        groups = groups[np.isin(self._kind[groups], targets.kinds) & ~self._empty[groups]]
        of = np.searchsorted(targets.kinds, self._kind[groups])
        hosts = np.arange(count)
        if not every:
            hosts = np.unique(np.concatenate([_least(slope, BREADTH * most) for slope in targets.slope]))
        fewer = (self._shares_without - shares[:, source])[:, groups, None]
        more, worse, slope = targets.more[:, of][:, :, hosts], targets.squares[:, of][:, :, hosts], targets.slope[of][:, hosts]
        variance = (deviation**2)[:, None, None] + (relief[:, groups, None] + worse) / count - ((fewer + more) / count) ** 2
        after = np.sqrt(np.maximum(variance, 0)).sum(axis=0)
        after[np.isinf(slope) | (source[groups][:, None] == hosts)] = np.inf
        return self._apart(after, groups, hosts, most, limit)

    def _apart(self, after: Column, groups: Column, hosts: Column, most: int, limit: float) -> list[_Step]:
        """The best pairs that have no host in common; ``after`` is the imbalance after each, and used up."""
        steps: list[_Step] = []
        sources, now = self._source[groups], self.loads.imbalance()
        while len(steps) < most and after.size:
            row, column = np.unravel_index(np.argmin(after), after.shape)
            if after[row, column] >= limit:
                break
            if not steps:
                limit = min(limit, now - CLOSE * (now - after[row, column]))
            group, source, target = int(groups[row]), sources[row], hosts[column]
            places = self.loads.places
            steps.append(_Step(self._members[group][-1], int(places[source]), int(places[target]), group))
            after[(sources == source) | (sources == target)] = np.inf
            after[:, (hosts == source) | (hosts == target)] = np.inf
        return steps

    def _targets(self, kinds: Column, mean: Column, squares: Column, weight: Column) -> _Targets:
        """What it comes to when an instance of these kinds comes to each host."""
        shares = self.loads.shares
        there = self.loads.shares_of(slice(None), *self._demand[:, kinds, None])
        worse = (there - mean[:, None]) ** 2 - squares[:, None]
        slope = np.tensordot(weight, worse, axes=1)
        for row, kind in enumerate(kinds):
            slope[row, ~self._fits(int(kind))] = np.inf
        self._reach[kinds] = slope.min(axis=1)
        return _Targets(kinds, there - shares[:, None], worse, slope)

    def _fits(self, kind: int) -> Column:
        """The hosts that an instance of this kind may go to, as far as is known."""
        example = self._examples[kind]
        here = hypervisor_of(self._fleet.snapshot.hosts[example.host_id or 0])
        fits = self._fleet.fitting(example, TO_BETTER)[self.loads.places] & (self._hypervisors == here)
        return fits & ~self._refused[kind] if kind in self._refused else fits


def _least(values: Column, most: int) -> Column:
    """The places of the least values, at most so many."""
    return np.argpartition(values, most)[:most] if len(values) > most else np.arange(len(values))
