"""Instances that are alike wherever they are: they take the same, and may go to the same hosts, so that one speaks for all of its kind."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

import msgspec
import numpy as np

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.scheduling.filters import TO_BETTER
from tashi.scheduling.fleet import Column, Fleet
from tashi.scheduling.load import demand
from tashi.scheduling.terms import hypervisor_of, needs

REALMS: Final = 4
"""So many realms, those with the most kinds, are told apart; the others are one together."""
CLASSES: Final = 16
"""The kinds of each are sorted into at most so many classes of like size."""


class Kinds:
    """What instances take and where they may go: ``uses`` are MB, cores, and MHz in use or reserved, by kind.

    Hosts are named by their index in ``places``, which are those in the fleet that come into question. The *terms* of a kind are what it
    asks of a host whatever its size; an instance without any size speaks for them. Terms that allow the same hosts are a *realm*, the rarer
    ones one together; the kinds of a realm are sorted by their size into classes: ``class_of`` each, and ``examples``, one of each class.
    """

    def __init__(self, fleet: Fleet, places: Column) -> None:
        self._fleet = fleet
        self._places = places
        self._numbers: dict[Hashable, int] = {}
        self._instances: list[Instance] = []
        self._hypervisors: list[str] = []

    def number(self, instance: Instance, host: Host) -> int:
        """The kind of an instance that is on this host."""
        alike = needs(instance), demand(instance), self._fleet.busy_of(instance), hypervisor_of(host), self._fleet.tie_of(instance)
        kind = self._numbers.setdefault(alike, len(self._numbers))
        if kind == len(self._instances):
            self._instances.append(instance)
            self._hypervisors.append(hypervisor_of(host))
        return kind

    def sort(self) -> None:
        """Work out what there is to know of all kinds."""
        wanted = [(*demand(one), self._fleet.busy_of(one)) for one in self._instances]
        self._demand = np.array(wanted, dtype=np.float64).reshape(-1, 4).T
        memory, cores, speed, busy = self._demand
        self.uses = np.stack([memory, cores, np.maximum(speed, busy)])
        there = np.array([hypervisor_of(self._fleet.hosts[place]) for place in self._places])
        known: dict[Hashable, int] = {}
        self._terms = np.zeros(len(self._instances), dtype=np.int64)
        self._sizeless: list[Instance] = []
        allowed: list[Column] = []
        for kind, (instance, here) in enumerate(zip(self._instances, self._hypervisors, strict=True)):
            sizeless = msgspec.structs.replace(instance, cores=0, memory=0, cpu_speed=None, shrunk_from=None, becoming=None)
            terms = self._terms[kind] = known.setdefault((needs(sizeless), here, self._fleet.tie_of(instance)), len(known))
            if terms == len(allowed):
                allowed.append(self._fleet.fitting(sizeless, TO_BETTER)[self._places] & (there == here))
                self._sizeless.append(sizeless)
        self._allowed = np.array(allowed, dtype=bool).reshape(len(allowed), len(self._places))
        self._classify()

    def fits(self, kinds: Column, hosts: Column) -> Column:
        """Whether an instance of each of these kinds may go to each of these hosts, as far as is known."""
        return self._allowed[self._terms[kinds][:, None], hosts] & self._roomy(kinds, hosts)

    def classes_fit(self) -> Column:
        """Whether the example of each class may go to each host, were its terms those of any in its realm."""
        allowed = [self._allowed[self._realm_of == realm].any(axis=0) for realm in self._realms]
        return np.array(allowed)[self._realm_of_class] & self._roomy(self.examples, np.arange(len(self._places)))

    def refuse(self, kind: int, host: int) -> None:
        """A filter minds more than the columns tell, such as neighbours: ask about the terms of this kind on all hosts."""
        terms = int(self._terms[kind])
        for index, place in enumerate(self._places.tolist()):
            if index == host or self._fleet.objection(self._sizeless[terms], place, TO_BETTER) is not None:
                self._allowed[terms, index] = False

    def _classify(self) -> None:
        """The class of each kind, and an example of each class: in each realm those that are most unlike each other."""
        sizes = self.uses / np.maximum(self.uses.max(axis=1, initial=0, keepdims=True), 1)
        numbers: dict[bytes, int] = {}
        realm_of = np.array([numbers.setdefault(hosts.tobytes(), len(numbers)) for hosts in self._allowed], dtype=np.int64)
        ranks = np.argsort(np.argsort(-np.bincount(realm_of[self._terms], minlength=len(numbers)), kind="stable"))
        self._realm_of = np.minimum(ranks[realm_of], REALMS)
        self._realms = np.unique(self._realm_of)
        self.class_of = np.zeros(len(self._instances), dtype=np.int64)
        examples: list[int] = []
        realm_of_class: list[int] = []
        for number, realm in enumerate(self._realms):
            kinds = np.flatnonzero(self._realm_of[self._terms] == realm)
            distance = np.full(len(kinds), np.inf)
            for _ in range(min(CLASSES, len(kinds))):
                example = int(kinds[distance.argmax()])
                to_it = np.abs(sizes[:, kinds] - sizes[:, [example]]).sum(axis=0)
                self.class_of[kinds[to_it < distance]] = len(examples)
                distance = np.minimum(distance, to_it)
                examples.append(example)
                realm_of_class.append(number)
        self.examples = np.array(examples, dtype=np.int64)
        self._realm_of_class = np.array(realm_of_class, dtype=np.int64)

    def _roomy(self, kinds: Column, hosts: Column) -> Column:
        """Whether these hosts have room for an instance of each of these kinds."""
        fleet, places = self._fleet, self._places[hosts]
        memory, cores, speed, _ = self._demand[:, kinds, None]
        roomy = (fleet.used_memory[places] + memory <= fleet.memory[places]) & (cores <= fleet.largest[places])
        roomy &= fleet.used_cores[places] + cores <= fleet.cores[places]
        if speed.any():
            enough = (fleet.used_speed[places] + speed <= fleet.speed[places]) & (speed <= cores * fleet.megahertz[places])
            roomy &= enough | (speed == 0)
        return roomy
