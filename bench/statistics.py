"""One look at what instances use: on a simulated host with a hundred of them, and on a machine where twelve real guests run.

It is the agent's own call with what it makes of the answer. The floor is libvirt's call alone, by a bare script, in turn with it.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import libvirt

from bench.cell import bench_cell
from bench.figures import Figure
from bench.hypervisor import CELL, a_hypervisor, a_start
from tashi.model.statistics import Sample, statistics_between
from tashi.node.libvirt.guest import LibvirtHypervisor

RUNS: Final = 20
SIMULATED: Final = 100
REAL: Final = 12
GROUPS: Final = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)
NODE: Final = """<node><cpu><mhz>2000</mhz><model>x86_64</model><active>128</active><nodes>1</nodes><sockets>8</sockets>
<cores>16</cores><threads>1</threads></cpu><memory>16777216</memory></node>"""


def run() -> list[Figure]:
    """Milliseconds of a look on both hosts."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, bench_cell("--hypervisor", "qemu") as cell:
        node = Path(directory) / "node.xml"
        node.write_text(NODE)
        simulated = _looks(f"test://{node}", Path(directory), SIMULATED, f"statistics of {SIMULATED} simulated instances", 50.0)
        uri = cell.facts["hosts"][0]["uri"]
        return [*simulated, *_looks(uri, cell.layout.directory / "bench", REAL, f"statistics of {REAL} guests that run", None)]


def _looks(uri: str, directory: Path, count: int, name: str, goal: float | None) -> list[Figure]:
    with _guests(uri, directory, count) as hypervisor, _bare(hypervisor, uri) as connection:
        before = hypervisor.statistics(CELL)
        assert len(before.domains) == count, f"{len(before.domains)} domains"
        ours, bare = [], []
        for _ in range(RUNS):
            ours.append(_milliseconds(lambda: _look(hypervisor, before)))
            bare.append(_milliseconds(lambda: connection.getAllDomainStats(GROUPS)))
    return [Figure(name=name, unit="ms", runs=ours, goal=goal, floor="bare getAllDomainStats", floor_runs=bare)]


def _look(hypervisor: LibvirtHypervisor, before: Sample) -> None:
    assert statistics_between(before, hypervisor.statistics(CELL), 10.0) is not None


@contextlib.contextmanager
def _guests(uri: str, directory: Path, count: int) -> Iterator[LibvirtHypervisor]:
    hypervisor = a_hypervisor(uri, directory)
    orders = [a_start(number) for number in range(1, count + 1)]
    try:
        for order in orders:
            hypervisor.start(CELL, order)
        yield hypervisor
    finally:
        for order in orders:
            hypervisor.destroy(CELL, order.uuid)
        hypervisor.close()


@contextlib.contextmanager
def _bare(hypervisor: LibvirtHypervisor, uri: str) -> Iterator[Any]:
    """A bare connection; a simulated host can only be asked over the one that there is."""
    if uri.startswith("test:"):
        yield hypervisor._connection.get()
        return
    connection = libvirt.open(uri)
    try:
        yield connection
    finally:
        connection.close()


def _milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begun)
