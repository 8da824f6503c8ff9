"""The Primitive policy: the host with the fewest instances first, or with the most when packing densely.

The hosts are walked in a cycle from the one after the last used, so that equals take turns. A target host that can take the
instance takes it; with allowElsewhere any other does when it cannot.
"""

from __future__ import annotations

from collections.abc import Hashable

from tashi.model.instance import Instance
from tashi.scheduling.filters import objection
from tashi.scheduling.plan import Action, Place, Plan, Postpone, Refusal
from tashi.scheduling.room import Room, disks_in_use, rooms_of
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import is_true, needs


def plan(snapshot: Snapshot) -> Plan:
    """Place what fits, in the order of the queue; postpone the rest with a reason per host."""
    rooms = rooms_of(snapshot)
    cycle = sorted(rooms)
    cursor = snapshot.cursor
    actions: list[Action] = []
    hopeless: dict[Hashable, tuple[Refusal, ...]] = {}  # rooms only fill up while a plan is made
    for instance in snapshot.pending:
        taken = disks_in_use(instance, rooms, snapshot.kept_disks)
        if taken:
            reason = f"the persistent disk {taken[0]} is in use by another instance"
            actions.append(Postpone(instance_id=instance.id, refusals=_everywhere(rooms, reason)))
            continue
        need = needs(instance)
        if need in hopeless:
            actions.append(Postpone(instance_id=instance.id, refusals=hopeless[need]))
            continue
        chosen, refusals = _choose(instance, rooms, cycle, cursor, _is_dense(instance, snapshot))
        if chosen is None:
            hopeless[need] = tuple(refusals)
            actions.append(Postpone(instance_id=instance.id, refusals=hopeless[need]))
            continue
        why = f"Primitive{' densePack' if _is_dense(instance, snapshot) else ''}: {chosen.load.count} instances there before"
        chosen.add(instance)
        cursor = chosen.host.id
        actions.append(Place(instance_id=instance.id, host_id=chosen.host.id, why=why))
    return Plan(actions=tuple(actions))


def _choose(instance: Instance, rooms: dict[int, Room], cycle: list[int], cursor: int, dense: bool) -> tuple[Room | None, list[Refusal]]:
    target = instance.hints.get("targetHost")
    best: Room | None = None
    refusals: list[Refusal] = []
    start = next((place for place, host_id in enumerate(cycle) if host_id > cursor), 0)
    for host_id in cycle[start:] + cycle[:start]:
        room = rooms[host_id]
        reason = objection(instance, room)
        if reason is not None:
            refusals.append(Refusal(host=room.host.name, reason=reason))
        elif target is not None and target in (room.host.name, str(host_id)):
            return room, []
        elif best is None or (room.load.count > best.load.count if dense else room.load.count < best.load.count):
            best = room
    return best, sorted(refusals, key=lambda refusal: refusal.host)


def _is_dense(instance: Instance, snapshot: Snapshot) -> bool:
    hint = instance.hints.get("densePack")
    return is_true(hint) if hint is not None else snapshot.settings.dense_pack


def _everywhere(rooms: dict[int, Room], reason: str) -> tuple[Refusal, ...]:
    return tuple(Refusal(host=room.host.name, reason=reason) for room in rooms.values())
