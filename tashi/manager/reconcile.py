"""What a sighting means, and what is still to be done: pure comparisons of the record with what a host has seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from uuid import UUID

import msgspec

from tashi.model.instance import Instance, domain_uuid
from tashi.model.orders import Destroy, Observation, Order, Seen, Start
from tashi.model.states import Happening, InstanceState, is_legal

_MEANING: Final = {
    Seen.RUNNING: Happening.SEEN_RUNNING,
    Seen.PAUSED: Happening.SEEN_PAUSED,
    Seen.GONE: Happening.SEEN_GONE,
    Seen.FAILED: Happening.FAILED,
}
_UNTOUCHED_BY_SILENCE: Final = frozenset(
    {InstanceState.Activating, InstanceState.Resuming, InstanceState.PreparingDisk, InstanceState.Destroying}
)
"""Their orders are repeated, and the host's answer counts: a host that is at a start yet does not list the domain it will have."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to one instance, as its host tells it."""

    instance_id: int
    happening: Happening
    reason: str = ""


def order_for(instance: Instance, cell: UUID) -> Order | None:
    """The order that the instance's state calls for; None where its host has nothing to do. Repeating it does no harm."""
    match instance.state:
        case InstanceState.Activating:
            return Start(
                instance_id=instance.id,
                generation=instance.generation,
                name=instance.name,
                uuid=str(domain_uuid(cell, instance.id)),
                cores=instance.cores,
                memory=instance.memory,
                disks=instance.disks,
                nics=instance.nics,
                cpu_share=instance.cpu_share,
                cpu_speed=instance.cpu_speed,
                disk_weight=instance.disk_weight,
                net_down=instance.net_down,
                net_up=instance.net_up,
                hints=instance.hints,
            )
        case InstanceState.Destroying:
            return Destroy(instance_id=instance.id, generation=instance.generation, uuid=str(domain_uuid(cell, instance.id)))
        case _:
            return None


def step_for(instance: Instance | None, host_id: int, observation: Observation) -> Step | None:
    """What the observation means for the record: nothing when it speaks of another host's instance or of an older order."""
    if instance is None or instance.host_id != host_id or observation.generation != instance.generation:
        return None
    happening = _MEANING[observation.seen]
    if not is_legal(instance.state, happening):
        return None
    return Step(instance_id=instance.id, happening=happening, reason=observation.reason)


def steps_for_missing(instances: Iterable[Instance], seen: frozenset[int]) -> list[Step]:
    """What it means that a host's full report does not list these: gone, unless an order about them is under way."""
    return [
        Step(instance_id=instance.id, happening=Happening.SEEN_GONE, reason="its host no longer has it")
        for instance in instances
        if instance.id not in seen and instance.state not in _UNTOUCHED_BY_SILENCE
    ]
