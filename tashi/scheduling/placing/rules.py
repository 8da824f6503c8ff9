"""How Balanced and Consolidated tell which host is best for an instance: where the load is least, or where least is left over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tashi.model.instance import Instance
from tashi.scheduling.fleet import EVERYWHERE, Column, Fleet
from tashi.scheduling.load import demand
from tashi.scheduling.machines import Machines
from tashi.scheduling.placing.choosing import Rule
from tashi.scheduling.placing.expression import parse
from tashi.scheduling.snapshot import SchedulingSettings


class Balanced(Rule):
    """The load that the host would have: loadExpression of what is used there, divided by the same of what the host offers."""

    name = "Balanced"

    def __init__(self, settings: SchedulingSettings) -> None:
        self._expression = parse(settings.load_expression)
        self._whole: tuple[Machines, Column] | None = None

    def score(self, fleet: Fleet, instance: Instance, places: Any = EVERYWHERE) -> Column:
        """The load with the instance, 1 being all that the host has."""
        memory, cores, speed = demand(instance)
        busy = fleet.busy[places] + max(fleet.busy_of(instance), speed)
        load = self._expression.value(fleet.used_memory[places] + memory, fleet.used_cores[places] + cores, busy)
        return load / self._whole_of(fleet.machines)[places]

    def number(self, score: float) -> str:
        """``0.62``; of a load that is next to nothing two digits that say something: ``0.00049``."""
        return f"{score:.2f}" if score >= 0.01 or not score else f"{score:.2g}"

    def figure(self, score: float) -> str:
        """``load 0.62``."""
        return f"load {self.number(score)}"

    def _whole_of(self, machines: Machines) -> Column:
        """The load of hosts that are used up."""
        if self._whole is None or self._whole[0] is not machines:
            whole = self._expression.value(machines.memory, machines.cores, machines.speed)
            self._whole = machines, np.where(whole == 0, 1, whole)
        return self._whole[1]


class Consolidated(Rule):
    """What would be left of the host's memory and cores, hosts that hold something coming before those that are empty."""

    name = "Consolidated"

    def score(self, fleet: Fleet, instance: Instance, places: Any = EVERYWHERE) -> Column:
        """The mean share of memory and cores that is left with the instance, and 1 more on an empty host."""
        memory, cores, _ = demand(instance)
        left = 1 - (fleet.used_memory[places] + memory) / np.maximum(fleet.memory[places], 1)
        left += 1 - (fleet.used_cores[places] + cores) / np.maximum(fleet.cores[places], 1)
        return left / 2 + (fleet.count[places] == 0)

    def number(self, score: float) -> str:
        """``93 %``."""
        return f"{100 * (1 - score % 1):.0f} %"

    def figure(self, score: float) -> str:
        """``93 % full``."""
        return f"{self.number(score)} full"

    def order(self, fleet: Fleet) -> Sequence[Instance]:
        """By priority, and among equals the big ones first: small ones find gaps later, big ones do not."""
        snapshot, memory, cores = fleet.snapshot, max(1, fleet.memory.sum()), max(1, fleet.cores.sum())
        return sorted(snapshot.pending, key=lambda one: (-snapshot.priority(one), -(one.memory / memory + one.cores / cores)))
