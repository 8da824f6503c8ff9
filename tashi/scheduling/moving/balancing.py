"""The Balanced policy's moves: one after another the move that lessens the imbalance most, while that pays.

The load of a host is the load expression of what it is used for, divided by that of all it offers. The imbalance adds up, over the addends
of the expression, the standard deviation of that addend's share in the load over the hosts in service: so a sum cannot hide a host full of
memory beside one full of cores. An expression of another shape, such as a product, is one addend. 0: all hosts are loaded alike.

An instance moves once in a plan. The plan ends where a further move would win less than ``min_gain`` times what those before it won on
average, and comes to nothing when all together would not lessen the imbalance by the share ``min_gain``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from tashi.model.instance import Instance
from tashi.scheduling.filters import TO_BETTER
from tashi.scheduling.fleet import Column, Fleet
from tashi.scheduling.moving.kinds import Kinds
from tashi.scheduling.moving.moves import Moves
from tashi.scheduling.placing.expression import parse
from tashi.scheduling.plan import Figures, Migrate
from tashi.scheduling.terms import is_ready

EXACT: Final = 20_000
"""As many pairs of a group and a host are all looked at exactly in every step."""
AT_ONCE: Final = 100
"""Where there are more: for each so many hosts one step is taken of those that one look at the cluster finds, and one at least."""
CLOSE: Final = 0.9
"""Of the same look are steps that win at least this share of what the best of it does."""
BREADTH: Final = 8
"""For each step to be taken so many groups, and so many targets of each of their classes, are looked at exactly."""
NOISE: Final = 1e-9
"""The share of the imbalance that is no gain but what sums get wrong."""


def imbalance(fleet: Fleet) -> float:
    """How unevenly the hosts in service are loaded: 0 is evenly."""
    return _Loads(fleet).imbalance


def rebalance(fleet: Fleet, most: int | None = None) -> Moves:
    """The moves that pay, ``most`` of them at most, made in the fleet, too; none when together they do not."""
    min_gain = fleet.snapshot.settings.min_gain
    descent = _Descent(fleet)
    first = last = descent.loads.imbalance
    before = _figures(fleet, first)
    moves: list[Migrate] = []
    steps: list[_Step] = []

    def least() -> float:
        return max(NOISE * first, min_gain * (first - last) / max(1, len(steps)))

    while len(steps) != most and (found := descent.steps(last - least())):
        for step in found[: None if most is None else most - len(steps)]:
            words = descent.take(step)
            now = descent.loads.imbalance
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
    """The hosts in service, by an index of their own, and ``shares``: for each addend its share in the load of each of them.

    Of these are the ``mean``, the ``deviation`` from it, and the ``imbalance``.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._expression = parse(fleet.snapshot.settings.load_expression)
        capacity = np.broadcast_to(self._expression.value(fleet.memory, fleet.cores, fleet.speed), (len(fleet.hosts),))
        ready = np.array([is_ready(host) for host in fleet.hosts], dtype=bool)
        self.places = np.flatnonzero(ready & (capacity > 0))
        self._scale = 1.0 / capacity[self.places]
        self.shares = self.shares_of(slice(None))
        self._sum_up()

    def shares_of(self, hosts: Any, memory: Any = 0, cores: Any = 0, speed: Any = 0) -> Column:
        """The shares of these hosts, were they used for so much more."""
        fleet, places = self._fleet, self.places[hosts]
        uses = fleet.used_memory[places] + memory, fleet.used_cores[places] + cores, fleet.busy[places] + speed
        return self._expression.parts(*uses) * self._scale[hosts]

    def update(self, hosts: list[int]) -> None:
        """These have changed."""
        self.shares[:, hosts] = self.shares_of(hosts)
        self._sum_up()

    def _sum_up(self) -> None:
        count = max(1, len(self.places))
        self.mean = self.shares.sum(axis=1, keepdims=True) / count
        distance = self.shares - self.mean
        self.deviation = np.sqrt(np.einsum("ij,ij->i", distance, distance) / count)
        self.imbalance = float(self.deviation.sum())


class _Step(NamedTuple):
    """A move that lessens the imbalance; ``source`` and ``target`` are places in the fleet."""

    instance: Instance
    source: int
    target: int
    group: int


class _Descent:
    """Steepest descent: every step is the best that there is, as far as it is looked for.

    A *group* are the instances of one host that are of one *kind*: they take the same and may go to the same hosts, so one speaks for all.
    While there are few pairs of a group and a host (`EXACT`), every one is looked at. In larger clusters the slope of the imbalance ranks
    them first: the squared distance from the mean, each addend's divided by its deviation. It falls into a part of the source and one of
    the target. The target that is best for an instance of middling size is worked out for each class of kinds, and the groups are ranked by
    what they would win by going there; then the best groups and the best targets of their classes are looked at exactly. Where there are
    hundreds of hosts, more than one step is taken of what one look finds, if they have no host in common and win nearly as much. Groups
    that were looked at in vain are not looked at again until their host changes.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.loads = _Loads(fleet)
        self._members: list[list[Instance]] = []
        kinds = Kinds(fleet, self.loads.places)
        source, kind = self._group(kinds)
        self._kinds = kinds
        self._source = np.array(source, dtype=np.int64)
        self._kind = np.array(kind, dtype=np.int64)
        self._passed_over = np.zeros(len(source), dtype=bool)
        self._groups_on = np.split(np.arange(len(source)), np.searchsorted(self._source, np.arange(1, len(self.loads.places))))
        kinds.sort()
        self._without = self._shares_without(np.arange(len(source)))

    def steps(self, limit: float) -> list[_Step]:
        """The best steps, the best one first, that bring the imbalance below this limit."""
        while len(self.loads.places) > 1 and not self._passed_over.all():
            found, looked_at = self._search(limit)
            steps = [step for step in found if self._is_agreed(step)]
            if steps or not looked_at.size:
                return steps
            if not found:
                self._passed_over[looked_at] = True
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

    def _group(self, kinds: Kinds) -> tuple[list[int], list[int]]:
        """Sort the instances into groups; the source and the kind of each. The lowest id goes first."""
        sources: list[int] = []
        found: list[int] = []
        for index, place in enumerate(self.loads.places.tolist()):
            host = self._fleet.hosts[place]
            groups: dict[int, list[Instance]] = {}
            for instance in sorted(self._fleet.movable(place), key=lambda one: -one.id):
                if instance.host_id == host.id:  # else this very plan has moved it here
                    groups.setdefault(kinds.number(instance, host), []).append(instance)
            self._members += groups.values()
            sources += [index] * len(groups)
            found += groups
        return sources, found

    def _move(self, step: _Step, source: int, target: int) -> None:
        self._fleet.move(step.instance, source, target)
        hosts = list(np.searchsorted(self.loads.places, [source, target]))
        self.loads.update(hosts)
        groups = np.concatenate([self._groups_on[host] for host in hosts])
        self._without[:, groups] = self._shares_without(groups)
        self._passed_over[groups] = [not self._members[group] for group in groups]

    def _is_agreed(self, step: _Step) -> bool:
        """Whether the filters agree to the last."""
        if self._fleet.objection(step.instance, step.target, TO_BETTER) is None:
            return True
        self._kinds.refuse(int(self._kind[step.group]), int(np.searchsorted(self.loads.places, step.target)))
        return False

    def _shares_without(self, groups: Column) -> Column:
        """The shares of the sources of these groups, were one of the group gone."""
        return self.loads.shares_of(self._source[groups], *-self._kinds.uses[:, self._kind[groups]])

    def _search(self, limit: float) -> tuple[list[_Step], Column]:
        """The best pairs of a group and a target, the best one first, that bring the imbalance below this limit; the groups looked at."""
        shares, source, count = self.loads.shares, self._source, self.loads.shares.shape[1]
        mean, deviation = self.loads.mean, self.loads.deviation
        squares = (shares - mean) ** 2
        relief = (self._without - mean) ** 2 - squares[:, source]
        most = 1
        if len(source) * count <= EXACT:
            groups, hosts = np.flatnonzero(~self._passed_over), np.arange(count)
        else:
            most = max(1, count // AT_ONCE)
            slope = 1 / (2 * count * np.maximum(deviation, 1e-3 * deviation.max() or 1.0))
            groups, hosts = self._promising(mean, squares, relief, slope, limit - self.loads.imbalance, BREADTH * most)
        kinds = self._kind[groups]
        there = self.loads.shares_of(hosts, *self._kinds.uses[:, kinds, None])
        fewer = (self._without - shares[:, source])[:, groups, None]
        more = there - shares[:, None, hosts]
        worse = (there - mean[:, None]) ** 2 - squares[:, None, hosts]
        variance = (deviation**2)[:, None, None] + (relief[:, groups, None] + worse) / count - ((fewer + more) / count) ** 2
        after = np.sqrt(np.maximum(variance, 0)).sum(axis=0)
        after[~self._kinds.fits(kinds, hosts) | (source[groups][:, None] == hosts)] = np.inf
        return self._apart(after, groups, hosts, most, limit), groups

    def _promising(self, mean: Column, squares: Column, relief: Column, slope: Column, wanted: float, most: int) -> tuple[Column, Column]:
        """The groups that would win most by the slope, and the best targets of their classes; ``wanted`` is the least change."""
        examples = self._kinds.examples
        worse = (self.loads.shares_of(slice(None), *self._kinds.uses[:, examples, None]) - mean[:, None]) ** 2 - squares[:, None]
        cost = np.tensordot(slope, worse, axes=1)
        cost[~self._kinds.classes_fit()] = np.inf
        best = cost.argmin(axis=1)
        classes = self._kinds.class_of[self._kind]
        target = best[classes]
        there = self.loads.shares_of(target, *self._kinds.uses[:, self._kind])
        change = slope @ (relief + (there - mean) ** 2 - squares[:, target])
        change[self._passed_over | np.isinf(cost[classes, target])] = np.inf
        # the slope promises less than there is, and a class is only nearly alike
        groups = np.flatnonzero(change < wanted / 2)
        groups = groups[_least(change[groups], most)]
        hosts = [_least(cost[number], most) for number in np.unique(classes[groups])]
        return groups, np.unique(np.concatenate(hosts)) if hosts else np.zeros(0, dtype=np.int64)

    def _apart(self, after: Column, groups: Column, hosts: Column, most: int, limit: float) -> list[_Step]:
        """The best pairs that have no host in common; ``after`` is the imbalance after each, and used up."""
        steps: list[_Step] = []
        sources, now, places = self._source[groups], self.loads.imbalance, self.loads.places
        while len(steps) < most and after.size:
            row, column = np.unravel_index(np.argmin(after), after.shape)
            if after[row, column] >= limit:
                break
            if not steps:
                limit = min(limit, now - CLOSE * (now - after[row, column]))
            group, source, target = int(groups[row]), sources[row], hosts[column]
            steps.append(_Step(self._members[group][-1], int(places[source]), int(places[target]), group))
            after[(sources == source) | (sources == target)] = np.inf
            after[:, (hosts == source) | (hosts == target)] = np.inf
        return steps


def _least(values: Column, most: int) -> Column:
    """The places of the least values, at most so many."""
    return np.argpartition(values, most)[:most] if len(values) > most else np.arange(len(values))
