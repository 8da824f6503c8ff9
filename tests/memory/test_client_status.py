"""`tashi status` as a program: lines or JSON, and an exit code that a monitor can read."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

from twisted.internet import reactor

from tashi.client import status
from tests.memory.test_client_command import ClientCase

HEALTHY: dict[str, Any] = {"healthy": True, "lines": ["version: 1", "hosts: 2 up"], "warnings": [], "notes": ["make a backup"]}


class StatusTests(ClientCase):
    async def printed(self, answer: dict[str, Any], output: str) -> tuple[int, str]:
        self.avatar.do_status = lambda: answer  # type: ignore[attr-defined]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = await status.ask(output, reactor, self.socket)
        return code, out.getvalue()

    async def test_a_healthy_cell_ends_with_0(self) -> None:
        """O6: the lines are printed, then the notes, then the verdict."""
        self.assertEqual(await self.printed(HEALTHY, "table"), (0, "version: 1\nhosts: 2 up\nnote: make a backup\nhealthy\n"))

    async def test_a_degraded_cell_ends_with_1(self) -> None:
        """O6: each warning is a line, with nothing in it that a terminal obeys."""
        code, out = await self.printed(HEALTHY | {"healthy": False, "warnings": ["host h1 is down: \x1b[2J"], "notes": []}, "table")
        self.assertEqual((code, out.splitlines()[2:]), (1, ["warning: host h1 is down: \\x1b[2J", "degraded: 1 warning"]))

    async def test_json_is_an_array_of_one_object(self) -> None:
        """O6: programs get what the control plane answered, with the same exit code."""
        code, out = await self.printed(HEALTHY, "json")
        self.assertEqual((code, json.loads(out)), (0, [HEALTHY]))
