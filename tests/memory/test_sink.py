"""The message sink: what each message becomes, and that none can hurt it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from occi.categories import Vocabulary
from occi.sink import Sink
from tashi.errors import UNKNOWN_ID, TashiError, YourMistake
from tashi.model.instance import InstanceSpec, InstanceUpdate, Resources
from tashi.model.request import Origin
from tashi.model.user import Principal
from tashi.xmpp.grammar import IncomingMessage

ISM = "ism@example.org"
COMPUTE = '{"hostname": "vm1", "imageIdentifier": "tashi", "userId": 1000}'
PEOPLE = {
    ISM: Principal(name=ISM, trusted=True, jid=ISM),
    "admin@example.org": Principal(name="root", user_id=0, admin=True),
    "alice@example.org": Principal(name="alice", user_id=1000),
}


class Commands:
    """Notes what it is asked, in order; with ``broken`` set, everything that changes fails."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.origins: list[Origin] = []
        self.waiting = 0
        self.broken = False
        self.hosts = 1

    def identify(self, jid: str) -> Principal | None:
        return PEOPLE.get(jid)

    def create(self, who: Principal, origin: Origin, specs: Sequence[InstanceSpec], content: Sequence[str]) -> None:
        self._note(origin, "create", *(spec.name for spec in specs))

    def delete(self, who: Principal, origin: Origin, reference: int | str) -> None:
        self._note(origin, "delete", reference)

    def update(self, who: Principal, origin: Origin, update: InstanceUpdate) -> None:
        self._note(origin, "update", update.resource_id, update.resources)

    def set_host_config(self, who: Principal, origin: Origin, host: int | str, name: str, value: str) -> None:
        self._note(origin, "set", host, name, value)

    def refuse(self, who: Principal, origin: Origin, error: TashiError, resource_id: str | None = None) -> None:
        self.origins.append(origin)
        self.asked.append(("refuse", error.code, *([resource_id] if resource_id else [])))

    def refuse_stranger(self, jid: str, verb: str) -> None:
        self.asked.append(("stranger", jid, verb))

    async def get(self, who: Principal, reference: int | str) -> dict[str, Any]:
        if reference != 7:
            raise YourMistake(UNKNOWN_ID, f"there is no instance {reference}")
        return {"id": 7, "state": "Running"}

    def list(self, who: Principal, after: int) -> dict[str, Any]:
        if self.broken:
            raise RuntimeError("secret")
        return {"instances": [{"id": after + 1}], "next": None}

    async def explain(self, who: Principal, reference: int | str) -> str:
        lines = [f"{reference} is on node1", *(f"node{number}: 512 MB short of memory" for number in range(2, self.hosts + 1))]
        return "\n".join(lines)

    def queued(self, jid: str) -> int:
        return self.waiting

    def _note(self, origin: Origin, *asked: Any) -> None:
        if self.broken:
            raise RuntimeError("secret")
        self.origins.append(origin)
        self.asked.append(asked)


class SinkTests(TestCase):
    """One sink on a clock that stands at 1,000 s."""

    def setUp(self) -> None:
        clock = Clock()
        clock.advance(1000)
        self.commands = Commands()
        self.replies: list[tuple[IncomingMessage, dict[str, Any]]] = []
        self.sink = Sink(
            clock,
            self.commands,
            max_command_age=300,
            max_queued=10,
            notifiable=("LLMS@example.org", "partner.example"),
            vocabulary=Vocabulary(),
            reply=lambda message, body: self.replies.append((message, json.loads(body))),
        )

    def say(self, body: str, sender: str = ISM, **more: Any) -> list[tuple[Any, ...]]:
        """What the cluster manager is asked because of this message."""
        before = len(self.commands.asked)
        values = {"type": "chat", "id": "s1", "thread": "t1", **more}
        self.sink.received(IncomingMessage(sender=sender, sender_full=f"{sender}/bot", body=body, **values))
        return self.commands.asked[before:]

    def ask(self, body: str, sender: str = ISM, **more: Any) -> dict[str, Any]:
        """The one answer to a read; nothing is asked that leaves a trace."""
        before = len(self.replies)
        assert self.say(body, sender, **more) == []
        ((message, answer),) = self.replies[before:]
        assert message.sender_full == f"{sender}/bot"
        return answer

    def test_create(self) -> None:
        """A createcompute is handed on with where its answer is to go, and nothing is said yet."""
        body = f"CreateCompute [{COMPUTE},[],[]]"
        assert self.say(body, type="normal") == [("create", "vm1")]
        (origin,) = self.commands.origins
        assert (origin.sender, origin.reply_to, origin.stanza_type) == (ISM, f"{ISM}/bot", "normal")
        assert (origin.thread, origin.stanza_id, origin.verb, len(origin.fingerprint)) == ("t1", "s1", "createcompute", 64)
        assert self.replies == []

    def test_fingerprint(self) -> None:
        """Two bodies under one stanza id are told apart."""
        self.say("deletecompute 1")
        self.say("deletecompute 2")
        assert len({origin.fingerprint for origin in self.commands.origins}) == 2

    def test_other_changes(self) -> None:
        """Each verb that changes something has its command."""
        assert self.say(f"createmanycompute [{COMPUTE}, [{COMPUTE.replace('vm1', 'vm2')}]]") == [("create", "vm1", "vm2")]
        assert self.say("deletecompute 10") == [("delete", 10)]
        assert self.say('deletecompute "vm1"') == [("delete", "vm1")]
        setting = '{"hostId": 1, "elemName": "location", "value": "ie"}'
        assert self.say(f"sethostconfig {setting}", "admin@example.org") == [("set", 1, "location", "ie")]

    def test_admins_only(self) -> None:
        """What is for admins is refused to others, before its argument is looked at."""
        assert self.say("sethostconfig nonsense") == [("refuse", "forbidden")]

    def test_update(self) -> None:
        """An update becomes one command that names the instance and what it shall have; a wrong one is refused by its resourceId."""
        self.assertEqual(self.say('updatecompute {"resourceId": "k", "cpu_share": 512}'), [("update", "k", Resources(cpu_share=512))])
        self.assertEqual(self.say('updatecompute {"resourceId": "k", "cpu_share": 1}'), [("refuse", "bad-argument", "k")])

    def test_refusals(self) -> None:
        """What is wrong is refused once, with the code that says what."""
        cases = {
            "createcompute": "bad-syntax",
            "createcompute {": "bad-syntax",
            "createcompute {}": "bad-argument",
            "deletecompute 10; drop": "bad-argument",
            "frobnicate": "unknown-verb",
            "updatecompute {}": "bad-argument",
            "reprovisioncompute {}": "bad-argument",
            "{": "unknown-verb",
            "x" * 300_000: "bad-syntax",
            "\x00\ud800": "unknown-verb",
        }
        for body, code in cases.items():
            assert self.say(body) == [("refuse", code)], body[:20]
        assert self.replies == []

    def test_resource_of_a_refusal(self) -> None:
        """A refused creation is answered with its resourceId, when that can be read."""
        wrong = COMPUTE[:-1] + ', "resourceId": "r1", "memory_size": 0}'
        assert self.say(f"createcompute [{wrong}, []]") == [("refuse", "bad-argument", "r1")]
        assert self.say(f"createcompute {wrong}", delayed_at=0.0) == [("refuse", "expired", "r1")]
        for unreadable in ('"a\\nb"', "7", "null"):
            assert self.say(f'createcompute {{"resourceId": {unreadable}}}') == [("refuse", "bad-argument")]

    def test_silence(self) -> None:
        """Empty messages, and what sounds like our own answers, are left alone."""
        for body in ("", "  ", '{"status":"ERROR","code":"unknown-verb"}'):
            assert self.say(body) == []
        assert self.replies == []

    def test_stranger(self) -> None:
        """A stranger gets no answer, whatever it says; that it asked is noted."""
        assert self.say("help", "eve@example.org") == [("stranger", "eve@example.org", "help")]
        assert self.say("<script>", "eve@example.org") == [("stranger", "eve@example.org", "")]
        assert self.say("x" * 300_000, "eve@example.org") == [("stranger", "eve@example.org", "")]
        assert self.replies == []

    def test_old_command(self) -> None:
        """A command that waited longer than maxCommandAge is expired; one that did not is carried out."""
        assert self.say("deletecompute 1", delayed_at=699.0) == [("refuse", "expired")]
        assert self.say("deletecompute 1", delayed_at=701.0) == [("delete", 1)]
        assert self.ask("help", delayed_at=1.0)["code"] == "expired"

    def test_busy(self) -> None:
        """Above the limit of waiting commands a sender is told to come back; it may still look."""
        self.commands.waiting = 10
        assert self.say("deletecompute 1") == [("refuse", "busy")]
        assert self.ask("getcompute 7")["status"] == "OK"

    def test_notification(self) -> None:
        """A notificationUri may name the sender, a recipient, or who is trusted, by JID or domain, and nobody else."""
        for jid in (ISM, "ISM@Example.ORG", "llms@example.org", "any@partner.example", "Any@PARTNER.example."):
            assert self.say(f'createcompute {COMPUTE[:-1]}, "notificationUri": "{jid}"}}') == [("create", "vm1")]
        assert self.say(f'createcompute {COMPUTE[:-1]}, "notificationUri": "eve@example.org"}}') == [("refuse", "bad-argument")]
        assert self.say(f'createcompute {COMPUTE[:-1]}, "notificationUri": "{ISM}/bot"}}') == [("refuse", "bad-argument")]

    def test_reads(self) -> None:
        """Reads are answered at once, with status, verb and time."""
        state = self.ask("getcompute 7")
        assert state == {"status": "OK", "verb": "getcompute", "id": 7, "state": "Running", "timestamp": "1970-01-01T00:16:40.000Z"}
        assert self.ask('listcompute {"after": 4}')["instances"] == [{"id": 5}]
        assert self.ask("explain vm1")["message"] == "vm1 is on node1"
        assert "createcompute" in self.ask("HELP")["message"]
        assert "alice" in self.ask("whoami", "alice@example.org")["message"]

    def test_a_long_explanation(self) -> None:
        """Of thousands of hosts as many are named as one message holds, and the others are counted."""
        self.commands.hosts = 5_000
        lines = self.ask("explain vm1")["message"].splitlines()
        assert lines[:2] == ["vm1 is on node1", "node2: 512 MB short of memory"]
        assert lines[-1] == f"and {5_000 - (len(lines) - 1)} more hosts; `tashi explain` names them all"
        assert len(lines) > 1_000

    def test_wrong_reads(self) -> None:
        """A read of what is not there, or without a name, is answered with an error."""
        assert self.ask("getcompute 8")["code"] == "unknown-id"
        assert self.ask("getcompute")["code"] == "bad-syntax"
        assert self.ask("listcompute 12")["code"] == "bad-argument"

    def test_fault_in_a_command(self) -> None:
        """A fault of ours costs one command: its sender gets a number, the log the traceback, the next message works."""
        self.commands.broken = True
        assert self.say("deletecompute 1") == [("refuse", "internal")]
        assert len(self.flushLoggedErrors(RuntimeError)) == 1
        self.commands.broken = False
        assert self.say("deletecompute 1") == [("delete", 1)]

    def test_fault_in_a_refusal(self) -> None:
        """Where even the refusal fails, the sender is told at once instead."""
        self.patch(self.commands, "refuse", lambda *_: 1 / 0)
        assert self.ask("frobnicate")["code"] == "internal"
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1

    def test_fault_in_a_read(self) -> None:
        """A fault in a read is answered too, without its secrets."""
        self.commands.broken = True
        answer = self.ask("listcompute")
        assert (answer["code"], "secret" in answer["message"]) == ("internal", False)
        assert len(self.flushLoggedErrors(RuntimeError)) == 1
