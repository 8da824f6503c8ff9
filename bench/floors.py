"""The floors: what libvirt, Prosody and SQLite do by themselves on this machine, with things of the size that a flood moves."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.cell import createcompute
from bench.peer import message, online
from tashi.model.instance import Disk
from tashi.model.orders import Start

DOMAINS: Final = 1000
ROUND_TRIPS: Final = 1000
COMMITS: Final = 500
CELL: Final = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
REPLY: Final = (
    '{"status":"OK","resources":["flood0000"],"verb":"createcompute","resourceId":"key-flood0000","ids":[1000],'
    '"provisioningSystemId":1000,"state":"Running","host":"node1","timestamp":"2026-01-02T03:04:05.678Z"}'
)


def libvirt_creates(node_file: Path) -> float:
    """Domains like ours that a bare script creates in a second on a test host of its own."""
    import libvirt

    from tashi.node.domain.xml import AttachedDisk, domain_xml

    disks = [AttachedDisk(path="/nowhere/tashi.img", format="raw")]

    def text(number: int) -> str:
        order = Start(
            instance_id=number, generation=1, name=f"flood{number:04}", uuid=f"6ba7b810-9dad-11d1-80b4-{number:012x}",
            cores=1, memory=512, disks=(Disk(uri="tashi.img"),),
        )  # fmt: skip
        return domain_xml(order, cell=CELL, kind="test", disks=disks, bridges={}, console="/nowhere/console.log", secret="bench")

    texts = [text(number + 1) for number in range(DOMAINS)]
    connection = libvirt.open(f"test://{node_file}")
    try:
        begun = time.perf_counter()
        for one in texts:
            connection.createXML(one)
        return DOMAINS / (time.perf_counter() - begun)
    finally:
        connection.close()


def prosody_round_trips(facts: dict[str, Any]) -> float:
    """Messages of a flood's size answered in a second by a client that only echoes, all in the pipe at once."""
    return asyncio.run(_round_trips(facts))


async def _round_trips(facts: dict[str, Any]) -> float:
    async with online(facts, "ism", "there") as asking, online(facts, "alice", "back") as answering:
        questions = b"".join(message(answering.full, createcompute(f"floor{number:04}"), number) for number in range(ROUND_TRIPS))
        answers = [message(asking.full, REPLY, number) for number in range(ROUND_TRIPS)]
        answered = 0
        loop = asyncio.get_running_loop()

        def answer() -> None:
            nonlocal answered
            new, answered = answers[answered : answering.count], answering.count
            loop.create_task(answering.send(b"".join(new)))

        answering.on_message = answer
        begun = time.perf_counter()
        await asking.send(questions)
        await asking.until(ROUND_TRIPS)
        return ROUND_TRIPS / (time.perf_counter() - begun)


def sqlite_commits() -> float:
    """Commits of one row in a second, each on the disk, by a bare script."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        connection = sqlite3.connect(f"{directory}/floor.sqlite", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, record TEXT)")
        begun = time.perf_counter()
        for number in range(COMMITS):
            connection.execute("INSERT INTO rows VALUES (?, ?)", (number, REPLY))
        seconds = time.perf_counter() - begun
        connection.close()
        return COMMITS / seconds
