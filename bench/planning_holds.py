"""How long planning holds the reactor: 5,000 hosts, 30,000 instances that run, and what thousands more that come at once do.

The cell is a real cluster manager on a new database; its hosts take what they are told and say nothing. Each scene is a process of its
own, in which a call that comes back with every turn of the reactor looks how long the turns are. The figure is the longest one, by the
wall's clock and by the processor time of the reactor's thread: the first counts what other processes and the planning thread took, too.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from bench.figures import Figure

HOSTS: Final = 5_000
INSTANCES: Final = 30_000
RUNS: Final = 3
GOAL: Final = 20.0
MILLISECONDS: Final = 1_000
SCENES: Final = {
    "nothing to do": "quiet",
    "createMany of 1,000": "create",
    "10,000 placed": "place",
    "10,000 that fit nowhere": "wait",
    "every host tells what it uses": "statistics",
}


class Turns:
    """Looks how long the reactor's turns are."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._wall = self._processor = 0.0
        self.longest = (0.0, 0.0)
        """Seconds by the wall's clock, and of the reactor's own processor time."""
        self._call: Any = None

    def begin(self) -> None:
        """Look from now on."""
        self.longest = (0.0, 0.0)
        self._wall, self._processor = time.perf_counter(), time.thread_time()
        self._call = self._reactor.callLater(0, self._turn)

    def end(self) -> None:
        """Look no more."""
        self._call.cancel()

    def _turn(self) -> None:
        wall, processor = time.perf_counter(), time.thread_time()
        self.longest = (max(self.longest[0], wall - self._wall), max(self.longest[1], processor - self._processor))
        self._wall, self._processor = time.perf_counter(), time.thread_time()
        self._call = self._reactor.callLater(0, self._turn)


def run() -> list[Figure]:
    """The longest turn of each scene."""
    figures = []
    for name, scene in SCENES.items():
        asked = [
            subprocess.run([sys.executable, "-m", "bench.planning_holds", scene], check=True, capture_output=True, text=True)
            for _ in range(RUNS)
        ]
        runs = [json.loads(one.stdout) for one in asked]
        goal = GOAL if scene in ("create", "place", "wait", "statistics") else None
        figures.append(Figure(name=f"longest turn, {name}", unit="ms", runs=[one["wall"] for one in runs], goal=goal))
        figures.append(Figure(name=f"its processor time, {name}", unit="ms", runs=[one["processor"] for one in runs], goal=goal))
        figures.append(Figure(name=f"until it is done, {name}", unit="s", runs=[one["seconds"] for one in runs]))
    return figures


def _scene(name: str) -> dict[str, float]:
    """Play one scene in this process."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    outcome: dict[str, float] = {}

    async def play() -> None:
        manager = await _manager(reactor)
        turns = Turns(reactor)
        await _seconds(reactor, 1.0)
        turns.begin()
        await _seconds(reactor, 0.2)
        begun = time.perf_counter()
        await _PLAYS[name](reactor, manager)
        outcome["seconds"] = time.perf_counter() - begun
        turns.end()
        outcome["wall"], outcome["processor"] = (MILLISECONDS * one for one in turns.longest)

    def end(result: object) -> None:
        reactor.stop()  # type: ignore[attr-defined]
        if result is not None:
            print(result, file=sys.stderr)

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(play()).addBoth(end))  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]
    return outcome


async def _manager(reactor: Any) -> Any:
    from twisted.internet.threads import deferToThreadPool
    from twisted.python.threadpool import ThreadPool

    from bench.clusters import cluster
    from tashi.images.directory import ImageDirectory
    from tashi.interfaces import Change
    from tashi.manager.service import ClusterManager
    from tashi.manager.settings import ManagerSettings
    from tashi.model.user import User
    from tashi.store.sqlite import SQLiteStore

    sys.setswitchinterval(0.0005)  # as the control plane has it
    there = cluster(1, HOSTS, INSTANCES)
    store = SQLiteStore(reactor, ":memory:")
    await store.load()
    rows = [Change("hosts", host.id, host) for host in there.hosts.values()]
    rows += [Change("instances", one.id, one) for group in there.placed.values() for one in group]
    rows += [Change("users", 1000, User(id=1000, name="alice")), Change("counters", "instance", INSTANCES)]
    await store.commit(rows)
    pool = ThreadPool(0, 1)
    pool.start()
    reactor.addSystemEventTrigger("during", "shutdown", pool.stop)
    images = ImageDirectory("/nowhere")
    images.resolve = lambda identifier: identifier  # type: ignore[method-assign]
    manager = ClusterManager(
        reactor,
        store,
        images,
        ManagerSettings(expire_host_time=1e9),
        join_secret="join".ljust(32, "!"),
        version="1",
        publishing=False,
        in_thread=lambda work: deferToThreadPool(reactor, pool, work),
    )
    await manager.open()
    with manager.cluster.transaction("hosts_are_up") as tx:
        for host in list(manager.cluster.hosts.values()):
            tx.put_host(msgspec.structs.replace(host, up=True, decayed=False))
    manager.startService()
    await _seconds(reactor, 0.5)
    manager.picture.whole()
    gc.collect()
    gc.freeze()
    return manager


async def _quiet(reactor: Any, manager: Any) -> None:
    await _seconds(reactor, 3.0)


async def _create(reactor: Any, manager: Any) -> None:
    from tashi.model.user import Principal

    wanted = [{"name": f"new-{number}", "userId": 1000, "disks": [{"uri": "tashi.img"}], "memory": 1024} for number in range(1_000)]
    await manager.verbs.call(Principal(name="root", user_id=0, admin=True), "createMany", {"instances": wanted})
    await _until(reactor, lambda: not manager.cluster.pending)


async def _place(reactor: Any, manager: Any) -> None:
    await _ask_for(reactor, manager, {})
    await _until(reactor, lambda: not manager.cluster.pending)


async def _wait(reactor: Any, manager: Any) -> None:
    await _ask_for(reactor, manager, {"location": "nowhere"})
    cluster = manager.cluster
    await _until(reactor, lambda: all(cluster.instances[number].reason for number in (min(cluster.pending), max(cluster.pending))))


async def _statistics(reactor: Any, manager: Any) -> None:
    """The statistics of all hosts come in small portions, and a plan follows."""
    from tashi.model.statistics import InstanceUse, Statistics

    cluster = manager.cluster
    for number, host in enumerate(list(cluster.hosts.values())):
        uses = tuple(InstanceUse(instance_id=one, cpu=50.0) for one in cluster.on_host.get(host.id, ()))
        manager.usage.take(host, Statistics(interval=60.0, seconds=60.0, instances=uses))
        if number % 20 == 0:
            await _seconds(reactor, 0)
    await _seconds(reactor, 1.1)
    await _create(reactor, manager)


async def _ask_for(reactor: Any, manager: Any, hints: dict[str, str]) -> None:
    """Ten thousand more, in portions that hold nobody up; the first kick comes with the last of them."""
    from tashi.model.instance import Disk, Instance

    for _ in range(100):
        with manager.cluster.transaction("more") as tx:
            for _ in range(100):
                number = tx.next_id("instance")
                tx.put_instance(
                    Instance(id=number, name=f"new-{number}", user_id=1000, disks=(Disk(uri="tashi.img"),), memory=1024, hints=hints)
                )
        await _seconds(reactor, 0)


_PLAYS: Final[dict[str, Callable[[Any, Any], Awaitable[None]]]] = {
    "quiet": _quiet,
    "create": _create,
    "place": _place,
    "wait": _wait,
    "statistics": _statistics,
}


async def _seconds(reactor: Any, seconds: float) -> None:
    from twisted.internet.task import deferLater

    await deferLater(reactor, seconds)


async def _until(reactor: Any, true: Callable[[], bool]) -> None:
    while not true():
        await _seconds(reactor, 0.02)


if __name__ == "__main__":
    print(json.dumps(_scene(sys.argv[1])))
