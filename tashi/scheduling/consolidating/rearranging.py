"""A layout that is wished becomes moves: which instance goes where, in an order in which each fits, as steps of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from tashi.model.instance import Instance
from tashi.scheduling.consolidating.layout import Layout
from tashi.scheduling.fleet import Fleet
from tashi.scheduling.load import demand
from tashi.scheduling.moving.ordering import in_order
from tashi.scheduling.plan import Migrate
from tashi.scheduling.snapshot import Snapshot

Content = Mapping[int, int]
"""How many of each kind a host is to hold."""
Members = Mapping[tuple[int, int], list[Instance]]
"""The instances of one kind in one bin."""


def carried_out(fleet: Fleet, moves: Iterable[tuple[int, int]]) -> list[Migrate]:
    """These moves, from instance to host by id, as the steps of a plan; the fleet is as it is after them."""
    where = {one.id: (one, place) for place in np.flatnonzero(fleet.count).tolist() for one in fleet.room(place).residents}
    steps: list[Migrate] = []
    for instance_id, host_id in moves:
        instance, source = where[instance_id]
        target = fleet.place_of[host_id]
        fleet.move(instance, source, target)
        where[instance_id] = instance, target
        steps.append(step(fleet, instance, source, target))
    return steps


def ordered(fleet: Fleet, wanted: Mapping[int, int]) -> list[tuple[int, int]] | None:
    """These wishes in an order in which each fits; None when there is none."""
    found = in_order(as_it_is(fleet), wanted)
    return None if found.refused else list(found.moves)


def as_it_is(fleet: Fleet) -> Snapshot:
    """A snapshot of what the plan has decided so far, without the hosts that are empty: what was placed or moved is where it is to be."""
    used = np.flatnonzero(fleet.count).tolist()
    placed: dict[int, tuple[Instance, ...]] = {}
    for place in used:
        host_id = fleet.hosts[place].id
        placed[host_id] = tuple(
            one if one.host_id == host_id else msgspec.structs.replace(one, host_id=host_id)
            for one in fleet.room(place).residents
            if one.host_id == host_id or host_id not in one.rooms
        )
    hosts = {fleet.hosts[place].id: fleet.hosts[place] for place in used}
    return msgspec.structs.replace(fleet.snapshot, hosts=hosts, placed=placed, loads={})


def matched(
    layout: Layout,
    contents: Sequence[Content],
    bins: Sequence[int],
    opened: Sequence[int],
    members: Members,
) -> list[int]:
    """Which of the opened bins gets which content, so that much memory stays where it is: the biggest first, each where most of it is."""
    held: dict[int, list[tuple[int, int]]] = {}
    for (kind, bin_), group in members.items():
        held.setdefault(kind, []).append((bin_, len(group)))
    columns = {kind: np.array(rows).T for kind, rows in held.items()}
    alike = layout.alike()
    vacant = np.zeros(len(layout.places), dtype=bool)
    vacant[list(opened)] = True
    seats = list(bins)
    memory = layout.sizes[:, 0]
    by_size = sorted(range(len(bins)), key=lambda which: (-sum(int(memory[kind]) * n for kind, n in contents[which].items()), which))
    for which in by_size:
        kept = np.zeros(len(vacant), dtype=np.int64)
        for kind, number in contents[which].items():
            places, numbers = columns[kind]
            kept[places] += memory[kind] * np.minimum(numbers, number)
        kept[~vacant | (alike != alike[bins[which]])] = -1
        seats[which] = int(kept.argmax())
        vacant[seats[which]] = False
    return seats


def assigned(layout: Layout, opened: Sequence[int], content_of: Mapping[int, Content], members: Members) -> dict[int, int]:
    """The instances of the opened bins by name: those that may stay do; the others go where their kind is wanted, host by host."""
    leaving: dict[int, list[Instance]] = {}
    rank = {bin_: rank for rank, bin_ in enumerate(opened)}
    staying: dict[tuple[int, int], int] = {}
    for (kind, bin_), group in sorted(members.items(), key=lambda item: rank[item[0][1]]):
        stay = min(len(group), content_of.get(bin_, {}).get(kind, 0))
        staying[kind, bin_] = stay
        leaving.setdefault(kind, []).extend(group[stay:])
    hosts = [layout.fleet.hosts[place].id for place in layout.places.tolist()]
    found: dict[int, int] = {}
    for bin_, content in sorted(content_of.items()):
        for kind, number in content.items():
            wanted = number - staying.get((kind, bin_), 0)
            group = leaving.get(kind, [])
            found |= {one.id: hosts[bin_] for one in group[:wanted]}
            del group[:wanted]
    by_source = {host: rank[bin_] for bin_, host in enumerate(hosts) if bin_ in rank}
    moving = sorted((one for group in members.values() for one in group if one.id in found), key=lambda one: _big_first(by_source, one))
    return {one.id: found[one.id] for one in moving}


def _big_first(rank: Mapping[int, int], instance: Instance) -> tuple[int, int, int]:
    return rank[instance.host_id or 0], -instance.taken_memory, instance.id


def step(fleet: Fleet, instance: Instance, source: int, target: int) -> Migrate:
    """The step of a plan from one place to the other, and why, when it has been taken in the fleet."""
    memory, cores, _ = demand(instance)
    host, used = fleet.hosts[target], f"{fleet.used_memory[target]} of {fleet.memory[target]} MB"
    why = (
        f"Consolidated: its {memory} MB and {cores} cores leave {fleet.hosts[source].name}; "
        f"{host.name} then has {used} and {fleet.used_cores[target]:g} of {fleet.cores[target]:g} cores in use"
    )
    return Migrate(instance_id=instance.id, host_id=host.id, why=why)
