"""O1 on a real cell: the records go back in time, and nobody gets what is another's."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cells import RunningCell, running_cell, until

pytestmark = pytest.mark.integration


def _rows(cell: RunningCell, *words: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(cell.cli(*words, "-o", "json"))
    return rows


def _create(cell: RunningCell, name: str, owner: str) -> dict[str, Any]:
    words = ("--name", name, "--userId", owner, "--disks", "tashi", "--memory", "128", "--wait")
    return _rows(cell, "createVm", *words)[0]


def test_o1_a_restored_backup_gives_nobody_another_ones_vm(tmp_path: Path) -> None:
    """O1: root's VM, made after the backup, is a stray; alice's next one has a new id and domain; the stray becomes root's again."""
    with running_cell("--hosts", "1", "--hypervisor", "test") as cell:
        backup = tmp_path / "backup"
        cell.cli("db", "backup", str(backup))
        mine = _create(cell, "roots", "root")
        number = cell.pid("manager")
        os.kill(number, signal.SIGTERM)
        until(lambda: Path(f"/proc/{number}").exists(), lambda there: not there, 30)
        cell.cli("db", "restore", str(backup))
        cell.start()
        (stray,) = until(lambda: _rows(cell, "getStrays"), lambda rows: len(rows) == 1, 60)
        assert (stray["id"], stray["name"], stray["user"], stray["memory"]) == (mine["id"], "roots", "root", 128)
        hers = _create(cell, "alices", "alice")
        assert hers["id"] != mine["id"] and hers["state"] == "Running"
        (host,) = _rows(cell, "getHosts")
        assert host["strays"] == {"count": 1, "memory": 128, "cores": 1}
        cell.cli("destroyVm", "--instance", str(hers["id"]), "--wait")
        assert [row["id"] for row in _rows(cell, "getStrays")] == [mine["id"]]
        (adopted,) = _rows(cell, "adoptVm", "--host", host["name"], "--instance", str(mine["id"]))
        assert (adopted["id"], adopted["name"], adopted["state"], adopted["user"]) == (mine["id"], "roots", "Running", "root")
        assert _rows(cell, "getStrays") == []
        cell.cli("destroyVm", "--instance", "roots", "--wait")
        assert cell.instances() == []
