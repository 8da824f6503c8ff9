"""The cell's processes: found by a mark in their environment, not by remembered ids.

Every process of a cell carries `TASHI_SANDBOX` (the state directory) and `TASHI_SANDBOX_ROLE` in its environment, and hands them to its
children. So there is no pid file that a crash leaves stale, an id used again is never taken for ours, and what a killed command left
behind is found all the same.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from tashi.sandbox.problem import SandboxProblem

MARK = "TASHI_SANDBOX"
ROLE = "TASHI_SANDBOX_ROLE"
STEP = 0.01  # seconds between two looks at a condition


class Process(msgspec.Struct, frozen=True):
    """A process of the cell as the caller's pid namespace sees it."""

    pid: int
    parent: int
    role: str
    inner_pid: int  # its id in its own pid namespace; 1 for a host's init


def processes_of(directory: Path) -> list[Process]:
    """All processes of the cell at `directory`, whoever started them; zombies do not count."""
    mark = f"{MARK}={directory}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it ended while we looked, or is not ours to look at
            variables = Path("/proc", entry, "environ").read_bytes().split(b"\0")
            if mark not in variables:
                continue
            role = next((item.partition(b"=")[2].decode() for item in variables if item.startswith(f"{ROLE}=".encode())), "")
            status = dict(line.split(":\t", 1) for line in Path("/proc", entry, "status").read_text().splitlines() if ":\t" in line)
            if status["State"][0] not in "ZX":
                inner_pid = int(status["NSpid"].split()[-1])
                found.append(Process(int(entry), int(status["PPid"]), role, inner_pid))
    return found


def main_process(processes: Iterable[Process], role: str) -> Process | None:
    """The process that plays `role` itself: the one whose parent does not."""
    players = {process.pid: process for process in processes if process.role == role}
    return next((process for process in players.values() if process.parent not in players), None)


def environment(directory: Path, role: str, **more: str) -> dict[str, str]:
    """The environment of a process of the cell: the caller's, marked, and away from the caller's own configuration."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TASHI_", "LIBVIRT_", "VIRSH_"))}
    return inherited | {"HOME": str(directory), "PYTHONUNBUFFERED": "1", MARK: str(directory), ROLE: role} | more


def start(command: Sequence[str], *, directory: Path, role: str, log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Start a process of the cell that outlives its starter, with its output going to `log`.

    It works in the log directory, which holds no `conf/` that the configuration's search could pick up.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=environment(directory, role, **variables),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def wait_until(condition: Callable[[], bool], seconds: float, step: float = STEP) -> bool:
    """Wait for `condition` at most `seconds`, looking every `step` seconds; tell whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(step)
    return True


def await_start(started: subprocess.Popen[bytes], condition: Callable[[], bool], what: str, log: Path, seconds: float = 60.0) -> None:
    """Wait until a started process fulfils `condition`; raise SandboxProblem with the end of its log when it dies or is too slow."""
    if wait_until(lambda: condition() or started.poll() is not None, seconds) and started.poll() is None:
        return
    reason = f"ended with code {started.returncode}" if started.returncode is not None else f"is not ready after {seconds:.0f} s"
    raise SandboxProblem(f"{what} {reason}; the end of {log}:\n{tail(log)}")


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    if not log.exists():
        return "  (no log)"
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])


def stop(pids: Iterable[int], seconds: float = 8.0) -> None:
    """End processes: politely, and after `seconds` by force. Returns when they are gone."""
    handles = _handles(pids)
    try:
        _send(handles, signal.SIGTERM)
        if not wait_until(lambda: _all_gone(handles), seconds):
            _send(handles, signal.SIGKILL)
            wait_until(lambda: _all_gone(handles), seconds)
    finally:
        for handle in handles:
            os.close(handle)


def kill(pids: Iterable[int], seconds: float = 10.0) -> None:
    """Kill processes, as a power cut would, and wait until they are gone."""
    handles = _handles(pids)
    try:
        _send(handles, signal.SIGKILL)
        wait_until(lambda: _all_gone(handles), seconds)
    finally:
        for handle in handles:
            os.close(handle)


def _handles(pids: Iterable[int]) -> list[int]:
    """A pidfd per living process: an id that is used again cannot be hit by mistake."""
    handles = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    return handles


def _send(handles: list[int], number: signal.Signals) -> None:
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)


def _all_gone(handles: list[int]) -> bool:
    """Whether all have ended; a zombie has."""
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    return len(poll.poll(0)) == len(handles)
