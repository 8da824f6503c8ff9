"""One cell of real hosts on which something is tried and timed, asked over a link of its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from twisted.internet.task import deferLater

from tashi.client import connect
from tashi.client.cell import Cell
from tashi.client.unreachable import CannotReach
from tashi.errors import TashiError
from tashi.sandbox.layout import load_layout
from tests.integration.cells import RunningCell
from tests.integration.travellers import Traveller

HOSTS: Final = ("--hypervisor", "qemu", "--hosts", "3", "--memory", "2048")
STEP: Final = 0.02
PATIENCE: Final = 90.0

Row = dict[str, Any]
Line = tuple[str, ...]


class Trial:
    """One cell, asked over one link."""

    def __init__(self, reactor: Any, cell: RunningCell) -> None:
        layout = load_layout(cell.state_dir)
        assert layout is not None
        self.cell = cell
        self.layout = layout
        self._reactor = reactor

    def link(self) -> Any:
        """A link for as long as the block lasts."""
        return connect(self._reactor, socket=str(self.layout.manager_socket), seconds=10)

    async def timed(self, api: Cell, deed: Awaitable[Sequence[Row]], until: str) -> float:
        """Milliseconds until the deed is done."""
        begun = time.perf_counter()
        rows = await deed
        (outcome,) = await api.waitFor([rows[0]["id"]], until)
        assert outcome["ok"], outcome
        return 1e3 * (time.perf_counter() - begun)

    async def until(self, guest: Traveller, condition: Callable[[Row | None], bool]) -> tuple[float, Row | None]:
        """Seconds until the guest's row (None: there is none) is so, and the row; over a new link, since the old one may be gone."""
        begun = time.monotonic()
        while time.monotonic() < begun + PATIENCE:
            try:
                async with self.link() as api:
                    while time.monotonic() < begun + PATIENCE:
                        row = next((row for row in await api.getInstances() if row["id"] == guest.id), None)
                        if condition(row):
                            return time.monotonic() - begun, row
                        await self.pause(STEP)
            except (CannotReach, TashiError):
                await self.pause(STEP)
        raise AssertionError(f"{guest.name} is not so within {PATIENCE} s")

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        await deferLater(self._reactor, seconds)


def took(milliseconds: Sequence[float]) -> str:
    """The median and the longest."""
    if len(milliseconds) == 1:
        return f"{milliseconds[0]:.0f} ms"
    return f"{statistics.median(milliseconds):.0f} ms (at most {max(milliseconds):.0f})"


def times(count: int) -> str:
    """So often."""
    return "once" if count == 1 else f"{count} times"
