"""kill -9 of any process at a bad moment: afterwards every command has one outcome and every machine runs once."""

import asyncio
import json
from collections import defaultdict
from typing import Any

from tests.integration.cells import RunningCell, compute, running_cell

FORTY = 40


def test_the_control_plane_dies_amid_forty_creates() -> None:
    """Killed after the tenth reply and started again, forty VMs run, each with one outcome, none twice."""
    with running_cell("--hypervisor", "test") as cell:
        asyncio.run(_forty(cell))
        rows = cell.instances()
        assert sorted(row["name"] for row in rows) == sorted(f"c{number}" for number in range(FORTY))
        assert {row["state"] for row in rows} == {"Running"}


async def _forty(cell: RunningCell) -> None:
    async with cell.peer("ism") as ism:
        for number in range(FORTY):
            ism.say(cell.sink, compute(f"c{number}"))
        await ism.until(lambda messages: len(messages) >= 10)
        cell.kill("manager")
        await asyncio.to_thread(cell.start)
        # commands that were on their way to the dead process are the sender's to repeat; resourceId makes that safe
        answered = {reply["resourceId"] for reply in await ism.replies(10)}
        for number in range(FORTY):
            if f"key-c{number}" not in answered:
                ism.say(cell.sink, compute(f"c{number}"))
        await ism.until(lambda messages: len(_outcomes(messages)) == FORTY, 120)
        outcomes = _outcomes(ism.messages)
        assert {status for status, _ in outcomes.values()} == {"OK"}
        ids = [number for _, number in outcomes.values()]
        assert len(set(ids)) == FORTY, "no VM answers for two commands"


def _outcomes(messages: list[Any]) -> dict[str, tuple[str, int | None]]:
    """What each resourceId was told; a stanza id that comes twice must say the same."""
    by_stanza: dict[str, str] = {}
    told: dict[str, set[tuple[str, int | None]]] = defaultdict(set)
    for message in messages:
        assert by_stanza.setdefault(message["id"], message["body"]) == message["body"]
        reply = json.loads(message["body"])
        told[reply["resourceId"]].add((reply["status"], reply["ids"][0] if reply["status"] == "OK" else None))
    assert all(len(outcomes) == 1 for outcomes in told.values()), told
    return {key: next(iter(outcomes)) for key, outcomes in told.items()}


def test_an_agent_dies_and_its_machines_run_on() -> None:
    """The VMs of a killed qemu agent run on; when it is back they are known, and can be deleted."""
    with running_cell("--hypervisor", "qemu") as cell:
        cell.cli("createVm", "--name", "survivor", "--memory", "128", "--disks", "tashi.img", "--wait")
        (before,) = cell.instances()
        cell.kill("nodes", "node1")
        assert cell.domains() == [f"tashi-{before['id']}-survivor"]
        cell.start()
        (after,) = cell.wait_for_instances(lambda rows: rows[0]["state"] == "Running" and not rows[0]["decayed"])
        assert after["id"] == before["id"]
        cell.cli("destroyVm", "--instance", "survivor", "--wait")
        assert cell.instances() == [] and cell.domains() == []
