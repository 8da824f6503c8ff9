"""Which stanzas are commands, and how texts become stanzas."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.words.xish.domish import Element

from tashi.errors import YourMistake
from tashi.xmpp.guard import GuardedElementStream
from tashi.xmpp.messages import id_for, legal, message, publication, read_message, text_of
from tashi.xmpp.service import parse_server

OWN = "tashi@example.org"


def parsed(text: str) -> Element:
    """The stanza that a server would deliver by this text."""
    stanzas: list[Element] = []
    stream = GuardedElementStream()
    stream.DocumentStartEvent = lambda root: None
    stream.ElementEvent = stanzas.append
    stream.parse(b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>" + text.encode())
    return stanzas[0]


def test_command() -> None:
    """The sender is compared after preparation: case of the account and the domain do not matter, the resource's does."""
    incoming = read_message(
        parsed("<message from='ISM@Example.ORG/Bot' type='chat' id='7'><thread>t</thread><body>help</body></message>"), OWN
    )
    assert incoming is not None
    assert (incoming.sender, incoming.sender_full) == ("ism@example.org", "ism@example.org/Bot")
    assert (incoming.type, incoming.id, incoming.thread, incoming.body, incoming.delayed_at) == ("chat", "7", "t", "help", None)


def test_no_type() -> None:
    """A message without a type is a normal one."""
    incoming = read_message(parsed("<message from='a@b'><body>help</body></message>"), OWN)
    assert incoming is not None
    assert incoming.type == "normal"


@pytest.mark.parametrize(
    "text",
    [
        "<message from='a@b' type='error'><body>help</body><error/></message>",
        "<message from='a@b' type='groupchat'><body>help</body></message>",
        "<message from='a@b' type='headline'><body>help</body></message>",
        "<message from='a@b' type='strange'><body>help</body></message>",
        "<message from='a@b'/>",
        "<message from='a@b'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
        "<message from='a@b'><body xmlns='urn:other'>help</body></message>",
        "<message from='tashi@example.org/other'><body>help</body></message>",
        "<message from='TASHI@example.org'><body>help</body></message>",
        "<message><body>help</body></message>",
        "<message from='@'><body>help</body></message>",
        "<message from='a&#x20;b@c'><body>help</body></message>",
        "<message from='a@b'><received xmlns='urn:xmpp:carbons:2'/><body>help</body></message>",
        "<message from='a@b'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'/></sent></message>",
        "<message from='a@b'><body>help</body><forwarded xmlns='urn:xmpp:forward:0'><body>x</body></forwarded></message>",
    ],
)
def test_no_command(text: str) -> None:
    """Errors, rooms, copies, echoes and messages without a body or a sender are none."""
    assert read_message(parsed(text), OWN) is None


@pytest.mark.parametrize(
    ("stamps", "when"),
    [
        ("<delay xmlns='urn:xmpp:delay' stamp='1970-01-01T00:01:40Z'/>", 100.0),
        ("<delay xmlns='urn:xmpp:delay' stamp='1970-01-01T00:01:40.250+00:00'/>", 100.25),
        ("<x xmlns='jabber:x:delay' stamp='19700101T00:01:40'/>", 100.0),
        ("<delay xmlns='urn:xmpp:delay' stamp='2999-01-01T00:00:00Z'/><delay xmlns='urn:xmpp:delay' stamp='1970-01-01T00:01:40Z'/>", 100.0),
        ("<delay xmlns='urn:xmpp:delay' stamp='yesterday'/>", None),
        ("<delay xmlns='urn:xmpp:delay'/>", None),
        ("<delay xmlns='urn:xmpp:delay' stamp='0001-01-01T00:00:00+23:59'/>", -62135683140.0),
    ],
)
def test_delay(stamps: str, when: float | None) -> None:
    """The oldest stamp counts, since a sender may add younger ones; what is no time is none."""
    incoming = read_message(parsed(f"<message from='a@b'><body>help</body>{stamps}</message>"), OWN)
    assert incoming is not None
    assert incoming.delayed_at == when


@given(st.text(), st.text(min_size=1))
def test_any_text_travels(body: str, thread: str) -> None:
    """Whatever text is sent, the stream stays well-formed and the text arrives, but for what XML cannot carry."""
    stanza = parsed(text_of(message("a@b/c", "chat", body, thread=thread, stanza_id=thread)))
    # a parser reads every kind of line end as one line feed
    assert str(stanza.body) == legal(body).replace("\r\n", "\n").replace("\r", "\n")
    assert str(stanza.thread) == legal(thread).replace("\r\n", "\n").replace("\r", "\n")


def test_markup_is_text() -> None:
    """Markup in a body is escaped."""
    text = text_of(message("a@b", "normal", "</body></message><iq/>&lt;\x00\ud800\uffff", stanza_id="1' x='2"))
    assert str(parsed(text).body) == "</body></message><iq/>&lt;\ufffd\ufffd\ufffd"
    assert parsed(text)["id"] == "1' x='2"


def test_publication() -> None:
    """An event is published as an entry with a payload, under an id that stays the same."""
    item = parsed(text_of(publication("pubsub.b", "tashi/events", "e7", '{"a":"<"}'))).pubsub.publish.item
    assert (item["id"], str(item.entry.payload)) == ("e7", '{"a":"<"}')


def test_ids_of_recipients() -> None:
    """Each recipient's message has an id of its own, which depends on nothing else."""
    assert id_for("e7", "a@b") == id_for("e7", "a@b") != id_for("e7", "c@b")
    assert id_for("e7", "a@b").startswith("e7.")


def test_servers() -> None:
    """A server is a host with or without a port, or nothing."""
    cases = {"": None, "h": ("h", 5222), "h:1": ("h", 1), "::1": ("::1", 5222), "[::1]:7": ("::1", 7), "[::1]": ("::1", 5222)}
    assert {text: parse_server(text) for text in cases} == cases
    for text in ("h:", "h:x", ":5", "h:0", "h:65536", "h:٥"):
        with pytest.raises(YourMistake):
            parse_server(text)
