"""The oldest client there is: a script on xmpppy that asks for ten machines, leaves without waiting, and comes back for one."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cells import RunningCell, running_cell

SCRIPT = Path(__file__).with_name("xmpppy_client.py")
PAYLOAD = Path(__file__).with_name("seed_payload.json")


@pytest.fixture
def cell() -> Iterator[RunningCell]:
    """A real machine takes longer to start than the script stays, so that its answers wait for whoever looks next."""
    with running_cell("--hypervisor", "qemu") as cell:
        yield cell


def test_ten_machines_stay_ten_and_one_goes(cell: RunningCell) -> None:
    """The script gives tizzy0..9 of user 1000 with 512 MB and 1 core; run again still ten; deletecompute 10 removes that one."""
    creates = [f"createcompute {PAYLOAD.read_text().strip().replace('%d', str(number))}" for number in range(10)]
    run_script(cell, creates)
    rows = cell.wait_for_instances(lambda rows: len(rows) == 10 and all(row["state"] == "Running" for row in rows), 120)
    assert [row["name"] for row in rows] == [f"tizzy{number}" for number in range(10)]
    assert {(row["userId"], row["memory"], row["cores"], row["sla"]) for row in rows} == {(1000, 512, 1, "gold")}
    first = asyncio.run(waiting_replies(cell, 10))
    assert [reply["status"] for reply in first] == ["OK"] * 10

    asyncio.run(ask_again(cell, creates, first))
    run_script(cell, creates)
    assert cell.instances() == rows

    run_script(cell, ["deletecompute 10"])
    assert [reply["ids"] for reply in asyncio.run(waiting_replies(cell, 1))] == [[10]]
    assert [row["name"] for row in cell.instances()] == [f"tizzy{number}" for number in range(9)]


def run_script(cell: RunningCell, bodies: list[str]) -> None:
    """Send the messages as the script does; it waits for nothing."""
    description = cell.description
    account = description["accounts"]["ism"]
    server = description["xmpp"]
    words = [account["jid"].partition("@")[0], account["password"], description["sink"].partition("/")[0]]
    subprocess.run(
        [sys.executable, str(SCRIPT), server["domain"], server["host"], str(server["port"]), *words],
        input=json.dumps(bodies),
        text=True,
        check=True,
        capture_output=True,
        timeout=60,
    )


async def ask_again(cell: RunningCell, creates: list[str], first: list[dict[str, Any]]) -> None:
    """The same ten commands from somebody who listens: each is told the machine it has."""
    async with cell.peer("ism") as ism:
        for body in creates:
            ism.say(cell.sink, body)
        assert sorted(reply["ids"] for reply in await ism.replies(10)) == sorted(reply["ids"] for reply in first)


async def waiting_replies(cell: RunningCell, count: int) -> list[dict[str, Any]]:
    """What waits for the script's account when somebody at last looks, or comes within a minute."""
    async with cell.peer("ism", resource="test-botty") as ism:
        return await ism.replies(count)
