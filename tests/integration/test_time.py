"""A whole cell on real clocks: its time of day jumps by an hour (Debian's faketime), and its control plane is stopped for a while."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.integration.cells import RunningCell, compute, running_cell, until

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
EARLY = ("--set", "ClusterManagerService.expireHostTime=6", "--set", "NodeManagerService.registerFrequency=1")


class TimeOfDay:
    """What the processes take for the time of day: the true one and an offset. Their monotonic clock stays true."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.variables = {
            "LD_PRELOAD": str(LIBRARY),
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_TIMESTAMP_FILE": str(file),
        }
        self.set(0)

    def set(self, offset: int) -> None:
        """Jump to this many seconds from the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+d}\n")
        new.replace(self._file)

    def restart(self, cell: RunningCell, *process: str) -> subprocess.Popen[bytes]:
        """Kill a process of the cell and start it again, believing this."""
        directory = Path(f"/proc/{cell.pid(*process)}")
        command = (directory / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        variables = dict(entry.split(b"=", 1) for entry in (directory / "environ").read_bytes().split(b"\0") if b"=" in entry)
        variables |= {name.encode(): value.encode() for name, value in self.variables.items()}
        where, log = (directory / "cwd").readlink(), (directory / "fd" / "1").readlink()
        cell.kill(*process)
        with log.open("ab") as output:
            return subprocess.Popen(command, env=variables, cwd=where, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _seconds(time_of_day: TimeOfDay, clock: str) -> float:
    """What a process that believes it reads from a clock of Python's."""
    environment = os.environ | time_of_day.variables
    script = f"import time; print(time.{clock}())"
    return float(subprocess.run(["python3", "-c", script], env=environment, capture_output=True, text=True, check=True).stdout)


def _all_steady(cell: RunningCell, names: Sequence[str]) -> bool:
    rows = cell.hosts()
    return all(rows[name]["up"] and not rows[name]["decayed"] for name in names)


def _is_start(message: Any) -> bool:
    event = json.loads(message["body"])
    return event["type"] == "vmAction" and event["to"] == "Running"


async def _stays_steady(cell: RunningCell, names: Sequence[str], seconds: float) -> None:
    """No host is down or decayed at any look."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert _all_steady(cell, names), f"{cell.hosts()}\n{cell.logs()}"
        await asyncio.sleep(0.3)


def test_h5_a_jump_of_an_hour_either_way(tmp_path: Path) -> None:
    """H5, A10: over each jump hosts stay up and speak, a create is answered within its limit, and a host that dies is missed in time."""
    assert LIBRARY is not None, "install the Debian package faketime"
    time_of_day = TimeOfDay(tmp_path / "faketime")
    with running_cell("--hypervisor", "test", "--hosts", "3", *EARLY, "--set", "XMPP.provisionTimeout=8") as cell:
        names = sorted(cell.hosts())
        agents = {name: time_of_day.restart(cell, "nodes", name) for name in names}
        manager = time_of_day.restart(cell, "manager")
        until(lambda: (cell.state_dir / "log" / "manager.log").read_text().count("ready: "), lambda count: count == 2, 20)
        until(lambda: _all_steady(cell, names), bool, 20)

        async def check(jump: int, steady: Sequence[str], victim: str) -> None:
            async with cell.peer("ism") as ism, cell.peer("llms") as llms:
                reply = await ism.ask(cell.sink, compute(f"before{jump}"))
                assert reply["status"] == "OK", reply
                started = await llms.until(lambda messages: any(_is_start(message) for message in messages))
                before = max(json.loads(message["body"])["seq"] for message in started)
                time_of_day.set(jump)
                assert abs(_seconds(time_of_day, "time") - time.time() - jump) < 60
                assert abs(_seconds(time_of_day, "monotonic") - time.monotonic()) < 60
                await _stays_steady(cell, steady, 9)
                for name in steady:
                    cell.cli("setHostState", "--host", name, "--state", "Drained")
                asked = time.monotonic()
                reply = await ism.ask(cell.sink, compute(f"nowhere{jump}"))
                assert reply["code"] == "no-suitable-host"
                assert 7 <= time.monotonic() - asked <= 14
                assert _all_steady(cell, steady)
                for name in steady:
                    cell.cli("setHostState", "--host", name, "--state", "Normal")
                told = [event for message in llms.messages if (event := json.loads(message["body"]))["seq"] > before]
                assert [event for event in told if event.get("action") == "decayed"] == []
                shown = datetime.fromisoformat(told[-1]["timestamp"]).timestamp()
                assert abs(shown - time.time() - jump) < 60, "events show the time of day"
                agents[victim].kill()
                killed = time.monotonic()
                until(lambda: cell.hosts()[victim]["up"], lambda up: not up, 15)
                assert 4 <= time.monotonic() - killed <= 12

        try:
            asyncio.run(check(3600, names, names[0]))
            asyncio.run(check(-3600, names[1:], names[1]))
        finally:
            for process in (manager, *agents.values()):
                process.kill()
                process.wait()


def test_a10_a_control_plane_that_was_stopped(tmp_path: Path) -> None:
    """A10: twenty seconds without the control plane, more than three leases: no host is told decayed, and what is asked is answered."""
    with running_cell("--hypervisor", "test", "--hosts", "2", *EARLY, "--set", "XMPP.provisionTimeout=10") as cell:

        async def check() -> None:
            async with cell.peer("ism") as ism, cell.peer("llms") as llms:
                ism.say(cell.sink, compute("first"))
                await ism.replies(1)
                os.kill(cell.pid("manager"), signal.SIGSTOP)
                ism.say(cell.sink, compute("meanwhile"))
                await asyncio.sleep(20)
                os.kill(cell.pid("manager"), signal.SIGCONT)
                await _stays_steady(cell, sorted(cell.hosts()), 3)
                replies = await ism.replies(2)
                assert [reply["status"] for reply in replies] == ["OK", "OK"], replies
                told = [json.loads(message["body"]) for message in llms.messages]
                assert [event for event in told if event.get("action") in ("decayed", "failed")] == []
                assert {row["state"] for row in cell.instances()} == {"Running"}

        asyncio.run(check())
