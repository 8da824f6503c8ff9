"""Instances that move while they run: asked for, prepared at both ends, moved, and brought to an end whatever fails on the way.

-> Depart   to the source    <- the domain's description
-> Receive  to the target    <- the domain as it will be there, and the way to it; or why it cannot be
-> Migrate  to the source    <- gone, or still there and why
The target's word that the domain runs ends it well. A source that no longer has the domain, or has it standing still, does not: then
the target is asked.
Whatever may be left at the other end is the record's residue until that host says that it has cleared it away.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec

from tashi.errors import BUSY, CONFLICT, NO_SUITABLE_HOST, YourMistake
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.lifecycle import advance
from tashi.manager.neighbours import CellRooms
from tashi.manager.reboots import hold
from tashi.manager.settings import ManagerSettings
from tashi.manager.wishes import wrong_state
from tashi.model.causes import PASSING, Cause
from tashi.model.events import vm_action
from tashi.model.host import Host
from tashi.model.instance import Instance, Migration, Residue
from tashi.model.orders import Observation, Seen
from tashi.model.states import Happening, InstanceState
from tashi.scheduling.filters import FOR_A_MOVE, objection
from tashi.scheduling.snapshot import SchedulingSettings

REBALANCE: Final = "rebalance"
"""The verb of the moves that only better things."""
_ALIVE: Final = (Seen.RUNNING, Seen.PAUSED)
_ABSENT: Final = (Seen.GONE, Seen.MISSING)
_UNCERTAIN: Final = (InstanceState.MigrateTrans, InstanceState.Orphaned)


def refusal(cluster: Cluster, instance: Instance, host: Host, settings: SchedulingSettings) -> str | None:
    """Why the instance cannot move to this host, as far as the records tell; None: it can."""
    if host.id == instance.host_id:
        return "has it already"
    source = cluster.hosts.get(instance.host_id or 0)
    here, there = (one.facts.hypervisor if one and one.facts else "" for one in (source, host))
    if here != there:
        return f"runs {there or 'an unknown hypervisor'}, and its host {here or 'an unknown one'}"
    room = CellRooms(cluster, settings).of(host.id)
    return "is unknown" if room is None else objection(instance, room, FOR_A_MOVE)


def migrate(
    tx: Transaction, instance: Instance, host: Host, settings: SchedulingSettings, *, who: str, verb: str, why: str = ""
) -> Instance:
    """Have the instance move to this host; YourMistake when it does not run, has something else to do, or cannot be there. ``why``: what
    is expected of the move."""
    if instance.state is not InstanceState.Running:
        raise wrong_state(instance, InstanceState.Running)
    if instance.tasks:
        raise YourMistake(BUSY, f"{instance.name} is being adapted; move it when that is done")
    reason = refusal(tx.cluster, instance, host, settings)
    if reason is not None:
        code = CONFLICT if host.id == instance.host_id else NO_SUITABLE_HOST
        raise YourMistake(code, f"{instance.name} cannot move to {host.name}: {reason}")
    migration = Migration(target=host.id, who=who, verb=verb, why=why)
    reason = f"moves to {host.name}, asked by {_asker(migration)}"
    return advance(tx, instance, Happening.MIGRATE_ASKED, reason=reason, migration=migration)


def begin_waiting(cluster: Cluster, settings: ManagerSettings) -> None:
    """Let those move that wait for their turn, the oldest first, as far as each host and the cell allow."""
    moving = [cluster.instances[number] for number in sorted(cluster.moving)]
    begun = [instance for instance in moving if instance.migration is not None and instance.migration.begun]
    waiting = [instance for instance in moving if instance.migration is not None and not instance.migration.begun]
    if not waiting:
        return
    busy = Counter(host_id for instance in begun for host_id in _ends(instance))
    places = settings.max_migrations - len(begun)
    with cluster.transaction("begin_migrations") as tx:
        for instance in waiting:
            if places <= 0:
                return
            if any(busy[host_id] >= settings.max_migrations_per_host for host_id in _ends(instance)):
                continue
            busy.update(_ends(instance))
            places -= 1
            assert instance.migration is not None
            _proceed(tx, instance, msgspec.structs.replace(instance.migration, begun=True))


def take(tx: Transaction, instance: Instance, host_id: int, observation: Observation) -> Instance | None:
    """What a host says of an instance that moves or has moved: the record after it, or None when that is nothing of a migration."""
    cleared = [one for one in instance.residue if one.host_id == host_id]
    if cleared:
        if instance.state is InstanceState.Destroying:
            return instance  # it is asked again when the instance's own host has let go
        if observation.seen is Seen.GONE and observation.generation >= cleared[0].generation:
            residue = tuple(one for one in instance.residue if one.host_id != host_id)
            instance = msgspec.structs.replace(instance, residue=residue)
            tx.put_instance(instance)
        return instance
    migration = instance.migration
    if migration is None:
        return None
    if host_id == migration.target:
        return _from_target(tx, instance, migration, observation)
    if host_id == instance.host_id and observation.generation >= instance.started:
        return _from_source(tx, instance, migration, observation)
    return instance


def leave(tx: Transaction, instance: Instance) -> Instance:
    """Its host no longer has it: its target has, or nobody; that is where it is looked for from now on."""
    migration = instance.migration
    assert migration is not None and instance.host_id is not None
    if instance.state is InstanceState.Orphaned:
        instance = advance(tx, instance, Happening.MIGRATION_STARTED, reason=instance.reason)
    return advance(tx, instance, Happening.LEFT, **_at_target(tx, instance, migration))


def lose_source(tx: Transaction, instance: Instance, reason: str) -> Instance:
    """The host that it was leaving does not have it, for this reason: its target is asked whether it had arrived."""
    if instance.state is InstanceState.Orphaned and instance.reason == reason:
        return instance
    return advance(tx, instance, Happening.MISSED, reason=reason, decayed=True, generation=instance.generation + 1)


def is_leaving(instance: Instance) -> bool:
    """Whether it may be at its target when its host does not have it."""
    return instance.migration is not None and bool(instance.migration.received) and instance.state in _UNCERTAIN


def lose_host(tx: Transaction, instance: Instance, host: Host) -> Instance:
    """A host of an instance that moves is silent. Before anything has moved, that is the end of it; else the other host is to tell."""
    migration = instance.migration
    if migration is None or instance.state is not InstanceState.MigratePrep:
        return instance
    if host.id == migration.target:
        return fail(tx, instance, f"host {host.name} is silent")
    return _proceed(tx, instance, None, residue=(*instance.residue, *_received(instance)))


def fail(tx: Transaction, instance: Instance, reason: str) -> Instance:
    """It stays where it is, and the target clears away what was prepared."""
    assert instance.migration is not None
    target = tx.cluster.host_name(instance.migration.target)
    residue = (*instance.residue, *_received(instance))
    words = f"not moved to {target}: {reason}"
    changes: dict[str, Any] = {"migration": None, "residue": residue, "generation": instance.generation + 1}
    if instance.migration.verb == REBALANCE:
        # it rests after a vain attempt, too, or the same plan would try it again and again
        changes["moved_at"] = tx.cluster.clock.seconds()
    return advance(tx, instance, Happening.MIGRATION_FAILED, reason=words, **changes)


def tell_progress(tx: Transaction, instance: Instance, percent: int) -> None:
    """Say how far it is."""
    host = tx.cluster.host_name(instance.host_id)
    state = instance.state.name
    action = "migrating" if instance.migration is not None else "stateChanged"
    words = f"{percent} % done"
    if instance.state is InstanceState.PreparingDisk:
        words = f"its disks are copied: {percent} %"
        tx.cluster.remark(instance.id, words)
    tx.tell(vm_action(action, instance, state, state, words, host) | {"progress": percent})


def _from_target(tx: Transaction, instance: Instance, migration: Migration, observation: Observation) -> Instance:
    if not migration.received or observation.generation < migration.received:
        return instance
    if observation.seen is Seen.RUNNING and instance.state in _UNCERTAIN:
        return advance(tx, instance, Happening.ARRIVED, **_at_target(tx, instance, migration))
    if instance.state is InstanceState.MigrateTrans and migration.doubt and observation.generation == instance.generation:
        if observation.done or observation.seen in _ABSENT:
            return advance(tx, fail(tx, instance, migration.doubt), Happening.SEEN_PAUSED, reason=f"not moved: {migration.doubt}")
    elif instance.state is InstanceState.Orphaned and (source := _rebooted_source(tx, instance)) is not None:
        if observation.seen in _ABSENT and observation.generation == instance.generation:
            return hold(tx, instance, source, nowhere=True)
        if observation.seen is Seen.PAUSED and observation.cause is not None and observation.cause not in PASSING:
            return advance(tx, instance, Happening.ARRIVED, **_at_target(tx, instance, migration))
    elif instance.state is InstanceState.MigratePrep and _is_outcome(instance, observation):
        offer = observation.offer
        if observation.refused or offer is None:
            return fail(tx, instance, observation.refused or "the target did not answer")
        changed = msgspec.structs.replace(migration, landing=offer.domain, address=offer.address, shared=offer.shared)
        return advance(
            tx, instance, Happening.MIGRATION_STARTED, reason=instance.reason, migration=changed, generation=instance.generation + 1
        )
    return instance


def _from_source(tx: Transaction, instance: Instance, migration: Migration, observation: Observation) -> Instance | None:
    if observation.seen is Seen.MISSING:
        return None  # whether that is the end, a reboot or its arrival elsewhere is found out as for any instance
    match instance.state:
        case InstanceState.MigratePrep if observation.seen is not Seen.GONE and _is_outcome(instance, observation):
            if migration.described or not migration.begun:
                return instance
            if observation.refused or observation.offer is None:
                return fail(tx, instance, observation.refused or "its host did not answer")
            changed = msgspec.structs.replace(migration, described=observation.offer.domain, received=instance.generation + 1)
            return _proceed(tx, instance, changed)
        case InstanceState.MigrateTrans | InstanceState.Orphaned if migration.received:
            if observation.seen is Seen.GONE:
                by_somebody_else = instance.cause is Cause.MIGRATED_AWAY
                return instance if by_somebody_else else leave(tx, instance)
            if observation.refused and _is_outcome(instance, observation):
                if instance.state is InstanceState.Orphaned:
                    instance = advance(tx, instance, Happening.MIGRATION_STARTED, reason=instance.reason, decayed=False)
                if observation.seen is Seen.PAUSED:  # as a source is left whose libvirt ended when all but its word was over there
                    return _proceed(tx, instance, msgspec.structs.replace(migration, doubt=observation.refused))
                return fail(tx, instance, observation.refused)
            if instance.state is InstanceState.Orphaned and observation.seen in _ALIVE:
                return advance(tx, instance, Happening.MIGRATION_STARTED, reason=instance.reason, decayed=False)
            return instance
    return None


def _rebooted_source(tx: Transaction, instance: Instance) -> Host | None:
    """Return the host that the instance was leaving if it has been rebooted meanwhile: nothing of the instance is left there."""
    source = tx.cluster.hosts.get(instance.host_id or 0)
    rebooted = source is not None and source.identity is not None and source.identity.was_rebooted_since(instance.boot)
    return source if rebooted else None


def _ends(instance: Instance) -> tuple[int, ...]:
    assert instance.migration is not None and instance.host_id is not None
    return instance.host_id, instance.migration.target


def _proceed(tx: Transaction, instance: Instance, migration: Migration | None, **changes: Any) -> Instance:
    after = msgspec.structs.replace(instance, migration=migration, generation=instance.generation + 1, **changes)
    tx.put_instance(after)
    return after


def _at_target(tx: Transaction, instance: Instance, migration: Migration) -> dict[str, Any]:
    """What the record says when the instance is its target's; its former host is to clear away what is left."""
    assert instance.host_id is not None
    target = tx.cluster.hosts.get(migration.target)
    generation = instance.generation + 1
    return {
        "host_id": migration.target,
        "migration": None,
        "boot": target.identity.boot if target is not None and target.identity is not None else "",
        "decayed": False,
        "started": migration.received,
        "generation": generation,
        "residue": (*instance.residue, Residue(host_id=instance.host_id, generation=generation)),
        "placed_why": f"a move asked by {_asker(migration)}",
        "moved_at": tx.cluster.clock.seconds(),
    }


def _asker(migration: Migration) -> str:
    return f"{migration.who}: {migration.why}" if migration.why else migration.who


def _received(instance: Instance) -> tuple[Residue, ...]:
    migration = instance.migration
    if migration is None or not migration.received:
        return ()
    return (Residue(host_id=migration.target, generation=instance.generation + 1),)


def _is_outcome(instance: Instance, observation: Observation) -> bool:
    return observation.done and observation.generation == instance.generation
