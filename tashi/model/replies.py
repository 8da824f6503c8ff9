"""The bodies of final replies: one outcome of one command, as the requester's program reads it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tashi.errors import TashiError
from tashi.model.events import fqdn, timestamp
from tashi.model.instance import Instance


def ok(verb: str, instances: Sequence[Instance], host: str | None, now: float) -> str:
    """The command was carried out; ``resources[0]`` is the name the first instance is reached by."""
    first = instances[0] if instances else None
    body = {
        "status": "OK",
        "resources": [fqdn(instance) for instance in instances],
        "verb": verb,
        "resourceId": first.resource_id if first else None,
        "ids": [instance.id for instance in instances],
        "provisioningSystemId": first.id if first else None,
        "state": first.state.name if first else None,
        "host": host,
        "timestamp": timestamp(now),
    }
    return msgspec.json.encode(body).decode()


def notification(body: str, requester: str) -> str:
    """The outcome for somebody who did not ask: the reply's body, marked as a notification, with the bare JID that asked."""
    return msgspec.json.encode({**msgspec.json.decode(body), "notification": True, "requester": requester}).decode()


def error(verb: str, mistake: TashiError, resource_id: str | None, now: float) -> str:
    """The command was not carried out: what, why and what to do, and a token for programs."""
    body = {
        "status": "ERROR",
        "message": mistake.message,
        "code": mistake.code,
        "verb": verb,
        "resourceId": resource_id,
        "timestamp": timestamp(now),
    }
    return msgspec.json.encode(body).decode()
