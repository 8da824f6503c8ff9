"""All that one cell knows, by id, with what is asked again and again (who waits for a place, what a host holds, who is owed an answer)
kept as an index beside it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tashi.clocks import AwakeClock
from tashi.model.disks import DiskRecord
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.jid import comparable
from tashi.model.request import Origin, Outgoing, Request
from tashi.model.states import InstanceState
from tashi.model.user import User
from tashi.scheduling.load import Load
from tashi.scheduling.terms import persistent_disks


class Records:
    """Tables and indexes; `tashi.manager.cluster` is what changes them. ``awake`` measures how long things wait, from the moment they
    are put here: after a restart every wait begins anew."""

    def __init__(self, awake: AwakeClock) -> None:
        self.awake = awake
        self.instances: dict[int, Instance] = {}
        self.hosts: dict[int, Host] = {}
        self.users: dict[int, User] = {}
        self.requests: dict[int, Request] = {}
        self.outbox: dict[int, Outgoing] = {}
        self.counters: dict[str, int] = {}
        self.settings: dict[str, str] = {}
        self.disks: dict[str, DiskRecord] = {}
        """The owners of persistent disks, by file name."""
        self.version = 0
        """Counts the changes of instances, hosts and users."""
        # indexes
        self.pending: set[int] = set()
        self.in_grace: dict[int, float] = {}
        """Guests that have been asked to shut down and have time to do so, and since when by ``awake``."""
        self.by_name: dict[str, set[int]] = defaultdict(set)
        self.by_key: dict[tuple[str, str], int] = {}
        """Sender and resourceId, for the instances that still answer to it."""
        self.moving: set[int] = set()
        """Instances that move to another host, or are to."""
        self.on_host: dict[int, set[int]] = defaultdict(set)
        self.errands: dict[int, set[int]] = defaultdict(set)
        """The instances about which each host may have orders."""
        self.loads: dict[int, Load] = defaultdict(Load)
        """What the instances on each host, and those on their way to it, take together."""
        self.touched: set[int] = set()
        """The hosts that have changed, or what takes room on them, since somebody took this set away."""
        self.saved: set[int] = set()
        """Those whose memory is kept while they are suspended."""
        self.shrunk: set[int] = set()
        self.by_disk: dict[str, set[int]] = defaultdict(set)
        """Who has, or asks for, each persistent disk."""
        self.stray_on: dict[int, set[int]] = defaultdict(set)
        """By instance id, the hosts that have a stray with it."""
        self.by_jid: dict[str, User] = {}
        self.open_requests: dict[int, set[int]] = defaultdict(set)
        self.request_since: dict[int, float] = {}
        """Since when, by ``awake``, each request has been open, or has had its outcome."""
        self.stanzas: dict[tuple[str, str, str], int] = {}
        self.queued: dict[str, int] = defaultdict(int)

    def apply(self, table: str, key: Any, record: Any) -> None:
        """Put the record in its table, or with None take it out, and keep the indexes true."""
        if table in ("instances", "hosts", "users"):
            self.version += 1
        match table:
            case "instances":
                self._index_instance(self.instances.get(key), record)
                _put(self.instances, key, record)
            case "hosts":
                self.touched.add(key)
                self._index_strays(self.hosts.get(key), record)
                _put(self.hosts, key, record)
            case "users":
                self._index_user(self.users.get(key), record)
                _put(self.users, key, record)
            case "requests":
                self._index_request(self.requests.get(key), record)
                _put(self.requests, key, record)
            case "outbox":
                _put(self.outbox, key, record)
            case "disks":
                _put(self.disks, key, record)

    def _index_strays(self, old: Host | None, new: Host | None) -> None:
        for stray in old.strays if old is not None else ():
            _discard(self.stray_on, stray.instance_id, old.id if old is not None else 0)
        for stray in new.strays if new is not None else ():
            self.stray_on[stray.instance_id].add(new.id if new is not None else 0)

    def _index_instance(self, old: Instance | None, new: Instance | None) -> None:
        if old is not None:
            if new is None or new.name != old.name:
                _discard(self.by_name, old.name, old.id)
            key = _key_of(old)
            if key is not None and self.by_key.get(key) == old.id:
                del self.by_key[key]
            if old.host_id is not None and (new is None or new.host_id != old.host_id):
                _discard(self.on_host, old.host_id, old.id)
            for uri in persistent_disks(old):
                _discard(self.by_disk, uri, old.id)
            for host_id in old.rooms:
                self.touched.add(host_id)
                self.loads[host_id].remove(old)
                _discard(self.errands, host_id, old.id)
            self.pending.discard(old.id)
            if new is None or new.grace_until is None:
                self.in_grace.pop(old.id, None)
            self.moving.discard(old.id)
            self.saved.discard(old.id)
            self.shrunk.discard(old.id)
        if new is not None:
            self.by_name[new.name].add(new.id)
            key = _key_of(new)
            if key is not None:
                self.by_key[key] = new.id
            if new.host_id is not None:
                self.on_host[new.host_id].add(new.id)
            for uri in persistent_disks(new):
                self.by_disk[uri].add(new.id)
            for host_id in new.rooms:
                self.touched.add(host_id)
                self.loads[host_id].add(new)
                self.errands[host_id].add(new.id)
            if new.migration is not None:
                self.moving.add(new.id)
            if new.state is InstanceState.Pending:
                self.pending.add(new.id)
            if new.saved:
                self.saved.add(new.id)
            if new.shrunk_from is not None:
                self.shrunk.add(new.id)
            if new.grace_until is not None and (old is None or old.grace_until != new.grace_until):
                self.in_grace[new.id] = self.awake.seconds()

    def _index_user(self, old: User | None, new: User | None) -> None:
        """One address acts as one user, whatever an older version let two users have: the one with the prepared form."""
        if old is not None and old.jid and self.by_jid.get(comparable(old.jid)) == old:
            del self.by_jid[comparable(old.jid)]
        if new is not None and new.jid:
            address = comparable(new.jid)
            if address not in self.by_jid or new.jid == address:
                self.by_jid[address] = new

    def _index_request(self, old: Request | None, new: Request | None) -> None:
        if old is not None and old.done_at is None:
            for instance_id in old.instance_ids:
                _discard(self.open_requests, instance_id, old.id)
            self.queued[old.origin.sender] -= 1
            if not self.queued[old.origin.sender]:
                del self.queued[old.origin.sender]
        if old is not None and new is None and self.stanzas.get(stanza_key(old.origin)) == old.id:
            del self.stanzas[stanza_key(old.origin)]
        if old is not None and new is None:
            del self.request_since[old.id]
        if new is not None and (old is None or (old.done_at is None) != (new.done_at is None)):
            self.request_since[new.id] = self.awake.seconds()
        if new is not None:
            if new.origin.stanza_id is not None:
                self.stanzas[stanza_key(new.origin)] = new.id
            if new.done_at is None:
                for instance_id in new.instance_ids:
                    self.open_requests[instance_id].add(new.id)
                self.queued[new.origin.sender] += 1


def stanza_key(origin: Origin) -> tuple[str, str, str]:
    """What makes two stanzas one: the full JID, the id and the body. (Some clients count their ids from 1 in every run.)"""
    return origin.reply_to, origin.stanza_id or "", origin.fingerprint


def _key_of(instance: Instance) -> tuple[str, str] | None:
    """What makes a repeated create the same one, while there is such a thing."""
    if instance.owner_jid is None or instance.resource_id is None or instance.key_is_free:
        return None
    return instance.owner_jid, instance.resource_id


def _put(table: dict[Any, Any], key: Any, record: Any) -> None:
    if record is None:
        table.pop(key, None)
    else:
        table[key] = record


def _discard(index: dict[Any, set[int]], key: Any, member: int) -> None:
    members = index.get(key)
    if members is not None:
        members.discard(member)
        if not members:
            del index[key]
