"""The guard of the stream: what XMPP forbids, or no honest server sends, ends the connection before it costs anything.

Refused while expat reads it: a DOCTYPE or entity (they expand to gigabytes), processing instructions, comments, and stanzas of
more than MAX_STANZA bytes. RFC 6120 section 11.1 forbids the first four; the size is ours.

What an honest server carries for any stranger must not end the connection: a stanza nested deeper than MAX_DEPTH, or of more than
MAX_NODES elements, attributes and namespaces, is left out of the stream, and never built. And what only repeats a stranger's
long question is not sent.

What can go when Twisted moves: all of it, the day ``ExpatElementStream`` refuses the same by itself; its own limits (10 MiB and
100,000 elements in 26.10) are far too wide, and it accepts a DOCTYPE.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.words.protocols.jabber.xmlstream import XmlStream
from twisted.words.xish.domish import Element, ExpatElementStream, ParserError
from twisted.words.xish.xmlstream import STREAM_ERROR_EVENT

from tashi.limited_log import LimitedLog
from tashi.model.names import shown

MAX_STANZA: Final = 4 * 1024 * 1024
"""Servers take 256 or 512 KiB of a client, and hand them on with a character in up to six bytes: a quotation mark as ``&quot;``."""
MAX_SENT: Final = 240 * 1024
"""Servers end the stream of a client that sends a stanza of more than 256 KiB."""
MAX_DEPTH: Final = 32
MAX_NODES: Final = 4096

_log = Logger()


class GuardedElementStream(ExpatElementStream):
    """An element stream that raises ParserError at the first thing that is not allowed."""

    # The base class counts whitespace between stanzas as part of the next one, for ever; the count below is exact.
    maxStanzaSize = 1 << 62

    def __init__(self, limited: LimitedLog | None = None) -> None:
        super().__init__()
        self._limited = limited
        self._received = 0  # bytes given to the parser
        self._stanza_starts_at = 0
        self._depth = 0
        self._nodes = 0
        self._left_out = False  # whether the stanza that is being read is
        # Text in one piece: domish joins pieces by copying, which is quadratic in a text of many entities or lines.
        self.parser.buffer_text = True
        self.parser.buffer_size = MAX_STANZA
        if hasattr(self.parser, "SetReparseDeferralEnabled"):
            self.parser.SetReparseDeferralEnabled(False)  # newer expat would hold back the end of a stanza
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype
        self.parser.EntityDeclHandler = self._refuse_doctype
        self.parser.ProcessingInstructionHandler = self._refuse_instruction
        self.parser.CommentHandler = self._refuse_comment

    def parse(self, buffer: bytes) -> None:
        """Read some more of the stream; ParserError when it breaks the rules."""
        self._received += len(buffer)
        super().parse(buffer)
        begun = self._stanza_starts_at if self._depth > 1 else self.parser.CurrentByteIndex
        if self._received - begun > MAX_STANZA:
            raise ParserError(f"a stanza of more than {MAX_STANZA} bytes")

    def abandon(self) -> None:
        """From here on nothing may come by this stream: it has been replaced, by TLS or after the login."""
        self.parser.StartElementHandler = self._refuse_late
        self.parser.CharacterDataHandler = None

    def _onStartElement(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 2:
            self._stanza_starts_at = self.parser.CurrentByteIndex
        self._count(1 + len(attributes))
        if self._depth > MAX_DEPTH:
            self._leave_out(f"elements nested deeper than {MAX_DEPTH}")
        if not self._left_out:
            super()._onStartElement(name, attributes)

    def _onEndElement(self, name: str) -> None:
        self._depth -= 1
        if not self._left_out:
            super()._onEndElement(name)
        if self._depth == 1:
            self._nodes = 0
            if self._left_out:
                self._left_out, self.localPrefixes = False, {}

    def _onStartNamespace(self, prefix: str | None, uri: str) -> None:
        self._count(1)
        super()._onStartNamespace(prefix, uri)

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            self._leave_out(f"more than {MAX_NODES} elements, attributes and namespaces")

    def _leave_out(self, why: str) -> None:
        if not self.documentStarted:
            raise ParserError(why)
        if not self._left_out:
            self._left_out = True
            sender = self._sender()
            self.currElem = None
            if self._limited is not None:
                self._limited.warn(sender, "ignored stanzas", "a stanza from {source} is ignored: {why}", why=why)

    def _sender(self) -> str:
        stanza = self.currElem
        while stanza is not None and stanza.parent is not None:
            stanza = stanza.parent
        return shown(stanza.getAttribute("from")) if stanza is not None else "somebody"

    def _refuse_doctype(self, *_: Any) -> NoReturn:
        raise ParserError("a DOCTYPE or entity declaration")

    def _refuse_instruction(self, *_: Any) -> NoReturn:
        raise ParserError("a processing instruction")

    def _refuse_comment(self, *_: Any) -> NoReturn:
        raise ParserError("a comment")

    def _refuse_late(self, *_: Any) -> NoReturn:
        raise ParserError("an element after the stream was to be started anew")


class GuardedXmlStream(XmlStream):
    """An XMPP stream read by the guard; a violation is logged and aborts the connection without waiting for the peer."""

    transport: Any
    stream: Any
    limited: LimitedLog | None = None

    def _initializeStream(self) -> None:
        if isinstance(self.stream, GuardedElementStream):
            self.stream.abandon()
        self.stream = GuardedElementStream(self.limited)
        self.stream.DocumentStartEvent = self.onDocumentStart
        self.stream.ElementEvent = self.onElement
        self.stream.DocumentEndEvent = self.onDocumentEnd

    def send(self, obj: Element | str) -> None:
        """Send a stanza, unless it is one that would end the stream: an answer that repeats a long question."""
        if isinstance(obj, Element):
            obj = obj.toXml(prefixes=self.prefixes, defaultUri=self.namespace, prefixesInScope=list(self.prefixes.values()))
            if len(obj.encode()) > MAX_SENT:
                _log.warn("an answer of {size} characters is not sent: {start}", size=len(obj), start=shown(obj))
                return
        super().send(obj)

    def dataReceived(self, data: bytes) -> None:
        """Parse what came in, and drop the connection at the first violation."""
        try:
            self.stream.parse(data)
        except ParserError as error:
            _log.warn("the XMPP server sent what is not allowed, dropping the connection: {error}", error=error)
            self.dispatch(Failure(), STREAM_ERROR_EVENT)
            self.transport.abortConnection()
