"""A whole cell in which everything goes wrong, and what is true of it all the same."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest

from tashi.model.instance import domain_uuid
from tashi.model.states import InstanceState
from tashi.scheduling.load import load_of
from tests.simulation.simulated import Agent, Cell, Sender, World, outcome_of

STEP = 0.25
TROUBLE = 90.0
"""Seconds in which things go wrong."""
PEACE = 180.0
"""Seconds in which they do not, and everything settles."""


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_a_cell_keeps_its_promises(seed: int) -> None:
    """Killed managers and agents, pulled plugs, lost links, full disks, failing starts and commands that come twice end well."""
    world = World(seed)
    agents = [Agent(world, f"h{number}") for number in (1, 2, 3)]
    cell = Cell(world, agents)
    sender = Sender(world, cell)
    for _ in range(round(TROUBLE / STEP)):
        world.clock.advance(STEP)
        _always_true(cell)
        _make_trouble(world, cell, sender)
    world.faulty = False
    for _ in range(round(PEACE / STEP)):
        world.clock.advance(STEP)
        _always_true(cell)
        if world.chance.random() < 0.02:
            sender.repeat()
    _true_in_the_end(world, cell, sender)
    _works_on(world, cell, sender)


def _make_trouble(world: World, cell: Cell, sender: Sender) -> None:
    if cell.up and world.happens(0.15):
        sender.act()
    if world.happens(0.01):
        sender.repeat()
    if cell.up and world.happens(0.01):
        cell.kill()
    for agent in cell.agents:
        if not agent.process.alive:
            continue
        if world.happens(0.01):
            agent.lose_link()
        if world.happens(0.005):
            agent.restart()
        if world.happens(0.002):
            agent.power_cut()


def _always_true(cell: Cell) -> None:
    domains = Counter(order.uuid for agent in cell.agents for order in agent.machine.running())
    assert [uuid for uuid, count in domains.items() if count > 1] == [], "an instance runs on two hosts"
    for agent in cell.agents:
        orders, facts = agent.machine.running(), agent.machine.facts()
        assert sum(order.memory for order in orders) <= facts.memory
        assert sum(order.cores for order in orders) <= facts.cores


def _true_in_the_end(world: World, cell: Cell, sender: Sender) -> None:
    records = cell.manager.cluster
    # every command has one outcome, told as one stanza however often
    assert sender.commands.keys() == cell.told.keys()
    assert {thread: len(stanzas) for thread, stanzas in cell.told.items() if len(stanzas) != 1} == {}
    outcomes = {thread: outcome_of(stanzas) for thread, stanzas in cell.told.items()}
    # what was told is so: nothing is left of what no command was told runs
    good = {name for thread, names in sender.names.items() if outcomes[thread]["status"] == "OK" for name in names}
    running = {order.name for agent in cell.agents for order in agent.machine.running()}
    assert running <= good
    # the records are what there is
    cell_id = UUID(records.settings["cell"])
    seen = {(order.uuid, agent.name) for agent in cell.agents for order in agent.machine.running()}
    placed = [instance for instance in records.instances.values() if instance.state is InstanceState.Running]
    waiting = {number for number, instance in records.instances.items() if instance.state is InstanceState.Pending}
    rest = [instance for instance in records.instances.values() if instance not in placed]
    assert all(one.started and one.state in (InstanceState.Pending, InstanceState.Held) for one in rest), "it was not restarted, yet waits"
    assert seen == {(str(domain_uuid(cell_id, instance.id)), records.host_name(instance.host_id)) for instance in placed}
    assert (dict(records.queued), records.pending) == ({}, waiting)
    for host_id, load in records.loads.items():
        assert load == load_of(records.instances[number] for number in records.on_host.get(host_id, ()))
    # what was copied for an instance that did not come to run is gone, and what runs has its copies
    assert world.shared.unused == {}
    assert {disk.uri for instance in records.instances.values() for disk in instance.disks} <= world.shared.images
    # every event was told, under its own number, without a gap
    assert sorted(cell.events) == list(range(1, len(cell.events) + 1))
    assert [bodies for bodies in cell.events.values() if len(bodies) != 1] == []


def _works_on(world: World, cell: Cell, sender: Sender) -> None:
    """A cell that has come through it all still starts a machine, unless it is full."""
    thread = sender.ask_for("one-more")
    for _ in range(round(60 / STEP)):
        world.clock.advance(STEP)
    outcome = outcome_of(cell.told[thread])
    full = all(load.cores == 4 or load.memory == 4096 for load in cell.manager.cluster.loads.values())
    assert outcome["status"] == "OK" or full, outcome
