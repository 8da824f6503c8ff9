"""What an order costs beyond libvirt's calls: the agent's executor and hypervisor in this process, and a bare script, in turn.

Each creates guests with a throw-away disk, destroys them, and gives one that stands still other CPU shares, on the same real machine.
Ours is timed from the order until its outcome is told, the bare script's calls where they are made.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import libvirt
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from bench.cell import bench_cell
from bench.figures import Figure, share
from bench.hypervisor import CELL, IMAGE, a_hypervisor, a_start
from tashi.model.instance import Resources
from tashi.model.orders import Adapt, Destroy, Observation, Seen, Start
from tashi.node.domain.xml import AttachedDisk, domain_xml
from tashi.node.executor import Executor
from tashi.node.threads import Threads

ROUNDS: Final = 30
DEEDS: Final = ("create", "adapt", "destroy")
SHARE: Final = 512
SETTLE_SECONDS: Final = 3.0
"""After which a guest that boots nothing stands still, so that it does not compete with what is measured."""
ALLOWED_PART, ALLOWED_MILLISECONDS = 0.05, 10.0
"""Of the bare script's time; the goal is whichever is more."""

Times = dict[str, list[float]]


def run() -> list[Figure]:
    """Milliseconds of each deed, median and 95th percentile."""
    from twisted.internet import reactor

    return _measured(reactor)


def _measured(reactor: Any) -> list[Figure]:
    ours: Times = {deed: [] for deed in DEEDS}
    bare: Times = {deed: [] for deed in DEEDS}
    failures: list[Failure] = []
    with bench_cell("--hypervisor", "qemu") as cell:
        both = _Both(reactor, cell.facts["hosts"][0]["uri"], cell.layout.directory / "bench", ours, bare)

        def begin() -> None:
            Deferred.fromCoroutine(both.measure()).addErrback(failures.append).addBoth(lambda ignored: reactor.stop())

        reactor.callWhenRunning(begin)
        reactor.run()
    for failure in failures:
        failure.raiseException()
    return [figure for deed in DEEDS for figure in _figures(deed, ours[deed], bare[deed])]


def _figures(deed: str, ours: list[float], bare: list[float]) -> list[Figure]:
    floor, name = "bare libvirt calls", f"agent: {deed}"
    median = statistics.median(bare)
    goal = median + max(ALLOWED_PART * median, ALLOWED_MILLISECONDS)
    high = [share(ours, 0.95)], [share(bare, 0.95)]
    return [
        Figure(name=name, unit="ms", runs=ours, goal=goal, floor=floor, floor_runs=bare),
        Figure(name=f"{name}, p95", unit="ms", runs=high[0], floor=floor, floor_runs=high[1]),
    ]


class _Both:
    """The agent and the bare script, each with a connection of its own to the machine."""

    def __init__(self, reactor: Any, uri: str, directory: Path, ours: Times, bare: Times) -> None:
        self._threads = Threads(reactor, 4, 60.0)
        self._reactor = reactor
        self._ours, self._bare = ours, bare
        self._generation = 0
        self._hypervisor = a_hypervisor(uri, directory)
        self._executor = Executor(self._hypervisor, self._threads.run, reactor, self._told)
        self._hypervisor.watch(lambda *hint: reactor.callFromThread(self._executor.notice, *hint))
        self._waiting: tuple[Callable[[Observation], bool], Deferred[None]] | None = None
        self._script = _Script(uri, directory)

    async def measure(self) -> None:
        """All the rounds; who begins changes from one to the next."""
        self._threads.start()
        self._executor.enter(CELL)
        try:
            for number in range(ROUNDS):
                await self._both("create", number)
                await self._both("destroy", number)
            await self._both("create", ROUNDS)
            await deferLater(self._reactor, SETTLE_SECONDS)
            for number in range(ROUNDS):
                await self._both("adapt", ROUNDS, turn=number)
            await self._both("destroy", ROUNDS)
            for times in (*self._ours.values(), *self._bare.values()):
                del times[0]  # the first round warms up
        finally:
            self._script.close()
            self._executor.stop()
            await self._threads.stop()
            self._hypervisor.close()

    async def _both(self, deed: str, number: int, turn: int | None = None) -> None:
        first, second = (self._our_deed, self._bare_deed) if (number if turn is None else turn) % 2 else (self._bare_deed, self._our_deed)
        await first(deed, number)
        await second(deed, number)

    async def _our_deed(self, deed: str, number: int) -> None:
        order = a_start(2 * number)
        self._generation += 1
        about: dict[str, Any] = {"instance_id": order.instance_id, "uuid": order.uuid, "generation": self._generation}
        match deed:
            case "create":
                begin = msgspec.structs.replace(order, generation=self._generation)
                await self._time(deed, begin, lambda seen: seen.seen is Seen.RUNNING)
            case "adapt":
                wished = Resources(cpu_share=SHARE + self._generation)
                await self._time(deed, Adapt(wished=wished, **about), lambda seen: seen.done)
            case "destroy":
                await self._time(deed, Destroy(**about), lambda seen: seen.seen is Seen.GONE)

    async def _bare_deed(self, deed: str, number: int) -> None:
        call = self._script.prepared(a_start(2 * number + 1))[deed]
        self._bare[deed].append(await self._threads.run(_milliseconds, call))

    async def _time(self, deed: str, order: Any, ends: Callable[[Observation], bool]) -> None:
        told: Deferred[None] = Deferred()
        self._waiting = ends, told
        begun = time.perf_counter()
        self._executor.give([order])
        await told
        self._ours[deed].append(1e3 * (time.perf_counter() - begun))

    def _told(self, observation: Observation) -> None:
        if self._waiting is None:
            return
        ends, told = self._waiting
        why = observation.refused or (observation.reason if observation.seen is Seen.FAILED else "")
        if why or ends(observation):
            self._waiting = None
            told.callback(None) if not why else told.errback(RuntimeError(why))


class _Script:
    """The same calls, without us."""

    def __init__(self, uri: str, directory: Path) -> None:
        self._connection = libvirt.open(uri)
        self._directory = directory
        self._share = SHARE
        self._blank = directory / "blank.qcow2"
        image = str(directory / "images" / IMAGE)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image, str(self._blank)], check=True)
        self._image = image

    def close(self) -> None:
        """Let go of libvirt."""
        self._connection.close()

    def prepared(self, order: Start) -> dict[str, Callable[[], None]]:
        """What the script does, each with its text made already."""
        overlay = self._directory / "bare" / order.uuid / "0.qcow2"
        disk = AttachedDisk(path=str(overlay), format="qcow2", base=self._image, base_format="raw")
        console = self._directory / "bare" / f"{order.name}.log"
        text = domain_xml(order, cell=CELL, kind="qemu", disks=[disk], bridges={}, console=str(console), secret="bench")

        def create() -> None:
            overlay.parent.mkdir(parents=True)
            shutil.copyfile(self._blank, overlay)
            self._connection.defineXML(text).create()

        def adapt() -> None:
            domain = self._connection.lookupByUUIDString(order.uuid)
            self._share += 1
            for where in (libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG):
                domain.setSchedulerParametersFlags({"cpu_shares": self._share}, where)

        def destroy() -> None:
            domain = self._connection.lookupByUUIDString(order.uuid)
            domain.destroy()
            domain.undefine()
            shutil.rmtree(overlay.parent)
            console.unlink(missing_ok=True)

        return {"create": create, "adapt": adapt, "destroy": destroy}


def _milliseconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begun)
