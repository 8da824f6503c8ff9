"""What cannot be in a snapshot: said in words, and put so that any policy can plan on the rest.

What is doubtful takes room and is left alone: an instance that is on two hosts takes room on both and does not move, one on a host that
nobody knows keeps its persistent disks, one that waits and cannot be as it is said to be goes on waiting. A host that is over-full takes
nothing more by itself, and is told of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from tashi.model.host import Host
from tashi.model.instance import Instance, Residue
from tashi.model.states import ON_A_HOST, InstanceState
from tashi.scheduling.load import Load, load_of
from tashi.scheduling.room import Room, guests_of
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import persistent_disks


def survey(snapshot: Snapshot) -> tuple[Snapshot, tuple[str, ...]]:
    """The snapshot without its contradictions, and what they are, in words; a sound one is the same, and nothing is said of it."""
    remarks: list[str] = []
    hosts = {host_id: _host(host_id, host, remarks) for host_id, host in snapshot.hosts.items()}
    homeless = [one for host_id, group in snapshot.placed.items() if host_id not in hosts for one in group]
    remarks += [f"{_name(one)} is on host {one.host_id}, which there is not; it is left alone" for one in homeless]
    placed = _placed(snapshot.placed, hosts, remarks)
    pending = _pending(snapshot.pending, {one.id for group in (*placed.values(), homeless) for one in group}, remarks)
    kept = {disk: one.id for one in homeless for disk in persistent_disks(one)} | dict(snapshot.kept_disks)
    sound = msgspec.structs.replace(snapshot, hosts=hosts, placed=placed, pending=pending, kept_disks=kept)
    loads = _loads(sound, remarks)
    _disks(placed.values(), loads.values(), remarks)
    return (msgspec.structs.replace(sound, loads=loads), tuple(remarks)) if remarks else (snapshot, ())


def _host(host_id: int, host: Host, remarks: list[str]) -> Host:
    """The host, which has the id that it stands under and offers nothing rather than less."""
    if host.id != host_id:
        remarks.append(f"{host.name} stands under the id {host_id}, and says that it is {host.id}; it is taken for {host_id}")
        host = msgspec.structs.replace(host, id=host_id)
    facts = host.facts
    if facts is None:
        if host.up:
            remarks.append(f"{host.name} is up, and nobody knows what it offers; it takes nothing")
    elif facts.memory < 1 or facts.cores < 1 or facts.cpu_speed < 0:
        remarks.append(f"{host.name} offers {facts.memory} MB and {facts.cores} cores of {facts.cpu_speed} MHz; it takes nothing")
        facts = msgspec.structs.replace(facts, memory=0, cores=0, cpu_speed=0)
        host = msgspec.structs.replace(host, facts=facts)
    return host


def _placed(placed: Mapping[int, tuple[Instance, ...]], hosts: Mapping[int, Host], remarks: list[str]) -> dict[int, tuple[Instance, ...]]:
    """Those on each host, each of them once."""
    found: dict[int, list[tuple[int, Instance]]] = {}
    for host_id, group in placed.items():
        if host_id in hosts:
            for instance in group:
                found.setdefault(instance.id, []).append((host_id, instance))
    groups: dict[int, list[Instance]] = {host_id: [] for host_id in hosts}
    for entries in found.values():
        host_id, instance = entries[0]
        if len(entries) > 1 or instance.host_id != host_id:
            host_id, instance = _at_home(entries, hosts, remarks)
        if instance.state not in ON_A_HOST:
            remarks.append(f"{_name(instance)} is {instance.state.name} and on {hosts[host_id].name}; it is left alone")
        groups[host_id].append(_sized(instance, remarks))
    return {host_id: tuple(group) for host_id, group in groups.items()}


def _at_home(entries: list[tuple[int, Instance]], hosts: Mapping[int, Host], remarks: list[str]) -> tuple[int, Instance]:
    """One that is on several hosts, or says that it is on another: it is where it says if it is there, too, and keeps room on all."""
    host_id, instance = next((entry for entry in entries if entry[1].host_id == entry[0]), entries[0])
    claimed = dict.fromkeys([*(entry[0] for entry in entries), *(entry[1].host_id for entry in entries)])
    others = [other for other in claimed if other is not None and other in hosts and other != host_id]
    names = ", ".join(hosts[other].name for other in (host_id, *others))
    if others:
        remarks.append(f"{_name(instance)} is on {names}; it takes room on each and is left alone")
    elif len(entries) > 1:
        remarks.append(f"{_name(instance)} is {len(entries)} times on {names}; it counts once")
    else:
        remarks.append(f"{_name(instance)} is on {names}, and says that its host is {instance.host_id}")
    known = {one.host_id for one in instance.residue}
    residue = tuple(Residue(host_id=other, generation=instance.generation) for other in others if other not in known)
    return host_id, msgspec.structs.replace(instance, host_id=host_id, residue=(*instance.residue, *residue))


def _sized(instance: Instance, remarks: list[str]) -> Instance:
    """The instance, with sizes that can be."""
    wrong = _wrong_sizes(instance)
    if not wrong:
        return instance
    remarks.append(f"{_name(instance)} has {wrong}; it counts as the least that can be")
    memory = max(1, instance.memory)
    return msgspec.structs.replace(
        instance,
        memory=memory,
        cores=max(1, instance.cores),
        cpu_speed=max(0, instance.cpu_speed or 0) or None,
        memory_limit=None if instance.memory_limit is None else min(max(1, instance.memory_limit), memory),
        shrunk_from=None if instance.shrunk_from is None else min(max(1, instance.shrunk_from), memory),
    )


def _wrong_sizes(instance: Instance) -> str:
    """The first of its sizes that cannot be, in words."""
    if instance.cores < 1:
        return f"{instance.cores} cores"
    if instance.memory < 1:
        return f"{instance.memory} MB of memory"
    if instance.cpu_speed is not None and instance.cpu_speed < 0:
        return f"a speed of {instance.cpu_speed} MHz"
    for name, size in (("a limit", instance.memory_limit), ("shrunk from", instance.shrunk_from)):
        if size is not None and not 1 <= size <= instance.memory:
            return (
                f"{instance.memory} MB of memory and {name} of {size} MB" if name == "a limit" else f"{instance.memory} MB, {name} {size}"
            )
    return ""


def _pending(pending: Iterable[Instance], placed: set[int], remarks: list[str]) -> tuple[Instance, ...]:
    """Those that wait and can be placed."""
    found: dict[int, Instance] = {}
    for instance in pending:
        wrong = _wrong_sizes(instance)
        if instance.id in placed:
            remarks.append(f"{_name(instance)} is on a host and waits for one; it stays where it is")
        elif instance.id in found:
            remarks.append(f"{_name(instance)} waits twice; it is placed once")
        elif instance.state is not InstanceState.Pending:
            remarks.append(f"{_name(instance)} waits for a host and is {instance.state.name}; it is not placed")
        elif wrong:
            remarks.append(f"{_name(instance)} has {wrong}; it is not placed")
        elif instance.host_id is not None:
            remarks.append(f"{_name(instance)} waits for a host, and says that its host is {instance.host_id}")
            found[instance.id] = msgspec.structs.replace(instance, host_id=None)
        else:
            found[instance.id] = instance
    return tuple(found.values())


def _loads(snapshot: Snapshot, remarks: list[str]) -> dict[int, Load]:
    """What is taken on each host, counted anew; and what is wrong with it."""
    guests = guests_of(snapshot)
    loads: dict[int, Load] = {}
    for host_id, host in snapshot.hosts.items():
        load = loads[host_id] = load_of(guests.get(host_id, ()))
        said = snapshot.loads.get(host_id)
        if said is not None and said != load:
            remarks.append(f"{host.name} is said to have {_words(said)} taken, and {_words(load)} are; the latter counts")
        if host.facts is not None:
            room = Room(host, snapshot.settings, load)
            short = {"MB of memory": load.memory - room.memory, "cores": load.cores - room.cores, "MHz": load.speed - room.speed}
            over = ", ".join(f"{amount:g} {unit}" for unit, amount in short.items() if amount > 0)
            if over:
                remarks.append(f"{host.name} is over-full by {over}; it takes nothing more")
    return loads


def _disks(groups: Iterable[Iterable[Instance]], loads: Iterable[Load], remarks: list[str]) -> None:
    """Say which of them use the same persistent disk."""
    counts = Counter[str]()
    for load in loads:
        counts.update(load.disks)
    shared = {disk for disk, count in counts.items() if count > 1}  # or of one instance that takes room on two hosts
    users: dict[str, Instance] = {}
    for group in groups if shared else ():
        for instance in group:
            for disk in sorted(persistent_disks(instance) & shared):
                first = users.setdefault(disk, instance)
                if first is not instance:
                    remarks.append(f"{_name(first)} and {_name(instance)} use the same persistent disk {disk}; neither is touched")


def _words(load: Load) -> str:
    return f"{load.memory} MB and {load.cores} cores by {load.count} instances"


def _name(instance: Instance) -> str:
    return f"instance {instance.name} ({instance.id})"
