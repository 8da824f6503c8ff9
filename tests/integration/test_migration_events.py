"""What a migration tells while it is under way: every step of it, in order, to whoever listens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cells import Peer, RunningCell, running_cell
from tests.integration.travellers import Traveller

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def slow() -> Iterator[RunningCell]:
    """Two hosts between which a guest takes several seconds to move."""
    with running_cell("--hypervisor", "qemu", "--hosts", "2", "--memory", "2048", "--set", "Libvirt.migrationBandwidth=10") as cell:
        yield cell


def test_the_recipient_is_told_every_step_of_a_migration(slow: RunningCell) -> None:
    """The events of one migration are: it is prepared, it moves, how far it is, and it has moved from one host to the other."""
    guest = Traveller(slow, "told", "node1")
    events = asyncio.run(told_of_a_move(slow, guest))
    sequence = [event["seq"] for event in events]
    assert sequence == list(range(sequence[0], sequence[0] + len(sequence)))
    actions = [event for event in events if event["type"] == "vmAction"]
    assert {event["id"] for event in actions} == {guest.id}
    running = max(place for place, event in enumerate(actions) if event["to"] == "Running")
    prepared, begun, *progress, moved = actions[running + 1 :]
    assert [event["action"] for event in (prepared, begun, *progress, moved)] == ["migrating"] * (len(progress) + 2) + ["migrated"]
    assert (prepared["from"], prepared["to"], prepared["host"]) == ("Running", "MigratePrep", "node1")
    assert (begun["from"], begun["to"], begun["host"]) == ("MigratePrep", "MigrateTrans", "node1")
    assert [(event["from"], event["to"]) for event in progress] == [("MigrateTrans", "MigrateTrans")] * len(progress)
    percents = [event["progress"] for event in progress]
    assert len(percents) >= 2 and all(0 <= percent <= 100 for percent in percents) and percents[0] < percents[-1]
    assert all(f"{event['progress']} %" in event["description"] for event in progress)
    assert (moved["from"], moved["to"], moved["host"], moved["reason"]) == ("node1", "node2", "node2", "a move asked by root")
    guest.wait_for_beats(1)


async def told_of_a_move(cell: RunningCell, guest: Traveller) -> list[dict[str, Any]]:
    """All that the recipient is told, from the beginning of the cell until the guest has moved."""
    async with cell.peer("llms") as llms:
        await asyncio.to_thread(guest.do, "migrateVm", "--dst", "node2")
        await llms.until(lambda messages: any(event.get("action") == "migrated" for event in events_of(llms)))
        return events_of(llms)


def events_of(peer: Peer) -> list[dict[str, Any]]:
    """The bodies of what has come."""
    return [json.loads(message["body"]) for message in peer.messages]
