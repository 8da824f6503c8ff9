"""Hosts that are to be emptied: whatever runs there goes to the host that the policy's rule finds best for it, big ones first.

Those that want a host for themselves go before all others, and take another empty one only when none that they have already will do.

For what no host takes there is the reason of each host. Only what runs can leave; what is busy is waited for.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

import numpy as np

from tashi.model.instance import Instance
from tashi.model.states import InstanceState
from tashi.scheduling.filters import FOR_A_MOVE
from tashi.scheduling.fleet import Column, Fleet
from tashi.scheduling.placing.choosing import Rule
from tashi.scheduling.plan import Migrate, Refusal, in_words
from tashi.scheduling.terms import can_leave, hypervisor_of, wants_isolation

Pairs = frozenset[tuple[int, int]]
"""Ids of instances, each with that of a host."""
_NEVER: Final = np.inf
_FAR: Final = 1e100
_NONE: Final[Pairs] = frozenset()


def evacuate(fleet: Fleet, rule: Rule | None = None, avoid: Pairs = _NONE) -> tuple[list[Migrate], dict[int, str]]:
    """The moves that empty all hosts that are to be emptied, each of which fits when it is taken; by id, why others stay.

    Without a rule the host is taken whose memory is used least. ``avoid`` are ids of instances and hosts that are not to be tried together
    just now; nothing is said of an instance for which that leaves no host. The fleet is left as it is after the moves.
    """
    return _Evacuation(fleet, rule, avoid).found()


class _Evacuation:
    def __init__(self, fleet: Fleet, rule: Rule | None, avoid: Pairs) -> None:
        self._fleet = fleet
        self._rule = rule
        self._avoid: dict[int, list[int]] = {}
        for instance_id, host_id in sorted(avoid):
            if host_id in fleet.place_of:
                self._avoid.setdefault(instance_id, []).append(fleet.place_of[host_id])
        self._draining = np.array([host.draining for host in fleet.hosts], dtype=bool)
        self._likes: dict[str, Column] = {}
        self._hopeless: set[Hashable] = set()
        self._why_not: dict[Hashable, str] = {}

    def found(self) -> tuple[list[Migrate], dict[int, str]]:
        """Move one after the other; those that go where another has gone have their turn again after it."""
        moves: list[Migrate] = []
        words: dict[int, str] = {}
        left, before = self._leaving(words), -1
        while left and before < len(moves):
            before, stuck = len(moves), []
            for instance, source in left:
                target = self._best(instance, source)
                if target is None:
                    stuck.append((instance, source))
                    continue
                why = self._words(instance, target)
                moves.append(Migrate(instance_id=instance.id, host_id=self._fleet.hosts[target].id, why=why, evacuates=True))
                self._fleet.move(instance, source, target)
            left = stuck
        for instance, source in left:
            if instance.id not in self._avoid:
                words[instance.id] = f"cannot leave {self._fleet.hosts[source].name}: {self._reasons(instance, source)}"
        return moves, dict(sorted(words.items()))

    def _leaving(self, words: dict[int, str]) -> list[tuple[Instance, int]]:
        """Those that can leave now, and from where, the biggest first; of others that stay until something is done it is said why."""
        leaving: list[tuple[Instance, int]] = []
        for place in np.flatnonzero(self._draining).tolist():
            host = self._fleet.hosts[place]
            for one in self._fleet.room(place).residents:
                if one.host_id != host.id:
                    continue
                if can_leave(one):
                    leaving.append((one, place))
                elif one.state is InstanceState.Paused:
                    words[one.id] = f"cannot leave {host.name}: it is Paused; it goes when it runs again"
        return sorted(leaving, key=lambda one: _turn(one[0]))

    def _best(self, instance: Instance, source: int) -> int | None:
        fleet, kind = self._fleet, self._kind(instance, source)
        if kind in self._hopeless:
            return None
        scores = fleet.used_memory / np.maximum(fleet.memory, 1) if self._rule is None else self._rule.score(fleet, instance)
        if wants_isolation(instance):
            scores = scores + np.where(fleet.count == 0, _FAR, 0.0)
        scores = np.where(fleet.fitting(instance, FOR_A_MOVE) & self._like(source) & ~self._draining, scores, _NEVER)
        scores[self._avoid.get(instance.id, [])] = _NEVER
        while True:
            place = int(scores.argmin())
            if scores[place] == _NEVER:
                if kind is not None:
                    self._hopeless.add(kind)
                return None
            if fleet.objection(instance, place, FOR_A_MOVE) is None:
                return place
            scores[place] = _NEVER

    def _like(self, source: int) -> Column:
        """Which hosts run the same hypervisor."""
        hypervisor = hypervisor_of(self._fleet.hosts[source])
        known = self._likes.get(hypervisor)
        if known is None:
            like = [hypervisor_of(host) == hypervisor for host in self._fleet.hosts]
            known = self._likes[hypervisor] = np.array(like, dtype=bool)
        return known

    def _words(self, instance: Instance, place: int) -> str:
        if self._rule is not None:
            return self._rule.words(self._fleet, instance, place)
        return f"{self._fleet.used_memory[place]} of {self._fleet.memory[place]} MB used there before"

    def _kind(self, instance: Instance, source: int) -> Hashable:
        """Those of a kind are refused alike, for there is only less room while a plan is made; None: it is one of its own."""
        if instance.id in self._avoid or self._fleet.tied(instance, FOR_A_MOVE) is not None:
            return None
        return self._fleet.refused_alike(instance), hypervisor_of(self._fleet.hosts[source])

    def _reasons(self, instance: Instance, source: int) -> str:
        """Why no host takes it: what hosts say that are not to be emptied themselves."""
        kind = self._kind(instance, source)
        known = self._why_not.get(kind)
        if known is None or kind is None:
            refusals: list[Refusal] = []
            hypervisor, like = hypervisor_of(self._fleet.hosts[source]), self._like(source)
            for place in np.flatnonzero(~self._draining).tolist():
                host = self._fleet.hosts[place]
                if like[place]:
                    reason = self._fleet.objection(instance, place, FOR_A_MOVE)
                else:
                    reason = f"runs {hypervisor_of(host) or 'an unknown hypervisor'}, and its host {hypervisor or 'an unknown one'}"
                if reason is not None:
                    refusals.append(Refusal(host=host.name, reason=reason))
            known = self._why_not[kind] = in_words(tuple(refusals)) if refusals else "there is no other host"
        return known


def _turn(instance: Instance) -> tuple[bool, int, int, int]:
    return not wants_isolation(instance), -instance.taken_memory, -instance.cores, instance.id
