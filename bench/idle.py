"""An idle cell: one createcompute after the other, each step timed inside the processes that take it.

From the stanza's bytes in the control plane to libvirt's create call in the agent; from libvirt's word that the machine runs (its event, or
the call's return when that comes first) to the reply's bytes on their way; and the whole, as the requester sees it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import floors, observed
from bench.cell import BenchCell, bench_cell, createcompute
from bench.figures import Figure, share
from bench.peer import message, online
from tashi.sandbox.cell import MANAGER
from tashi.sandbox.qemu_host import agent_role

MACHINES: Final = 200
WARM_UP: Final = 20
PAUSE: Final = 0.05
RUNS: Final = 3

PARTS: Final = (
    ("idle: stanza to libvirt's create", 15.0),
    ("idle: libvirt's event to reply", 10.0),
    ("idle: requester's whole wait", None),
)

Noted = dict[str, dict[str, float]]


def run() -> list[Figure]:
    """Median and 95th percentile of each part, one value a run."""
    runs = [_once() for _ in range(RUNS)]
    floor = [commit for _, commit in runs]
    figures = []
    for place, (name, goal) in enumerate(PARTS):
        middle, high = ([share(parts[place], part) for parts, _ in runs] for part in (0.5, 0.95))
        figures.append(Figure(name=name, unit="ms", runs=middle, goal=goal, floor="one bare SQLite commit", floor_runs=floor))
        figures.append(Figure(name=f"{name}, p95", unit="ms", runs=high))
    return figures


def _once() -> tuple[Sequence[Sequence[float]], float]:
    """The milliseconds of each part, and the milliseconds of a bare commit."""
    with bench_cell() as cell:
        notes = cell.layout.directory / "notes"
        _restart_observed(cell, notes)
        commits = floors.sqlite_commits()
        waits = asyncio.run(_ask(cell))
        noted: Noted = {}
        for line in notes.read_text().splitlines():
            point, name, when = json.loads(line)
            noted.setdefault(name, {}).setdefault(point, when)
    names = [f"idle{number:04}" for number in range(WARM_UP, MACHINES)]
    to_libvirt = [1000 * (noted[name][observed.CREATING] - noted[name][observed.ARRIVED]) for name in names]
    to_reply = [1000 * (noted[name][observed.ANSWERED] - _runs_since(noted[name])) for name in names]
    return (to_libvirt, to_reply, waits[WARM_UP:]), 1000.0 / commits


def _runs_since(noted: dict[str, float]) -> float:
    return min(noted[observed.CREATED], noted.get(observed.EVENT, noted[observed.CREATED]))


def _restart_observed(cell: BenchCell, notes: Path) -> None:
    """The cell's control plane and agent again, observed."""
    agent, layout = agent_role("node1"), cell.layout
    cell.stop(agent)
    cell.stop(MANAGER)
    cell.start_manager([sys.executable, "-m", "bench.observed", "tashi", str(notes)])
    cell.start(agent, [sys.executable, "-m", "bench.observed", "tashi-node", str(notes)], layout.node("node1") / "conf")
    cell.wait_for_host()


async def _ask(cell: BenchCell) -> list[float]:
    """Milliseconds until each reply."""
    waits = []
    async with online(cell.facts, "ism") as ism, online(cell.facts, "llms"):
        for number in range(MACHINES):
            stanza = message(cell.sink, createcompute(f"idle{number:04}"), number)
            begun = time.perf_counter()
            await ism.send(stanza)
            await ism.until(number + 1)
            waits.append(1000 * (time.perf_counter() - begun))
            await asyncio.sleep(PAUSE)
    return waits
