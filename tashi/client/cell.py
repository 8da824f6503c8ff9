"""A cell as a program talks to it: each verb is a coroutine that returns rows of plain data, or raises.

TashiError carries what the control plane answered (its ``code`` says what kind), CannotReach that it did not answer.
The names and arguments are those of the command line; disks, nics and hints may be given as its texts or as plain data.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from tashi.client import arguments
from tashi.model.instance import DEFAULT_CPU_SHARE

Row = dict[str, Any]
Disks = str | Sequence[Mapping[str, Any]]
Nics = str | Sequence[Mapping[str, Any]]
Hints = str | Mapping[str, str]

CALL_SECONDS = 60.0
"""How long an answer may take; waitFor may take its own time besides."""

MOST_WAITED = 1000
"""Instances that one call may wait for."""


class Calls(Protocol):
    """Something that carries one verb to the control plane and its result back."""

    def call(self, verb: str, content: Mapping[str, Any], seconds: float) -> Awaitable[Any]:
        """The result of the verb, within this many seconds."""


class Cell:
    """The verbs of one cell, over a link that is logged in."""

    def __init__(self, link: Calls) -> None:
        self._link = link

    async def _call(self, verb: str, seconds: float = CALL_SECONDS, **content: Any) -> Any:
        return await self._link.call(verb, content, seconds)

    async def createVm(
        self,
        name: str,
        disks: Disks,
        userId: str | int | None = None,
        cores: int = 1,
        memory: int = 128,
        nics: Nics | None = None,
        hints: Hints | None = None,
        cpuShare: int = DEFAULT_CPU_SHARE,
        diskIops: int | None = None,
        diskBytes: int | None = None,
    ) -> list[Row]:
        """Wish for one instance, memory in MB; without ``nics`` it gets one on the default network."""
        owner = arguments.reference(userId) if userId is not None else None
        wish = _wish(name, disks, owner, cores, memory, nics, hints, cpuShare) | _said(diskIops=diskIops, diskBytes=diskBytes)
        return [await self._call("createVm", **wish)]

    async def createMany(
        self,
        basename: str,
        disks: Disks,
        count: int,
        userId: str | int | None = None,
        cores: int = 1,
        memory: int = 128,
        nics: Nics | None = None,
        hints: Hints | None = None,
        cpuShare: int = DEFAULT_CPU_SHARE,
        diskIops: int | None = None,
        diskBytes: int | None = None,
    ) -> list[Row]:
        """Wish for ``count`` instances basename-0, basename-1, ..., all or none; each network card gets a MAC of its own."""
        owner = arguments.reference(userId) if userId is not None else None
        cards = arguments.nics(nics) if nics is not None else [{}]
        wishes = [
            _wish(name, disks, owner, cores, memory, [{**card, "mac": arguments.random_mac()} for card in cards], hints, cpuShare)
            | _said(diskIops=diskIops, diskBytes=diskBytes)
            for name in many_names(basename, count)
        ]
        return list(await self._call("createMany", instances=wishes))

    async def destroyVm(self, instance: str | int) -> list[Row]:
        """Destroy the instance; the row is its last one."""
        return [await self._call("destroyVm", instance=arguments.reference(instance))]

    async def destroyMany(self, basename: str) -> list[Row]:
        """Destroy all instances that createMany made with this basename."""
        return list(await self._call("destroyMany", basename=basename))

    async def pauseVm(self, instance: str | int) -> list[Row]:
        """Let a running instance stand still."""
        return [await self._call("pauseVm", instance=arguments.reference(instance))]

    async def unpauseVm(self, instance: str | int) -> list[Row]:
        """Let a paused instance go on."""
        return [await self._call("unpauseVm", instance=arguments.reference(instance))]

    async def shutdownVm(self, instance: str | int) -> list[Row]:
        """Press the instance's power button; its guest ends it, or not."""
        return [await self._call("shutdownVm", instance=arguments.reference(instance))]

    async def shutdownMany(self, basename: str) -> list[Row]:
        """Press the power button of all instances that createMany made with this basename."""
        return list(await self._call("shutdownMany", basename=basename))

    async def suspendVm(self, instance: str | int) -> list[Row]:
        """Keep the instance's memory in the shared directory, and free its host."""
        return [await self._call("suspendVm", instance=arguments.reference(instance))]

    async def resumeVm(self, instance: str | int) -> list[Row]:
        """Let a suspended instance go on, on whichever host has room."""
        return [await self._call("resumeVm", instance=arguments.reference(instance))]

    async def migrateVm(self, instance: str | int, dst: str | int) -> list[Row]:
        """Move a running instance to the host ``dst`` while it runs."""
        return [await self._call("migrateVm", instance=arguments.reference(instance), dst=arguments.reference(dst))]

    async def drainHost(self, host: str | int) -> list[Row]:
        """Let the host take nothing new, and move what runs there elsewhere; the rows are the instances it still has."""
        return list(await self._call("drainHost", host=arguments.reference(host)))

    async def unregisterHost(self, hostId: str | int) -> list[Row]:
        """Forget a host that is down, or while it has instances only the secret of its agent, so that a new agent may join."""
        return [await self._call("unregisterHost", hostId=arguments.reference(hostId))]

    async def setHostState(self, host: str | int, state: str) -> list[Row]:
        """Normal: the host takes instances; Drained: it takes none."""
        return [await self._call("setHostState", host=arguments.reference(host), state=state)]

    async def powerOff(self, host: str | int) -> list[Row]:
        """Switch off a host that holds nothing."""
        return [await self._call("powerOff", host=arguments.reference(host))]

    async def powerOn(self, host: str | int) -> list[Row]:
        """Switch on a host that was powered off."""
        return [await self._call("powerOn", host=arguments.reference(host))]

    async def adaptCpuShare(self, instance: str | int, share: int) -> list[Row]:
        """Weigh the instance's CPU time anew, 2 to 262144."""
        return [await self._call("adaptCpuShare", instance=arguments.reference(instance), share=share)]

    async def adaptMemoryLimit(self, instance: str | int, limit: int) -> list[Row]:
        """Let the guest use so many MB of the memory it was made with."""
        return [await self._call("adaptMemoryLimit", instance=arguments.reference(instance), limit=limit)]

    async def adaptDiskBandwidth(
        self, instance: str | int, weight: int | None = None, iops: int | None = None, bytes: int | None = None
    ) -> list[Row]:
        """Weigh the instance's disk time anew, 100 to 1000; limit what each disk does in a second. 0: no limit; None: as it is."""
        reference = arguments.reference(instance)
        return [await self._call("adaptDiskBandwidth", instance=reference, weight=weight, iops=iops, bytes=bytes)]

    async def adaptNetworkBandwidth(self, instance: str | int, downspeed: int | None = None, upspeed: int | None = None) -> list[Row]:
        """Limit what the instance receives and sends, in kbit/s; 0: no limit; None: as it is."""
        reference = arguments.reference(instance)
        return [await self._call("adaptNetworkBandwidth", instance=reference, downspeed=downspeed, upspeed=upspeed)]

    async def vmmSpecificCall(self, instance: str | int, arg: str) -> list[Row]:
        """A command to the instance's hypervisor; ``list`` names those there are. The answer is the row's ``text``."""
        answer = await self._call("vmmSpecificCall", instance=arguments.reference(instance), arg=arg)
        return [{"instance": instance, "text": answer}]

    async def getInstances(self) -> list[Row]:
        """All instances of the cell, sorted by id."""
        return list(await self._call("getInstances"))

    async def getMyInstances(self) -> list[Row]:
        """The caller's own instances."""
        me = (await self._call("whoami"))["userId"]
        return [row for row in await self.getInstances() if row["userId"] == me]

    async def getHosts(self) -> list[Row]:
        """All hosts of the cell, sorted by id."""
        return list(await self._call("getHosts"))

    async def getUsers(self) -> list[Row]:
        """All users of the cell, sorted by id."""
        return list(await self._call("getUsers"))

    async def getImages(self) -> list[Row]:
        """All images of the cell, sorted by id."""
        return list(await self._call("getImages"))

    async def getSlots(self, cores: int = 1, memory: int = 128) -> list[Row]:
        """How many instances of this size (memory in MB) would fit on the hosts that are up and Normal."""
        layout = await self.getVmLayout()
        slots = sum(
            max(0, min((row["cores"] - row["usedCores"]) // cores, (row["memory"] - row["usedMemory"]) // memory))
            for row in layout
            if row["up"] and row["state"] == "Normal"
        )
        return [{"slots": slots, "cores": cores, "memory": memory}]

    async def getVmLayout(self) -> list[Row]:
        """The hosts, each with the names of its instances and what they use of it; usedCpu: MHz in use or reserved."""
        hosts = {row["id"]: {**row, "instances": [], **_taken_by_strays(row), "usedCpu": 0} for row in await self.getHosts()}
        for instance in await self.getInstances():
            host = hosts.get(instance["hostId"])
            if host is not None:
                host["instances"].append(instance["name"])
                host["usedMemory"] += instance.get("maxMemory", instance["memory"])
                host["usedCores"] += instance["cores"]
                used = (instance.get("stats") or {}).get("cpuUsage") or 0
                host["usedCpu"] += max(used, instance["cores"] * (instance.get("cpuSpeed") or 0))
        return list(hosts.values())

    async def getStrays(self) -> list[Row]:
        """The domains on hosts of the cell that no record accounts for, sorted by id; for administrators."""
        return list(await self._call("getStrays"))

    async def adoptVm(
        self, host: str | int, instance: int, name: str | None = None, user: str | int | None = None
    ) -> list[Row]:
        """Make a record of a stray, under the id that it has; ``name`` and ``user`` in place of what its host says."""
        owner = None if user is None else arguments.reference(user)
        where = arguments.reference(host)
        return [await self._call("adoptVm", host=where, instance=instance, name=name, user=owner)]

    async def destroyStray(self, host: str | int, instance: int) -> list[Row]:
        """End a stray and remove its throw-away disks."""
        return [await self._call("destroyStray", host=arguments.reference(host), instance=instance)]

    async def setHostConfig(self, hostId: str | int, elemName: str, value: str) -> list[Row]:
        """Set one element of a host's configuration, such as its location."""
        return [await self._call("setHostConfig", hostId=arguments.reference(hostId), elemName=elemName, value=value)]

    async def registerUser(
        self, name: str, passwd: str | None = None, priority: int = 0, userId: int | None = None, jid: str | None = None
    ) -> list[Row]:
        """Register a user; the same call again with equal content changes nothing."""
        return [await self._call("registerUser", name=name, passwd=passwd, priority=priority, userId=userId, jid=jid)]

    async def unregisterUser(self, userId: str | int) -> list[Row]:
        """Remove a user who has no instances."""
        answer = await self._call("unregisterUser", userId=arguments.reference(userId))
        return [answer] if answer else []

    async def explain(self, instance: str | int) -> list[Row]:
        """Why the instance is where it is, or why it is nowhere; the words are the row's ``text``."""
        return [{"instance": instance, "text": await self._call("explain", instance=arguments.reference(instance))}]

    async def snapshot(self) -> str:
        """The cluster as a scheduler sees it now, as text: `tashi.scheduling.text.reading.read` makes a snapshot of it."""
        return str((await self._call("snapshot"))["text"])

    async def plan(self, apply: bool = False) -> Row:
        """What the scheduler would do now: ``lines`` for people, ``actions`` for programs; with ``apply`` it is done, moves included."""
        return dict(await self._call("plan", apply=apply))

    async def openConsole(self, instance: str | int, force: bool = False) -> Row:
        """Sit down at the serial console of a running instance: its ``id`` and the ``session`` that the other calls about it need."""
        return dict(await self._call("openConsole", instance=arguments.reference(instance), force=force))

    async def readConsole(self, instance: str | int, session: str) -> Row:
        """``data`` that the guest said since the last time, as soon as it says something; ``missed`` bytes before it; why it ``ended``."""
        answer = await self._call("readConsole", instance=instance, session=session)
        return {**answer, "data": base64.b64decode(answer["data"])}

    async def writeConsole(self, instance: str | int, session: str, data: bytes) -> None:
        """Type this, at most 4 KiB, one call after another."""
        await self._call("writeConsole", instance=instance, session=session, data=base64.b64encode(data).decode())

    async def closeConsole(self, instance: str | int, session: str) -> None:
        """Leave the console."""
        await self._call("closeConsole", instance=instance, session=session)

    async def readConsoleLog(self, instance: str | int, offset: int = 0) -> bytes:
        """A page of what the instance's console has ever said, from this byte on; empty where it ends."""
        answer = await self._call("readConsoleLog", instance=arguments.reference(instance), offset=offset)
        return base64.b64decode(answer["data"])

    async def status(self) -> Row:
        """How the cell is: ``healthy``, ``lines`` and ``warnings`` for people, and the data of each part."""
        return dict(await self._call("status"))

    async def whoami(self) -> list[Row]:
        """As whom the control plane knows the caller."""
        return [await self._call("whoami")]

    async def waitFor(self, ids: Sequence[int], until: str, timeout: float = 300.0) -> list[Row]:
        """One row an instance (id, ok, state, reason), when all are ``until`` (such as "Running" or "gone"), failed, or out of time."""
        wanted, rows = list(dict.fromkeys(ids)), []
        end = time.monotonic() + timeout
        for start in range(0, max(1, len(wanted)), MOST_WAITED):
            part, left = wanted[start : start + MOST_WAITED], max(0.0, end - time.monotonic()) if start else timeout
            rows += await self._call("waitFor", CALL_SECONDS + left, ids=part, until=until, timeout=left)
        return rows


def _taken_by_strays(host: Row) -> Row:
    strays = host.get("strays") or {}
    return {"usedMemory": strays.get("memory", 0), "usedCores": strays.get("cores", 0)}


def many_names(basename: str, count: int) -> list[str]:
    """The names createMany gives, numbered from 0 and padded with zeros to one width."""
    width = len(str(count - 1))
    return [f"{basename}-{number:0{width}}" for number in range(count)]


@asynccontextmanager
async def connect(reactor: Any = None, *, socket: str | None = None, seconds: float | None = None) -> AsyncIterator[Cell]:
    """The cell behind the unix socket (by default the configured one), for as long as the block lasts.

    CannotReach when nobody answers within ``seconds`` (by default [Client] clusterManagerTimeout); TashiError(forbidden) when the
    caller is not known there; YourMistake when the configuration is wrong.
    """
    if socket is None:
        socket, configured_seconds = _configured()
        seconds = seconds or configured_seconds
    from tashi.client.link import open_link  # here, because Twisted is most of the start-up and `--help` needs none of it

    if reactor is None:
        from twisted.internet import reactor
    link = await open_link(reactor, socket, seconds or 5.0)
    try:
        yield Cell(link)
    finally:
        link.close()


def _configured() -> tuple[str, float]:
    """The socket of the control plane, the caller's own before the system's, and the longest wait for it in seconds."""
    from tashi.config import load

    config = load(("Client",))
    sockets = [str(path) for path in config.client_sockets]
    # os.path.exists, unlike Path.exists, calls a directory that is closed to us a missing socket: connecting then says why.
    return next(filter(os.path.exists, sockets), sockets[0]), config.client.cluster_manager_timeout


def _said(**limits: int | None) -> dict[str, Any]:
    return {name: limit for name, limit in limits.items() if limit is not None}


def _wish(
    name: str, disks: Disks, owner: str | int | None, cores: int, memory: int, nics: Nics | None, hints: Hints | None, cpu_share: int
) -> dict[str, Any]:
    return {
        "name": name,
        "userId": owner,
        "disks": arguments.disks(disks),
        "cores": cores,
        "memory": memory,
        "nics": arguments.nics(nics) if nics is not None else [{"ip": None, "mac": arguments.random_mac()}],
        "hints": arguments.hints(hints) if hints is not None else {},
        "cpuShare": cpu_share,
    }
