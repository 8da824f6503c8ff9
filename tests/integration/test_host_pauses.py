"""What a host or its administrator does to guests of a whole cell with virsh: nothing is lost, and it is told (H6, H8)."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cells import RunningCell, running_cell, until
from tests.integration.test_pauses import IMAGE_BYTES, LARGE, SMALL, WRITER_IMAGE

pytestmark = pytest.mark.integration
HALTS = b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"


@pytest.fixture(scope="module")
def cell() -> Iterator[RunningCell]:
    """Two hosts whose silence is noticed in four seconds."""
    settings = ("ClusterManagerService.expireHostTime=4", "NodeManagerService.registerFrequency=1")
    words = (word for setting in settings for word in ("--set", setting))
    with running_cell("--hypervisor", "qemu", "--hosts", "2", *words) as cell:
        (cell.state_dir / "share" / "images" / "halts.img").write_bytes(HALTS)
        yield cell


class Guest:
    """An instance on node1."""

    def __init__(self, cell: RunningCell, name: str) -> None:
        self.cell = cell
        self.name = name
        self.do("createVm", "--name", name, "--disks", "halts.img", "--memory", "32", "--hints", "targetHost=node1", "--wait")
        row = self.row()
        assert row is not None
        self.id, self.host = row["id"], row["host"]
        self.domain = f"tashi-{self.id}-{name}"

    def do(self, verb: str, *words: str, code: int = 0) -> str:
        """A verb of the client about this instance."""
        about = () if verb == "createVm" else ("--instance", self.name)
        return self.cell.cli(verb, *about, *words, code=code)

    def row(self) -> dict[str, Any] | None:
        """Its row of getInstances; None: it is not in the list."""
        return next((row for row in self.cell.instances() if row["name"] == self.name), None)

    def until(self, state: str, words: str = "", seconds: float = 30) -> dict[str, Any]:
        """Its row, once it is in this state, with these words in its reason."""
        found = until(self.row, lambda row: row is not None and row["state"] == state and words in row["reason"], seconds)
        assert found is not None
        return found

    def virsh(self, verb: str, *words: str) -> str:
        """What virsh says of its domain, on the host where it began."""
        return self.cell.virsh(self.host, verb, self.domain, *words)


def test_managed_save_and_resume(cell: RunningCell) -> None:
    """H8: `virsh managedsave` leaves the VM in the list as Paused, saved by its host; resumeVm continues it where it is."""
    guest = Guest(cell, "kept")
    guest.virsh("managedsave")
    row = guest.until("Paused", "saved by its host")
    assert row["host"] == guest.host
    guest.do("resumeVm", "--wait")
    assert guest.until("Running")["reason"] == ""
    assert guest.domain in cell.domains(guest.host)
    guest.virsh("managedsave")
    guest.until("Paused", "saved by its host")
    guest.virsh("start")  # as libvirt-guests does
    guest.until("Running")
    guest.virsh("managedsave")
    guest.until("Paused", "saved by its host")
    guest.do("destroyVm", "--wait")
    assert cell.virsh(guest.host, "list", "--all", "--name").split() == []


def test_saved_while_the_agent_is_away(cell: RunningCell) -> None:
    """H8: as at a shutdown in the order of the units: the agent stops, the host saves; when it comes back it says so, or that it runs."""
    guest = Guest(cell, "shut")
    cell.kill("nodes", guest.host)
    guest.virsh("managedsave")
    guest.until("Orphaned")
    cell.start()
    guest.until("Paused", "saved by its host")
    cell.kill("nodes", guest.host)
    guest.until("Orphaned")
    guest.virsh("start")
    cell.start()
    guest.until("Running")
    guest.do("destroyVm", "--wait")


def test_suspend_and_resume_by_hand(cell: RunningCell) -> None:
    """H6: a guest that an administrator suspends is Paused with that reason, and continues by unpauseVm or by hand."""
    guest = Guest(cell, "stopped")
    for resume in (lambda: guest.do("unpauseVm", "--wait"), lambda: guest.virsh("resume")):
        guest.virsh("suspend")
        guest.until("Paused", "by an administrator of its host")
        resume()
        guest.until("Running")
    guest.do("pauseVm", "--wait")
    assert guest.until("Paused")["reason"] == ""
    guest.do("destroyVm", "--wait")


def test_destroyed_by_hand(cell: RunningCell) -> None:
    """H8: `virsh destroy` ends the instance, and its event says who has; the pauses before it were told with their causes."""
    events = asyncio.run(_told(cell))
    saved, running, ended = events[-3:]
    assert (saved["to"], saved["cause"]) == ("Paused", "saved-by-host")
    assert (running["from"], running["to"]) == ("Paused", "Running")
    assert (ended["action"], ended["reason"]) == ("failed", "destroyed by an administrator of its host")


async def _told(cell: RunningCell) -> list[dict[str, Any]]:
    """What the recipient is told of an instance that is saved, started and destroyed by hand."""
    async with cell.peer("llms") as llms:
        guest = await asyncio.to_thread(Guest, cell, "ended")
        await asyncio.to_thread(guest.virsh, "managedsave")
        await asyncio.to_thread(guest.until, "Paused")
        await asyncio.to_thread(guest.virsh, "start")
        await asyncio.to_thread(guest.until, "Running")
        await asyncio.to_thread(guest.virsh, "destroy")

        def about() -> list[dict[str, Any]]:
            told = [json.loads(message["body"]) for message in llms.messages]
            return [event for event in told if event.get("type") == "vmAction" and event["id"] == guest.id]

        await llms.until(lambda messages: any(event["action"] == "failed" for event in about()))
        return about()


def test_migrated_by_hand(cell: RunningCell) -> None:
    """H8: `virsh migrate` to another host of the cell does not lose the VM, and its overlay is not removed from under it."""
    guest = Guest(cell, "moved")
    other = "node2" if guest.host == "node1" else "node1"
    overlay = _overlay(guest)
    guest.virsh("migrate", "--live", "--p2p", "--persistent", "--undefinesource", "--desturi", cell.migration_uri(other))
    found = until(guest.row, lambda row: row is None or row["state"] == "Orphaned" or row["host"] == other, 30)
    assert found is not None
    assert found["host"] == other or "migrated away by somebody else" in found["reason"]
    assert guest.domain in cell.domains(other)
    assert Path(overlay).exists()
    cell.kill("nodes", guest.host)
    cell.start()  # an agent that lists nothing of it
    row = guest.row()
    assert row is not None and row["state"] in ("Orphaned", "Running")
    guest.do("destroyVm", "--wait")


def _overlay(guest: Guest) -> str:
    return next(word for word in guest.virsh("domblklist").split() if word.endswith(".qcow2"))


def test_a_full_disk(tmp_path: Path) -> None:
    """H6: a guest on a full disk is Paused with why; unpauseVm without room ends in Paused with what is missing; with room it continues."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(tmp_path)], check=True)
    try:
        with running_cell("--hypervisor", "qemu", "--set", f"Qemu.scratchDir={tmp_path}/overlays") as cell:
            image = cell.state_dir / "share" / "images" / "writer.img"
            image.write_bytes(WRITER_IMAGE)
            with image.open("r+b") as file:
                file.truncate(IMAGE_BYTES)
            cell.cli("createVm", "--name", "full", "--disks", "writer.img", "--memory", "32", "--wait")

            def row() -> dict[str, Any]:
                return next(row for row in cell.instances() if row["name"] == "full")

            until(row, lambda found: found["state"] == "Paused" and "no space left" in found["reason"], 60)
            for _ in range(2):
                said = cell.cli("unpauseVm", "--instance", "full", "--wait", code=1)
                assert "still no space for its disks" in said
                assert row()["state"] == "Paused"
            subprocess.run(["mount", "-o", f"remount,{LARGE}", str(tmp_path)], check=True)
            until(row, lambda found: found["state"] == "Running", 60)
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
