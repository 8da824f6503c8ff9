"""One real host, its agent's directory copied, its domains taken away, its power cut: no VM leaves the records without a proof."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cells import ROOT, RunningCell, running_cell, until

pytestmark = pytest.mark.integration
HALTS = b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"


@pytest.fixture(scope="module")
def cell() -> Iterator[RunningCell]:
    """One host whose silence is noticed in six seconds."""
    settings = ("ClusterManagerService.expireHostTime=6", "NodeManagerService.registerFrequency=2")
    with running_cell("--hypervisor", "qemu", *(word for setting in settings for word in ("--set", setting))) as cell:
        (cell.state_dir / "share" / "images" / "halts.img").write_bytes(HALTS)
        yield cell


@pytest.fixture
def vm(cell: RunningCell) -> Iterator[str]:
    """A VM that runs on the host."""
    cell.cli("createVm", "--name", "vm", "--disks", "halts.img", "--memory", "32", "--wait")
    try:
        yield "vm"
    finally:
        cell.cli("destroyVm", "--instance", "vm", "--wait")


def row(cell: RunningCell) -> dict[str, Any]:
    return next(row for row in cell.instances() if row["name"] == "vm")


def told(cell: RunningCell, log: str, words: str) -> int:
    """How many lines of this log of the cell say so."""
    return sum(words in line for line in (cell.state_dir / "log" / log).read_text(errors="replace").splitlines())


def test_h1_a_copied_agent_is_refused_at_both_ends(cell: RunningCell, vm: str, tmp_path: Path) -> None:
    """H1, A11: a copy of the agent's directory beside an empty libvirt is refused in words, once at each end, and the VM is untouched."""
    node = cell.state_dir / "nodes" / "node1"
    copy, conf = tmp_path / "state", tmp_path / "conf"
    shutil.copytree(node / "state", copy)
    conf.mkdir(mode=0o700)
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(node / "conf" / "Tashi.cfg")
    parser["NodeManagerService"]["stateDir"] = str(copy)
    parser["Libvirt"] = {"uri": "test:///default"}
    with (conf / "Tashi.cfg").open("w") as file:
        parser.write(file)
    log = tmp_path / "agent.log"
    command = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", f"--logfile={log}", "tashi-node"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TASHI_CONF": str(conf)}) as agent:
        try:
            until(lambda: log.read_text() if log.exists() else "", lambda text: "pinned to another machine" in text, 30)
            for _ in range(12):
                (host,) = cell.hosts().values()
                assert (host["up"], host["decayed"], row(cell)["state"]) == (True, False, "Running")
                time.sleep(0.5)
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(20)
    assert log.read_text().count("no link to the control plane: host node1 is pinned to another machine") == 1
    assert told(cell, "manager.log", "an agent of host node1 was refused: host node1 is pinned to another machine") == 1
    assert told(cell, "manager.log", "refused a login from") == 0
    assert f"tashi-{row(cell)['id']}-vm" in cell.domains()


def test_h1_a_domain_that_disappears_is_in_doubt_first(cell: RunningCell, vm: str) -> None:
    """H1: a domain that is taken away while the agent is down is missing first, and has ended when two lists lack it."""
    cell.kill("nodes", "node1")
    name = f"tashi-{row(cell)['id']}-vm"
    cell.virsh(0, "destroy", name)
    cell.virsh(0, "undefine", name)
    cell.start()
    begun = time.monotonic()
    doubt = until(lambda: row(cell), lambda found: found["reason"] == "missing on node1, end not seen", 20)
    assert doubt["state"] == "Orphaned"
    until(cell.instances, lambda rows: rows == [], 30)
    assert time.monotonic() - begun > 9
    assert told(cell, "manager.log", "two complete lists lack it, and nobody saw it end") == 1
    cell.cli("createVm", "--name", "vm", "--disks", "halts.img", "--memory", "32", "--wait")


@pytest.mark.parametrize("silence", [0.0, 9.0])
def test_o2_a_power_cut_holds_its_instances(cell: RunningCell, vm: str, silence: float) -> None:
    """O2: after a power cut, quick or long, the VM is Held and says why; resumeVm starts it again under its id."""
    before = row(cell)
    assert (before["state"], cell.domains()) == ("Running", [f"tashi-{before['id']}-vm"])
    cell.power_cut(0)
    time.sleep(silence)
    cell.boot(0)
    held = until(lambda: row(cell), lambda found: found["state"] == "Held", 60)
    assert held["reason"] == "its host node1 was rebooted; its throw-away disk is lost"
    assert cell.domains() == []
    cell.cli("resumeVm", "--instance", "vm", "--wait")
    after = row(cell)
    assert (after["id"], after["state"], after["reason"]) == (before["id"], "Running", "")
    assert cell.domains() == [f"tashi-{before['id']}-vm"]
    assert told(cell, "manager.log", "its host node1 was rebooted") >= 1


def test_a_restarted_agent_is_no_reboot(cell: RunningCell, vm: str) -> None:
    """The agent's crash leaves the VM as it is: the machine is on the same boot."""
    boot = cell.inside(0, "cat", "/proc/sys/kernel/random/boot_id")
    cell.kill("nodes", "node1")
    until(lambda: row(cell)["state"], lambda state: state == "Orphaned", 20)
    cell.start()
    until(lambda: row(cell), lambda found: (found["state"], found["decayed"]) == ("Running", False), 20)
    assert cell.inside(0, "cat", "/proc/sys/kernel/random/boot_id") == boot
