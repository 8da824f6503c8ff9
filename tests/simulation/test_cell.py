"""A whole cell in which everything goes wrong, and what is true of it all the same."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from twisted.logger import globalLogPublisher

from tashi.model.causes import Cause
from tashi.model.instance import domain_uuid
from tashi.model.states import InstanceState
from tashi.scheduling.load import load_of
from tests.simulation.administrator import Administrator
from tests.simulation.cell import Cell
from tests.simulation.clones import ClonedAgent
from tests.simulation.hosts import CORES, MEMORY, Agent
from tests.simulation.sender import Operator, Sender, outcome_of
from tests.simulation.world import World

STEP = 0.25
TROUBLE = 90.0
"""Seconds in which things go wrong."""
PEACE = 240
"""Seconds in which they do not, and everything settles."""
MAKE_GOOD = (90, 120, 150)
"""Seconds of peace after which what was suspended, paused or drained is to run again."""
SEEDS = int(os.environ.get("TASHI_SEEDS", "50"))
"""Seeds to run, from 0; `TASHI_FIRST_SEED` moves the first."""
FIRST_SEED = int(os.environ.get("TASHI_FIRST_SEED", "0"))
FAILED_ONCE = (13, 17, 30, 58, 59, 200, 275, 312, 329, 375, 422, 474, 493, 501, 617, 645, 706, 717, 837, 1216, 2317, 3714)
"""Seeds that found a fault; they always run."""


@pytest.mark.parametrize("seed", [*FAILED_ONCE, *range(FIRST_SEED, FIRST_SEED + SEEDS)])
def test_whatever_happens_a_cell_keeps_its_promises(seed: int) -> None:
    """Killed managers and agents, cloned agents, pulled plugs, lost links, full disks, shares that vanish, clocks that jump, failing
    starts and moves, domains saved and moved by hand, and commands that come twice end well."""
    world = World(seed)
    agents = [Agent(world, f"h{number}") for number in (1, 2, 3)]
    cell = Cell(world, agents)
    sender, operator, administrator = Sender(world, cell), Operator(world, cell), Administrator(world, cell)
    clones = [ClonedAgent(world, cell, agent.name) for agent in agents]
    with _unexpected_failures() as failures:
        for _ in range(round(TROUBLE / STEP)):
            world.clock.advance(STEP)
            _always_true(cell)
            world.set_time_of_day()
            _make_trouble(world, cell, sender, operator)
            _make_trouble_on_hosts(world, administrator, agents)
            _try_clones(world, clones)
        world.faulty = False
        for second in range(PEACE):
            for _ in range(round(1 / STEP)):
                world.clock.advance(STEP)
                _always_true(cell)
            if world.chance.random() < 0.08:
                sender.repeat()
            if second in MAKE_GOOD:
                operator.make_good()
        _true_in_the_end(world, cell, sender)
        _nobody_is_lost(world, cell, sender)
        _nothing_is_left(cell)
        _works_on(world, cell, sender)
    assert failures == []


def _make_trouble(world: World, cell: Cell, sender: Sender, operator: Operator) -> None:
    if cell.up and world.happens(0.08):
        sender.act()
    if cell.up and world.happens(0.3):
        operator.act()
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
        if world.happens(0.003):
            agent.machine.lose_one()
        if world.happens(0.005):
            agent.machine.pause_one()
        if world.happens(0.003):
            agent.machine.vanish_for_a_while()


def _make_trouble_on_hosts(world: World, administrator: Administrator, agents: list[Agent]) -> None:
    """What somebody does on the hosts, and what happens to them, without a word to the control plane."""
    if world.strikes("managed save", 0.01):
        administrator.save_one()
    if world.strikes("move by hand", 0.01):
        administrator.move_one()
    for agent in agents:
        if agent.process.alive and world.strikes("share", 0.002):
            agent.machine.lose_share_for_a_while()


def _try_clones(world: World, clones: list[ClonedAgent]) -> None:
    """A clone is refused while its original lives and while it is silent, and its login changes nothing."""
    for clone in clones:
        if world.strikes("clone", 0.02):
            clone.try_to_log_in()
        assert clone.harm == []


@contextmanager
def _unexpected_failures() -> Iterator[list[str]]:
    """What the parts of the cell log as failures of the program."""
    found: list[str] = []

    def note(event: Any) -> None:
        failure = event.get("log_failure")
        if failure is not None and not failure.check(OSError):
            found.append(failure.getTraceback())

    globalLogPublisher.addObserver(note)
    try:
        yield found
    finally:
        globalLogPublisher.removeObserver(note)


def _always_true(cell: Cell) -> None:
    domains = Counter(uuid for agent in cell.agents for uuid in agent.machine.active())
    assert [uuid for uuid, count in domains.items() if count > 1] == [], "an instance runs on two hosts"
    for agent in cell.agents:
        facts, brought = agent.machine.offer, agent.machine.brought
        orders = [order for order in agent.machine.occupying() if order.uuid not in brought]
        assert sum(order.memory for order in orders) <= facts.memory
        assert sum(order.cores for order in orders) <= facts.cores


def _true_in_the_end(world: World, cell: Cell, sender: Sender) -> None:
    records = cell.manager.cluster
    # every command has one outcome, told as one stanza however often, unless its repetition crossed it
    assert sender.commands.keys() == cell.told.keys()
    more_than_one = {thread: len(stanzas) for thread, stanzas in cell.told.items() if len(stanzas) != 1}
    assert {thread: count for thread, count in more_than_one.items() if not (sender.is_crossed(thread) and count == 2)} == {}
    assert [bodies for stanzas in cell.told.values() for bodies in stanzas.values() if len(bodies) != 1] == []
    outcomes = {thread: outcome_of(stanzas) for thread, stanzas in cell.told.items()}
    # what was told is so: nothing is left of what no command was told runs
    good = {name for thread, names in sender.names.items() if outcomes[thread]["status"] == "OK" for name in names}
    assert {order.name for agent in cell.agents for order in agent.machine.all()} <= good
    # the records are what there is
    cell_id = UUID(records.settings["cell"])
    strays = _strays(cell)
    seen = {(order.uuid, agent.name) for agent in cell.agents for order in agent.machine.all()} - strays
    rest = [instance for instance in records.instances.values() if instance.state is not InstanceState.Running]
    saved = [instance for instance in rest if instance.saved]
    assert {instance.state for instance in saved} <= {InstanceState.Suspended, InstanceState.Pending}
    # what was to restart may find no room, or no host that starts it
    # what was moved by hand and ended before its new host could tell is said to be somewhere
    vanished = [one for one in rest if one.cause is Cause.MIGRATED_AWAY and one.name in world.lost]
    others = [one for one in rest if not one.saved and one not in vanished]
    assert all(one.started and one.state in (InstanceState.Pending, InstanceState.Held) for one in others)
    running = [instance for instance in records.instances.values() if instance.state is InstanceState.Running]
    assert seen == {(str(domain_uuid(cell_id, instance.id)), records.host_name(instance.host_id)) for instance in running}
    waiting = {instance.id for instance in rest if instance.state is InstanceState.Pending}
    assert (dict(records.queued), records.pending) == ({}, waiting)
    for host_id, load in records.loads.items():
        assert load == load_of(instance for instance in (*running, *vanished) if instance.host_id == host_id)
    # what was copied for an instance that did not come to run is gone, if its host could remove it; what runs has its copies
    assert world.shared.unused.keys() <= world.left_behind
    assert {disk.uri for instance in records.instances.values() for disk in instance.disks} <= world.shared.images
    # what was saved is somebody's
    assert world.shared.saved.keys() <= {instance.saved for instance in saved}
    # every event was told, under its own number, without a gap
    assert sorted(cell.events) == list(range(1, len(cell.events) + 1))
    assert [bodies for bodies in cell.events.values() if len(bodies) != 1] == []


def _strays(cell: Cell) -> set[tuple[str, str]]:
    """The UUID and host of each domain that was moved by hand, and deleted before its record could follow: it is shown as a stray."""
    records = cell.manager.cluster
    cell_id = UUID(records.settings["cell"])
    shown = {
        (str(domain_uuid(cell_id, stray.instance_id)), host.name)
        for host in records.hosts.values()
        for stray in host.strays
        if stray.instance_id not in records.instances
    }
    return {(domain, agent.name) for agent in cell.agents for domain in agent.machine.brought} & shown


def _nobody_is_lost(world: World, cell: Cell, sender: Sender) -> None:
    """What was created and never deleted is there, but for what ran on a machine whose power was cut."""
    created = {name for thread, names in sender.names.items() if outcome_of(cell.told[thread])["status"] == "OK" for name in names}
    kept = cell.agents[0].machine.saved()
    there = {order.name for agent in cell.agents for order in agent.machine.all()} | {order.name for order in kept}
    known = {instance.name for instance in cell.manager.cluster.instances.values()}
    waiting = {instance.name for instance in cell.manager.cluster.instances.values() if not instance.saved and instance.host_id is None}
    assert created - sender.unwanted - world.lost - (there & known) - waiting == set()
    strays = _strays(cell)
    all_here = [(order, agent.name) for agent in cell.agents for order in agent.machine.all()]
    assert {order.name for order, host in all_here if (order.uuid, host) not in strays} <= known


def _nothing_is_left(cell: Cell) -> None:
    """No host expects what does not come, and no record of a move stays."""
    assert [agent.name for agent in cell.agents if agent.machine._expected or agent.machine._leaving] == []
    records = cell.manager.cluster
    assert [instance for instance in records.instances.values() if instance.migration or instance.residue] == []
    assert records.moving == set()
    assert {host_id: ids for host_id, ids in records.errands.items() if ids != records.on_host.get(host_id, set())} == {}


def _works_on(world: World, cell: Cell, sender: Sender) -> None:
    """A cell that has come through it all still starts a machine, unless it is full."""
    thread = sender.ask_for("one-more")
    for _ in range(round(60 / STEP)):
        world.clock.advance(STEP)
    outcome = outcome_of(cell.told[thread])
    full = all(load.cores == CORES or load.memory == MEMORY for load in cell.manager.cluster.loads.values())
    assert outcome["status"] == "OK" or full, outcome
