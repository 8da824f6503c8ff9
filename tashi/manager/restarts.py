"""Instances that end and begin again, under the same id, with what only a new domain can have: other cores, more memory, another image.

While it is Restarting the record says what it is and what it is becoming, and on its host there is room kept for both. When its host
says that the domain is gone, it is begun again there, or where the planner finds room.
"""

from __future__ import annotations

import msgspec

from tashi.errors import BUSY, NO_SUITABLE_HOST, YourMistake
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.creation import Creation
from tashi.manager.lifecycle import advance, born_again
from tashi.manager.strays import generation_after
from tashi.manager.wishes import recorded, wrong_state
from tashi.model.host import Host
from tashi.model.instance import Becoming, Instance, Resources
from tashi.model.states import Happening, InstanceState
from tashi.model.user import Principal
from tashi.scheduling.filters import objection
from tashi.scheduling.plan import Refusal, in_words
from tashi.scheduling.room import Room
from tashi.scheduling.snapshot import SchedulingSettings


def restart(
    tx: Transaction,
    creation: Creation,
    instance: Instance,
    wished: Resources,
    settings: SchedulingSettings,
    *,
    who: Principal,
    cores: int | None = None,
    image: str | None = None,
) -> Instance:
    """Have it end and begin again with these; YourMistake when it does not run, has something else to do, or no host has the room."""
    if instance.state is not InstanceState.Running:
        raise wrong_state(instance, InstanceState.Running)
    if instance.tasks:
        raise YourMistake(BUSY, f"{instance.name} is being adapted; restart it when that is done")
    size = wished.memory if wished.memory is not None else instance.memory
    limit = instance.memory_limit if wished.memory is None else None
    disks = creation.check_change(who, instance, cores=cores or instance.cores, memory=size, image=image)
    becoming = Becoming(cores=cores or instance.cores, memory=size, memory_limit=limit, disks=disks, resources=wished)
    after = _become(instance, becoming)
    refusals = [
        Refusal(host=host.name, reason=reason)
        for host in tx.cluster.hosts.values()
        if (reason := _objection(tx.cluster, instance, after, host, settings)) is not None
    ]
    if len(refusals) == len(tx.cluster.hosts):
        raise YourMistake(NO_SUITABLE_HOST, f"no host has room for what {instance.name} is to become: {in_words(tuple(refusals))}")
    words = f"restarts with {after.cores} cores, {after.memory} MB of memory and {after.disks[0].uri}, asked by {who.name}"
    return advance(tx, instance, Happening.RESTART_ASKED, reason=words, generation=instance.generation + 1, becoming=becoming)


def begin_again(tx: Transaction, instance: Instance, settings: SchedulingSettings) -> Instance:
    """Its domain is gone: start the next one on the same host, or have another one found."""
    assert instance.becoming is not None
    after = _become(instance, instance.becoming)
    host = tx.cluster.hosts.get(instance.host_id or 0)
    fits = host is not None and _objection(tx.cluster, instance, after, host, settings) is None
    if not fits:
        return advance(tx, after, Happening.SEEN_GONE, reason=after.reason)
    generation = generation_after(tx.cluster, after)
    changes = {"generation": generation, "started": generation} | born_again(tx, after)
    return advance(tx, after, Happening.PLACED, reason=after.reason, **changes)


def _become(instance: Instance, becoming: Becoming) -> Instance:
    """The instance as it is to be."""
    changes = recorded(becoming.resources) | {name: getattr(becoming, name) for name in ("cores", "memory", "memory_limit", "disks")}
    if becoming.memory_limit is None:
        changes |= {"shrunk_from": None, "shrunk_why": ""}  # its size was asked for anew
    return msgspec.structs.replace(instance, becoming=None, decayed=False, **changes)


def _objection(cluster: Cluster, before: Instance, after: Instance, host: Host, settings: SchedulingSettings) -> str | None:
    """Why the host cannot hold ``after`` in place of ``before``; None: it can."""
    load = cluster.loads[host.id].copy()
    if before.host_id == host.id:
        load.remove(before)
    return objection(after, Room(host, settings, load))
