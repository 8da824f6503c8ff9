"""A cell whose store is replaced by an older copy of itself, and what is true of it all the same (O1).

A command that was answered OK after the copy was made may be lost with its record: that promise is not checked here.
"""

from __future__ import annotations

import copy
import os
from collections import Counter

import msgspec
import pytest
from twisted.internet.defer import Deferred

from tashi.errors import TashiError
from tashi.model.marks import LOSS, Loss
from tests.builders import ADMIN
from tests.simulation.cell import Cell
from tests.simulation.hosts import Agent
from tests.simulation.sender import Operator, Sender
from tests.simulation.world import World

STEP = 0.25
BEFORE_THE_COPY, BEFORE_THE_LOSS, TROUBLE = 25.0, 25.0, 30.0
"""Seconds of trouble until the copy of the store is made, until it takes the place of the store, and after that."""
PEACE = 180.0
CLEARING = 60.0
SEEDS = int(os.environ.get("TASHI_RESTORED_SEEDS", "10"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_cell_with_a_restored_store_takes_nothing_for_something_else(seed: int) -> None:
    """Numbers never mean two things, no domain is taken for another instance's, and what has no record is a stray to be destroyed."""
    world = World(seed)
    agents = [Agent(world, f"h{number}") for number in (1, 2, 3)]
    cell = Cell(world, agents)
    sender, operator = Sender(world, cell), Operator(world, cell)
    _pass(world, cell, BEFORE_THE_COPY, sender, operator)
    older = copy.deepcopy(cell.store.rows)
    _pass(world, cell, BEFORE_THE_LOSS, sender, operator)
    _lose_records(cell, older)
    _pass(world, cell, TROUBLE, sender, operator)
    world.faulty = False
    _pass(world, cell, PEACE)
    assert cell.up
    _every_domain_is_known(cell)
    _destroy_strays(cell)
    _pass(world, cell, CLEARING)
    _every_domain_is_known(cell)
    assert [stray for host in cell.manager.cluster.hosts.values() for stray in host.strays] == []


def _pass(world: World, cell: Cell, seconds: float, sender: Sender | None = None, operator: Operator | None = None) -> None:
    """Let time pass, in which commands come and hosts fail as long as the world is faulty."""
    for _ in range(round(seconds / STEP)):
        world.clock.advance(STEP)
        _nothing_means_two_things(cell)
        if sender is not None and cell.up and world.happens(0.1):
            sender.act()
        if operator is not None and cell.up and world.happens(0.2):
            operator.act()
        for agent in cell.agents:
            if agent.process.alive and world.happens(0.01):
                agent.lose_link()
            if agent.process.alive and world.happens(0.005):
                agent.restart()


def _lose_records(cell: Cell, older: dict[str, dict[int | str, str]]) -> None:
    """The manager is killed, and started again on an older copy of its store, with `--accept-loss`."""
    if cell.up:
        cell.kill()
    loss = Loss(reason="the store is an older copy", numbers=cell.store.mark().numbers)
    cell.store.rows = older
    cell.store.rows["settings"][LOSS] = msgspec.json.encode(msgspec.json.encode(loss).decode()).decode()


def _nothing_means_two_things(cell: Cell) -> None:
    """No event number and no stanza id has two contents, and no instance runs twice."""
    assert [bodies for bodies in cell.events.values() if len(bodies) > 1] == []
    stanzas = Counter(stanza for told in cell.told.values() for stanza in told)
    assert [stanza for stanza, count in stanzas.items() if count > 1] == []
    assert [bodies for told in cell.told.values() for bodies in told.values() if len(bodies) > 1] == []
    domains = Counter(uuid for agent in cell.agents for uuid in agent.machine.active())
    assert [uuid for uuid, count in domains.items() if count > 1] == [], "an instance runs on two hosts"


def _every_domain_is_known(cell: Cell) -> None:
    """Each domain is that of a record with its incarnation and name on its host, or a stray of its host."""
    records = cell.manager.cluster
    for host in records.hosts.values():
        (machine,) = (agent.machine for agent in cell.agents if agent.name == host.name)
        strays = {stray.key for stray in host.strays}
        for order in machine.all():
            instance = records.instances.get(order.instance_id)
            is_own = instance is not None and instance.incarnation == order.incarnation and host.id in instance.rooms
            assert is_own or (order.instance_id, order.incarnation) in strays
            if instance is not None and instance.incarnation == order.incarnation:
                assert instance.name == order.name


def _destroy_strays(cell: Cell) -> None:
    """An administrator destroys all that the cell lists as strays."""
    for host in list(cell.manager.cluster.hosts.values()):
        for stray in host.strays:
            arguments = {"instance": stray.instance_id, "host": host.id}
            call = Deferred.fromCoroutine(cell.manager.verbs.call(ADMIN, "destroyStray", arguments))
            call.addErrback(lambda failure: failure.trap(TashiError))
