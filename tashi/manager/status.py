"""`tashi status`: what the parts of the control plane say of themselves, put together.

A part is one function that returns a `StatusPart`, added by name; it reads memory and waits for nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from twisted.logger import Logger

from tashi.manager.arguments import Arguments
from tashi.manager.cluster import Cluster
from tashi.model.events import timestamp
from tashi.model.host import Host
from tashi.model.states import WITHOUT_POWER, HostState, InstanceState
from tashi.model.status import StatusPart, counted, duration
from tashi.model.store_status import StoreStatus
from tashi.model.user import Principal

MOST_NAMED: Final = 20
"""Hosts that have a warning of their own; more are counted."""
OLD_OUTBOX_SECONDS: Final = 300.0
"""A row that waits longer than this to be delivered is a warning."""
MANY_ROWS: Final = 10_000
_TO_BE_LOOKED_AT: Final = {
    InstanceState.Held: "`tashi getInstances --show-reason` shows why, `tashi resumeVm` tries again",
    InstanceState.Orphaned: "their hosts are silent; `tashi getHosts` shows which",
}


class Status:
    """A part of the table of verbs: `status`."""

    log = Logger()

    def __init__(self, cluster: Cluster, version: str) -> None:
        self._cluster = cluster
        self._version = version
        self._since, self._began = cluster.wall.seconds(), cluster.clock.seconds()
        self._parts: dict[str, Callable[[], StatusPart]] = {}
        self.verbs: dict[str, Callable[[Principal, Arguments], Any]] = {"status": lambda who, arguments: self.now()}

    def add(self, name: str, part: Callable[[], StatusPart]) -> None:
        """Show this part under this name, after those that were added before."""
        self._parts[name] = part

    def now(self) -> dict[str, Any]:
        """Return the status as plain data: ``healthy``, ``lines`` for people, ``warnings`` and ``notes``, and each part's data."""
        uptime = self._cluster.clock.seconds() - self._began
        since = timestamp(self._since)
        answer: dict[str, Any] = {"version": self._version, "source": self._cluster.source, "since": since, "uptime": round(uptime, 1)}
        lines = [f"version: {self._version}, up for {duration(uptime)} since {since}"]
        warnings: list[str] = []
        notes: list[str] = []
        for name, part in self._parts.items():
            told = self._told(name, part)
            answer[name] = dict(told.data)
            lines.append(f"{name}: {told.words}")
            warnings.extend(told.warnings)
            notes.extend(told.notes)
        return answer | {"healthy": not warnings, "warnings": warnings, "notes": notes, "lines": lines}

    def _told(self, name: str, part: Callable[[], StatusPart]) -> StatusPart:
        try:
            return part()
        except Exception:
            self.log.failure("the status of {name} cannot be told", name=name)
            return StatusPart(words="unknown", warnings=(f"the status of {name} cannot be told; the log says why",))


def hosts_part(hosts: Mapping[int, Host]) -> StatusPart:
    """Return how the hosts are."""
    counts: Counter[str] = Counter()
    warnings: list[str] = []
    for _, host in sorted(hosts.items()):
        off = host.state in WITHOUT_POWER
        counts["off" if off else "up" if host.up else "down"] += 1
        counts["decayed"] += host.up and host.decayed
        doubt = _doubt(host, off=off)
        if doubt:
            warnings.append(f"host {host.name} {doubt}")
    states = Counter(host.state.name for host in hosts.values())
    if len(warnings) > MOST_NAMED:
        more = len(warnings) - MOST_NAMED
        warnings = [*warnings[:MOST_NAMED], f"{more} more hosts need attention; `tashi getHosts` lists them"]
    named = {name: counts[name] for name in ("up", "down", "off", "decayed")}
    return StatusPart(
        words=counted({name: count for name, count in named.items() if count or name == "up"}),
        data={"total": len(hosts), **named, "states": dict(sorted(states.items()))},
        warnings=tuple(warnings),
    )


def _doubt(host: Host, *, off: bool) -> str:
    """What an operator should know about this host; empty: nothing."""
    notes = f": {host.notes}" if host.notes else ""
    if host.state is HostState.WakeFailed:
        return f"did not wake{notes}"
    if off:
        return ""
    if not host.up:
        return f"is down{notes}"
    if host.state is HostState.VersionMismatch:
        return "runs another version of the agent; upgrade it"
    return f"is decayed: what is known of its instances may be stale{notes}" if host.decayed else ""


def instances_part(cluster: Cluster) -> StatusPart:
    """Return how many instances are in which state."""
    states = Counter(instance.state for instance in cluster.instances.values())
    decayed = sum(instance.decayed for instance in cluster.instances.values())
    named = {state.name: states[state] for state in InstanceState if states[state]}
    warnings = [
        f"{states[state]:,} instance{'s are' if states[state] > 1 else ' is'} {state.name}: {words}"
        for state, words in _TO_BE_LOOKED_AT.items()
        if states[state]
    ]
    return StatusPart(
        words=counted({"in all": len(cluster.instances), **named}),
        data={"total": len(cluster.instances), "decayed": decayed, "states": named},
        warnings=tuple(warnings),
    )


def queues_part(cluster: Cluster) -> StatusPart:
    """Return what waits within the control plane: instances for a host, commands for their outcome."""
    waiting = {number for group in cluster.open_requests.values() for number in group}
    now = cluster.awake.seconds()
    oldest = max((now - cluster.request_since[number] for number in waiting), default=0.0)
    counts = {"pending instances": len(cluster.pending), "moving instances": len(cluster.moving), "open commands": len(waiting)}
    return StatusPart(
        words=counted(counts) + (f", the oldest for {duration(oldest)}" if waiting else ""),
        data={
            "pending": len(cluster.pending), "moving": len(cluster.moving), "openCommands": len(waiting),
            "oldestCommand": round(oldest, 1), "senders": len(cluster.queued),
        },
    )  # fmt: skip


def outbox_part(cluster: Cluster) -> StatusPart:
    """Return how much waits to be delivered over XMPP."""
    aside, oldest = cluster.rows_set_aside(), cluster.oldest_outgoing()
    rows = len(cluster.outbox) - len(aside)
    warnings: list[str] = []
    if oldest > OLD_OUTBOX_SECONDS or rows > MANY_ROWS:
        warnings.append(f"{rows:,} messages wait to be delivered, the oldest for {duration(oldest)}; look at the XMPP connection")
    if aside:
        warnings.append(
            f"{len(aside):,} message{'s were' if len(aside) > 1 else ' was'} set aside and not sent; the last: {aside[-1].set_aside}"
        )
    words = f"{rows:,} messages" + (f", the oldest for {duration(oldest)}" if rows else "")
    named = [{"id": row.stanza_id, "to": row.to, "bytes": len(row.body.encode()), "why": row.set_aside} for row in aside[-MOST_NAMED:]]
    data = {"rows": rows, "oldest": round(oldest, 1), "setAside": len(aside), "lastSetAside": named}
    return StatusPart(words=words + (f", {len(aside):,} set aside" if aside else ""), data=data, warnings=tuple(warnings))


def store_part(store: StoreStatus, now: float) -> StatusPart:
    """Return how the store is; ``now`` is the time of day."""
    notes: tuple[str, ...] = ()
    backup = "no backup"
    if store.last_backup is not None:
        backup = f"last backup {duration(now - store.last_backup)} ago"
    elif store.path:
        notes = ("no backup was made here yet; `tashi db backup FILE` makes one while the control plane runs",)
    words = f"{store.kind}, {store.bytes / 2**20:.1f} MiB and {store.log_bytes / 2**20:.1f} MiB of write-ahead log, {backup}"
    if store.state != "ok":
        words = f"{store.state} for {duration(store.away_seconds)}: {words}"
    data = {name: value for name, value in msgspec.to_builtins(store).items() if name != "warnings"}
    return StatusPart(words=words, data=data, warnings=store.warnings, notes=notes)


def audit_part(missing: int) -> StatusPart:
    """Return how the audit log is."""
    if not missing:
        return StatusPart(words="written", data={"missing": 0})
    words = f"{missing:,} records could not be written to the audit log; is its disk full?"
    return StatusPart(words=f"{missing:,} records missing", data={"missing": missing}, warnings=(words,))
