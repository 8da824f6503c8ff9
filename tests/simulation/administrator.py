"""Somebody who works with virsh on the hosts of a simulated cell and asks nobody."""

from __future__ import annotations

from random import Random

from tashi.model.causes import Cause
from tashi.model.orders import Seen, Start
from tashi.model.states import InstanceState
from tests.simulation.cell import Cell
from tests.simulation.hosts import Machine
from tests.simulation.world import World


class Administrator:
    """Saves domains and starts them again, and moves domains from host to host by hand."""

    def __init__(self, world: World, cell: Cell) -> None:
        self._world = world
        self._cell = cell

    def save_one(self) -> None:
        """Save a running domain on its host (`virsh managedsave`), and start it again after a while."""
        chance = self._world.chance_of("managed save")
        found = self._pick(chance)
        if found is not None:
            machine, domain = found
            machine.change(domain, Seen.PAUSED, Cause.SAVED_BY_HOST)
            self._world.clock.callLater(chance.uniform(0.0, 20.0), machine.start_saved, domain)

    def move_one(self) -> None:
        """Move a running domain to another host that has room for it (`virsh migrate --live`, with or without `--undefinesource`)."""
        chance = self._world.chance_of("move by hand")
        found = self._pick(chance)
        if found is None:
            return
        machine, domain = found
        order = machine.order_of(domain)
        if not self._is_shown_running(order, machine):
            return
        fit = [target for target in self._machines() if target is not machine and target.has_room_for(order)]
        if fit:
            machine.move_by_hand(domain, chance.choice(fit), undefine=chance.random() < 0.5)

    def _is_shown_running(self, order: Start, machine: Machine) -> bool:
        """Whether the cell shows the instance of this domain as running there, which is what an administrator looks at first."""
        records = self._cell.manager.cluster
        instance = records.instances.get(order.instance_id)
        names = [agent.name for agent in self._cell.agents if agent.machine is machine]
        shown = instance is not None and instance.state is InstanceState.Running and records.host_name(instance.host_id) in names
        return self._cell.up and shown

    def _machines(self) -> list[Machine]:
        return [agent.machine for agent in self._cell.agents if agent.process.alive and not agent.machine.away]

    def _pick(self, chance: Random) -> tuple[Machine, str] | None:
        """A running domain at which nothing is under way, with its machine."""
        idle = [(machine, domain) for machine in self._machines() for domain in machine.active() if machine.is_idle(domain)]
        return chance.choice(idle) if idle else None
