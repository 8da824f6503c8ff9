"""The story of one createcompute, on real Prosody, real libvirt and real QEMU, as two foreign XMPP clients see it."""

import asyncio
import json
from typing import Any

from tests.integration.cells import Peer, RunningCell, compute, until


def test_a_message_becomes_a_running_machine_and_is_deleted_again(qemu_cell: RunningCell) -> None:
    """An ISM asks by message, a real guest boots, the ISM is told once, LLMS hears of every step, and delete leaves nothing."""
    asyncio.run(_story(qemu_cell))
    until(qemu_cell.domains, lambda names: not names, 20)


async def _story(cell: RunningCell) -> None:
    async with cell.peer("llms") as llms, cell.peer("ism") as ism:
        reply = await ism.ask(cell.sink, compute("story", memory_size=128), thread="t1")
        assert (reply["status"], reply["state"], reply["resources"]) == ("OK", "Running", ["story"])
        assert ism.messages[0]["type"] == "chat" and ism.messages[0]["thread"] == "t1"
        number = reply["ids"][0]
        assert cell.domains() == [f"tashi-{number}-story"]
        console = until(lambda: _console(cell, number), lambda text: "GUEST-UP" in text, 60)
        assert "GUEST-UP" in console

        gone = await ism.ask(cell.sink, f"deletecompute {number}")
        assert (gone["status"], gone["ids"]) == ("OK", [number])
        assert len(ism.messages) == 2, "one command, one message"
        actions = await _actions_until(llms, number, "destroyed")
        assert [one["action"] for one in actions if one["action"] != "stateChanged"] == ["created", "placed", "destroyed"]
        assert [one["to"] for one in actions] == ["Pending", "Activating", "Running", "Destroying", "Exited"]
        numbers = [event["seq"] for event in _events(llms)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "no gap, no repetition"


async def _actions_until(llms: Peer, number: int, last: str) -> list[dict[str, Any]]:
    def actions() -> list[dict[str, Any]]:
        return [event for event in _events(llms) if event["type"] == "vmAction" and event["id"] == number]

    await llms.until(lambda messages: any(one["action"] == last for one in actions()))
    return actions()


def _events(llms: Peer) -> list[dict[str, Any]]:
    return [json.loads(message["body"]) for message in llms.messages]


def _console(cell: RunningCell, number: int) -> str:
    logs = list(cell.state_dir.glob(f"nodes/*/**/*{number}-story*console*")) + list(cell.state_dir.glob(f"nodes/*/**/console/*{number}*"))
    return "".join(log.read_bytes().decode(errors="replace") for log in logs if log.is_file())
