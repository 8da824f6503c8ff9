"""Stanzas to records and back: which messages are commands at all, and how a text leaves as a message or a pubsub item.

-> <message type='chat'|'normal'> with a body          an IncomingMessage for the sink
-> errors, headlines, groupchat, carbons, own echoes   nothing: they must never start a conversation
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from twisted.logger import Logger
from twisted.words.protocols.jabber.jid import JID, InvalidFormat
from twisted.words.protocols.jabber.xmlstream import NS_STREAMS
from twisted.words.xish.domish import Element

from tashi.xmpp import wokkel_compat  # noqa: F401 - must come before wokkel

# isort: split
from wokkel.subprotocols import XMPPHandler

from tashi.xmpp.grammar import IncomingMessage

NS_CLIENT: Final = "jabber:client"
NS_PUBSUB: Final = "http://jabber.org/protocol/pubsub"
_DELAYS: Final = {("urn:xmpp:delay", "delay"), ("jabber:x:delay", "x")}
_WRAPPERS: Final = {"urn:xmpp:carbons:2", "urn:xmpp:forward:0"}
_LONGEST_MARK: Final = 1023
_ILLEGAL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_log = Logger()


def read_message(stanza: Element, own: str) -> IncomingMessage | None:
    """The record of a message that may be a command to the account with the bare JID ``own``; None for all others."""
    kind = stanza.getAttribute("type") or "normal"
    if kind not in ("chat", "normal"):
        return None
    body = thread = None
    stored: list[float] = []
    for child in stanza.elements():
        if child.uri in _WRAPPERS:
            return None
        if child.name == "body" and body is None and child.uri == stanza.uri:
            body = str(child)
        elif child.name == "thread" and child.uri == stanza.uri:
            thread = str(child)
        elif (child.uri, child.name) in _DELAYS:
            stored.extend(_stamp(child.getAttribute("stamp")))
    if body is None:
        return None
    try:
        bare, full = jids(stanza.getAttribute("from") or "")
    except InvalidFormat:
        return None
    if bare == own:
        return None
    return IncomingMessage(
        sender=bare,
        sender_full=full,
        type=kind,
        id=_mark(stanza.getAttribute("id")),
        thread=_mark(thread),
        body=body,
        # a sender may add a stamp of its own, but cannot make a stored message younger than the server says
        delayed_at=min(stored, default=None),
    )


@lru_cache(maxsize=4096)
def jids(text: str) -> tuple[str, str]:
    """The bare and the full form of a JID, prepared for exact comparison; InvalidFormat when it is none."""
    if not text:
        raise InvalidFormat("no JID")
    jid = JID(text)
    return jid.userhost(), jid.full()


def legal(text: str) -> str:
    """The text with what XML cannot carry replaced by U+FFFD: one such character would end the stream."""
    return _ILLEGAL.sub("\ufffd", text)


def message(to: str, kind: str, body: str, *, stanza_id: str | None = None, thread: str | None = None) -> Element:
    """A message stanza."""
    stanza = Element((NS_CLIENT, "message"))
    stanza["to"] = legal(to)
    stanza["type"] = kind
    if stanza_id:
        stanza["id"] = legal(stanza_id)
    if thread:
        stanza.addElement("thread", content=legal(thread))
    stanza.addElement("body", content=legal(body))
    return stanza


def publication(service: str, node: str, stanza_id: str, body: str) -> Element:
    """A request to publish one event as a pubsub item; its id is the stanza's, so that a repetition replaces it."""
    stanza = Element((NS_CLIENT, "iq"))
    stanza["to"] = service
    stanza["type"] = "set"
    stanza["id"] = f"{stanza_id}.pubsub"
    publish = stanza.addElement((NS_PUBSUB, "pubsub")).addElement("publish")
    publish["node"] = node
    item = publish.addElement("item")
    item["id"] = stanza_id
    item.addElement("entry").addElement("payload", content=legal(body))
    return stanza


def id_for(stanza_id: str, recipient: str) -> str:
    """The id of an event's message to one of its recipients: the same whenever it is sent again."""
    return f"{stanza_id}.{hashlib.sha256(recipient.encode()).hexdigest()[:8]}"


def text_of(stanza: Element) -> str:
    """The stanza as it goes over a client's stream."""
    return stanza.toXml(prefixes={NS_STREAMS: "stream"}, defaultUri=NS_CLIENT, prefixesInScope=["stream"])


class MessageHandler(XMPPHandler):
    """Hands every message that may be a command to ``receive``; a failure there costs that message only."""

    def __init__(self, receive: Callable[[IncomingMessage], None]) -> None:
        super().__init__()
        self._receive = receive

    def connectionInitialized(self) -> None:
        """Listen on the new stream."""
        self.xmlstream.addObserver("/message", self._on_message)

    def reply(self, to: IncomingMessage, body: str) -> None:
        """Answer a message over the stream that is there now, without a trace in the outbox; lost when there is none."""
        self.parent.send(message(to.sender_full, to.type, body, thread=to.thread, stanza_id=to.id))

    def _on_message(self, stanza: Element) -> None:
        try:
            incoming = read_message(stanza, self.parent.jid.userhost())
            if incoming is not None:
                self._receive(incoming)
        except Exception:
            _log.failure("a message could not be handled")


def _mark(text: str | None) -> str | None:
    """An id or a thread, which is repeated in the answer; one that is absurdly long is none."""
    return text if text is not None and len(text) <= _LONGEST_MARK else None


def _stamp(text: str | None) -> list[float]:
    try:
        when = datetime.fromisoformat(text or "")
    except ValueError:
        return []
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    try:
        return [when.timestamp()]
    except (OverflowError, ValueError):
        return []
