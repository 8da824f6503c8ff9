"""The publisher: carries the outbox out, replies to whom they belong and events to every recipient, and forgets only what arrived.

Rows leave in windows, each followed by a ping. A window is done when the server has answered its ping; what was not answered
when a stream ends is sent again over the next one, in order and with the same ids. So each row arrives at least once; but for one that
the server ends the stream for, twice: that is kept, told in log and status, and the rest goes on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.words.protocols.jabber.error import StreamError

from tashi.xmpp import wokkel_compat  # noqa: F401 - must come before wokkel

# isort: split
from wokkel.subprotocols import XMPPHandler

from tashi.interfaces import IOutbox
from tashi.model.request import Outgoing
from tashi.xmpp.connection import NotConnected
from tashi.xmpp.messages import id_for, message, publication, text_of

WINDOW_ROWS: Final = 200
WINDOW_BYTES: Final = 64 * 1024  # a server that reads 10 kB/s from each client, as many do, must still answer in time
WINDOWS: Final = 4  # on their way at once
ALWAYS_TAKEN: Final = 10_000  # bytes of a stanza that every server takes (RFC 6120, 13.12)
MAX_STANZA: Final = 240 * 1024  # servers end the stream above 256 KiB, and would do so at every attempt

_REFUSALS: Final = frozenset(
    {"bad-format", "invalid-namespace", "invalid-xml", "not-well-formed", "policy-violation", "restricted-xml", "unsupported-stanza-type"}
)
"""Conditions of stream errors that are about what we sent; others, such as system-shutdown, are not."""

_log = Logger()


class Link(Protocol):
    """What the publisher needs of a connection."""

    def send(self, stanza: str) -> None:
        """Write this text to the stream."""

    async def ping(self) -> None:
        """Return when the server has taken all that was sent before; NotConnected when that cannot be known."""


class Publisher(XMPPHandler):
    """Drains an outbox over the connection it is added to."""

    def __init__(self, outbox: IOutbox, recipients: Sequence[str], pubsub: tuple[str, str] | None = None) -> None:
        super().__init__()
        self._outbox = outbox
        self._recipients = tuple(recipients)
        self._pubsub = pubsub
        self._stream = 0  # counts the streams there were
        self._online = False
        self._in_flight: list[list[int]] = []  # the ids of each window on its way
        self._suspects: set[int] = set()  # rows that were on their way when the server refused something
        self._limit = MAX_STANZA  # bytes from which on a stanza is not sent
        self._sent = -1  # the id of the last row sent over this stream
        outbox.subscribe(self._pump)

    def connectionInitialized(self) -> None:
        """Begin anew with the oldest row that is not done."""
        self._stream += 1
        self._online, self._in_flight, self._sent = True, [], -1
        self._pump()

    def connectionLost(self, reason: object) -> None:
        """What is on its way now may or may not have arrived. Where the server ended the stream for what we sent, the rows on their way
        are sent again one by one; the one that is alone when that happens again is set aside."""
        super().connectionLost(reason)
        self._online = False
        on_their_way = [number for window in self._in_flight for number in window]
        self._in_flight = []
        condition = _refusal(reason)
        if not condition or not on_their_way:
            return
        (first, *others) = on_their_way
        if first in self._suspects and not others:
            self._suspects.discard(first)
            row = next((row for row in self._outbox.pending() if row.id == first), None)
            if row is not None:
                self._set_aside(row, f"the server ended the stream twice for it ({condition})")
        else:
            self._suspects.update(on_their_way)

    def _pump(self) -> None:
        while self._online and len(self._in_flight) < WINDOWS:
            rows = self._outbox.pending()
            start = bisect_right(rows, self._sent, key=attrgetter("id"))
            if start == len(rows):
                return
            window = rows[start : start + WINDOW_ROWS]
            if self._suspects:
                if self._in_flight:
                    return
                window = window[:1]
            self._send(window)

    def _send(self, rows: Sequence[Outgoing]) -> None:
        texts: list[str] = []
        ids: list[int] = []
        size = 0
        for row in rows:
            self._sent = row.id
            stanzas = self._stanzas(row)
            longest = max((len(text.encode()) for text in stanzas), default=0)
            if longest >= self._limit:
                self._suspects.discard(row.id)
                self._set_aside(row, f"it is too large, and the server takes less than {self._limit:,} bytes")
                continue
            ids.append(row.id)
            texts.extend(stanzas)
            size += sum(map(len, stanzas))
            if size > WINDOW_BYTES:
                break
        if not ids:
            return
        self._in_flight.append(ids)
        self.parent.send("".join(texts))
        # A failure here is a fault of ours; without the log the window would stay open unnoticed.
        Deferred.fromCoroutine(self._confirm(ids)).addErrback(lambda failure: _log.failure("confirming a window", failure))

    async def _confirm(self, ids: list[int]) -> None:
        stream = self._stream
        try:
            await self.parent.ping()
        except NotConnected:
            return
        if stream == self._stream and ids in self._in_flight:
            self._in_flight.remove(ids)
        self._suspects.difference_update(ids)
        self._outbox.done(ids)
        self._pump()

    def _set_aside(self, row: Outgoing, why: str) -> None:
        """Keep the row and go on with the rest. A large one tells what the server takes: no other as large is tried."""
        size = max((len(text.encode()) for text in self._stanzas(row)), default=0)
        words = f"{size:,} bytes to {row.to or 'every recipient'}: {why}"
        if size > ALWAYS_TAKEN:
            self._limit = min(self._limit, size)
            words += "; raise the server's limit (Prosody: c2s_stanza_size_limit, ejabberd: max_stanza_size)"
        _log.error("message {id} is set aside: {words}", id=row.stanza_id, words=words)
        self._outbox.set_aside(row.id, words, size if size > ALWAYS_TAKEN else 0)

    def _stanzas(self, row: Outgoing) -> list[str]:
        if row.to:
            stanzas = [message(row.to, row.stanza_type, row.body, stanza_id=row.stanza_id, thread=row.thread)]
        else:
            stanzas = [message(to, "normal", row.body, stanza_id=id_for(row.stanza_id, to)) for to in self._recipients]
            if self._pubsub is not None:
                stanzas.append(publication(*self._pubsub, row.stanza_id, row.body))
        return [text_of(stanza) for stanza in stanzas]


def _refusal(reason: object) -> str:
    """The condition by which the server refused what we sent; empty when the stream ended for another reason."""
    error = getattr(reason, "value", reason)
    return str(error.condition) if isinstance(error, StreamError) and error.condition in _REFUSALS else ""
