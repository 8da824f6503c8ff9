"""What happens to a host that runs guests: its agent is installed anew, a guest's process hangs, and strangers live beside ours."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tashi.node.domain.xml import NAMESPACE
from tests.integration.cells import RunningCell, running_cell, until

pytestmark = pytest.mark.integration
HALTS = b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
STRANGER = (
    """<domain type='qemu'><name>tashi-1-stranger</name><memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os></domain>"""
)


@pytest.fixture(scope="module")
def cell() -> Iterator[RunningCell]:
    """One host whose silence is noticed in four seconds, with a domain that is nobody's of the cell."""
    settings = ("ClusterManagerService.expireHostTime=4", "NodeManagerService.registerFrequency=1")
    with running_cell("--hypervisor", "qemu", *(word for setting in settings for word in ("--set", setting))) as cell:
        (cell.state_dir / "share" / "images" / "halts.img").write_bytes(HALTS)
        virsh(cell, "create", "/dev/stdin", text=STRANGER)
        yield cell
        assert "tashi-1-stranger" in cell.domains()  # whatever happened here, it was left alone


def virsh(cell: RunningCell, *words: str, text: str | None = None) -> str:
    uri = cell.description["hosts"][0]["uri"]
    return subprocess.run(["virsh", "-c", uri, *words], capture_output=True, text=True, input=text, timeout=30, check=True).stdout


def row(cell: RunningCell, name: str) -> dict[str, Any]:
    return next(row for row in cell.instances() if row["name"] == name)


def process_of(cell: RunningCell, name: str) -> int:
    """The process of the cell's guest with this name, as the whole machine sees it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if words.startswith(b"/usr/bin/qemu-system") and f"-{name},".encode() in words and str(cell.state_dir).encode() in words:
                return int(entry.name)
    raise AssertionError(f"there is no process of {name}")


def test_an_agent_that_is_installed_anew_finds_its_domains(cell: RunningCell) -> None:
    """An agent without its former secret is refused until its host was unregistered; then it joins and its domains are known again."""
    cell.cli("createVm", "--name", "kept", "--disks", "halts.img", "--memory", "32", "--wait")
    assert "node1 is up" in cell.cli("unregisterHost", "--hostId", "node1", code=1)
    cell.kill("nodes", "node1")
    (cell.state_dir / "nodes" / "node1" / "state" / "node.secret").unlink()
    until(lambda: row(cell, "kept"), lambda found: found["state"] == "Orphaned" and found["decayed"], 30)
    assert "keeps its 1 instance" in cell.cli("unregisterHost", "--hostId", "node1")
    cell.start()
    until(lambda: row(cell, "kept"), lambda found: found["state"] == "Running" and not found["decayed"], 30)
    assert f"tashi-{row(cell, 'kept')['id']}-kept" in cell.domains()
    cell.cli("destroyVm", "--instance", "kept", "--wait")


def test_a_guest_whose_process_hangs_is_told_so_and_goes_on(cell: RunningCell) -> None:
    """A deed that a hanging guest keeps waiting marks the instance; the rest of the host goes on, and so does the guest afterwards."""
    cell.cli("createVm", "--name", "hangs", "--disks", "halts.img", "--memory", "32", "--wait")
    process = process_of(cell, "hangs")
    os.kill(process, signal.SIGSTOP)
    try:
        cell.cli("pauseVm", "--instance", "hangs")
        marked = until(lambda: row(cell, "hangs"), lambda found: found["decayed"], 20)
        assert (marked["state"], marked["reason"]) == ("Pausing", "the process of its guest does not answer")
        cell.cli("createVm", "--name", "beside", "--disks", "halts.img", "--memory", "32", "--wait")
        cell.cli("destroyVm", "--instance", "beside", "--wait")
    finally:
        os.kill(process, signal.SIGCONT)
    until(lambda: row(cell, "hangs"), lambda found: (found["state"], found["decayed"]) == ("Paused", False), 20)
    cell.cli("destroyVm", "--instance", "hangs", "--wait")


def test_a_guest_whose_process_hangs_can_be_destroyed(cell: RunningCell) -> None:
    """A Destroy does not wait for a deed that waits for a process that does not answer."""
    cell.cli("createVm", "--name", "doomed", "--disks", "halts.img", "--memory", "32", "--wait")
    os.kill(process_of(cell, "doomed"), signal.SIGSTOP)
    cell.cli("pauseVm", "--instance", "doomed")
    until(lambda: row(cell, "doomed")["decayed"], bool, 20)
    begun = time.monotonic()
    cell.cli("destroyVm", "--instance", "doomed", "--wait")
    assert time.monotonic() - begun < 25
    assert cell.domains() == ["tashi-1-stranger"]


def test_a_guest_that_has_lost_its_mark_is_in_doubt_and_never_lost(cell: RunningCell) -> None:
    """H1: when an administrator removes the metadata of a domain, its instance is Orphaned with the words for it, also when lists of an
    agent that was restarted prove that another has ended; it is Running again once they are back."""
    for name in ("unmarked", "vanishes"):
        cell.cli("createVm", "--name", name, "--disks", "halts.img", "--memory", "32", "--wait")
    other = f"tashi-{row(cell, 'vanishes')['id']}-vanishes"
    domain = f"tashi-{row(cell, 'unmarked')['id']}-unmarked"
    mark = virsh(cell, "metadata", domain, NAMESPACE).strip()
    virsh(cell, "metadata", domain, NAMESPACE, "--remove", "--live", "--config")
    cell.cli("pauseVm", "--instance", "unmarked")
    until(lambda: row(cell, "unmarked"), lambda found: "removed or changed its mark" in found["reason"], 20)
    cell.kill("nodes", "node1")
    virsh(cell, "destroy", other)
    virsh(cell, "undefine", other)
    cell.start()
    until(lambda: [one["name"] for one in cell.instances()], lambda names: "vanishes" not in names, 60)
    assert row(cell, "unmarked")["state"] == "Orphaned"
    assert domain in cell.domains()
    virsh(cell, "metadata", domain, NAMESPACE, "--live", "--config", "--key", "tashi", "--set", mark)
    cell.kill("nodes", "node1")
    cell.start()
    until(lambda: row(cell, "unmarked"), lambda found: (found["state"], found["decayed"]) == ("Running", False), 30)
    cell.cli("destroyVm", "--instance", "unmarked", "--wait")
