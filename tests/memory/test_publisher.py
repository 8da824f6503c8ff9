"""The publisher: every row arrives at least once, in order, always under the same id, and is forgotten only when it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.words.protocols.jabber.error import StreamError
from twisted.words.xish.domish import Element, elementStream

from tashi.model.request import Outgoing
from tashi.xmpp.connection import NotConnected
from tashi.xmpp.publisher import MAX_STANZA, WINDOW_BYTES, WINDOW_ROWS, WINDOWS, Publisher


class Outbox:
    """An outbox in a list."""

    def __init__(self) -> None:
        self.rows: list[Outgoing] = []
        self.listener: Callable[[], None] = lambda: None
        self.aside: list[tuple[int, str, int]] = []

    def pending(self) -> Sequence[Outgoing]:
        return list(self.rows)

    def done(self, ids: Sequence[int]) -> None:
        self.rows = [row for row in self.rows if row.id not in set(ids)]

    def set_aside(self, row_id: int, why: str, size: int) -> None:
        self.done([row_id])
        self.aside.append((row_id, why, size))

    def subscribe(self, listener: Callable[[], None]) -> None:
        self.listener = listener

    def add(self, *rows: Outgoing) -> None:
        self.rows += rows
        self.listener()


class Link:
    """A connection whose server answers pings when the test says so."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.pings: list[Deferred[None]] = []

    def addHandler(self, handler: Any) -> None:
        """Nothing to keep."""

    def send(self, text: str) -> None:
        self.written.append(text)

    async def ping(self) -> None:
        self.pings.append(Deferred())
        await self.pings[-1]

    def answer(self) -> None:
        """The server answers the oldest ping."""
        self.pings.pop(0).callback(None)

    def lose(self, publisher: Publisher, condition: str = "") -> None:
        """The stream ends before anything more is answered; the server names this condition."""
        publisher.connectionLost(Failure(StreamError(condition)) if condition else None)
        pings, self.pings = self.pings, []
        for ping in pings:
            ping.errback(NotConnected())

    def taken(self) -> list[Element]:
        """What was written since the last look, as a server reads it."""
        stanzas: list[Element] = []
        stream = elementStream()
        stream.DocumentStartEvent = lambda root: None
        stream.ElementEvent = stanzas.append
        stream.parse(b"<stream xmlns='jabber:client'>" + "".join(self.written).encode())
        self.written.clear()
        return stanzas

    def ids(self) -> list[str]:
        return [stanza["id"] for stanza in self.taken()]


def reply(number: int, body: str = "{}") -> Outgoing:
    return Outgoing(id=number, body=body, stanza_id=f"r{number}", to="ism@x/bot", stanza_type="chat", thread="t")


class PublisherTests(TestCase):
    """A publisher with two recipients, over a link that the test answers for."""

    def setUp(self) -> None:
        self.outbox = Outbox()
        self.link = Link()
        self.publisher = self.publish(("llms@x", "log@x"))

    def publish(self, recipients: Sequence[str], pubsub: tuple[str, str] | None = None) -> Publisher:
        publisher = Publisher(self.outbox, recipients, pubsub)
        publisher.setHandlerParent(self.link)
        return publisher

    def test_reply(self) -> None:
        """A reply goes to its JID with type, thread and id as they were kept."""
        self.publisher.connectionInitialized()
        self.outbox.add(reply(1, '{"message": "<&>"}'))
        (stanza,) = self.link.taken()
        assert (stanza["to"], stanza["type"], stanza["id"]) == ("ism@x/bot", "chat", "r1")
        assert (str(stanza.thread), str(stanza.body)) == ("t", '{"message": "<&>"}')

    def test_event(self) -> None:
        """An event goes to each recipient as a normal message, each time with the same ids."""
        self.publisher.connectionInitialized()
        self.outbox.add(Outgoing(id=1, body="{}", stanza_id="e1", seq=1))
        first = self.link.taken()
        assert [(stanza["to"], stanza["type"]) for stanza in first] == [("llms@x", "normal"), ("log@x", "normal")]
        self.link.lose(self.publisher)
        self.publisher.connectionInitialized()
        assert self.link.ids() == [stanza["id"] for stanza in first]
        assert len({stanza["id"] for stanza in first}) == 2

    def test_pubsub(self) -> None:
        """With a pubsub service an event is an item as well, a reply is not."""
        self.publisher = self.publish((), ("pubsub.x", "tashi/events"))
        self.publisher.connectionInitialized()
        self.outbox.add(Outgoing(id=1, body='{"seq":1}', stanza_id="e1", seq=1), reply(2))
        item, message = self.link.taken()
        assert (item.name, item["to"], str(item.pubsub.publish.item.entry.payload)) == ("iq", "pubsub.x", '{"seq":1}')
        assert message.name == "message"

    def test_done_only_when_answered(self) -> None:
        """A row is kept until the ping after it is answered."""
        self.publisher.connectionInitialized()
        self.outbox.add(reply(1))
        assert (self.link.ids(), len(self.outbox.rows)) == (["r1"], 1)
        self.link.answer()
        assert self.outbox.rows == []
        self.outbox.add(reply(2))
        assert self.link.ids() == ["r2"]

    def test_nothing_while_offline(self) -> None:
        """Rows wait for a stream."""
        self.outbox.add(reply(1), reply(2))
        assert self.link.written == []
        self.publisher.connectionInitialized()
        assert self.link.ids() == ["r1", "r2"]

    def test_windows(self) -> None:
        """Rows leave in windows, some of them on their way at once; each answer lets the next one go."""
        self.publisher.connectionInitialized()
        total = WINDOW_ROWS * (WINDOWS + 1) + 1
        self.outbox.add(*(reply(number) for number in range(total)))
        assert (len(self.link.written), len(self.link.pings)) == (WINDOWS, WINDOWS)
        self.link.answer()
        assert (len(self.outbox.rows), len(self.link.pings)) == (total - WINDOW_ROWS, WINDOWS)
        while self.link.pings:
            self.link.answer()
        assert self.outbox.rows == []
        assert self.link.ids() == [f"r{number}" for number in range(total)]

    def test_long_rows(self) -> None:
        """A window of long rows ends early, so that the server can answer in time."""
        self.publisher.connectionInitialized()
        self.outbox.add(*(reply(number, "x" * (WINDOW_BYTES // 2)) for number in range(6)))
        assert [text.count("<message") for text in self.link.written] == [2, 2, 2]

    def test_lost_stream(self) -> None:
        """What was not answered goes again over the next stream, in order, before what came later."""
        self.publisher.connectionInitialized()
        self.outbox.add(reply(1), reply(2))
        self.outbox.add(reply(3))
        self.link.answer()
        self.link.taken()
        self.link.lose(self.publisher)
        self.outbox.add(reply(4))
        assert self.link.written == []
        self.publisher.connectionInitialized()
        assert self.link.ids() == ["r3", "r4"]
        self.link.answer()
        assert self.outbox.rows == []

    def test_lost_again_and_again(self) -> None:
        """However often streams end, the windows do not run out."""
        self.outbox.add(reply(1))
        for _ in range(WINDOWS * 2):
            self.publisher.connectionInitialized()
            assert self.link.ids() == ["r1"]
            self.link.lose(self.publisher)

    def test_too_long_for_any_server(self) -> None:
        """A row that would end every stream is set aside without being tried, and the rest goes on."""
        self.publisher.connectionInitialized()
        self.outbox.add(reply(1, "x" * MAX_STANZA), reply(2))
        assert [(number, size > MAX_STANZA) for number, _, size in self.outbox.aside] == [(1, True)]
        assert self.link.ids() == ["r2"]
        self.link.answer()
        assert self.outbox.rows == []

    def test_d3_a_row_that_ends_the_stream_twice_is_set_aside(self) -> None:
        """D3: the rows on their way are tried again one by one; the one that is alone when the stream ends again is kept, the rest goes."""
        self.outbox.add(*(reply(number) for number in range(1, 6)))
        self.publisher.connectionInitialized()
        assert self.link.ids() == ["r1", "r2", "r3", "r4", "r5"]
        self.link.lose(self.publisher, "policy-violation")
        self.publisher.connectionInitialized()
        assert self.link.ids() == ["r1"]
        self.link.answer()
        assert self.link.ids() == ["r2"]
        self.outbox.add(reply(6))
        assert self.link.ids() == []
        self.link.lose(self.publisher, "policy-violation")
        assert [number for number, _, _ in self.outbox.aside] == [2]
        assert "policy-violation" in self.outbox.aside[0][1]
        self.publisher.connectionInitialized()
        while self.link.pings:
            self.link.answer()
        assert self.link.ids() == ["r3", "r4", "r5", "r6"]
        assert self.outbox.rows == []

    def test_d3_a_lost_network_sets_nothing_aside(self) -> None:
        """D3: streams that end for other reasons, however often, are no reason to keep a row back."""
        self.outbox.add(reply(1))
        for condition in ("policy-violation", "", "system-shutdown", "connection-timeout", "", "conflict"):
            self.publisher.connectionInitialized()
            assert self.link.ids() == ["r1"]
            self.link.lose(self.publisher, condition)
        assert self.outbox.aside == []

    def test_d3_what_is_as_large_is_not_tried(self) -> None:
        """D3: a large row teaches what the server takes, so that the next one like it costs no stream; a small one teaches nothing."""
        self.outbox.add(reply(1, "x" * 70_000), reply(2))
        for _ in range(2):
            self.publisher.connectionInitialized()
            self.link.lose(self.publisher, "policy-violation")
        self.publisher.connectionInitialized()
        assert [(number, size > 70_000) for number, _, size in self.outbox.aside] == [(1, True)]
        assert "c2s_stanza_size_limit" in self.outbox.aside[0][1]
        self.link.taken()
        self.link.answer()
        self.outbox.add(reply(3, "x" * 80_000), reply(4, "x" * 60_000))
        assert self.link.ids() == ["r4"]
        assert [number for number, _, _ in self.outbox.aside] == [1, 3]
        self.link.answer()
        self.outbox.add(reply(5))
        for _ in range(2):
            self.link.lose(self.publisher, "policy-violation")
            self.publisher.connectionInitialized()
        assert self.outbox.aside[-1][::2] == (5, 0)
        self.link.taken()
        self.outbox.add(reply(6, "x" * 60_000))
        assert self.link.ids() == ["r6"]
