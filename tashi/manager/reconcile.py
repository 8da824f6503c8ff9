"""What a sighting means, and what is still to be done: pure comparisons of the record with what a host has seen."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import msgspec

from tashi.model.causes import PASSING, Cause
from tashi.model.disks import copies_needed, unused_copies
from tashi.model.instance import Instance, domain_uuid
from tashi.model.orders import (
    Adapt,
    Depart,
    Destroy,
    Look,
    Migrate,
    Observation,
    Order,
    Pause,
    PrepareDisks,
    Receive,
    Reset,
    Seen,
    Shutdown,
    Start,
    Suspend,
    Unpause,
)
from tashi.model.states import Happening, InstanceState, is_legal

_MEANING: Final = {
    Seen.RUNNING: Happening.SEEN_RUNNING,
    Seen.PAUSED: Happening.SEEN_PAUSED,
    Seen.SAVED: Happening.SEEN_SAVED,
    Seen.GONE: Happening.SEEN_GONE,
    Seen.READY: Happening.DISK_READY,
    Seen.FAILED: Happening.FAILED,
}
_DEEDS: Final[dict[InstanceState, type[Pause] | type[Unpause] | type[Shutdown]]] = {
    InstanceState.Pausing: Pause,
    InstanceState.Unpausing: Unpause,
    InstanceState.ShuttingDown: Shutdown,
}
_MACHINE: Final = (
    "name", "user_id", "cores", "memory", "disks", "nics", "cpu_share", "cpu_speed", "memory_limit",
    "disk_weight", "disk_iops", "disk_bytes", "net_down", "net_up", "hints",
)  # fmt: skip
"""What a target builds a domain of, as it does for one that it starts."""
_REFUSABLE: Final = frozenset({*_DEEDS, InstanceState.Suspending})
_FULFILLED: Final = {
    InstanceState.Pausing: Seen.PAUSED,
    InstanceState.Unpausing: Seen.RUNNING,
    InstanceState.Suspending: Seen.SAVED,
}
"""What is seen after the deed of this state when it has had its effect; otherwise the state ends without it."""
MOVED_AWAY: Final = "migrated away by somebody else; no other host has reported it yet"
_UNTOUCHED_BY_SILENCE: Final = frozenset(
    {
        InstanceState.Activating,
        InstanceState.Resuming,
        InstanceState.PreparingDisk,
        InstanceState.Suspending,
        InstanceState.Destroying,
        InstanceState.Restarting,
    }
)
"""Their orders are repeated, and the host's answer counts: it does not list a domain that it has yet to start, or has just saved."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to one instance, as its host tells it."""

    instance_id: int
    happening: Happening
    reason: str = ""
    cause: Cause | None = None


def errands_of(instance: Instance, cell: UUID) -> tuple[tuple[int, Order], ...]:
    """The orders that the record calls for, each with the host that is to have it; one a host. Repeating them does no harm."""
    found: list[tuple[int, Order]] = []
    order = order_for(instance, cell)
    host_id = instance.host_id
    if instance.migration is not None and isinstance(order, Receive | Look):
        host_id = instance.migration.target
    if order is not None and host_id is not None:
        found.append((host_id, order))
    if instance.residue and instance.state is not InstanceState.MigrateTrans:  # till then it is known by that where it came from
        domain = str(domain_uuid(cell, instance.id))
        about: dict[str, Any] = {"instance_id": instance.id, "incarnation": instance.incarnation, "uuid": domain}
        about["unused_below"] = instance.unused_below
        found += [(one.host_id, Destroy(**about, generation=one.generation)) for one in instance.residue]
    return tuple(found)


def order_for(instance: Instance, cell: UUID) -> Order | None:
    """The order that the instance's state calls for; None where no host has anything to do."""
    about: dict[str, Any] = {
        "instance_id": instance.id,
        "generation": instance.generation,
        "incarnation": instance.incarnation,
        "uuid": str(domain_uuid(cell, instance.id)),
    }
    match instance.state:
        case InstanceState.PreparingDisk:
            return PrepareDisks(**about, copies=copies_needed(instance))
        case InstanceState.Activating | InstanceState.Resuming:
            return Start(
                **about,
                name=instance.name,
                user_id=instance.user_id,
                cores=instance.cores,
                memory=instance.memory,
                disks=instance.disks,
                nics=instance.nics,
                cpu_share=instance.cpu_share,
                cpu_speed=instance.cpu_speed,
                memory_limit=instance.memory_limit,
                disk_weight=instance.disk_weight,
                disk_iops=instance.disk_iops,
                disk_bytes=instance.disk_bytes,
                net_down=instance.net_down,
                net_up=instance.net_up,
                hints=instance.hints,
                saved=instance.saved,
            )
        case InstanceState.Destroying | InstanceState.Restarting:
            return Destroy(**about, copies=unused_copies(instance), saved=instance.saved, unused_below=instance.unused_below)
        case InstanceState.Pausing | InstanceState.Unpausing | InstanceState.ShuttingDown:
            return _DEEDS[instance.state](**about)
        case InstanceState.Suspending:
            return Suspend(**about, saved=instance.saved)
        case InstanceState.MigratePrep | InstanceState.MigrateTrans | InstanceState.Orphaned:
            return _order_to_move(instance, about)
        case InstanceState.Running if instance.tasks and (wished := instance.tasks[0].adapt) is not None:
            return Adapt(**about, wished=wished)
        case InstanceState.Running if instance.tasks:
            return Reset(**about)
        case _:
            return None


def _order_to_move(instance: Instance, about: dict[str, Any]) -> Order | None:
    migration, state = instance.migration, instance.state
    if migration is None:
        return Look(**about, yours=True) if state is InstanceState.MigrateTrans else None
    if state is InstanceState.MigrateTrans and not migration.doubt:
        return Migrate(**about, landing=migration.landing, address=migration.address, shared=migration.shared)
    if state in (InstanceState.MigrateTrans, InstanceState.Orphaned):
        return Look(**about) if migration.received else None
    if not migration.begun:
        return None
    if not migration.described:
        return Depart(**about)
    return Receive(
        **about,
        described=migration.described,
        **{field: getattr(instance, field) for field in _MACHINE},
    )


def step_for(instance: Instance | None, host_id: int, observation: Observation) -> Step | None:
    """What the observation means for the record: nothing when it speaks of another host's instance, of a domain of an older Start,
    or of one that is to be destroyed before its host has heard so."""
    if instance is None or instance.host_id != host_id:
        return None
    if not _is_current(instance, observation):
        return None
    if observation.seen not in _MEANING or (observation.seen is Seen.SAVED and not _is_outcome(instance, observation)):
        return None  # a host that is at a suspension yet is told to finish it
    if instance.state is InstanceState.Suspending and observation.seen is Seen.GONE and not observation.done:
        return None  # an agent that was killed may have had it saved; the host that is ordered to save it tells
    cause: Cause | None
    if observation.seen is Seen.GONE and Cause.MIGRATED_AWAY in (observation.cause, instance.cause):
        if observation.cause not in (None, Cause.MIGRATED_AWAY):
            return None  # an end of what its former host had kept of it
        happening, reason, cause = Happening.MOVED_AWAY, MOVED_AWAY, Cause.MIGRATED_AWAY
    else:
        happening, reason, cause = _meaning(instance, observation)
    if not is_legal(instance.state, happening):
        return None
    return Step(instance_id=instance.id, happening=happening, reason=reason, cause=cause)


def step_after(instance: Instance, host_id: int, observation: Observation) -> Step | None:
    """What the same observation means for an instance that has just been found to run after all: it may be paused."""
    if instance.host_id != host_id or instance.state is not InstanceState.Running or observation.seen is not Seen.PAUSED:
        return None
    reason, cause = _why_paused(instance, observation)
    happening = Happening.SEEN_PAUSED if cause is None or cause in PASSING else Happening.HOST_PAUSED
    return Step(instance_id=instance.id, happening=happening, reason=reason, cause=cause)


def _meaning(instance: Instance, observation: Observation) -> tuple[Happening, str, Cause | None]:
    """The happening, with the reason and the cause that the record is to have."""
    if instance.state in _REFUSABLE and _is_outcome(instance, observation):
        unfulfilled = observation.seen is not _FULFILLED.get(instance.state, observation.seen)
        if observation.refused or unfulfilled:
            words = observation.refused or observation.reason or "its host did it, and somebody undid it at once"
            resumed = observation.refused and instance.state is InstanceState.Unpausing
            owners = resumed and observation.cause is Cause.ADMINISTRATOR
            return Happening.FAILED, words, Cause.OWNER if owners else observation.cause
    if observation.seen is not Seen.PAUSED:
        return _MEANING[observation.seen], observation.reason, None
    reason, cause = _why_paused(instance, observation)
    if cause is None or cause is Cause.OWNER or cause in PASSING:
        return Happening.SEEN_PAUSED, reason, cause
    return (Happening.SEEN_PAUSED if instance.state is InstanceState.Pausing else Happening.HOST_PAUSED), reason, cause


def _why_paused(instance: Instance, observation: Observation) -> tuple[str, Cause | None]:
    """The words and the cause of a pause. A host cannot tell whose command it was: where its owner's was expected, it was that."""
    asked = instance.state is InstanceState.Pausing or instance.cause is Cause.OWNER
    if asked and observation.cause in (None, Cause.ADMINISTRATOR):
        return "", Cause.OWNER
    if instance.state is InstanceState.Paused and instance.cause is not None and observation.cause in PASSING:
        return instance.reason, instance.cause  # what is under way on it says nothing new
    return observation.reason, observation.cause


def is_missed(instance: Instance | None, host_id: int, observation: Observation) -> bool:
    """Whether the instance's host says that it does not have the domain and did not see it end."""
    if instance is None or instance.host_id != host_id or observation.seen is not Seen.MISSING:
        return False
    if instance.cause is Cause.MIGRATED_AWAY:
        return False  # it is looked for elsewhere
    if instance.state is InstanceState.Suspending and not observation.done:
        return False  # an agent that was killed may have had it saved; the host that is ordered to save it tells
    if _is_looked_for(instance):
        return observation.generation == instance.generation
    return _is_current(instance, observation)


def is_alive(instance: Instance | None, host_id: int, observation: Observation) -> bool:
    """Whether the instance's host sees the domain that the record is about."""
    if instance is None or instance.host_id != host_id or observation.seen not in (Seen.RUNNING, Seen.PAUSED):
        return False
    return instance.started <= observation.generation <= instance.generation


def _is_current(instance: Instance, observation: Observation) -> bool:
    """Whether it is neither about a domain of an older Start, nor older than the last order where only that one's outcome counts."""
    oldest = instance.generation if _needs_its_outcome(instance, observation) else instance.started
    return oldest <= observation.generation <= instance.generation


def _needs_its_outcome(instance: Instance, observation: Observation) -> bool:
    """Whether only the last order's outcome counts."""
    if instance.state is InstanceState.Suspending:
        return observation.seen in (Seen.GONE, Seen.MISSING)
    return instance.state in (InstanceState.Destroying, InstanceState.Restarting)


def ends_task(instance: Instance, host_id: int, observation: Observation) -> bool:
    """Whether the observation is the outcome of the task that the instance's host is at."""
    return (
        instance.state is InstanceState.Running
        and bool(instance.tasks)
        and instance.host_id == host_id
        and _is_outcome(instance, observation)
    )


def addresses_in(instance: Instance, host_id: int, observation: Observation) -> dict[str, str]:
    """The addresses, by MAC, that the instance's cards were seen to use and that are not in its record."""
    of_this_domain = instance.host_id == host_id and instance.started <= observation.generation <= instance.generation
    if not of_this_domain or observation.seen not in (Seen.RUNNING, Seen.PAUSED):
        return {}
    known = {nic.mac: nic.learnt for nic in instance.nics}
    said = {nic.mac: nic.ip for nic in observation.nics if nic.mac in known and nic.ip and nic.ip != known[nic.mac]}
    return {mac: ip for mac, ip in said.items() if _is_address(ip)}


def missing_in(instances: Iterable[Instance], seen: frozenset[int]) -> list[Instance]:
    """Return those instances of a host that its complete list lacks, but for those about which an order is under way."""
    return [
        instance
        for instance in instances
        if instance.id not in seen
        and instance.state not in _UNTOUCHED_BY_SILENCE
        and instance.cause is not Cause.MIGRATED_AWAY
        and not _is_looked_for(instance)
    ]


def _is_looked_for(instance: Instance) -> bool:
    """Whether it has left its former host, and its new one, whose list may be older than that, is asked for it."""
    return instance.state is InstanceState.MigrateTrans and instance.migration is None


def _is_address(text: str) -> bool:
    try:
        return str(ipaddress.ip_address(text)) == text
    except ValueError:
        return False


def _is_outcome(instance: Instance, observation: Observation) -> bool:
    """Whether it tells what became of the last deed that the domain was ordered; of one that has ended only the end counts."""
    return observation.done and observation.generation == instance.generation and observation.seen not in (Seen.GONE, Seen.MISSING)
