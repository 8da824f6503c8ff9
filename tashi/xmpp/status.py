"""What the XMPP door tells of itself in `tashi status`."""

from __future__ import annotations

from tashi.model.status import StatusPart, duration
from tashi.xmpp.bounces import Bounces
from tashi.xmpp.connection import Health


def connection_part(health: Health, bounces: Bounces, now: float) -> StatusPart:
    """Return how the connection is and what bounced; ``now`` by the reactor's clock."""
    span = duration(now - health.since)
    warnings = bounces.warnings()
    if health.connected:
        words = f"online as {health.jid} for {span}"
    else:
        words = f"offline for {span}" + (f", {health.attempts} attempts: {health.reason}" if health.attempts else "")
        warnings = (f"XMPP is {words}", *warnings)
    if bounces.count:
        words += f", {bounces.count:,} bounces"
    return StatusPart(
        words=words,
        data={
            "connected": health.connected, "jid": health.jid, "seconds": round(now - health.since, 1), "attempts": health.attempts,
            "reason": health.reason, "bounces": {jid: bounce.count for jid, bounce in sorted(bounces.by_recipient.items())},
        },
        warnings=warnings,
    )  # fmt: skip
