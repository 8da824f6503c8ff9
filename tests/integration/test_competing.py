"""Gold, silver and bronze on too little room, as docs/scheduling.md tells it, and why everybody is where they are."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.integration.cells import ROOT, Peer, RunningCell, compute, running_cell

pytestmark = pytest.mark.integration
SETTINGS = (
    "Scheduler.scheduler=Balanced",
    "Scheduler.scheduleDelay=0.2",
    "Scheduler.minimalVmMemory=256",
    "SlaClasses.silver=priority+50 memory=512",
    "XMPP.provisionTimeout=2",
)
COME = (
    ("bronze1", 2048, (2048,)),
    ("bronze2", 1024, (2048, 1024)),
    ("silver1", 1024, (2048, 1024, 1024)),
    ("gold1", 1536, (512, 1024, 1024, 1536)),
    ("gold2", 1024, (256, 256, 1024, 1536, 1024)),
    ("gold3", 512, (256, 256, 512, 1536, 1024, 512)),
)
"""Who comes, with how many MB, and what each of those that are there has then."""
GO = (
    ("gold1", 6, (1280, 256, 1024, 1024, 512)),
    ("gold2", 8, (2048, 512, 1024, 512)),
    ("gold3", 9, (2048, 1024, 1024)),
)
"""Who ends, how often the memory of anybody has changed until then, and what each of the others has then."""
ACTIONS = ("placed", "adapted", "destroyed")
SHOWN = ("action", "fqdn", "before", "after", "term", "reason")
CAROL = 2000
"""A user whose priority is 0."""


@pytest.fixture(scope="module")
def cell() -> Iterator[RunningCell]:
    """Two hosts of 4096 MB; each test leaves them up and empty."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    with running_cell("--hypervisor", "test", "--hosts", "2", "--memory", "4096", "--cores", "8", *settings) as cell:
        yield cell


def test_the_more_important_get_room(cell: RunningCell) -> None:
    """Gold runs on a full host because bronze and silver are shrunk down to what they are sure of, and they grow again when gold ends."""
    cell.cli("setHostState", "--host", "node2", "--state", "Drained")
    cell.cli("registerUser", "--name", "carol", "--userId", str(CAROL), "--priority", "0")
    try:
        told = asyncio.run(_compete(cell))
    finally:
        cell.cli("setHostState", "--host", "node2", "--state", "Normal")
    page = (ROOT / "docs/scheduling.md").read_text()
    shown = [json.loads(line) for line in page.splitlines() if line.startswith('{"')]
    assert _actions(told) == _actions(shown)
    assert _warnings(told) == _warnings(shown)


def test_who_asks_why_is_told_numbers(cell: RunningCell) -> None:
    """`tashi explain` and the verb explain say the same of what has a place and of what waits: loads, and how much is missing where."""
    answers = asyncio.run(_ask_why(cell))
    assert answers == {
        "small": [
            "is Running on node2, placed there by Balanced: load 0.12 after placing, best of 2 hosts that fit",
            "node1: would take it: load 0.16 there, 0.12 here",
        ],
        "large": [
            "is Pending; node1: 3072 MB short of memory; node2: 2560 MB short of memory",
            "node1: 3072 MB short of memory",
            "node2: 2560 MB short of memory",
        ],
    }
    page = (ROOT / "docs/scheduling.md").read_text()
    assert all(line in page for lines in answers.values() for line in lines)


async def _compete(cell: RunningCell) -> list[dict[str, Any]]:
    """Live through the table of the documentation; the events, as the documentation shows them."""
    async with cell.peer("llms") as llms, cell.peer("ism") as ism:
        for name, memory, expected in COME:
            reply = await _create(ism, cell, name, memory)
            assert (reply["status"], reply.get("state"), reply.get("host")) == ("OK", "Running", "node1"), reply
            assert await _memory(ism, cell) == expected
        refusal = await _create(ism, cell, "gold4", 256)
        assert (refusal["status"], refusal["code"]) == ("ERROR", "no-suitable-host")
        assert refusal["message"] == "no host took gold4 within 2 s: node1: 256 MB short of memory; node2: is drained"
        for name, changes, expected in GO:
            await _delete(ism, cell, name)
            await llms.until(lambda messages, changes=changes: len(_of(messages, "adapted")) >= changes, 10)  # type: ignore[misc]
            assert await _memory(ism, cell) == expected
        told = [json.loads(message["body"]) for message in llms.messages]
        await _delete(ism, cell, "bronze1", "bronze2", "silver1")
    return [{key: event[key] for key in SHOWN if event.get(key)} for event in told]


async def _ask_why(cell: RunningCell) -> dict[str, list[str]]:
    """What both doors say, without the name, of one that has a place and of one that waits."""
    answers = {}
    async with cell.peer("ism") as ism, cell.peer("alice") as alice:
        for name, memory in (("left", 3072), ("right", 2048), ("small", 512)):
            await ism.ask(cell.sink, compute(name, memory_size=memory))
        number = json.loads(await asyncio.to_thread(cell.cli, "createVm", *_vm("large", 4096), "-o", "json"))[0]["id"]
        for name in ("small", "large"):
            words = (await asyncio.to_thread(cell.cli, "explain", "--instance", name)).rstrip("\n")
            assert (await alice.ask(cell.sink, f'explain "{name}"'))["message"] == words
            answers[name] = words.partition(") ")[2].splitlines()
        huge = await ism.ask(cell.sink, compute("huge", memory_size=5000))
        assert huge["message"].startswith("no host of this cell could ever hold huge: node1: 904 MB short of memory; node2: 904 MB")
        await _delete(ism, cell, "left", "right", "small", number)
    return answers


def _vm(name: str, memory: int) -> list[str]:
    return ["--name", name, "--memory", str(memory), "--userId", "1000", "--disks", "tashi.img"]


async def _create(ism: Peer, cell: RunningCell, name: str, memory: int) -> dict[str, Any]:
    """Ask for one of the class that its name tells."""
    body = json.loads(compute(name, userId=CAROL, memory_size=memory).partition(" ")[2])
    sla = {"scheme": "http://provider.com/category#sla", "term": name.rstrip("1234")}
    return await ism.ask(cell.sink, "createcompute " + json.dumps([body, [sla], []]))


async def _delete(ism: Peer, cell: RunningCell, *references: str | int) -> None:
    for reference in references:
        reply = await ism.ask(cell.sink, f"deletecompute {json.dumps(reference)}")
        assert reply["status"] == "OK", reply


async def _memory(ism: Peer, cell: RunningCell) -> tuple[int, ...]:
    """What each guest may use, in MB, by id."""
    return tuple(row["memory"] for row in (await ism.ask(cell.sink, "listcompute"))["instances"])


def _of(messages: Sequence[Any], action: str) -> list[dict[str, Any]]:
    return [event for event in (json.loads(message["body"]) for message in messages) if event.get("action") == action]


def _actions(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What happened to instances since gold came; what a host does to several at once is told in any order, and here by name."""
    found = [event for event in events if event.get("action") in ACTIONS and "fqdn" in event]
    since = itertools.dropwhile(lambda event: event["action"] != "adapted", found)
    steps = itertools.groupby(since, lambda event: event["action"])
    return [event for _, step in steps for event in sorted(step, key=lambda event: event["fqdn"])]


def _warnings(events: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Who has less than what; how much less depends on when it was looked at, which is once a second."""
    return sorted((event["fqdn"], event["term"], event["reason"].partition(" of ")[2]) for event in events if "term" in event)
