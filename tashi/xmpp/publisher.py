"""The publisher: carries the outbox out, replies to whom they belong and events to every recipient, and forgets only what arrived.

Rows leave in windows, each followed by a ping. A window is done when the server has answered its ping; what was not answered
when a stream ends is sent again over the next one, in order and with the same ids. So each row arrives at least once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

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
MAX_STANZA: Final = 240 * 1024  # servers end the stream above 256 KiB, and would do so at every attempt

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
        self._windows = 0
        self._sent = -1  # the id of the last row sent over this stream
        outbox.subscribe(self._pump)

    def connectionInitialized(self) -> None:
        """Begin anew with the oldest row that is not done."""
        self._stream += 1
        self._online, self._windows, self._sent = True, 0, -1
        self._pump()

    def connectionLost(self, reason: object) -> None:
        """What is on its way now may or may not have arrived."""
        super().connectionLost(reason)
        self._online = False

    def _pump(self) -> None:
        while self._online and self._windows < WINDOWS:
            rows = self._outbox.pending()
            start = bisect_right(rows, self._sent, key=attrgetter("id"))
            window = rows[start : start + WINDOW_ROWS]
            if not window:
                return
            self._send(window)

    def _send(self, rows: Sequence[Outgoing]) -> None:
        texts: list[str] = []
        ids: list[int] = []
        size = 0
        for row in rows:
            ids.append(row.id)
            for text in self._stanzas(row):
                texts.append(text)
                size += len(text)
            if size > WINDOW_BYTES:
                break
        self._sent = ids[-1]
        self._windows += 1
        self.parent.send("".join(texts))
        # A failure here is a fault of ours; without the log the window would stay open unnoticed.
        Deferred.fromCoroutine(self._confirm(ids)).addErrback(lambda failure: _log.failure("confirming a window", failure))

    async def _confirm(self, ids: Sequence[int]) -> None:
        stream = self._stream
        try:
            await self.parent.ping()
        except NotConnected:
            return
        if stream == self._stream:
            self._windows -= 1
        self._outbox.done(ids)
        self._pump()

    def _stanzas(self, row: Outgoing) -> list[str]:
        if row.to:
            stanzas = [message(row.to, row.stanza_type, row.body, stanza_id=row.stanza_id, thread=row.thread)]
        else:
            stanzas = [message(to, "normal", row.body, stanza_id=id_for(row.stanza_id, to)) for to in self._recipients]
            if self._pubsub is not None:
                stanzas.append(publication(*self._pubsub, row.stanza_id, row.body))
        texts = []
        for stanza in stanzas:
            text = text_of(stanza)
            if len(text.encode()) > MAX_STANZA:
                _log.error("row {id} of the outbox is too long for XMPP and is not sent to {to}", id=row.id, to=stanza["to"])
            else:
                texts.append(text)
        return texts
