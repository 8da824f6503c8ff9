"""Sixteen guests on three hosts: all moved, one host emptied, cut off from power and brought back, and the list is true all the time."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.cells import RunningCell, until

pytestmark = pytest.mark.integration
COUNT = 16
HALTS = b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
"""A boot sector that only halts: sixteen guests of it leave the machine idle."""


@contextmanager
def watched(cell: RunningCell) -> Iterator[None]:
    """Look at the list again and again while the block runs: always the same instances, each once, and each on a host of the cell."""
    expected = sorted(row["id"] for row in fleet(cell))
    hosts = {host["name"] for host in cell.description["hosts"]}
    wrong: list[Any] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            rows = fleet(cell)
            if sorted(row["id"] for row in rows) != expected or not {row["host"] for row in rows} <= hosts:
                wrong.append(rows)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert wrong == []


def fleet(cell: RunningCell) -> list[dict[str, Any]]:
    """The rows of the instances of this test."""
    return [row for row in cell.instances() if row["name"].startswith("ship-")]


def places(cell: RunningCell) -> dict[str, list[str]]:
    """The domains of each host as plain virsh sees them; of a host that is off, none."""
    return {host["name"]: [name for name in domains(cell, host["name"]) if "-ship-" in name] for host in cell.description["hosts"]}


def domains(cell: RunningCell, host: str) -> list[str]:
    try:
        return cell.domains(host)
    except subprocess.CalledProcessError:  # it is off
        return []


def is_true(cell: RunningCell) -> bool:
    """Whether every instance runs, on the host that the list says, and nowhere else."""
    rows = fleet(cell)
    found = {(host, name) for host, names in places(cell).items() for name in names}
    return found == {(row["host"], f"tashi-{row['id']}-{row['name']}") for row in rows} and {row["state"] for row in rows} == {"Running"}


def test_sixteen_guests_are_moved_drained_and_survive_the_loss_of_an_empty_host(three_hosts: RunningCell) -> None:
    """Every instance runs exactly once, where the list says, after each step."""
    cell = three_hosts
    (cell.state_dir / "share" / "images" / "halts.img").write_bytes(HALTS)
    cell.cli("createMany", "--basename", "ship", "--disks", "halts.img", "--count", str(COUNT), "--memory", "64", "--wait")
    assert is_true(cell) and len(fleet(cell)) == COUNT
    names = sorted(host["name"] for host in cell.description["hosts"])
    with watched(cell):
        for row in fleet(cell):  # all at once: they take turns by themselves
            onwards = names[(names.index(row["host"]) + 1) % len(names)]
            cell.cli("migrateVm", "--instance", str(row["id"]), "--dst", onwards)
        until(lambda: is_true(cell), bool, 120)
    with watched(cell):
        before = [row["id"] for row in fleet(cell) if row["host"] == "node2"]
        moved = json.loads(cell.cli("drainHost", "--host", "node2", "--wait", "-o", "json"))
        assert sorted(row["id"] for row in moved) == sorted(before) != []
        until(lambda: is_true(cell), bool, 10)  # what has moved runs a moment before its former host has let go of it
        assert places(cell)["node2"] == []
    with watched(cell):
        cell.power_cut("node2")
        until(lambda: host_row(cell, "node2"), lambda row: not row["up"], 30)
        assert is_true(cell)
        cell.boot("node2")
        until(lambda: host_row(cell, "node2"), lambda row: row["up"] and not row["decayed"], 60)
        assert host_row(cell, "node2")["state"] == "Drained"
        cell.cli("setHostState", "--host", "node2", "--state", "Normal")
        cell.cli("migrateVm", "--instance", "ship-00", "--dst", "node2", "--wait")
        until(lambda: is_true(cell), bool, 10)
        assert len(places(cell)["node2"]) == 1
    cell.cli("destroyMany", "--basename", "ship", "--wait")
    assert set(map(len, places(cell).values())) == {0}


def host_row(cell: RunningCell, name: str) -> dict[str, Any]:
    """The host's row of getHosts."""
    rows: list[dict[str, Any]] = json.loads(cell.cli("getHosts", "-o", "json"))
    return next(row for row in rows if row["name"] == name)
