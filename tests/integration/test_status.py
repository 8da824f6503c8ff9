"""`tashi status` of a real cell: healthy, degraded, away; and a recipient that does not exist."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.integration.cells import RunningCell, running_cell, until


def _status(cell: RunningCell, *words: str) -> tuple[int, str]:
    environment = os.environ | {"TASHI_CONF": cell.description["conf"]}
    command = [sys.executable, "-m", "tashi.client", "status", *words]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    return run.returncode, run.stdout


def _read(cell: RunningCell) -> dict[str, Any]:
    code, out = _status(cell, "-o", "json")
    (status,) = json.loads(out)
    assert code == (0 if status["healthy"] else 1)
    return status


def test_o6_a_cell_is_healthy_degraded_and_away() -> None:
    """O6: exit 0 while all is well, 1 with the host's name when an agent is killed, 5 when the control plane is."""
    with running_cell("--hypervisor", "test", "--hosts", "2", "--set", "ClusterManagerService.expireHostTime=4") as cell:
        until(lambda: _read(cell)["healthy"], bool, 30)
        code, text = _status(cell)
        assert code == 0, text
        assert {line.partition(":")[0] for line in text.splitlines()} >= {
            "version", "hosts", "instances", "queues", "outbox", "store", "xmpp", "audit", "healthy",
        }  # fmt: skip
        status = _read(cell)
        assert (status["xmpp"]["connected"], status["hosts"]["up"], status["store"]["kind"]) == (True, 2, "sqlite")
        cell.kill("nodes", "node1")
        status = until(lambda: _read(cell), lambda status: status["hosts"]["down"] == 1, 30)
        assert any(warning.startswith("host node1 is down") for warning in status["warnings"])
        cell.kill("manager")
        assert _status(cell)[0] == 5


def test_d4_a_recipient_that_does_not_exist_is_told() -> None:
    """D4: events to a mistyped address bounce: one line in the log, counted in the status, and the cell is degraded."""
    with running_cell("--hypervisor", "test", "--set", "XMPP.recipient=llms@cell.test, llmss@cell.test") as cell:
        status = until(lambda: _read(cell), lambda status: status["xmpp"]["bounces"], 30)
        assert status["xmpp"]["bounces"].keys() == {"llmss@cell.test"}
        assert any(warning.startswith("llmss@cell.test does not take what is sent to it") for warning in status["warnings"])
        log = (cell.state_dir / "log" / "manager.log").read_text()
        assert log.count("does not take what is sent to it") == 1
