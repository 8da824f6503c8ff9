"""Foreign clients that stay logged in at one cell and say what they should not; each time all that it led to is looked at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from tests.integration.cells import Peer, RunningCell


class Conversation:
    """Foreign clients that stay logged in at one cell; `after` shows what one thing said by one of them led to."""

    def __init__(self, cell: RunningCell) -> None:
        self.cell = cell
        self.sink = cell.sink
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.peers: dict[str, Peer] = {}

    def __enter__(self) -> Conversation:
        async def log_in() -> None:
            for account in ("ism", "alice", "admin", "llms"):
                peer = self.peers[account] = await self._stack.enter_async_context(self.cell.peer(account))
                peer.client.register_plugin("xep_0199")
            self._witness = await self._stack.enter_async_context(self.cell.peer("admin", "witness"))

        self._runner.run(log_in())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of the work, done while the clients listen."""
        return self._runner.run(work)

    def after(self, account: str, send: Callable[[Peer], None], answered: bool) -> dict[str, Any] | None:
        """What the sink answers to it, once; None is silence. The cell must be alive after it, and have the VMs it had."""
        return self.do(self._after(self.peers[account], send, answered))

    async def _after(self, peer: Peer, send: Callable[[Peer], None], answered: bool) -> dict[str, Any] | None:
        before = await self._instances()
        peer.messages.clear()
        send(peer)
        if answered:
            await peer.until(lambda messages: len(_replies(messages)) >= 1, 20)
        await peer.client.plugin["xep_0199"].send_ping(self.sink, timeout=20)  # answered behind whatever was said before
        assert await self._instances() == before
        await self._fence()
        replies = _replies(peer.messages)
        assert len(replies) == answered, replies
        return replies[0] if replies else None

    async def _fence(self) -> None:
        """A refusal and a read by another client: what went by the outbox before has arrived, and the cell answers."""
        assert (await self._witness.ask(self.sink, "fence"))["code"] == "unknown-verb"
        assert (await self._witness.ask(self.sink, "whoami"))["status"] == "OK"

    async def _instances(self) -> list[Any]:
        return (await self._witness.ask(self.sink, "listcompute"))["instances"]


def say(peer: Peer, to: str, body: str, inside: str = "", **attributes: str) -> None:
    """A message as plain clients write it: nothing is escaped that need not be."""
    words = "".join(f" {name}={quoteattr(value)}" for name, value in {"type": "chat", **attributes}.items())
    peer.client.send_raw(f"<message to={quoteattr(to)}{words}>{inside}<body>{escape(body)}</body></message>")


def _replies(messages: list[Any]) -> list[dict[str, Any]]:
    """The replies among the messages; a recipient of events gets others, too."""
    bodies = [json.loads(message["body"]) for message in messages]
    return [body for body in bodies if "status" in body]


def create(**fields: Any) -> str:
    """A createcompute for alice that is right but for these fields."""
    return "createcompute " + json.dumps({"hostname": "bad", "imageIdentifier": "tashi", "userId": 1000, **fields})
