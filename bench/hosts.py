"""``python -m bench.hosts > docs/hosts.md``: what real hosts do and what comes of each fault, tried on this machine and written down.

Deeds are asked for over one link that is open already, adaptations by message; each takes as long as its asker waits. A fault is made, and
mended where nothing mends itself, while a guest is on its way; it is over when the record and plain virsh on every host agree.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import libvirt

from bench.host_faults import faults
from bench.migrate import await_beats, counted
from bench.peer import message, online
from bench.trial import HOSTS, STEP, Line, Trial, times, took
from tashi.client.cell import Cell
from tashi.client.process import run_to_end
from tashi.node.kvm_probe import kvm_works
from tashi.sandbox.image import cache_directory
from tests.integration.cells import RunningCell, compute, running_cell
from tests.integration.test_fleet import HALTS
from tests.integration.travellers import Traveller

TIMES: Final = 6
FLEET: Final = 8
NOT_SHARED: Final = ("--set", "Qemu.scratchDir=/var/lib/libvirt/scratch")
ADAPTATIONS: Final = (
    ("CPU share", "cpu_share", 512), ("CPU speed, a quota", "cpu_speed", 500), ("memory, the balloon", "memory_size", 112),
    ("disk weight", "disk_weight", 300), ("disk requests", "disk_iops", 500), ("disk traffic", "disk_bytes", 10_000_000),
    ("network, to it", "net_down", 8000), ("network, from it", "net_up", 8000),
)  # fmt: skip


async def deeds(reactor: Any) -> list[Line]:
    """Moves, suspension and the rest on hosts that share all disks."""
    lines: list[Line] = []
    with running_cell(*HOSTS) as cell:
        trial = Trial(reactor, cell)
        guest = Traveller(cell, "globe", "node1")
        guest.wait_for_beats(2)
        async with trial.link() as api:
            lines.append(await moved(trial, api, guest, "migrateVm, the disks are shared"))
            kept: list[float] = []
            resumed: list[float] = []
            for _ in range(TIMES):
                kept.append(await trial.timed(api, api.suspendVm(guest.id), "Suspended"))
                resumed.append(await trial.timed(api, api.resumeVm(guest.id), "Running"))
            guest.wait_for_beats(2)
            lines.append(("suspendVm", "its memory is in the shared directory, its host is free", took(kept), ""))
            lines.append(("resumeVm, wherever there is room", f"it goes on, booted {times(guest.boots())} in all", took(resumed), ""))
            paused, woken = [], []
            for _ in range(TIMES):
                paused.append(await trial.timed(api, api.pauseVm(guest.id), "Paused"))
                woken.append(await trial.timed(api, api.unpauseVm(guest.id), "Running"))
            lines += [("pauseVm", "stands still", took(paused), ""), ("unpauseVm", "goes on", took(woken), "")]
            begun = time.perf_counter()
            await api.vmmSpecificCall(guest.id, "reset")
            while guest.boots() < 2:
                await trial.pause(STEP)
            lines.append(("vmmSpecificCall reset", "has booted again", f"{time.perf_counter() - begun:.1f} s", ""))
            guest.wait_for_beats(3)
            lines.append(("shutdownVm", "its guest has ended it", took([await trial.timed(api, api.shutdownVm(guest.id), "gone")]), ""))
            lines.append(await drained(trial, api))
    with running_cell(*HOSTS, *NOT_SHARED) as cell:
        trial = Trial(reactor, cell)
        guest = Traveller(cell, "carrier", "node1")
        guest.wait_for_beats(2)
        async with trial.link() as api:
            lines.insert(1, await moved(trial, api, guest, "migrateVm, the throw-away disk goes along"))
    return lines


async def moved(trial: Trial, api: Cell, guest: Traveller, what: str) -> Line:
    """The guest goes round the hosts."""
    names, spent, still = trial.layout.host_names(), [], []
    for _ in range(TIMES):
        target = names[(names.index(guest.row()["host"]) + 1) % len(names)]
        spent.append(await trial.timed(api, api.migrateVm(guest.id, target), "migrated"))
        await trial.pause(1.0)
        connection = libvirt.open(trial.layout.host_uri(target))
        still.append(counted(connection.lookupByName(f"tashi-{guest.id}-{guest.name}"))["downtime"])
        connection.close()
    guest.wait_for_beats(2)
    torn = len(guest.lost_beats())
    return what, f"moved {TIMES} times, booted {times(guest.boots())}, {torn} lines of its console torn", took(spent), took(still)


async def drained(trial: Trial, api: Cell) -> Line:
    """A host is emptied of guests that do nothing."""
    (trial.layout.share / "images" / "halts.img").write_bytes(HALTS)
    rows = await api.createMany("ship", "halts.img", FLEET, memory=64, hints="targetHost=node2,allowElsewhere=True")
    outcomes = await api.waitFor([row["id"] for row in rows], "Running")
    assert all(outcome["ok"] for outcome in outcomes), outcomes
    begun = time.perf_counter()
    there = await api.drainHost("node2")
    outcomes = await api.waitFor([row["id"] for row in there], "migrated")
    seconds = time.perf_counter() - begun
    assert all(outcome["ok"] for outcome in outcomes) and trial.cell.domains("node2") == [], outcomes
    return f"drainHost with {len(there)} guests that idle", "all run elsewhere, none is left", f"{seconds:.1f} s", ""


def adaptations() -> list[Line]:
    """Each resource of a guest that runs, changed by message."""
    with running_cell("--hypervisor", "qemu") as cell:
        return asyncio.run(_adaptations(cell))


async def _adaptations(cell: RunningCell) -> list[Line]:
    lines: list[Line] = []
    async with online(cell.description, "ism") as ism:

        async def ask(body: str) -> tuple[dict[str, Any], float]:
            begun, count = time.perf_counter(), ism.count + 1
            await ism.send(message(cell.sink, body, count))
            await ism.until(count)
            return json.loads(ism.last_body()), 1e3 * (time.perf_counter() - begun)

        created, _ = await ask(compute("bent", memory_size=128))
        assert created["status"] == "OK", created
        await_beats(next(cell.state_dir.rglob("console/*bent.log")), 3)
        for what, field, value in ADAPTATIONS:
            spent: list[float] = []
            for wished in (value, value // 2 if field != "memory_size" else 128) * (TIMES // 2):
                answer, milliseconds = await ask("updatecompute " + json.dumps({"resourceId": "key-bent", field: wished}))
                spent.append(milliseconds)
            came = "applied" if answer["status"] == "OK" else f"refused: {answer['message']}"
            lines.append((f"{what}: `{field}`", came, took(spent)))
    return lines


def machine() -> str:
    """What all this ran on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    said = [
        subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
        for program in ("libvirtd", "qemu-system-x86_64")
    ]
    versions = [re.search(r"\d+\.\d+\.\d+", words).group() for words in said]  # type: ignore[union-attr]
    under = "with KVM" if kvm_works(cache_directory(), str(shutil.which("qemu-system-x86_64"))) else "without KVM (TCG)"
    return textwrap.fill(
        f"{os.cpu_count()} virtual CPUs{f' ({model[1]})' if model else ''}, QEMU {versions[1]} {under}, libvirt {versions[0]}, "
        f"Linux {platform.release()}, Python {platform.python_version()}; load average {os.getloadavg()[1]:.1f} meanwhile.",
        width=140,
    )


def table(head: Line, lines: Sequence[Line]) -> Iterator[str]:
    """A table of a page."""
    for line in (head, ("---",) * len(head), *lines):
        yield "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |"


PAGE: Final = """\
# What was tried on real hosts

Written by `python -m bench.hosts`, as it happened: real libvirtd, QEMU and guests on the hosts of a [sandbox](sandbox.md). The guest has
128 MB and a heart that beats once a second on its console; emulated without KVM all of it is many times slower than with it, and
all hosts share one machine. Times are the asker's: median, and the longest of six. How each is done is in [moving](moving.md) and
[adaptation](adaptation.md); what hosts do by themselves, and how the agent's unit is ordered against libvirt-guests, in
[pauses](pauses.md).

{machine}

## Deeds

{deeds}

## Adaptations of a guest that runs

By message, until the answer; what this kernel cannot do is refused with its reason.

{adaptations}

## Faults in the middle of a move

From node1 to node2, slowed down to 10 MB/s so that it takes some ten seconds; a host is missed after 5 s of silence. The guest has booted
once and beats on, or is gone and told as failed. Nothing restarts what was killed but the trial itself; the last column counts from when
what was mended runs again.

{faults}
"""


@contextmanager
def saying(what: str) -> Iterator[None]:
    """A word on the terminal."""
    begun = time.monotonic()
    print(f"{what} ...", end=" ", flush=True, file=sys.stderr)
    yield
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)


async def main(reactor: Any) -> int:
    """Try all of it, and print the page."""
    with saying("adaptations"):
        adapted = adaptations()
    with saying("deeds"):
        done = await deeds(reactor)
    with saying("faults"):
        broken = await faults(reactor)
    page = PAGE.format(
        machine=machine(),
        deeds="\n".join(table(("what", "what came of it", "until it is so", "the guest stood still"), done)),
        adaptations="\n".join(table(("what", "what came of it", "until the answer"), adapted)),
        faults="\n".join(table(("what", "what came of it", "until it is so", "right again after mending"), broken)),
    )
    print(page, end="")
    return 0


if __name__ == "__main__":
    sys.exit(run_to_end(main))
