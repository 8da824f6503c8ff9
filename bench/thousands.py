"""Ten thousand machines that run: how long lists and a start of the control plane take then, and what a machine costs in memory.

They are made through the cell, by createMany. The floors are the same cell and the same program without them, and for the pages of
listcompute two bare clients that hand each other the same texts through the same server.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import Any, Final

from bench.cell import ROOT, BenchCell, bench_cell
from bench.figures import Figure
from bench.peer import message, online
from tashi.sandbox.cell import MANAGER

MACHINES: Final = 10_000
CHUNK: Final = 1_000
RUNS: Final = 3
KIBIBYTE: Final = 1024


def run() -> list[Figure]:
    """Lists, start-up, memory."""
    with bench_cell("--cores", str(2 * MACHINES), "--memory", str(256 * MACHINES)) as cell:
        empty_starts, empty_bytes = _starts(cell)
        empty_command = [_command(cell) for _ in range(RUNS)]
        for chunk in range(MACHINES // CHUNK):
            cell.cli("createMany", "--basename", f"m{chunk}", "--disks", "tashi.img", "--count", str(CHUNK), "--wait", "-o", "name")
        starts, full_bytes = _starts(cell)
        command = [_command(cell) for _ in range(RUNS)]
        asked = subprocess.run(
            [sys.executable, "-m", "bench.ask", str(cell.layout.manager_socket), str(RUNS)], cwd=ROOT, check=True, capture_output=True
        )
        pages, carried = asyncio.run(_pages(cell))
        each = [(full - empty) / MACHINES / KIBIBYTE for full, empty in zip(full_bytes, empty_bytes, strict=True)]
    return [
        Figure(name="getInstances, the command", unit="s", runs=command, goal=1, floor="with no instance", floor_runs=empty_command),
        Figure(name="getInstances, in a program", unit="s", runs=json.loads(asked.stdout), goal=1),
        Figure(name="listcompute, all pages", unit="s", runs=pages, goal=1, floor="the same through Prosody alone", floor_runs=carried),
        Figure(name="start-up of the control plane", unit="s", runs=starts, goal=2, floor="with no instance", floor_runs=empty_starts),
        Figure(name="memory for an instance", unit="KiB", runs=each, goal=4),
    ]


def _starts(cell: BenchCell) -> tuple[list[float], list[float]]:
    """Seconds of some starts of the control plane, and the bytes it held when its host was back and it had nothing to do."""
    seconds, resident = [], []
    for _ in range(RUNS):
        cell.stop(MANAGER)
        seconds.append(cell.start_manager())
        cell.wait_for_host()
        _idle(cell)
        resident.append(cell.resident_bytes(MANAGER))
    return seconds, [float(value) for value in resident]


def _idle(cell: BenchCell) -> None:
    """Return when the control plane uses no processor."""
    while True:
        before = cell.processor_seconds()[MANAGER]
        time.sleep(2)
        if cell.processor_seconds()[MANAGER] - before < 0.1:
            return


def _command(cell: BenchCell) -> float:
    begun = time.perf_counter()
    cell.cli("getInstances", "-o", "json")
    return time.perf_counter() - begun


async def _pages(cell: BenchCell) -> tuple[list[float], list[float]]:
    """Seconds for all pages of listcompute, one asked for after the other, and for the same texts between two bare clients."""
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(RUNS):
        async with online(cell.facts, "ism") as ism:
            begun = time.perf_counter()
            after, count = 0, 0
            while after is not None:
                await ism.send(message(cell.sink, f'listcompute {{"after": {after}}}', count))
                count += 1
                await ism.until(count)
                after = json.loads(ism.last_body())["next"]
            ours.append(time.perf_counter() - begun)
            bodies = ism.bodies()
        rows: list[Any] = [row for body in bodies for row in json.loads(body)["instances"]]
        assert len({row["id"] for row in rows}) == len(rows) == MACHINES, f"{len(rows)} rows"
        bare.append(await _carried(cell, bodies))
    return ours, bare


async def _carried(cell: BenchCell, bodies: list[str]) -> float:
    async with online(cell.facts, "ism", "there") as asking, online(cell.facts, "alice", "back") as answering:
        answers = [message(asking.full, body, number) for number, body in enumerate(bodies)]
        loop = asyncio.get_running_loop()

        def answer() -> None:
            loop.create_task(answering.send(answers[answering.count - 1]))

        answering.on_message = answer
        begun = time.perf_counter()
        for number in range(len(bodies)):
            await asking.send(message(answering.full, f"page {number}", number))
            await asking.until(number + 1)
            json.loads(asking.last_body())
        return time.perf_counter() - begun
