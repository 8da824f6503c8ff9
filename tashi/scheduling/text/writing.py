"""A snapshot as text: what `text.read` reads, each host followed by what is on it, and what waits at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.states import HostState, InstanceState
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.terms import persistent_disks
from tashi.scheduling.text.entries import CONFIG, HINTS
from tashi.scheduling.text.grammar import HEADER, SETTING_NAMES, quoted


def write(snapshot: Snapshot, users: Mapping[int, str] | None = None) -> str:
    """The text of a snapshot; ``users`` are their names, where there is somebody who knows them."""
    return "\n".join([HEADER, *_head(snapshot, users or {}), "", *_hosts(snapshot), ""])


def _head(snapshot: Snapshot, users: Mapping[int, str]) -> Iterator[str]:
    yield f"time {_number(snapshot.time)}"
    for field, name in SETTING_NAMES.items():
        value = getattr(snapshot.settings, field)
        yield f"set {name}={_number(value) if isinstance(value, float) else quoted(str(value))}"
    if snapshot.rebalance:
        yield "rebalance"
    for user_id in sorted(snapshot.priorities.keys() | users.keys()):
        name = f" {quoted(users[user_id])}" if user_id in users else ""
        yield f"user {user_id}{name} priority={snapshot.priorities.get(user_id, 0)}"
    asked = {one.sla for one in _everybody(snapshot) if one.sla}
    for name in sorted(snapshot.sla_classes.keys() | asked):
        sla = snapshot.sla_classes.get(name)
        yield f"sla {quoted(name)}" + (f" priority={sla.priority} memory={_megabytes(sla.memory)}" if sla else "")
    if snapshot.cursor:
        yield f"cursor {snapshot.cursor}"
    for disk, instance_id in snapshot.kept_disks.items():
        yield f"kept-disk {quoted(disk)} {instance_id}"
    order = [one.id for one in snapshot.pending]
    if order != [one.id for one in sorted(snapshot.pending, key=lambda one: (-snapshot.priority(one), one.id))]:
        yield f"queue {' '.join(map(str, order))}"


def _hosts(snapshot: Snapshot) -> Iterator[str]:
    for host in snapshot.hosts.values():
        yield " ".join(_host(host, snapshot))
        for instance in snapshot.placed.get(host.id, ()):
            yield "  " + " ".join(_instance(instance, snapshot))
    for host_id, group in snapshot.placed.items():
        if host_id not in snapshot.hosts:
            for instance in group:
                yield " ".join(_instance(instance, snapshot))
    for instance in snapshot.pending:
        yield " ".join(_instance(instance, snapshot))


def _host(host: Host, snapshot: Snapshot) -> Iterator[str]:
    yield f"host {host.id} {_name(host.name)}"
    facts = host.facts
    if facts is not None:
        yield f"{facts.cores}c {_megabytes(max(0, facts.memory - host.stray_memory))} {facts.cpu_speed}MHz"
        if facts.hypervisor:
            yield f"hypervisor={quoted(facts.hypervisor)}"
        if facts.networks != (0,):
            yield f"networks={_list(facts.networks)}"
        if facts.vlans:
            yield "vlans"
    words = {"down": not host.up, "decayed": host.decayed, "draining": host.draining}
    yield from (word for word, is_so in words.items() if is_so)
    if host.state is not HostState.Normal:
        yield f"state={host.state.name}"
    if host.reserved:
        yield f"reserved={_list(host.reserved)}"
    if host.id in snapshot.ratings:
        yield f"rating={snapshot.ratings[host.id]}"
    if host.id in snapshot.empty_since:
        yield f"empty-since={_number(snapshot.empty_since[host.id])}"
    yield from _pairs(host.config, CONFIG, "config")
    usage = snapshot.usage.get(host.id)
    if usage is not None:
        if usage.machine is not None:
            yield f"usage={usage.machine}MHz"
        elif not any(one.id in usage.instances for one in snapshot.placed.get(host.id, ())):
            yield "measured"


def _instance(one: Instance, snapshot: Snapshot) -> Iterator[str]:
    yield f"vm {one.id} {_name(one.name)} {one.cores}c {_megabytes(one.memory)}"
    if one.cpu_speed is not None:
        yield f"{one.cpu_speed}MHz"
    usual = InstanceState.Pending
    if one.host_id is not None:
        host = snapshot.hosts.get(one.host_id)
        yield f"on {one.host_id if host is None or host.name.isdecimal() else quoted(host.name)}"
        usual = InstanceState.Running if one.migration is None else InstanceState.MigrateTrans
    yield f"user={one.user_id}"
    if one.sla:
        yield f"sla={quoted(one.sla)}"
    if one.state is not usual:
        yield f"state={one.state.name}"
    yield from _pairs(one.hints, HINTS, "hint")
    if one.nics:
        yield f"networks={_list(nic.network for nic in one.nics)}"
    own = persistent_disks(one)
    yield from (f"disk={quoted(disk.uri)}" for disk in one.disks if disk.uri in own)
    usage = snapshot.usage.get(one.host_id or 0)
    if usage is not None and one.id in usage.instances:
        yield f"usage={usage.instances[one.id]}MHz"
    yield from _doings(one)


def _doings(one: Instance) -> Iterator[str]:
    """What is being done to it, and what has been."""
    if one.migration is not None:
        yield f"moving-to={one.migration.target}"
    if one.memory_limit is not None:
        yield f"limit={_megabytes(one.memory_limit)}"
    if one.shrunk_from is not None:
        yield f"shrunk-from={_megabytes(one.shrunk_from)}"
    if one.moved_at:
        yield f"moved-at={_number(one.moved_at)}"
    if one.residue:
        yield f"left-on={_list(left.host_id for left in one.residue)}"
    if one.refused_by:
        yield f"refused-by={_list(one.refused_by)} reason={quoted(one.reason)}"
    if one.tasks:
        yield _tasks(one)
    if one.becoming is not None:
        speed = one.becoming.resources.cpu_speed
        yield f"becomes={one.becoming.cores}c/{_megabytes(one.becoming.memory)}" + (f"/{speed}MHz" if speed is not None else "")


def _tasks(one: Instance) -> str:
    """Of all that is to be done to it, the most that it asks for."""
    adapts = [task.adapt for task in one.tasks if task.adapt is not None]
    memories = [adapt.memory for adapt in adapts if adapt.memory]
    speeds = [adapt.cpu_speed for adapt in adapts if adapt.cpu_speed]
    sizes = [*([_megabytes(max(memories))] if memories else []), *([f"{max(speeds)}MHz"] if speeds else [])]
    return f"adapting-to={'/'.join(sizes)}" if sizes else "busy"


def _pairs(values: Mapping[str, str], known: tuple[str, ...], prefix: str) -> Iterator[str]:
    for name, value in values.items():
        yield f"{quoted(name) if name in known else f'{prefix}.{quoted(name)}'}={quoted(value)}"


def _name(name: str) -> str:
    """Quoted also where it would be taken for something else."""
    plain = quoted(name)
    return plain if plain.startswith('"') or not plain[-1:].isalpha() or not plain[:1].isdecimal() else f'"{plain}"'


def _list(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _megabytes(memory: int) -> str:
    return f"{memory // 1024}G" if memory and not memory % 1024 else f"{memory}M"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _everybody(snapshot: Snapshot) -> Iterator[Instance]:
    for group in (*snapshot.placed.values(), snapshot.pending):
        yield from group
