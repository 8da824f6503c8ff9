"""The events that leave the cell, as plain JSON data: what each says, and in which words.

The publisher's consumers read {"type", "source", "timestamp", "seq", "description"} of every event; seq and timestamp are
added when the change that the event tells of is recorded.
"""

from __future__ import annotations

import datetime
from functools import lru_cache
from typing import Any

import msgspec

from tashi.model.host import Host
from tashi.model.instance import Instance

Event = dict[str, Any]


@lru_cache(maxsize=64)  # all that one transaction tells has one time
def timestamp(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, e.g. 2026-01-02T03:04:05.678Z."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def vm_action(action: str, instance: Instance, before: str | None, after: str | None, reason: str, host: str | None) -> Event:
    """What was done to, or happened to, one instance; ``before`` and ``after`` are states, or host names for a migration."""
    words = f"{instance.name} ({instance.id}) {action}"
    if before or after:
        words += f": {before or 'nothing'} -> {after or 'nothing'}"
    if host:
        words += f" on {host}"
    if reason:
        words += f" ({reason})"
    return {
        "type": "vmAction",
        "description": words,
        "action": action,
        "id": instance.id,
        "resourceId": instance.resource_id,
        "fqdn": fqdn(instance),
        "from": before,
        "to": after,
        "host": host,
        "reason": reason,
    }


def host_action(action: str, host: Host, reason: str = "") -> Event:
    """What was done to, or happened to, one host."""
    return {
        "type": "hostAction",
        "description": f"host {host.name} ({host.id}) {action}" + (f": {reason}" if reason else ""),
        "action": action,
        "id": host.id,
        "name": host.name,
        "reason": reason,
    }


def cell_action(action: str, reason: str) -> Event:
    """Something that concerns the whole cell, such as storeLost."""
    return {"type": "cellAction", "description": f"{action}: {reason}", "action": action, "reason": reason}


def sla_warning(instance: Instance, term: str, reason: str, host: str | None) -> Event:
    """A term of an instance is not kept where it is."""
    return {
        "type": "slaWarning",
        "description": f"{instance.name} ({instance.id}) {term} is not kept: {reason}",
        "id": instance.id,
        "resourceId": instance.resource_id,
        "fqdn": fqdn(instance),
        "sla": instance.sla,
        "term": term,
        "host": host,
        "reason": reason,
    }


def audit_record(who: str, verb: str, target: str, result: str, count: int = 1, *, door: str = "socket") -> Event:
    """Who asked for what, and what became of it; never a secret. ``door``: socket, xmpp, node, or scheduler for what nobody asked for."""
    who, verb, target = map(_visible, (who, verb, target))
    words = f"{who} {verb} {target}: {result}".replace("  ", " ")
    event: Event = {"type": "auditRecord", "description": words, "who": who, "verb": verb, "target": target, "result": result}
    event["door"] = door
    if count > 1:
        event["count"] = count
    return event


def _visible(text: str) -> str:
    """The text with escapes for what a terminal does not print, such as a change of direction."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def audit_line(event: Event, now: float) -> str:
    """The line of the audit log for an audit record."""
    fields = ("who", "door", "verb", "target", "result", "count")
    return msgspec.json.encode({"timestamp": timestamp(now)} | {name: event[name] for name in fields if name in event}).decode()


def fqdn(instance: Instance) -> str:
    """The name an instance is reached by: its host name, in its sub-domain where its hints name one."""
    sub = instance.hints.get("subDomain")
    return f"{instance.name}.{sub}" if sub else instance.name


def seal(event: Event, seq: int, source: str, now: float) -> str:
    """The JSON text of an event that has got its place in the sequence."""
    head = {"type": event["type"], "source": source, "timestamp": timestamp(now), "seq": seq}
    return msgspec.json.encode(head | event).decode()
