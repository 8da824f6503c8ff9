"""A real guest moved, suspended and resumed through the cell, and its twin by the bare libvirt calls, in turn on the same three hosts.

The twin is a domain of the same size that the cell knows nothing of. ``python -m bench.migrate DIRECTORY`` is the part that speaks
Perspective Broker, over one link that is open already; it prints the milliseconds of each deed as JSON.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import libvirt
from twisted.internet.task import deferLater

from bench.cell import ROOT, bench_cell
from bench.figures import Figure, share
from tashi.client import connect
from tashi.client.process import run_to_end
from tashi.sandbox import processes, qemu_host
from tashi.sandbox.layout import Layout, load_layout

HOSTS: Final = 3
ROUNDS: Final = 11
DEEDS: Final = ("migrate", "around", "downtime", "suspend", "resume")
NAMES: Final = {
    "migrate": "migrateVm",
    "around": "migrateVm, without libvirt's own count",
    "downtime": "migrateVm: the guest stands still",
    "suspend": "suspendVm",
    "resume": "resumeVm",
}
"""What is measured, by what the table calls it. The bare call of a move returns when the former QEMU has ended, 0.2 s after the guest runs
at its new host; a move through the cell is done when it runs there."""
SETTLE_SECONDS: Final = 0.7
"""Between two deeds, so that none pays for what the one before it has left to be cleared away."""
ALLOWED_PART, ALLOWED_MILLISECONDS = 0.05, 10.0
"""Of the bare calls' time; the goal is whichever is more."""
FLAGS: Final = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_AUTO_CONVERGE
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
)
BARE: Final = "the bare libvirt calls"

Times = dict[str, list[float]]


def run() -> list[Figure]:
    """Milliseconds of each deed, what the cell adds to libvirt's own, and for how long the guest stood still."""
    with bench_cell("--hypervisor", "qemu", "--hosts", str(HOSTS), "--memory", "2048") as cell:
        cell.cli("createVm", "--name", "moved", "--disks", "tashi.img", "--memory", "128", "--hints", "targetHost=node1", "--wait")
        await_beats(next(cell.layout.nodes.glob("*/state/console/*moved.log")), 3)
        command = [sys.executable, "-m", "bench.migrate", str(cell.layout.directory)]
        times: Times = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return [figure for deed in DEEDS for figure in _figures(deed, times[deed], times[f"bare {deed}"])]


def _figures(deed: str, ours: list[float], bare: list[float]) -> list[Figure]:
    allowed = max(ALLOWED_MILLISECONDS, ALLOWED_PART * statistics.median(bare)) if deed not in ("around", "downtime") else None
    name = NAMES[deed]
    added = [whole - alone for whole, alone in zip(ours, bare, strict=True)]
    return [
        Figure(name=name, unit="ms", runs=ours, floor=BARE, floor_runs=bare),
        Figure(name=f"{name}, p95", unit="ms", runs=[share(ours, 0.95)], floor=BARE, floor_runs=[share(bare, 0.95)]),
        Figure(name=f"{name}, added", unit="ms", runs=added, goal=allowed),
    ]


def await_beats(console: Path, count: int) -> None:
    """Return when the guest has booted: one that is moved in its first seconds panics, by a fault of QEMU's emulation."""
    deadline = time.monotonic() + 120
    while len(re.findall(rb"^HB ", console.read_bytes() if console.exists() else b"", re.MULTILINE)) < count:
        assert time.monotonic() < deadline, f"nothing boots in {console}"
        time.sleep(0.1)


class Twin:
    """A guest like the given one, that is none of the cell's; it goes from each host to the next."""

    def __init__(self, layout: Layout, model: Any, place: int) -> None:
        names = layout.host_names()
        self._connections = [libvirt.open(layout.host_uri(name)) for name in names]
        self._addresses = [qemu_host.migration_uri(layout, name) for name in names]
        self._place = place
        running = processes.processes_of(layout.directory)
        inits = [qemu_host.init_of(running, name) for name in names]
        self._roots = [f"/proc/{init.pid}/root" for init in inits if init is not None]
        self._uuid = str(uuid.uuid4())
        self._directory = layout.share / "bench"
        self._directory.mkdir()
        console = layout.log / "twin-console.log"
        self._connections[place].defineXML(self._described(model, console)).create()
        await_beats(console, 3)

    def migrate(self) -> None:
        """Go to the next host by the call that an agent makes."""
        domain = self.domain()
        self._place = (self._place + 1) % len(self._connections)
        text = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
        parameters = {libvirt.VIR_MIGRATE_PARAM_DEST_XML: text, libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: text}
        domain.migrateToURI3(self._addresses[self._place], parameters, FLAGS)

    def suspend(self) -> None:
        """Be kept in the directory that all hosts share, and leave nothing here."""
        domain = self.domain()
        domain.saveFlags(str(self._saved), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        domain.undefine()

    def resume(self) -> None:
        """Go on at the next host."""
        self._place = (self._place + 1) % len(self._connections)
        connection = self._connections[self._place]
        text = connection.saveImageGetXMLDesc(str(self._saved), 0)
        connection.defineXML(text)
        connection.restoreFlags(str(self._saved), text, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        Path(self._roots[self._place], *self._saved.parts[1:]).unlink()  # what a host has read is slower to remove

    def end(self) -> None:
        """Leave nothing."""
        domain = self.domain()
        domain.destroy()
        domain.undefine()
        for connection in self._connections:
            connection.close()
        shutil.rmtree(self._directory)

    @property
    def _saved(self) -> Path:
        return self._directory / "memory"

    def domain(self) -> Any:
        """It, where it is now."""
        return self._connections[self._place].lookupByUUIDString(self._uuid)

    def _described(self, model: Any, console: Path) -> str:
        domain = ElementTree.fromstring(model.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        for path, text in (("name", "twin"), ("uuid", self._uuid)):
            domain.find(path).text = text  # type: ignore[union-attr]
        domain.remove(domain.find("metadata"))  # type: ignore[arg-type]
        for log in domain.iterfind("devices/*/log"):
            log.set("file", str(console))
        for card in domain.iterfind("devices/interface/mac"):
            card.set("address", "52:54:00:be:7c:01")
        overlay, disk = self._directory / "0.qcow2", domain.find("devices/disk")
        image = disk.find("backingStore")  # type: ignore[union-attr]
        base, kind = image.find("source").get("file"), image.find("format").get("type")  # type: ignore[union-attr]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", str(kind), "-b", str(base), str(overlay)], check=True)
        disk.find("source").set("file", str(overlay))  # type: ignore[union-attr]
        return ElementTree.tostring(domain, encoding="unicode")


def counted(domain: Any) -> dict[str, float]:
    """What libvirt has counted of the domain's last move, in milliseconds, as the host says that it has come to."""
    stats: dict[str, float] = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED)
    return stats


async def _in_turn(reactor: Any, directory: str) -> int:
    layout = load_layout(Path(directory))
    assert layout is not None
    hosts = {name: libvirt.open(layout.host_uri(name)) for name in layout.host_names()}
    times: Times = {f"{way}{deed}": [] for deed in DEEDS for way in ("", "bare ")}
    async with connect(reactor, socket=str(layout.manager_socket), seconds=10) as cell:

        async def row() -> dict[str, Any]:
            return next(iter(await cell.getInstances()))

        async def domain() -> Any:
            now = await row()
            return hosts[now["host"]].lookupByName(f"tashi-{now['id']}-{now['name']}")

        async def ours(deed: str) -> None:
            now, names = await row(), list(hosts)
            number, until = now["id"], {"migrate": "migrated", "suspend": "Suspended", "resume": "Running"}[deed]
            await deferLater(reactor, SETTLE_SECONDS)
            begun = time.perf_counter()
            match deed:
                case "migrate":
                    await cell.migrateVm(number, names[(names.index(now["host"]) + 1) % len(names)])
                case "suspend":
                    await cell.suspendVm(number)
                case "resume":
                    await cell.resumeVm(number)
            (outcome,) = await cell.waitFor([number], until)
            times[deed].append(1e3 * (time.perf_counter() - begun))
            assert outcome["ok"], outcome

        async def bare(deed: str) -> None:
            await deferLater(reactor, SETTLE_SECONDS)
            times[f"bare {deed}"].append(_milliseconds(getattr(twin, deed)))

        twin = Twin(layout, await domain(), 1)
        for number in range(ROUNDS + 1):
            for deed in ("migrate", "suspend", "resume"):
                for way in (ours, bare) if number % 2 else (bare, ours):
                    await way(deed)
                if deed == "migrate":
                    await deferLater(reactor, SETTLE_SECONDS)  # the guest runs before libvirt has counted
                    for prefix, moved in (("", await domain()), ("bare ", twin.domain())):
                        count = counted(moved)
                        times[f"{prefix}downtime"].append(count["downtime"])
                        times[f"{prefix}around"].append(times[f"{prefix}migrate"][-1] - count["time_elapsed"])
        twin.end()
    print(json.dumps({deed: values[1:] for deed, values in times.items()}))  # the first round warms up
    return 0


def _milliseconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begun)


if __name__ == "__main__":
    sys.exit(run_to_end(lambda reactor: _in_turn(reactor, sys.argv[1])))
