"""Bounces of what was sent: counted by recipient, the first of each logged, shown in the status."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.words.xish.domish import Element

from tashi.xmpp.bounces import MOST_NAMED, MOST_RECIPIENTS, RECENT_SECONDS, Bounces


def _bounce(sender: str, condition: str = "service-unavailable", text: str = "") -> Element:
    stanza = Element(("jabber:client", "message"))
    stanza["type"], stanza["from"] = "error", sender
    error = stanza.addElement("error")
    error.addElement(("urn:ietf:params:xml:ns:xmpp-stanzas", condition))
    if text:
        error.addElement(("urn:ietf:params:xml:ns:xmpp-stanzas", "text"), content=text)
    return stanza


def test_d4_the_first_bounce_of_each_recipient_is_logged_and_all_are_counted() -> None:
    """D4: events to an address that cannot take them are told once in the log, and counted with the last reason."""
    bounces, logged = Bounces(Clock()), list[LogEvent]()
    globalLogPublisher.addObserver(logged.append)
    try:
        for _ in range(3):
            bounces.take(_bounce("LLMS@cell.test/x", text="no such user"))
        bounces.take(_bounce("alice@cell.test", "recipient-unavailable"))
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert bounces.count == 4
    assert [words.partition(";")[0] for words in map(formatEvent, logged)] == [
        "'llms@cell.test' does not take what is sent to it: service-unavailable (no such user)",
        "'alice@cell.test' does not take what is sent to it: recipient-unavailable",
    ]
    assert bounces.warnings() == (
        "alice@cell.test does not take what is sent to it: 1 bounce, the last 0 s ago: recipient-unavailable",
        "llms@cell.test does not take what is sent to it: 3 bounces, the last 0 s ago: service-unavailable (no such user)",
    )


def test_an_old_bounce_is_no_warning() -> None:
    """A recipient that came back is not warned of for ever; its count stays."""
    clock = Clock()
    bounces = Bounces(clock)
    bounces.take(_bounce("llms@cell.test"))
    clock.advance(RECENT_SECONDS)
    assert (bounces.warnings(), bounces.count) == ((), 1)


def test_whoever_sends_errors_fills_nothing() -> None:
    """Senders of errors are bounded in number, and what is no address is not counted."""
    bounces = Bounces(Clock())
    for number in range(MOST_RECIPIENTS + 10):
        bounces.take(_bounce(f"u{number}@cell.test"))
    bounces.take(_bounce("@@"))
    bounces.take(_bounce(""))
    assert (bounces.count, len(bounces.warnings())) == (MOST_RECIPIENTS, MOST_NAMED + 1)
