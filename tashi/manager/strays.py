"""Strays: domains of this cell that no record accounts for, such as those made after a backup of the records that was restored.

What a host reports is compared with the records before anything else is done with it. A domain whose id and incarnation a record has
there is that instance's. Any other is a stray: it is kept with its host, takes room there, is told once, and is never touched until an
administrator adopts or destroys it. Numbers never go back: new ids and generations are above all that hosts report.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from twisted.logger import Logger

from tashi.limited_log import LimitedLog
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.lifecycle import advance
from tashi.model.causes import Cause
from tashi.model.events import cell_action
from tashi.model.host import Host
from tashi.model.instance import Instance, Residue
from tashi.model.orders import Observation, Seen
from tashi.model.states import WITHOUT_A_HOST, Happening, InstanceState, is_legal
from tashi.model.stray import HIGHEST_NUMBER, MOST_STRAYS, DomainSummary, Stray, is_incarnation

LONGEST_JUMP: Final = 1_000_000
"""By how much one host may raise the next instance id, and a generation at once."""
EVENTS_A_MINUTE: Final = MOST_STRAYS
"""Of how many strays of one host events are published within a minute."""
_MINUTE: Final = 60.0
_ALIVE: Final = (Seen.RUNNING, Seen.PAUSED)
_CLEARED: Final = (InstanceState.Destroying, InstanceState.Restarting)
Key = tuple[int, str]


class Strays:
    """Sorts what hosts report into what is about the records and what is about strays."""

    log = Logger()

    def __init__(self, cluster: Cluster, limited: LimitedLog) -> None:
        self._cluster = cluster
        self._limited = limited
        self._published: dict[int, tuple[float, int]] = {}  # by host: the begin of a minute, and the events since
        self._raised: dict[int, int] = {}  # by how much each host has raised the next instance id
        self._distrusted: set[int] = set()  # hosts whose numbers were ignored, which is logged once

    def sift(self, tx: Transaction, host_id: int, observations: Sequence[Observation]) -> list[Observation]:
        """Take note of the strays among these observations of a host, and return those that are about instances of the records."""
        host = tx.host(host_id)
        if host is None:
            return []
        kept = {stray.key: stray for stray in host.strays}
        about_records: list[Observation] = []
        elsewhere: list[int] = []
        for observation in observations:
            key = observation.instance_id, observation.incarnation
            instance = tx.instance(observation.instance_id)
            ours = instance is not None and instance.incarnation == observation.incarnation
            if instance is not None and ours and host_id in instance.rooms:
                kept.pop(key, None)
                self._catch_up(tx, host, instance, observation)
                about_records.append(observation)
                continue
            self._step_over(tx, host, observation)
            if observation.seen in _ALIVE:
                self._keep(tx, host, kept, observation)
                if ours:
                    elsewhere.append(observation.instance_id)
            elif observation.seen is Seen.FAILED and key in kept:
                kept[key] = msgspec.structs.replace(kept[key], note=observation.reason)
            else:
                kept.pop(key, None)
            if ours:
                about_records.append(observation)
        self._put(tx, host_id, kept)
        for number in elsewhere:
            instance = tx.instance(number)
            if instance is not None and self._is_nowhere(tx, instance):
                self.follow(tx, instance, host_id)
        return about_records

    def keep_listed(self, tx: Transaction, host_id: int, listed: Iterable[Key]) -> None:
        """Forget the strays that the host's complete list lacks."""
        host, listed = tx.host(host_id), frozenset(listed)
        if host is not None:
            self._put(tx, host_id, {stray.key: stray for stray in host.strays if stray.key in listed})

    def forget(self, tx: Transaction, host_id: int, key: Key) -> None:
        """Forget one stray, which is a record's now."""
        host = tx.host(host_id)
        if host is not None:
            self._put(tx, host_id, {stray.key: stray for stray in host.strays if stray.key != key})

    def note(self, tx: Transaction, host_id: int, key: Key, words: str) -> None:
        """Record what is being done about a stray."""
        host = tx.host(host_id)
        if host is not None:
            kept = {stray.key: stray for stray in host.strays}
            if key in kept:
                kept[key] = msgspec.structs.replace(kept[key], note=words)
                self._put(tx, host_id, kept)

    def follow(self, tx: Transaction, instance: Instance, reporting: int | None = None, why: str = "") -> bool:
        """Have the record of an instance that its host no longer has, or that has none, follow its domain to the host that reports it.

        Return False when no other host does. When several do, none is believed: the instance is Orphaned and its reason names them.
        One that is to be destroyed is destroyed where it is found. ``reporting``: the host whose report this transaction is about;
        ``why``: the reason to record, where it is known.
        """
        found = self._claims(tx, instance, reporting)
        if not found:
            return False
        names = " and ".join(str(tx.cluster.host_name(host_id)) for host_id, _ in found)
        if len(found) > 1:
            reason = f"reported by {names} at once; see `tashi getStrays`"
            if is_legal(instance.state, Happening.HOST_LOST):
                advance(tx, instance, Happening.HOST_LOST, reason=reason, decayed=True)
            return True
        host_id, stray = found[0]
        generation = max(instance.generation, stray.generation) + 1
        changes: dict[str, Any] = {"host_id": host_id, "generation": generation, "decayed": False}
        if instance.state in _CLEARED:
            tx.put_instance(msgspec.structs.replace(instance, **changes))
        elif is_legal(instance.state, Happening.FOUND):
            changes |= {"started": stray.generation, "migration": None, "moved_at": tx.now, "saved": ""}
            if instance.migration is not None and instance.migration.received:  # its target clears away what it has prepared
                changes["residue"] = (*instance.residue, Residue(host_id=instance.migration.target, generation=generation))
            changes["boot"] = host.identity.boot if (host := tx.host(host_id)) is not None and host.identity is not None else ""
            changes["placed_why"] = reason = why or f"its domain was found on {names}; somebody else moved or started it"
            instance = advance(tx, instance, Happening.FOUND, reason=reason, **changes)
            if stray.paused:
                advance(tx, instance, Happening.SEEN_PAUSED)
        else:
            return False
        self.forget(tx, host_id, stray.key)
        self.log.warn("instance {name} ({id}) was found on {host}", name=instance.name, id=instance.id, host=names)
        return True

    def _claims(self, tx: Transaction, instance: Instance, reporting: int | None) -> list[tuple[int, Stray]]:
        """The hosts, other than those of its record, that report the domain of this very instance."""
        found = []
        hosts = {*self._cluster.stray_on.get(instance.id, ()), *(() if reporting is None else (reporting,))}
        for host_id in sorted(hosts):
            host = tx.host(host_id)
            for stray in host.strays if host is not None else ():
                is_its_own = stray.key == (instance.id, instance.incarnation) and host_id not in instance.rooms
                if is_its_own and stray.generation >= instance.started:
                    found.append((host_id, stray))
        return found

    def _is_nowhere(self, tx: Transaction, instance: Instance) -> bool:
        """Whether no host has the instance by its record, or its host, which is heard, has said that it does not have it."""
        moved_by_somebody_else = instance.state is InstanceState.Orphaned and instance.cause is Cause.MIGRATED_AWAY
        if instance.residue or (instance.migration is not None and not moved_by_somebody_else):
            return False
        host = tx.host(instance.host_id) if instance.host_id is not None else None
        if instance.state is InstanceState.Orphaned:
            return host is None or (host.up and not host.decayed)
        return instance.state in WITHOUT_A_HOST

    def _catch_up(self, tx: Transaction, host: Host, instance: Instance, observation: Observation) -> None:
        """Let a record that is older than its domain, as after a restore, count on from the generation that its host reports."""
        ahead = observation.generation - instance.generation
        if ahead <= 0:
            return
        if ahead > LONGEST_JUMP or observation.generation > HIGHEST_NUMBER:
            self._distrust(host, f"generation {observation.generation} of instance {instance.id}")
            return
        tx.put_instance(msgspec.structs.replace(instance, generation=observation.generation))

    def _step_over(self, tx: Transaction, host: Host, observation: Observation) -> None:
        """Give no new instance an id that a host has a domain of."""
        ahead = observation.instance_id - tx.last_id("instance")
        if ahead <= 0:
            return
        raised = self._raised.get(host.id, 0) + ahead
        if raised > LONGEST_JUMP or observation.instance_id > HIGHEST_NUMBER:
            self._distrust(host, f"instance {observation.instance_id}")
            return
        self._raised[host.id] = raised
        tx.reserve("instance", observation.instance_id)

    def _distrust(self, host: Host, what: str) -> None:
        if host.id not in self._distrusted:
            self._distrusted.add(host.id)
            self.log.warn("host {host} reports {what}, which cannot be; such numbers of it are ignored", host=host.name, what=what)

    def _keep(self, tx: Transaction, host: Host, kept: dict[Key, Stray], observation: Observation) -> None:
        key = observation.instance_id, observation.incarnation
        if not (0 < observation.instance_id <= HIGHEST_NUMBER and 0 <= observation.generation <= HIGHEST_NUMBER):
            self._distrust(host, f"instance {observation.instance_id}, generation {observation.generation}")
            return
        if not is_incarnation(observation.incarnation):
            self._distrust(host, "an incarnation that none is")
            return
        known = kept.get(key)
        if known is None and len(kept) >= MOST_STRAYS:
            words = f"it reports more than {MOST_STRAYS} domains without a record; the rest is ignored"
            self._limited.warn(f"host {host.name}", "strays", "{source}: {words}", words=words)
            return
        summary = observation.domain or (known and _summary(known)) or DomainSummary()
        kept[key] = stray = Stray(
            instance_id=observation.instance_id,
            incarnation=observation.incarnation,
            generation=max(observation.generation, known.generation if known else 0),
            paused=observation.seen is Seen.PAUSED,
            name=summary.name,
            user_id=summary.user_id,
            cores=summary.cores,
            memory=summary.memory,
            disks=summary.disks,
            since=known.since if known else self._cluster.wall.seconds(),
            note=known.note if known else "",
        )
        if known is None:
            self._tell(tx, host, stray)

    def _tell(self, tx: Transaction, host: Host, stray: Stray) -> None:
        words = f"it has a domain of instance {stray.instance_id}, {why_stray(self._cluster, stray)}; see `tashi getStrays`"
        self._limited.warn(f"host {host.name}", "strays", "{source}: {words}", words=words)
        since, count = self._published.get(host.id, (0.0, 0))
        now = self._cluster.clock.seconds()
        if now - since >= _MINUTE:
            since, count = now, 0
        self._published[host.id] = since, count + 1
        if count < EVENTS_A_MINUTE:
            fields = {"id": stray.instance_id, "name": stray.name, "hostId": host.id, "host": host.name}
            tx.tell(cell_action("strayFound", f"host {host.name}: {words}") | fields | {"incarnation": stray.incarnation})

    def _put(self, tx: Transaction, host_id: int, kept: dict[Key, Stray]) -> None:
        host = tx.host(host_id)
        strays = tuple(kept.values())
        if host is not None and strays != host.strays:
            tx.put_host(msgspec.structs.replace(host, strays=strays))


def why_stray(cluster: Cluster, stray: Stray) -> str:
    """Say why the records do not account for this domain."""
    instance = cluster.instances.get(stray.instance_id)
    if instance is None:
        return "which is not in the records"
    if instance.incarnation != stray.incarnation:
        return f"but the records have another instance under this id, {instance.name} of user {instance.user_id}"
    where = cluster.host_name(instance.host_id)
    return f"but by its record {instance.name} is {instance.state.name}" + (f" on {where}" if where else " on no host")


def generation_after(cluster: Cluster, instance: Instance) -> int:
    """Return the generation of an instance's next start: above its own, and above those of all strays that have its id."""
    return max(instance.generation + 1, generation_after_strays(cluster, instance.id))


def generation_after_strays(cluster: Cluster, instance_id: int) -> int:
    """Return the generation after those of all strays that have this id."""
    strays = (stray for host_id in cluster.stray_on.get(instance_id, ()) for stray in cluster.hosts[host_id].strays)
    return max((stray.generation for stray in strays if stray.instance_id == instance_id), default=0) + 1


def _summary(stray: Stray) -> DomainSummary:
    return DomainSummary(
        name=stray.name, user_id=stray.user_id, cores=stray.cores, memory=stray.memory, disks=stray.disks
    )
