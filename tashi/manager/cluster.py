"""The cluster's records: immutable, in memory, changed only by named transactions that are journalled before anyone is told.

A list never touches the database.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from twisted.logger import Logger

from tashi.clocks import AwakeClock, Clock
from tashi.interfaces import Change
from tashi.manager.journal import Journal
from tashi.manager.records import Records
from tashi.model.disks import DiskRecord
from tashi.model.events import Event, audit_line, seal
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.request import Origin, Outgoing, Request
from tashi.model.user import User

MOST_SET_ASIDE: Final = 1000
"""Rows of the outbox that are kept though the server does not take them."""


class Cluster(Records):
    """All that one cell knows, and the only way to change it: ``with cluster.transaction("name") as tx``.

    ``clock`` measures (the reactor's, monotonic), ``wall`` gives the time of day, which stands in records and events.
    """

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        journal: Journal,
        source: str,
        *,
        publishing: bool,
        wall: Clock,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """``random_bytes`` draws so many bytes for the incarnations of instances, which never repeat."""
        super().__init__(AwakeClock(clock))
        self._random_bytes = random_bytes
        self.clock = clock
        self.wall = wall
        self.journal = journal
        self.source = source
        self.publishing = publishing
        """Whether anybody reads events; with no subscriber none are kept."""
        # who wants to know of changes, in the turn they are made
        self.watchers: list[Callable[[Instance | Host], None]] = []
        self.outbox_listeners: list[Callable[[], None]] = []
        self.write_audit: Callable[[str], None] | None = None
        """Takes the lines of the audit log; without it they go to the program's log."""
        self.order_listeners: list[Callable[[Instance], None]] = []
        """Hear of each instance whose generation has changed, when that is durable: its host is to be told."""
        self._stored_outbox: dict[int, Outgoing] = {}
        self._outgoing_since: dict[int, float] = {}
        self._outbox_grew = False
        journal.after_batch.append(self._announce_outbox)

    def restore(self, tables: Mapping[str, Mapping[Any, Any]]) -> None:
        """Take over what the store has kept."""
        self.counters.update(tables["counters"])
        self.settings.update(tables["settings"])
        for name in ("hosts", "users", "disks", "instances", "requests", "outbox"):
            for key, record in tables[name].items():
                self.apply(name, key, self._rebased(record))
        self._stored_outbox.update((number, row) for number, row in self.outbox.items() if not row.set_aside)
        self._outgoing_since.update(dict.fromkeys(self._stored_outbox, self.clock.seconds()))

    def _rebased(self, record: Any) -> Any:
        """The record as this process takes it over: its monotonic times are of another process, so what rests begins its rest anew."""
        if not isinstance(record, Instance) or not (record.moved_at or record.resize_failed_at):
            return record
        now = self.clock.seconds()
        return msgspec.structs.replace(
            record, moved_at=now if record.moved_at else 0.0, resize_failed_at=now if record.resize_failed_at else 0.0
        )

    @contextmanager
    def transaction(self, name: str) -> Iterator[Transaction]:
        """A set of changes made together: in memory when the block ends without an exception, on disk before anyone is told."""
        tx = Transaction(self, name)
        yield tx
        tx.finish()

    def setting(self, name: str, make: Callable[[], str]) -> str:
        """A value made once in the life of a cell."""
        if name not in self.settings:
            value = self.settings[name] = make()
            self.journal.write([Change("settings", name, value)])
        return self.settings[name]

    def new_incarnation(self) -> str:
        """Draw the incarnation of a new instance: 128 bits in hexadecimal."""
        return self._random_bytes(16).hex()

    def remark(self, instance_id: int, reason: str) -> None:
        """Let an instance's record say why it waits: nothing that is written or told, since every pass finds it out again."""
        after = self.instances[instance_id] = msgspec.structs.replace(self.instances[instance_id], reason=reason)
        if after.host_id is not None:
            self.touched.add(after.host_id)

    def audit(self, event: Event, now: float) -> None:
        """Write an audit record of this time of day to the audit log."""
        if self.write_audit is not None:
            self.write_audit(audit_line(event, now))
        else:
            self.log.info("audit: {description}", description=event["description"])

    # IOutbox
    def outgoing(self) -> Sequence[Outgoing]:
        """The committed rows that have not arrived yet, oldest first."""
        return list(self._stored_outbox.values())

    def outgoing_done(self, ids: Sequence[int]) -> None:
        """These rows have arrived."""
        for row in ids:
            self.outbox.pop(row, None)
            self._stored_outbox.pop(row, None)
            self._outgoing_since.pop(row, None)
        self.journal.write_soon([Change("outbox", row, None) for row in ids])

    def set_aside(self, number: int, why: str) -> None:
        """Keep this row and do not send it any more. Of very many such rows the oldest are forgotten."""
        row = self._stored_outbox.pop(number, None)
        if row is None:
            return
        self._outgoing_since.pop(number, None)
        kept = self.outbox[number] = msgspec.structs.replace(row, set_aside=why)
        changes = [Change("outbox", number, kept)]
        for old in self.rows_set_aside()[:-MOST_SET_ASIDE]:
            del self.outbox[old.id]
            changes.append(Change("outbox", old.id, None))
        self.journal.write(changes)

    def rows_set_aside(self) -> list[Outgoing]:
        """Return the rows that are kept and not sent any more, oldest first."""
        return sorted((row for row in self.outbox.values() if row.set_aside), key=lambda row: row.id)

    def oldest_outgoing(self) -> float:
        """Return for how many seconds the oldest committed row has waited to arrive, counted from our start; 0.0 when none waits."""
        since = next(iter(self._outgoing_since.values()), None)
        return 0.0 if since is None else self.clock.seconds() - since

    def is_outgoing(self, number: int) -> bool:
        """Whether the reply of this request is still on its way."""
        stanza_id = self._reply_id(number)
        return any(row.stanza_id == stanza_id and not row.set_aside for row in self.outbox.values())

    def _reply_id(self, number: int) -> str:
        return f"{self.source}-r{number}"

    def _announce_outbox(self) -> None:
        if self._outbox_grew:
            self._outbox_grew = False
            for listener in self.outbox_listeners:
                listener()

    def host_name(self, host_id: int | None) -> str | None:
        """The name of the host with this id; None for no host, or one that was unregistered."""
        host = self.hosts.get(host_id) if host_id is not None else None
        return host.name if host else None


class Transaction:
    """Changes that will be made together. Reads through it see its own changes."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.now = cluster.wall.seconds()
        """The time of day, for what is shown and stored; waits are measured by the cluster's clocks."""
        self._changes: dict[tuple[str, int | str], Any] = {}
        self._history: list[Instance] = []
        self._told: list[tuple[Event | None, Outgoing | None]] = []
        self._then: list[Callable[[], None]] = []
        self._next: dict[str, int] = {}
        self._removed_settings: list[str] = []
        self._waiting: dict[int, list[int]] = {}

    def instance(self, instance_id: int) -> Instance | None:
        """The instance as this transaction has it."""
        return self._changes.get(("instances", instance_id), self.cluster.instances.get(instance_id))

    def host(self, host_id: int) -> Host | None:
        """The host as this transaction has it."""
        return self._changes.get(("hosts", host_id), self.cluster.hosts.get(host_id))

    def request(self, request_id: int) -> Request | None:
        """The request as this transaction has it."""
        return self._changes.get(("requests", request_id), self.cluster.requests.get(request_id))

    def open_requests(self, instance_id: int) -> list[int]:
        """The requests that wait for this instance, oldest first; some may have been finished by this transaction."""
        return sorted({*self.cluster.open_requests.get(instance_id, ()), *self._waiting.get(instance_id, ())})

    def next_id(self, kind: str, least: int = 1) -> int:
        """The next number of its kind, at least so high; it is never given again, whatever becomes of what it is given to."""
        number = max(least, self.last_id(kind) + 1)
        self._next[kind] = number
        return number

    def step_over(self, kind: str, number: int) -> None:
        """Give out only numbers of this kind above this one."""
        self._next[kind] = max(number, self._next.get(kind, self.cluster.counters.get(kind, 0)))

    def remove_setting(self, name: str) -> None:
        """Forget a setting."""
        self._removed_settings.append(name)

    def last_id(self, kind: str) -> int:
        """The last number of its kind that was given."""
        return self._next.get(kind, self.cluster.counters.get(kind, 0))

    def reserve(self, kind: str, number: int) -> None:
        """Never give this number of its kind, nor any below it."""
        if number > self.last_id(kind):
            self._next[kind] = number

    def put_instance(self, instance: Instance) -> None:
        self._changes["instances", instance.id] = instance

    def forget_instance(self, instance: Instance) -> None:
        """Move the instance from the living to history."""
        self._changes["instances", instance.id] = None
        self._history.append(instance)

    def put_host(self, host: Host) -> None:
        self._changes["hosts", host.id] = host

    def remove_host(self, host_id: int) -> None:
        self._changes["hosts", host_id] = None

    def put_user(self, user: User) -> None:
        self._changes["users", user.id] = user

    def remove_user(self, user_id: int) -> None:
        self._changes["users", user_id] = None

    def put_disk(self, disk: DiskRecord) -> None:
        self._changes["disks", disk.name] = disk

    def put_request(self, request: Request) -> None:
        self._changes["requests", request.id] = request
        if request.done_at is None:
            for instance_id in request.instance_ids:
                self._waiting.setdefault(instance_id, []).append(request.id)

    def remove_request(self, request_id: int) -> None:
        self._changes["requests", request_id] = None

    def tell(self, event: Event) -> None:
        """Publish an event of this change; an audit record goes to the audit log, too, when the change is durable."""
        if self.cluster.publishing:
            self._told.append((event, None))
        if event["type"] == "auditRecord":
            self._then.append(lambda: self.cluster.audit(event, self.now))

    def send(self, origin: Origin, body: str, number: int) -> None:
        """A message to whoever the origin names. One number is one message: sent again, it has the same stanza id."""
        stanza_id = self.cluster._reply_id(number)
        message = Outgoing(id=0, body=body, stanza_id=stanza_id, to=origin.reply_to, stanza_type=origin.stanza_type, thread=origin.thread)
        self._told.append((None, message))

    def notify(self, jid: str, body: str, number: int) -> None:
        """Send a message to somebody who did not ask, outside the thread, which the requester has chosen."""
        self._told.append((None, Outgoing(id=0, body=body, stanza_id=f"{self.cluster.source}-n{number}", to=jid)))

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call this when the changes are durable."""
        self._then.append(call)

    def finish(self) -> None:
        """Make the changes in memory and hand them to the journal; `Cluster.transaction` calls it."""
        cluster = self.cluster
        rows: list[Outgoing] = []
        source = cluster.source
        for event, reply in self._told:
            number = self.next_id("outbox")
            if event is not None:
                seq = self.next_id("event")
                rows.append(Outgoing(id=number, body=seal(event, seq, source, self.now), stanza_id=f"{source}-e{seq}", seq=seq))
            elif reply is not None:
                rows.append(msgspec.structs.replace(reply, id=number))
        changes = [Change("counters", kind, number) for kind, number in self._next.items()]
        cluster.counters.update(self._next)
        ordered: list[Instance] = []
        for (table, key), record in self._changes.items():
            if table == "instances" and record is not None:
                before = cluster.instances.get(record.id)
                if record.generation != (before.generation if before else 0):
                    ordered.append(record)
            cluster.apply(table, key, record)
            changes.append(Change(table, key, record))
        for setting in self._removed_settings:
            cluster.settings.pop(setting, None)
            changes.append(Change("settings", setting, None))
        changes.extend(Change("history", gone.id, gone) for gone in self._history)
        for row in rows:
            cluster.outbox[row.id] = row
            changes.append(Change("outbox", row.id, row))
        then = self._then
        if rows:
            then = [lambda: self._stored(rows), *then]
        if ordered:
            then = [*then, lambda: self._ordered(ordered)]
        if changes or then:
            cluster.journal.write(changes, then)
        for (table, _), record in self._changes.items():
            if table in ("instances", "hosts") and record is not None:
                for watcher in cluster.watchers:
                    watcher(record)
        for gone in self._history:
            for watcher in cluster.watchers:
                watcher(gone)

    def _ordered(self, instances: Sequence[Instance]) -> None:
        for listener in self.cluster.order_listeners:
            for instance in instances:
                listener(instance)

    def _stored(self, rows: Sequence[Outgoing]) -> None:
        for row in rows:
            if row.id in self.cluster.outbox:
                self.cluster._stored_outbox[row.id] = row
                self.cluster._outgoing_since[row.id] = self.cluster.clock.seconds()
                self.cluster._outbox_grew = True
