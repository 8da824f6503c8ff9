"""The cell that is measured: `tashi sandbox` in a directory of its own, with one host, simulated unless asked otherwise; it ends with
the block."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tashi.sandbox import cell as sandbox
from tashi.sandbox import processes
from tashi.sandbox.layout import Layout, load_layout

ROOT: Final = Path(__file__).parents[1]
_TEMPLATE: Final[list[Any]] = json.loads((ROOT / "tashi/sandbox/demo_message.json").read_text())


class BenchCell:
    """A cell that runs, and what a benchmark asks of it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.facts: dict[str, Any] = json.loads(layout.cell_file.read_text())

    @property
    def sink(self) -> str:
        """Where commands are sent."""
        return str(self.facts["sink"])

    def cli(self, *words: str) -> str:
        """What `tashi` prints."""
        environment = os.environ | {"TASHI_CONF": str(self.layout.conf)}
        command = [sys.executable, "-m", "tashi.client", *words]
        return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout

    def pid(self, role: str) -> int:
        """The process that plays this role in the cell."""
        process = processes.main_process(processes.processes_of(self.layout.directory), role)
        assert process is not None, f"there is no {role} in the cell"
        return process.pid

    def stop(self, role: str) -> None:
        """End the process that plays this role."""
        processes.stop([self.pid(role)])

    def start(self, role: str, command: Sequence[str], conf: Path, **variables: str) -> float:
        """Start a process of ours in this role; the time at which it was started."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        log = self.layout.log / f"{role.replace(':', '-')}.log"
        begun = time.time()
        processes.start(command, directory=self.layout.directory, role=role, log=log, TASHI_CONF=str(conf), PYTHONPATH=path, **variables)
        return begun

    def start_manager(self, command: Sequence[str] = ()) -> float:
        """Start the control plane again, and return the seconds until its socket answers."""
        begun = self.start(sandbox.MANAGER, command or sandbox.twistd("tashi"), self.layout.conf)
        while not _answers(self.layout.manager_socket):
            assert time.time() - begun < 120, "the control plane does not start"
            time.sleep(0.005)
        return time.time() - begun

    def wait_for_host(self) -> None:
        """Return when the host is up."""
        deadline = time.monotonic() + 60
        while not all(host["up"] and not host["decayed"] for host in json.loads(self.cli("getHosts", "-o", "json"))):
            assert time.monotonic() < deadline, "the host does not come up"
            time.sleep(0.1)

    def resident_bytes(self, role: str) -> int:
        """The memory that a process holds."""
        pages = int(Path(f"/proc/{self.pid(role)}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def processor_seconds(self) -> dict[str, float]:
        """What each of the cell's processes has spent on a processor so far, by its role."""
        spent = {}
        for process in processes.processes_of(self.layout.directory):
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            spent[process.role] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return spent


def createcompute(name: str) -> str:
    """The seed's message for one machine, with this host name and a resourceId of its own."""
    compute, *rest = _TEMPLATE
    return "createcompute " + json.dumps([compute | {"hostname": name, "resourceId": f"key-{name}"}, *rest])


@contextlib.contextmanager
def bench_cell(*options: str) -> Iterator[BenchCell]:
    """A fresh cell for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        state_dir = Path(directory).resolve() / "cell"
        command = [sys.executable, "-m", "tashi.client", "sandbox"]
        command += ["--state-dir", str(state_dir), "--detach", "--quiet", "--hypervisor", "test", *options]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            layout = load_layout(state_dir)
            assert layout is not None
            yield BenchCell(layout)
        finally:
            sandbox.take_down(state_dir)


def _answers(path: Path) -> bool:
    """Whether whoever listens on the socket says the first word, as Perspective Broker does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(10)
        try:
            probe.connect(str(path))
            return bool(probe.recv(1))
        except OSError:
            return False
