"""A flood: a thousand createcompute messages at once through the real server, until the last of a thousand replies is there.

Every run has a fresh cell, and the floors are measured in that cell just before. No command may be refused, none answered twice, and
the events that the recipient gets must have no gap.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from bench import floors
from bench.cell import BenchCell, bench_cell, createcompute
from bench.figures import Figure
from bench.peer import Peer, message, online

MACHINES: Final = 1000
RUNS: Final = 3


class Run(msgspec.Struct, frozen=True):
    """What one flood gave, and the floors beside it, all in a second."""

    machines: float
    domains: float
    round_trips: float
    commits: float


def run() -> list[Figure]:
    """Machines a second with the recipient of events there, and with it away."""
    there = [_flood(recipient=True) for _ in range(RUNS)]
    away = [_flood(recipient=False) for _ in range(RUNS)]
    return [
        *_figures("flood", there, goal=200),
        *_figures("flood, recipient offline", away, goal=None),
    ]


def _figures(name: str, runs: Sequence[Run], goal: float | None) -> list[Figure]:
    beside = {
        "bare libvirt test:/// creates": [one.domains for one in runs],
        "bare Prosody round trips": [one.round_trips for one in runs],
        "bare SQLite commits of one row": [one.commits for one in runs],
    }
    values = [one.machines for one in runs]
    return [
        Figure(name=name, unit="VMs/s", runs=values, goal=goal, more_is_better=True, floor=floor, floor_runs=floor_values)
        for floor, floor_values in beside.items()
    ]


def _flood(recipient: bool) -> Run:
    with bench_cell() as cell:
        domains = floors.libvirt_creates(cell.layout.node("node1") / "node.xml")
        round_trips = floors.prosody_round_trips(cell.facts)
        commits = floors.sqlite_commits()
        return Run(asyncio.run(_measure(cell, recipient)), domains, round_trips, commits)


async def _measure(cell: BenchCell, recipient: bool) -> float:
    stanzas = b"".join(message(cell.sink, createcompute(f"flood{number:04}"), number) for number in range(MACHINES))
    async with online(cell.facts, "ism") as ism:
        if not recipient:
            return await _time(cell, ism, stanzas)
        async with online(cell.facts, "llms") as llms:
            rate = await _time(cell, ism, stanzas)
            await llms.quiet(2.5)
            _check_events(llms)
            return rate


async def _time(cell: BenchCell, ism: Peer, stanzas: bytes) -> float:
    before = cell.processor_seconds()
    begun = time.perf_counter()
    await ism.send(stanzas)
    await ism.until(MACHINES)
    seconds = time.perf_counter() - begun
    spent = {role: after - before.get(role, 0.0) for role, after in cell.processor_seconds().items()}
    words = ", ".join(f"{role} {value:.2f} s" for role, value in sorted(spent.items()) if value)
    print(f"  {MACHINES} machines in {seconds:.2f} s, {MACHINES / seconds:.0f} a second; processor: {words}", file=sys.stderr)
    await ism.quiet(0.5)
    replies = [json.loads(body) for body in ism.bodies()]
    bad = [reply for reply in replies if reply["status"] != "OK" or reply["state"] != "Running"]
    assert not bad, f"refused: {bad[0]}"
    assert len(replies) == MACHINES, f"{len(replies)} replies to {MACHINES} commands"
    assert len({reply["ids"][0] for reply in replies}) == len({reply["resourceId"] for reply in replies}) == MACHINES, "a duplicate"
    running = [row for row in json.loads(cell.cli("getInstances", "-o", "json")) if row["state"] == "Running"]
    assert len(running) == MACHINES, f"{len(running)} instances run"
    return MACHINES / seconds


def _check_events(llms: Peer) -> None:
    events = [json.loads(body) for body in llms.bodies()]
    numbers = [event["seq"] for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a gap in the events, or a repetition"
    actions = [(event["id"], event["action"], event["to"]) for event in events if event["type"] == "vmAction"]
    assert len(actions) == len(set(actions)) == 3 * MACHINES, f"{len(actions)} events of {MACHINES} machines"
