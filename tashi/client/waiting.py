"""--wait: the wish is recorded, now see it come true; a line on the terminal says meanwhile what is awaited and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

from tashi.client.cell import Cell, Row
from tashi.client.table import visible


class Progress:
    """One line on a terminal that is written over each second; on anything else, nothing."""

    def __init__(self, reactor: Any, stream: TextIO, what: str) -> None:
        self._stream = stream
        self._what = what
        self._width = 0
        self._loop: Any = None
        self._reactor = reactor

    def __enter__(self) -> Progress:
        if self._stream.isatty():
            from twisted.internet.task import LoopingCall

            started = self._reactor.seconds()
            self._loop = LoopingCall(lambda: self._show(f"{self._what}: {self._reactor.seconds() - started:.0f} s"))
            self._loop.clock = self._reactor
            self._loop.start(1.0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.stop()
            self._show("")
            self._stream.write("\r")
            self._stream.flush()

    def _show(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)


async def wait_for(
    cell: Cell, rows: Sequence[Row], until: str, timeout: float, reactor: Any, stream: TextIO
) -> tuple[list[Row], list[str]]:
    """The rows as they are after the wait, and one sentence for each instance that did not get there."""
    if not rows:
        return [], []
    names = {row["id"]: visible(str(row["name"])) for row in rows}
    what = next(iter(names.values())) if len(names) == 1 else f"{len(names)} instances"
    with Progress(reactor, stream, f"waiting for {what} to be {until}"):
        outcomes = await cell.waitFor(list(names), until, timeout)
    failures = [
        f"{names[outcome['id']]} is not {until} but {outcome['state']}: {visible(outcome.get('reason') or f'{timeout:g} s have passed')}"
        for outcome in outcomes
        if not outcome["ok"]
    ]
    now = {row["id"]: row for row in await cell.getInstances()} if until != "gone" else {}
    return [now.get(row["id"], row) for row in rows], failures
