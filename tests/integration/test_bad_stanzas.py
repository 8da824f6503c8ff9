"""Stanzas that are no command, or that would hurt a careless reader: silence or one refusal, and nobody else notices."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.integration.cells import running_cell, until
from tests.integration.conversation import Conversation, create, say

CARBON = "<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message/></forwarded></received>"
IGNORED = {
    "an error": ("", {"type": "error"}),
    "a headline": ("", {"type": "headline"}),
    "groupchat": ("", {"type": "groupchat"}),
    "a forged carbon": (CARBON, {}),
    "nested too deep": ("<a xmlns='u'>" * 40 + "</a>" * 40, {}),
    "too many elements": ("<a xmlns='u'/>" * 5000, {}),
}


@pytest.mark.parametrize("account", ["ism", "llms"])
@pytest.mark.parametrize(("inside", "attributes"), IGNORED.values(), ids=IGNORED)
def test_what_is_no_command_is_ignored(conversation: Conversation, account: str, inside: str, attributes: dict[str, str]) -> None:
    """A message that is an error, a headline, of a room, a copy, or absurd leads to nothing, whoever sends it."""
    command = create(hostname="ignored")
    assert conversation.after(account, lambda peer: say(peer, conversation.sink, command, inside, **attributes), False) is None


@pytest.mark.parametrize("body", ["", " ", "\n\t", '{"status":"OK","verb":"createcompute"}', ' {"status":"ERROR","code":"busy"}'])
def test_empty_bodies_and_replies_are_ignored(conversation: Conversation, body: str) -> None:
    """Nothing is answered to a message without words, nor to a reply like our own: two sinks do not talk for ever."""
    assert conversation.after("ism", lambda peer: say(peer, conversation.sink, body), False) is None


def test_a_message_without_a_body_is_ignored(conversation: Conversation) -> None:
    """A typing notification or a subject is no command."""
    notification = f"<message to='{conversation.sink}' type='chat'><subject>x</subject><composing xmlns='u'/></message>"
    assert conversation.after("ism", lambda peer: peer.client.send_raw(notification), False) is None


@pytest.mark.parametrize("body", ["whoami", "help", "listcompute", "frobnicate", create(hostname="stranger"), "deletecompute bobs"])
def test_a_stranger_gets_no_answer(conversation: Conversation, body: str) -> None:
    """An account that is no user of the cell hears nothing, and does nothing."""
    assert conversation.after("llms", lambda peer: say(peer, conversation.sink, body), False) is None


@pytest.mark.parametrize("body", [create(hostname="stale"), "deletecompute bobs", "whoami"])
def test_a_stale_command_is_not_executed(conversation: Conversation, body: str) -> None:
    """A command that was long on its way is answered as expired."""
    delay = "<delay xmlns='urn:xmpp:delay' from='cell.test' stamp='2026-01-01T00:00:00Z'/>"
    reply = conversation.after("ism", lambda peer: say(peer, conversation.sink, body, delay), True)
    assert reply is not None and reply["code"] == "expired"


def test_a_command_that_waited_too_long_for_us_is_not_executed() -> None:
    """What the server kept while the control plane was away is answered as expired when it is older than maxCommandAge."""
    with running_cell("--hypervisor", "test", "--set", "XMPP.maxCommandAge=1") as cell:

        async def story() -> None:
            async with cell.peer("ism") as ism:
                log = cell.state_dir / "log" / "prosody.log"
                before = log.read_text().count("Client disconnected")
                cell.kill("manager")
                until(lambda: log.read_text().count("Client disconnected"), lambda count: count > before, 10)
                say(ism, cell.sink, create(hostname="waited"))
                sent = time.time()
                until(time.time, lambda now: now > sent + 2, 5)
                await asyncio.to_thread(cell.start)
                (reply,) = await ism.replies(1)
                assert (reply["status"], reply["code"]) == ("ERROR", "expired")
                assert (await ism.ask(cell.sink, "listcompute"))["instances"] == []

        asyncio.run(story())


def test_a_body_of_marks_that_the_server_spells_out(conversation: Conversation) -> None:
    """200 KiB of quotation marks, six times as long once the server has escaped them, are one refusal as any other."""
    body = "createcompute " + '"' * (200 * 1024 - 14)
    reply = conversation.after("alice", lambda peer: say(peer, conversation.sink, body), True)
    assert reply is not None and reply["code"] == "bad-syntax"


@pytest.mark.parametrize("attribute", ["id", "thread"])
def test_long_marks_of_a_message_do_not_come_back(conversation: Conversation, attribute: str) -> None:
    """An id or a thread of 100 KiB is not repeated in the answer, which would break the server's limit for us."""
    long = "'" * 100 * 1024
    inside, attributes = (f"<thread>{long}</thread>", {}) if attribute == "thread" else ("", {"id": long})
    for body in ("whoami", "frobnicate"):
        reply = conversation.after("alice", lambda peer, body=body: say(peer, conversation.sink, body, inside, **attributes), True)
        assert reply is not None and reply["verb"] == body


@pytest.mark.parametrize(
    "question",
    [
        "<iq to='SINK' type='get' id=\"LONG\"><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq to='SINK' type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info' node=\"LONG\"/></iq>",
        "<iq to='SINK' type='set' id='1'><what xmlns='u' a=\"LONG\"/></iq>",
        "<presence to='SINK' type='subscribe' id=\"LONG\"/>",
    ],
    ids=["ping", "disco", "unknown", "presence"],
)
def test_long_questions_are_not_repeated(conversation: Conversation, question: str) -> None:
    """A stranger's question whose answer would be longer than the server allows us is not answered."""
    stanza = question.replace("SINK", conversation.sink).replace("LONG", "'" * 200 * 1024)
    assert conversation.after("llms", lambda peer: peer.client.send_raw(stanza), False) is None


@pytest.mark.parametrize(
    "stanza",
    [f"<message to='SINK'><body>{'x' * 270_000}</body></message>", "<!DOCTYPE a [<!ENTITY b 'c'>]>", "<!-- x -->", "<?x y?>", "</wrong>"],
    ids=lambda text: text[:10],
)
def test_what_breaks_a_stream_breaks_only_the_senders(conversation: Conversation, stanza: str) -> None:
    """A stanza above the server's limit, and XML that XMPP forbids, cost the sender its own stream; nobody else notices."""

    async def break_off() -> None:
        async with conversation.cell.peer("alice", "breaker") as breaker:
            gone = breaker.client.wait_until("disconnected", timeout=20)
            breaker.client.send_raw(stanza.replace("SINK", conversation.sink))
            await gone

    log = (conversation.cell.state_dir / "log" / "manager.log").read_text()
    conversation.do(break_off())
    assert conversation.after("ism", lambda peer: say(peer, conversation.sink, "whoami"), True) is not None
    assert (conversation.cell.state_dir / "log" / "manager.log").read_text().count("is offline") == log.count("is offline")


def test_the_sink_never_went_offline(conversation: Conversation) -> None:
    """Nothing of all this has cost the cell its stream, or was a fault of ours."""
    log = (conversation.cell.state_dir / "log" / "manager.log").read_text()
    assert log.count("online as") == 1 and "is offline" not in log
    assert "Traceback" not in log
