"""An accepted command that is owed an answer, and what goes out: replies and events on their way."""

from __future__ import annotations

import msgspec


class Origin(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Where a command came from, so that its answer finds the way back: the stanza's full JID, type, thread and id."""

    sender: str  # bare JID
    reply_to: str  # full JID
    stanza_type: str = "chat"
    thread: str | None = None
    stanza_id: str | None = None
    verb: str = ""
    fingerprint: str = ""  # digest of the body: one id with two bodies is two commands


class Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A command accepted and owed one outcome: ``done_at`` is set by the transaction that writes the reply.

    Times are in seconds since the epoch and only shown: how long a request waits, which is from ``accepted_at`` to ``deadline``, is
    measured by a clock that does not jump, anew after a restart.
    """

    id: int
    origin: Origin
    instance_ids: tuple[int, ...] = ()
    made: tuple[int, ...] = ()  # those of them that this command made: undone when it fails
    resource_id: str | None = None
    notify: str | None = None  # a bare JID that is told the outcome too
    accepted_at: float = 0.0
    deadline: float | None = None
    done_at: float | None = None
    outcome: str | None = None  # the body of the reply, once there is one


class Outgoing(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One row of the outbox: a reply to one JID, or an event to every subscriber (``to`` empty). ``set_aside``: why it is kept and not
    sent any more; empty while it is to be sent."""

    id: int
    body: str
    stanza_id: str
    to: str = ""
    stanza_type: str = "normal"
    thread: str | None = None
    seq: int | None = None  # events only
    set_aside: str = ""
