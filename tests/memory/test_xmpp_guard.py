"""The guard of the stream refuses what is forbidden or far too much, and lets honest traffic through whole."""

from __future__ import annotations

import time

import pytest
from twisted.words.xish.domish import Element, ParserError

from tashi.xmpp.guard import MAX_DEPTH, MAX_NODES, MAX_STANZA, GuardedElementStream

HEADER = b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"


def stream(header: bytes = HEADER) -> tuple[GuardedElementStream, list[Element]]:
    """A stream that has begun, and the list of the stanzas that come out of it."""
    stanzas: list[Element] = []
    guarded = GuardedElementStream()
    guarded.DocumentStartEvent = lambda root: None
    guarded.ElementEvent = stanzas.append
    guarded.DocumentEndEvent = lambda: None
    guarded.parse(header)
    return guarded, stanzas


def body_of(stanza: Element) -> str:
    return str(next(stanza.elements("jabber:client", "body")))


@pytest.mark.parametrize(
    "text",
    [
        b"<!-- x --><message/>",
        b"<message><!-- x --></message>",
        b"<?php x?>",
        b"<message><?x y?></message>",
        b"<message><body>" + b"x" * MAX_STANZA,
        b"<message a='" + b"x" * MAX_STANZA,
        b"<message a='" + b" " * MAX_STANZA,
        b"<message>&undeclared;</message>",
        b"<message></wrong>",
        b"\xff",
    ],
    ids=lambda text: text[:25],
)
def test_refused(text: bytes) -> None:
    """A violation is a parser error, also when it comes in pieces."""
    for piece in (len(text), 1400 if len(text) < 10_000 else 65_536):
        guarded, stanzas = stream()
        with pytest.raises(ParserError):
            for start in range(0, len(text), piece):
                guarded.parse(text[start : start + piece])
        assert not [stanza for stanza in stanzas if stanza.children]


@pytest.mark.parametrize(
    "text",
    [
        b"<message from='x'>" + b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH + b"</message>",
        b"<message>" + b"<a xmlns='u'>" * 3 * MAX_DEPTH + b"</a>" * 3 * MAX_DEPTH + b"</message>",
        b"<message>" + b"<a/>" * MAX_NODES + b"</message>",
        b"<message " + b" ".join(b"a%d='1'" % number for number in range(MAX_NODES)) + b"/>",
        b"<message " + b" ".join(b"xmlns:a%d='u'" % number for number in range(MAX_NODES)) + b"/>",
    ],
    ids=lambda text: text[:25],
)
def test_left_out(text: bytes) -> None:
    """A stanza of too many or too deep elements costs that stanza only, also when it comes in small pieces."""
    for piece in (len(text), 1400):
        guarded, stanzas = stream()
        whole = text + b"<message><body>next</body></message>"
        for start in range(0, len(whole), piece):
            guarded.parse(whole[start : start + piece])
        assert [body_of(stanza) for stanza in stanzas] == ["next"]


def test_entities_of_an_honest_server() -> None:
    """A stanza of a size that servers take passes although they write each of its characters in six bytes."""
    guarded, stanzas = stream()
    guarded.parse(b"<message><body>" + b"&quot;" * 512 * 1024 + b"</body></message>")
    assert body_of(stanzas[0]) == '"' * 512 * 1024


@pytest.mark.parametrize(
    "header", [b"<!DOCTYPE a []><a>", b"<?xml version='1.0'?><!DOCTYPE a SYSTEM 'file:///etc/passwd'><a>", b"<!-- x --><a>"]
)
def test_refused_prolog(header: bytes) -> None:
    """There is nothing before the root element but the XML declaration."""
    with pytest.raises(ParserError):
        stream(header)


def test_honest_limits() -> None:
    """A body of 200 KiB, and elements nested up to the limit, pass."""
    guarded, stanzas = stream()
    guarded.parse(b"<message><body>" + b"x" * 200 * 1024 + b"</body></message>")
    guarded.parse(b"<message>" + b"<a>" * (MAX_DEPTH - 2) + b"</a>" * (MAX_DEPTH - 2) + b"</message>")
    assert len(stanzas) == 2
    assert len(body_of(stanzas[0])) == 200 * 1024


def test_many_stanzas() -> None:
    """The limits are for one stanza each: a long life and much white space between stanzas cost nothing."""
    guarded, stanzas = stream()
    for _ in range(400):
        guarded.parse(b" " * 1000)
        guarded.parse(b"<message xmlns:a='u' b='1'><body>" + b"x" * 1000 + b"</body></message>" * 1)
    assert len(stanzas) == 400


def test_text_of_many_pieces() -> None:
    """A text of very many entities and lines comes out whole, in a time that grows with its length only."""
    guarded, stanzas = stream()
    before = time.process_time()
    guarded.parse(b"<message><body>" + b"&lt;\n" * 45_000 + b"</body></message>")
    assert body_of(stanzas[0]) == "<\n" * 45_000
    assert time.process_time() - before < 1.0


def test_abandoned() -> None:
    """What a man in the middle puts behind the last word before TLS is refused."""
    guarded, _ = stream()
    guarded.ElementEvent = lambda stanza: guarded.abandon()
    with pytest.raises(ParserError):
        guarded.parse(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><message><body>x</body></message>")
