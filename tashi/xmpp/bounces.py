"""Bounces: the errors that come back for what we sent, counted per recipient, the first of each told in the log.

-> <message type='error'>      a count; never an answer
"""

from __future__ import annotations

from typing import Final

import msgspec
from twisted.logger import Logger
from twisted.words.protocols.jabber.jid import InvalidFormat
from twisted.words.xish.domish import Element

from tashi.xmpp import wokkel_compat  # noqa: F401 - must come before wokkel

# isort: split
from wokkel.subprotocols import XMPPHandler

from tashi.clocks import Clock
from tashi.model.names import shown
from tashi.model.status import duration
from tashi.xmpp.messages import jids

MOST_RECIPIENTS: Final = 1000
"""Recipients that are counted apart."""
RECENT_SECONDS: Final = 3600.0
"""A recipient whose last bounce is older than this is no warning any more."""
MOST_NAMED: Final = 20

_log = Logger()


class Bounce(msgspec.Struct, frozen=True, kw_only=True):
    """What came back from one recipient: how often, when last (by the reactor's clock) and why."""

    count: int
    last: float
    why: str


class Bounces(XMPPHandler):
    """Counts the errors that come back. ``clock``: the reactor's."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.by_recipient: dict[str, Bounce] = {}

    def connectionInitialized(self) -> None:
        """Listen on the new stream."""
        self.xmlstream.addObserver("/message[@type='error']", self.take)

    def take(self, stanza: Element) -> None:
        """Count one error; log the first of its sender."""
        try:
            recipient, _ = jids(stanza.getAttribute("from") or "")
        except InvalidFormat:
            return
        before = self.by_recipient.get(recipient)
        if before is None and len(self.by_recipient) >= MOST_RECIPIENTS:
            return
        bounce = Bounce(count=before.count + 1 if before else 1, last=self._clock.seconds(), why=_condition(stanza))
        self.by_recipient[recipient] = bounce
        if before is None:
            _log.warn(
                "{recipient} does not take what is sent to it: {why}; further bounces are counted in `tashi status`",
                recipient=shown(recipient),
                why=bounce.why,
            )

    @property
    def count(self) -> int:
        """How many errors came back from all recipients."""
        return sum(bounce.count for bounce in self.by_recipient.values())

    def warnings(self) -> tuple[str, ...]:
        """Return one sentence for each recipient that has bounced of late."""
        now = self._clock.seconds()
        recent = {jid: bounce for jid, bounce in self.by_recipient.items() if now - bounce.last < RECENT_SECONDS}
        words = [
            f"{jid} does not take what is sent to it: {bounce.count:,} bounce{'s' if bounce.count > 1 else ''}, "
            f"the last {duration(now - bounce.last)} ago: {bounce.why}"
            for jid, bounce in sorted(recent.items())
        ]
        if len(words) > MOST_NAMED:
            words = [*words[:MOST_NAMED], f"{len(words) - MOST_NAMED} more recipients bounce"]
        return tuple(words)


def _condition(stanza: Element) -> str:
    """The condition of the error and its text, such as "service-unavailable"."""
    for child in stanza.elements():
        if child.name == "error":
            names = [one.name for one in child.elements() if one.name != "text"]
            texts = [str(one) for one in child.elements() if one.name == "text"]
            name = names[0] if names else "no condition"
            return shown(f"{name} ({texts[0]})" if texts and texts[0] else name)[:200].strip("'")
    return "no condition"
