"""Agents whose state directory was copied to another machine: they have a host's name and secret, and none of its domains."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tashi.errors import RefusedAgent
from tests.builders import a_login, an_identity
from tests.simulation.cell import Cell
from tests.simulation.hosts import Link
from tests.simulation.world import World


class ClonedAgent:
    """A copy of a host's agent on an empty machine, which tries to log in as that host."""

    def __init__(self, world: World, cell: Cell, name: str) -> None:
        self._world = world
        self._cell = cell
        self._name = name
        self.harm: list[str] = []
        """What its logins have done; none may do anything."""

    def try_to_log_in(self) -> None:
        """Log in under the host's name, if the cell knows that host: the first of a name has it."""
        if not self._cell.up:
            return
        records = self._cell.manager.cluster
        pinned = [host for host in records.hosts.values() if host.name == self._name and host.identity is not None]
        if not pinned:
            return
        hosts, instances = dict(records.hosts), dict(records.instances)
        outcome: list[Any] = []
        login = a_login(self._name, identity=an_identity(f"the clone of {self._name}"))
        link = Link(self._world, self._cell.agents[0])
        Deferred.fromCoroutine(self._cell.manager.node_door.login(login, link)).addBoth(outcome.append)
        if not (outcome and isinstance(outcome[0], Failure) and outcome[0].check(RefusedAgent)):
            self.harm.append(f"the clone of {self._name} was let in: {outcome}")
        if (dict(records.hosts), dict(records.instances)) != (hosts, instances):
            self.harm.append(f"a login of the clone of {self._name} has changed the records")
