"""`tashi plan` and `tashi snapshot`, as the control plane is asked for them."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

from twisted.internet import reactor

from tashi.client import plan, snapshot
from tashi.scheduling.text.reading import read
from tests.memory.test_client_command import ClientCase

TEXT = "# tashi snapshot 1\nhost 1 node1 2c 2G\nvm 1 web 1c 1G on node1\n" + "".join(f"# {number}\n" for number in range(99))
LINES = ["place web on node1: Balanced: load 0.41", "wait db: node1: 512 MB short of memory\x1b[2J"]


class PlanTests(ClientCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.avatar.do_snapshot = lambda: {"text": TEXT}  # type: ignore[attr-defined]
        self.avatar.do_plan = lambda apply: {"lines": LINES, "actions": [{"apply": apply}]}  # type: ignore[attr-defined]

    async def printed(self, work: Any) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(await work, 0)
        return out.getvalue()

    async def test_the_plan_is_a_line_a_step(self) -> None:
        """What the control plane would do is printed as it says it, with nothing in it that a terminal obeys."""
        out = await self.printed(plan.ask(False, "table", reactor, self.socket))
        self.assertEqual(out, f"{LINES[0]}\nwait db: node1: 512 MB short of memory\\x1b[2J\n")
        self.assertEqual(self.avatar.asked, [("plan", {"apply": False})])

    async def test_a_plan_is_applied(self) -> None:
        """--apply asks for that, and JSON shows what the control plane answered."""
        out = await self.printed(plan.ask(True, "json", reactor, self.socket))
        self.assertEqual(json.loads(out), {"lines": LINES, "actions": [{"apply": True}]})

    async def test_a_snapshot_is_printed_as_it_came(self) -> None:
        """However many pages it has."""
        self.assertEqual(await self.printed(snapshot.ask("tashi", reactor, self.socket)), TEXT)
        self.assertEqual(read(TEXT).placed[1][0].name, "web")
