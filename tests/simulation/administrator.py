"""Somebody who works with virsh on the hosts of a simulated cell and asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tashi.model.causes import Cause
from tashi.model.orders import Seen
from tests.simulation.hosts import Agent, Machine
from tests.simulation.world import World


class Administrator:
    """Saves domains and starts them again."""

    def __init__(self, world: World, agents: Sequence[Agent]) -> None:
        self._world = world
        self._agents = agents

    def save_one(self) -> None:
        """Save a running domain on its host (`virsh managedsave`), and start it again after a while."""
        chance = self._world.chance_of("managed save")
        found = self._pick(chance)
        if found is not None:
            machine, domain = found
            machine.change(domain, Seen.PAUSED, Cause.SAVED_BY_HOST)
            self._world.clock.callLater(chance.uniform(0.0, 20.0), machine.start_saved, domain)

    def _machines(self) -> list[Machine]:
        return [agent.machine for agent in self._agents if agent.process.alive and not agent.machine.away]

    def _pick(self, chance: Random) -> tuple[Machine, str] | None:
        """A running domain at which nothing is under way, with its machine."""
        idle = [(machine, domain) for machine in self._machines() for domain in machine.active() if machine.is_idle(domain)]
        return chance.choice(idle) if idle else None
