"""A real guest adapted through the whole cell, by message and by verb, beside the same libvirt calls made by a bare script in the same run.

Its CPU share costs two calls; its memory is done when its balloon has moved. ``python -m bench.adapt SOCKET TIMES`` is the part that speaks
Perspective Broker: one link, each adaptation waited for; it prints the seconds of each as JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.cell import ROOT, BenchCell, bench_cell, createcompute
from bench.figures import Figure
from bench.peer import Peer, message, online
from tashi.client import connect
from tashi.client.command import run_to_end

TIMES: Final = 40
RUNS: Final = 3
MEMORY: Final = (96, 128)
SHARES: Final = (512, 1024)
LONGEST_OVERHEAD: Final = 10.0
"""Milliseconds that the whole path may add to libvirt's own; or a twentieth of that, where it is more."""
BARE: Final = "the bare libvirt calls"

Waits = dict[str, list[float]]  # milliseconds, by what is adapted and how


def run() -> list[Figure]:
    """For each way and each resource its time beside libvirt's own, and what it adds to that."""
    runs = [_once() for _ in range(RUNS)]
    figures = []
    for what in ("share", "memory"):
        bare = [statistics.median(waits[f"bare {what}"]) for waits in runs]
        goal = max(LONGEST_OVERHEAD, 0.05 * statistics.median(bare))
        for way in ("message", "verb"):
            through = [statistics.median(waits[f"{way} {what}"]) for waits in runs]
            name = f"adapt {what} by {way}"
            figures.append(Figure(name=name, unit="ms", runs=through, floor=BARE, floor_runs=bare))
            added = [whole - alone for whole, alone in zip(through, bare, strict=True)]
            figures.append(Figure(name=f"{name}, added", unit="ms", runs=added, goal=goal))
    return figures


def _once() -> Waits:
    with bench_cell("--hypervisor", "qemu") as cell:
        waits = asyncio.run(_by_message(cell))
        command = [sys.executable, "-m", "bench.adapt", str(cell.layout.manager_socket), str(TIMES)]
        waits |= json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
        return waits | _bare(cell.facts["hosts"][0]["uri"])


async def _by_message(cell: BenchCell) -> Waits:
    async with online(cell.facts, "ism") as ism:
        created = await _ask(cell, ism, createcompute("adapted").replace('"memory_size": 512', f'"memory_size": {MEMORY[1]}'))
        assert created["status"] == "OK", created
        await _beats(next(cell.layout.directory.rglob("console/*adapted.log")))
        waits: Waits = {"message share": [], "message memory": []}
        for number in range(TIMES):
            for what, field, value in (("share", "cpu_share", SHARES[number % 2]), ("memory", "memory_size", MEMORY[number % 2])):
                begun = time.perf_counter()
                reply = await _ask(cell, ism, "updatecompute " + json.dumps({"resourceId": "key-adapted", field: value}))
                waits[f"message {what}"].append(1000 * (time.perf_counter() - begun))
                assert reply["status"] == "OK", reply
        return waits


async def _ask(cell: BenchCell, peer: Peer, body: str) -> dict[str, Any]:
    answers = peer.count + 1
    await peer.send(message(cell.sink, body, answers))
    await peer.until(answers)
    answer: dict[str, Any] = json.loads(peer.last_body())
    return answer


async def _beats(console: Path) -> None:
    """Return when the guest has booted."""
    async with asyncio.timeout(120):
        while "HB 2 " not in console.read_text(errors="replace"):
            await asyncio.sleep(0.2)


async def _by_verb(reactor: Any, path: str, times: int) -> int:
    waits: Waits = {"verb share": [], "verb memory": []}
    async with connect(reactor, socket=path, seconds=10) as cell:
        (row,) = await cell.getInstances()

        async def adapted(what: str, verb: Callable[..., Any], value: int) -> None:
            begun = time.perf_counter()
            await verb(row["id"], value)
            (outcome,) = await cell.waitFor([row["id"]], "adapted")
            waits[f"verb {what}"].append(1000 * (time.perf_counter() - begun))
            assert outcome["ok"], outcome

        for number in range(times):
            await adapted("share", cell.adaptCpuShare, SHARES[number % 2])
            await adapted("memory", cell.adaptMemoryLimit, MEMORY[number % 2])
    print(json.dumps(waits))
    return 0


def _bare(uri: str) -> Waits:
    import libvirt

    connection = libvirt.open(uri)
    (domain,) = connection.listAllDomains()
    places = (libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    waits: Waits = {"bare share": [], "bare memory": []}
    for number in range(TIMES):
        waits["bare share"].append(_timed(lambda share: _set_share(domain, share, places), SHARES[number % 2]))
        waits["bare memory"].append(_timed(lambda memory: _set_memory(domain, memory, places), MEMORY[number % 2]))
    connection.close()
    return waits


def _timed(call: Callable[[int], None], value: int) -> float:
    begun = time.perf_counter()
    call(value)
    return 1000 * (time.perf_counter() - begun)


def _set_share(domain: Any, share: int, places: Sequence[int]) -> None:
    domain.schedulerParameters()
    for where in places:
        domain.setSchedulerParametersFlags({"cpu_shares": share}, where)
    assert domain.schedulerParameters()["cpu_shares"] == share


def _set_memory(domain: Any, megabytes: int, places: Sequence[int]) -> None:
    domain.setMemoryFlags(megabytes * 1024, places[0])
    while abs(domain.info()[2] - megabytes * 1024) > 1024:
        time.sleep(0.001)
    domain.setMemoryFlags(megabytes * 1024, places[1])


if __name__ == "__main__":
    sys.exit(run_to_end(lambda reactor: _by_verb(reactor, sys.argv[1], int(sys.argv[2]))))
