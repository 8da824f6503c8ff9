"""Which host each waiting instance goes to: of those that fit the one that the policy's rule finds best, and of equals the one by rating.

What is asked by name comes first: a target host that fits is taken, and of a group as few as can be are put on one host. For each kind of
instance the hosts' scores are kept while a pass lasts, and only those of hosts that have changed are worked out again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Final, Protocol

import numpy as np

from tashi.model.instance import Instance
from tashi.scheduling.fleet import EVERYWHERE, Column, Fleet
from tashi.scheduling.plan import Place, Postpone, Refusal
from tashi.scheduling.terms import GROUP

_NEVER: Final = np.inf
_MOST_KINDS: Final = 64
"""Of so many kinds of instances the scores are kept: 80 KB each at 10,000 hosts."""


class Rule(Protocol):
    """How a policy tells which host is best for an instance. ``in_turn``: equal hosts take turns, from the one after the last used."""

    name: str
    in_turn: bool = False

    def score(self, fleet: Fleet, instance: Instance, places: Any = EVERYWHERE) -> Column:
        """How good each host would be with it, a finite number, less being better; it depends on the instance's demand and hints alone."""

    def number(self, score: float) -> str:
        """What a score says as a number with its unit, if any: ``0.62``."""

    def figure(self, score: float) -> str:
        """The same with what it measures: ``load 0.62``."""

    def because(self, instance: Instance, score: float) -> str:
        """The policy and its figure, as the reason for putting the instance where it has this score."""
        return f"{self.name}: {self.figure(score)} after placing"

    def words(self, fleet: Fleet, instance: Instance, place: int) -> str:
        """The same of one host, before the instance is there."""
        return self.because(instance, float(self.score(fleet, instance, np.array([place]))[0]))

    def order(self, fleet: Fleet) -> Sequence[Instance]:
        """Those that wait, in the order in which they are served: by priority, and among equals as suits the policy."""
        return fleet.snapshot.pending


def place(fleet: Fleet, rule: Rule) -> list[Place | Postpone]:
    """A place for each that waits, or why there is none. The fleet is left as it is when all of them are there."""
    placing = Placing(fleet, rule)
    return [placing.next(instance) for instance in rule.order(fleet)]


class _Kind:
    """Scores of all hosts for one kind of instance; `_NEVER` where it does not fit, as of so many of the fleet's changes."""

    def __init__(self, fleet: Fleet, rule: Rule, instance: Instance) -> None:
        self._limits = fleet.limits(instance)
        self.scores = self._worked_out(fleet, rule, instance, EVERYWHERE)
        self._seen = len(fleet.changes)

    def catch_up(self, fleet: Fleet, rule: Rule, instance: Instance) -> None:
        """Work out again what has changed."""
        changes = fleet.changes
        if self._seen < len(changes):
            places = np.array(changes[self._seen :], dtype=np.intp)
            self.scores[places] = self._worked_out(fleet, rule, instance, places)
            self._seen = len(changes)

    def _worked_out(self, fleet: Fleet, rule: Rule, instance: Instance, places: Any) -> Column:
        return np.where(fleet.roomy(self._limits, places), rule.score(fleet, instance, places), _NEVER)


class Placing:
    """One pass over all that waits."""

    def __init__(self, fleet: Fleet, rule: Rule) -> None:
        self._fleet, self._rule = fleet, rule
        self._cursor = fleet.snapshot.cursor
        self._kinds: dict[Hashable, _Kind] = {}
        self._hopeless: dict[Hashable, tuple[Refusal, ...]] = {}
        self._rated = len(fleet.hosts) > 0 and bool((fleet.rating != fleet.rating[0]).any())
        self._middle = _middle(fleet) if self._rated else 0.0

    def next(self, instance: Instance) -> Place | Postpone:
        """The best place for this one, which it then has; or, host by host, why there is none."""
        fleet = self._fleet
        disks = fleet.rooms.disks_in_use(instance)
        if disks:
            return Postpone(instance_id=instance.id, refusals=self._everywhere(disks[0]))
        kind = fleet.alike(instance)
        tied = fleet.tied(instance)
        if tied is None and kind in self._hopeless:  # there is only less room while a plan is made
            return Postpone(instance_id=instance.id, refusals=self._hopeless[kind])
        scores = self._scores(kind, instance)
        if tied is not None:
            scores = np.where(tied, scores, _NEVER)
        at, among = self._best(instance, scores)
        while at is not None and fleet.objection(instance, at) is not None:
            scores = scores.copy()
            scores[at] = _NEVER
            at, among = self._best(instance, scores)
        if at is None:
            return Postpone(
                instance_id=instance.id,
                refusals=self._refusals(instance, kind if tied is None else (kind, instance.user_id, instance.name)),
            )
        host_id = fleet.hosts[at].id
        words = f"{self._rule.because(instance, scores[at])}, {among}"
        fleet.add(instance, at)
        self._cursor = host_id
        return Place(instance_id=instance.id, host_id=host_id, why=words)

    def _scores(self, kind: Hashable, instance: Instance) -> Column:
        known = self._kinds.get(kind)
        if known is None:
            if len(self._kinds) >= _MOST_KINDS:
                del self._kinds[next(iter(self._kinds))]
            known = self._kinds[kind] = _Kind(self._fleet, self._rule, instance)
        else:
            known.catch_up(self._fleet, self._rule, instance)
        return known.scores

    def _best(self, instance: Instance, scores: Column) -> tuple[int | None, str]:
        """The place with the least score that is not barred, what is asked by name going before; and what it is the best of, in words."""
        if not len(scores):
            return None, ""
        hints, which = instance.hints, "that fit"
        if hints:
            for aimed in self._fleet.machines.named(hints.get("targetHost", "")):
                if scores[aimed] < _NEVER:
                    return aimed, "its target host"
            if hints.get(GROUP):
                members = np.where(scores < _NEVER, self._fleet.members(hints[GROUP]), np.iinfo(np.int64).max)
                scores = np.where(members == members.min(), scores, _NEVER)
                which = f"that fit, with {members.min() or 'none'} of group {hints[GROUP]}"
        first = int(scores.argmin())
        if scores[first] == _NEVER:
            return None, ""
        fitting = np.count_nonzero(scores < _NEVER)
        among = f"best of {fitting} hosts {which}" if fitting > 1 else f"the only host {which.replace('fit', 'fits', 1)}"
        if self._rated or self._rule.in_turn:
            first = self._of_equals(instance, np.flatnonzero(scores == scores[first]))
        return first, among

    def _of_equals(self, instance: Instance, places: Column) -> int:
        """By rating: the best for the important, the worst for the rest, so that the best remain free; then by turns, or by id."""
        if self._rated and len(places) > 1:
            ratings = self._fleet.rating[places]
            important = self._fleet.snapshot.priority(instance) >= self._middle
            places = places[ratings == (ratings.max() if important else ratings.min())]
        if self._rule.in_turn and len(places) > 1:
            after = int(np.searchsorted(self._fleet.machines.ids[places], self._cursor, side="right"))
            return int(places[after % len(places)])
        return int(places[0])

    def _refusals(self, instance: Instance, key: Hashable) -> tuple[Refusal, ...]:
        known = self._hopeless.get(key)
        if known is None:
            fleet = self._fleet
            reasons = ((fleet.hosts[at].name, fleet.objection(instance, at)) for at in fleet.machines.in_order_of_names)
            known = self._hopeless[key] = tuple(Refusal(host=host, reason=reason) for host, reason in reasons if reason is not None)
        return known

    def _everywhere(self, disk: str) -> tuple[Refusal, ...]:
        fleet, key = self._fleet, ("disk", disk)
        if key not in self._hopeless:
            reason = f"the persistent disk {disk} is in use by {fleet.rooms.holder(disk)}"
            self._hopeless[key] = tuple(Refusal(host=fleet.hosts[at].name, reason=reason) for at in fleet.machines.in_order_of_names)
        return self._hopeless[key]


def _middle(fleet: Fleet) -> float:
    """Half way between the least and the greatest priority of the cluster's instances."""
    snapshot = fleet.snapshot
    kinds = {(one.user_id, one.sla): one for group in (snapshot.pending, *snapshot.placed.values()) for one in group}
    priorities = [snapshot.priority(one) for one in kinds.values()]
    return (min(priorities) + max(priorities)) / 2 if priorities else 0.0
