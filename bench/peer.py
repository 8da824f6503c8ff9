"""An XMPP client that costs nearly nothing: what it sends is made before, what it gets is only counted, and read afterwards.

On a small machine the load generator's own work would be measured with the cell's.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from xml.etree import ElementTree

CLIENT: Final = "jabber:client"
_STREAMS: Final = "http://etherx.jabber.org/streams"
_END: Final = b"</message>"


class Peer:
    """One account's stream; ``count`` is the number of messages that have come."""

    def __init__(self, jid: str, password: str, server: dict[str, Any]) -> None:
        self.jid = jid
        self.count = 0
        self.on_message: Callable[[], None] = lambda: None
        self._password = password
        self._server = server
        self._received = bytearray()
        self._scanned = 0
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def log_in(self, resource: str, present: bool = True) -> None:
        """Open the stream over verified TLS, log in, and be online when ``present``."""
        self._reader, self._writer = await asyncio.open_connection(self._server["host"], self._server["port"])
        await self._say(self._header(), b"</stream:features>")
        await self._say(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", b"<proceed")
        await self._writer.start_tls(ssl.create_default_context(cafile=self._server["ca"]), server_hostname=self._server["domain"])
        await self._say(self._header(), b"</stream:features>")
        user = self.jid.partition("@")[0]
        secret = base64.b64encode(f"\0{user}\0{self._password}".encode())
        await self._say(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%s</auth>" % secret, b"<success")
        await self._say(self._header(), b"</stream:features>")
        bind = ElementTree.Element("iq", type="set", id="bind")
        wanted = ElementTree.SubElement(bind, "bind", xmlns="urn:ietf:params:xml:ns:xmpp-bind")
        ElementTree.SubElement(wanted, "resource").text = resource
        await self._say(ElementTree.tostring(bind), b"</iq>")
        self.full = f"{self.jid}/{resource}"
        if present:
            await self._say(b"<presence/>", b"<presence")
        self._received.clear()
        self._reading = asyncio.create_task(self._read())

    async def log_out(self) -> None:
        """End the stream."""
        if self._reading is not None:
            self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def send(self, stanzas: bytes) -> None:
        """Write stanzas, as fast as they are taken."""
        self._writer.write(stanzas)
        await self._writer.drain()

    async def until(self, count: int, seconds: float = 120) -> None:
        """Return when so many messages have come."""
        async with asyncio.timeout(seconds):
            while self.count < count:
                self._changed.clear()
                await self._changed.wait()

    async def quiet(self, seconds: float) -> None:
        """Return when nothing has come for so long."""
        while True:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), seconds)
            except TimeoutError:
                return

    def last_body(self) -> str:
        """The body of the message that came last, with nothing after it yet."""
        start = self._received.rindex(b"<message")
        return ElementTree.fromstring(self._received[start:]).findtext("body", "")

    def messages(self) -> list[ElementTree.Element]:
        """All messages that have come."""
        text = b"<stream:stream xmlns='%s' xmlns:stream='%s'>%s</stream:stream>" % (CLIENT.encode(), _STREAMS.encode(), self._received)
        return [stanza for stanza in ElementTree.fromstring(text) if stanza.tag == f"{{{CLIENT}}}message"]

    def bodies(self) -> list[str]:
        """The bodies of all messages that have come."""
        return [message.findtext(f"{{{CLIENT}}}body", "") for message in self.messages()]

    async def _read(self) -> None:
        while chunk := await self._reader.read(262144):
            self._received += chunk
            found = self._received.count(_END, max(0, self._scanned - len(_END) + 1))
            self._scanned = len(self._received)
            if found:
                self.count += found
                self.on_message()
                self._changed.set()

    async def _say(self, text: bytes, answer: bytes) -> None:
        self._received.clear()
        self._writer.write(text)
        async with asyncio.timeout(20):
            while answer not in self._received:
                chunk = await self._reader.read(65536)
                assert chunk and b"<failure" not in chunk, f"the server refuses {self.jid}"
                self._received += chunk

    def _header(self) -> bytes:
        text = f"<stream:stream to='{self._server['domain']}' version='1.0' xmlns='{CLIENT}' xmlns:stream='{_STREAMS}'>"
        return text.encode()


def message(to: str, body: str, number: int) -> bytes:
    """A chat message with an id."""
    stanza = ElementTree.Element("message", to=to, type="chat", id=f"m{number}")
    ElementTree.SubElement(stanza, "body").text = body
    return ElementTree.tostring(stanza)


@contextlib.asynccontextmanager
async def online(facts: dict[str, Any], account: str, resource: str = "bench", present: bool = True) -> AsyncIterator[Peer]:
    """A peer logged in as one of a cell's accounts."""
    peer = Peer(facts["accounts"][account]["jid"], facts["accounts"][account]["password"], facts["xmpp"])
    await peer.log_in(resource, present)
    try:
        yield peer
    finally:
        await peer.log_out()
