"""Those who ask at the two doors of a cell in memory: messages go through the sink, command lines through the
client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from occi.categories import Vocabulary
from occi.sink import Sink
from tashi.client.cell import Cell
from tashi.client.parse import parse
from tashi.client.verbs import Verb
from tashi.errors import TashiError
from tashi.model.request import Outgoing
from tashi.wire.codec import decode, encode
from tashi.wire.portal import principal_of
from tashi.xmpp.grammar import IncomingMessage
from tests.small_cell import SmallCell


class Doors:
    """One cell's doors; what leaves by XMPP is read by `messages`."""

    def __init__(self, cell: SmallCell, notifiable: tuple[str, ...]) -> None:
        self._cell = cell
        self._notifiable = notifiable
        self._stanzas = 0
        self._answers: list[dict[str, Any]] = []
        self.open()

    def open(self) -> None:
        """Begin with the manager that runs now."""
        self._sink = Sink(
            self._cell.clock,
            self._cell.manager.commands,
            max_command_age=300,
            max_queued=100,
            notifiable=self._notifiable,
            vocabulary=Vocabulary(),
            reply=lambda message, body: self._answers.append(json.loads(body)),
        )

    def say(self, jid: str, body: str) -> dict[str, Any] | None:
        """Send a message, let the cell work, and return the one answer, if it has come."""
        self._stanzas += 1
        full = f"{jid}/x"
        self._sink.received(
            IncomingMessage(
                sender=jid, sender_full=full, type="chat", id=f"s{self._stanzas}", thread=full, body=body
            )
        )
        self.work()
        answers, self._answers = self._answers, []
        for row in self.messages():
            assert row.to, "events are not read here"
            found = json.loads(row.body)
            if found.get("notification"):
                assert (found["requester"], row.thread) == (jid, None)
                assert row.to in self._notifiable and row.to != jid
            else:
                assert row.to == full, f"{jid} asked, and {row.to} is answered"
                answers.append(found)
        assert len(answers) < 2
        return answers[0] if answers else None

    def type(self, uid: int, line: list[str]) -> Any:
        """Type a command line as this user of the machine: its rows, or the code of its refusal."""
        command = parse(line)
        assert isinstance(command.verb, Verb)
        return self._outcome(command.verb.action(Cell(_Direct(self._cell, uid)), **command.values))

    def call(self, uid: int, verb: str, instance: str) -> Any:
        """Call a verb of the Python interface that is about one instance; the answer, or the code of its
        refusal."""
        return self._outcome(getattr(Cell(_Direct(self._cell, uid)), verb)(instance))

    def _outcome(self, work: Any) -> Any:
        outcome: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(outcome.append)
        self.work()
        rows = self.messages()
        assert not rows, f"nobody asked by XMPP: {rows}"
        (result,) = outcome
        if isinstance(result, Failure):
            assert isinstance(result.value, TashiError), result
            return result.value.code
        return result

    def work(self) -> None:
        """Let every host do what it is told, until nothing more follows."""
        cell = self._cell
        for agent in cell.agents:
            agent.tell()
        quiet = 0
        while quiet < 2:
            cell.clock.pump([0.02] * 3)
            quiet = 0 if sum(agent.work() for agent in cell.agents) else quiet + 1

    def messages(self) -> list[Outgoing]:
        """The messages to somebody that have left since the last time; all have arrived."""
        rows = self._cell.manager.outbox.pending()
        self._cell.manager.outbox.done([row.id for row in rows])
        self._cell._told.clear()
        return [row for row in rows if row.to]


class _Direct:
    """The link of a client that the kernel says is this uid; what it carries goes over as JSON."""

    def __init__(self, cell: SmallCell, uid: int) -> None:
        self._manager = cell.manager
        self._who = principal_of(uid, cell.manager.cluster.users)

    async def call(self, verb: str, content: Mapping[str, Any], seconds: float) -> Any:
        """See `tashi.client.cell.Calls`."""
        asked = decode(encode(dict(content)), dict[str, Any])
        return decode(
            encode({"result": await self._manager.verbs.call(self._who, verb, asked)}), dict[str, Any]
        )["result"]
