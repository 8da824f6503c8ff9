"""Real guests on three real hosts: they move, bend and are kept while their hearts beat on, and whatever is cut they run once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.cells import RunningCell, running_cell, until
from tests.integration.travellers import Traveller

pytestmark = pytest.mark.integration


def test_a_guest_is_moved_bent_and_kept_and_notices_nothing(three_hosts: RunningCell) -> None:
    """A guest goes round all hosts, is adapted on each, is suspended and goes on elsewhere; its heart never misses a beat."""
    guest = Traveller(three_hosts, "globe", "node1")
    begun = time.monotonic()
    first = guest.beats()[-1]
    guest.do("adaptCpuShare", "--share", "512", "--wait")
    guest.do("adaptMemoryLimit", "--limit", "112", "--wait")
    guest.do("adaptDiskBandwidth", "--weight", "300", "--iops", "4000", "--bytes", "50000000", "--wait")
    for host in ("node2", "node3", "node1"):
        guest.do("migrateVm", "--dst", host, "--wait")
        row = guest.row()
        assert (row["state"], row["host"], row["reason"]) == ("Running", host, "")
        guest.settles(host)
        assert (row["cpuShare"], row["memory"], row["diskWeight"]) == (512, 112, 300)
        assert "cpu_shares     : 512" in guest.virsh("schedinfo")
        assert "weight         : 300" in guest.virsh("blkiotune")
        assert "total_iops_sec : 4000" in guest.virsh("blkdeviotune", "vda")
        assert "total_bytes_sec: 50000000" in guest.virsh("blkdeviotune", "vda")
        assert "actual 114688" in guest.virsh("dommemstat")
        for flags in ((), ("--inactive",)):
            assert ">112</currentMemory>" in guest.virsh("dumpxml", *flags) or ">114688</currentMemory>" in guest.virsh("dumpxml", *flags)
        guest.wait_for_beats(2)
    three_hosts.cli("setHostState", "--host", "node1", "--state", "Drained")
    try:
        guest.do("suspendVm", "--wait")
        assert (guest.row()["state"], guest.row()["host"], guest.homes()) == ("Suspended", None, [])
        guest.do("resumeVm", "--wait")
        row = guest.row()
        assert row["state"] == "Running" and row["host"] != "node1" and guest.homes() == [row["host"]]
        assert "cpu_shares     : 512" in guest.virsh("schedinfo")
        assert "total_iops_sec : 4000" in guest.virsh("blkdeviotune", "vda")
        assert not any((three_hosts.state_dir / "share" / "suspend").iterdir())
        guest.wait_for_beats(2)
    finally:
        three_hosts.cli("setHostState", "--host", "node1", "--state", "Normal")
    assert guest.boots() == 1, guest.last_words()
    assert len(guest.lost_beats()) <= 4  # moves, and the lines torn by them
    beaten, passed = guest.beats()[-1] - first, time.monotonic() - begun
    assert beaten >= passed / 2, f"its heart beat {beaten} times in {passed:.0f} s"
    guest.do("destroyVm", "--wait")
    assert guest.homes() == []


def test_moves_that_cannot_be_are_refused_before_anything_is_touched(three_hosts: RunningCell) -> None:
    """A move to where the instance is, to a host without room, to nowhere, or of what does not run, names its reason."""
    guest = Traveller(three_hosts, "stays", "node2")
    assert "has it already" in guest.do("migrateVm", "--dst", "node2", code=1)
    assert "there is no host" in guest.do("migrateVm", "--dst", "node9", code=4)
    three_hosts.cli("setHostState", "--host", "node3", "--state", "Drained")
    assert "node3: is drained" in guest.do("migrateVm", "--dst", "node3", code=1)
    three_hosts.cli("setHostState", "--host", "node3", "--state", "Normal")
    before = guest.row()
    guest.do("pauseVm", "--wait")
    assert "VmState is not Running - it is Paused" in guest.do("migrateVm", "--dst", "node3", code=1)
    guest.do("unpauseVm", "--wait")
    after = guest.row()
    assert (after["host"], after["state"], guest.homes()) == (before["host"], "Running", ["node2"])
    guest.do("destroyVm", "--wait")


@pytest.fixture(scope="module")
def slow() -> Iterator[RunningCell]:
    """Three hosts between which a guest takes several seconds to move, and whose silence is noticed in five."""
    settings = ("Libvirt.migrationBandwidth=10", "ClusterManagerService.expireHostTime=5", "NodeManagerService.registerFrequency=1")
    words = [word for setting in settings for word in ("--set", setting)]
    with running_cell("--hypervisor", "qemu", "--hosts", "3", "--memory", "2048", *words) as cell:
        yield cell


class Move:
    """A guest under way from node1 to node2."""

    def __init__(self, cell: RunningCell, guest: Traveller) -> None:
        self.cell = cell
        self.guest = guest

    def ends(self, hosts: tuple[str, ...], seconds: float = 60.0) -> None:
        """It runs, once, on one of these hosts, and its heart beats."""
        until(lambda: self.guest.row(), lambda row: row["state"] == "Running" and row["host"] in hosts and not row["decayed"], seconds)
        until(self.guest.homes, lambda homes: homes == [self.guest.row()["host"]], 30)
        self.guest.wait_for_beats(2)
        assert self.guest.boots() == 1, self.guest.last_words()


@contextmanager
def a_move(cell: RunningCell, name: str) -> Iterator[Move]:
    """A guest that is on its way; it is destroyed at the end, and nothing of it is left."""
    guest = Traveller(cell, name, "node1")
    assert guest.row()["host"] == "node1"
    guest.do("migrateVm", "--dst", "node2")
    until(lambda: guest.row()["state"], lambda state: state == "MigrateTrans", 20)
    until(guest.homes, lambda homes: len(homes) == 2, 20)
    try:
        yield Move(cell, guest)
    finally:
        if any(row["id"] == guest.id for row in cell.instances()):
            guest.do("destroyVm", "--wait")
    until(guest.homes, lambda homes: homes == [], 20)
    kept = [path for path in (cell.state_dir / "share" / "scratch").iterdir() if path.is_dir()]
    assert kept == []


def mend(cell: RunningCell) -> None:
    """Start again what was killed, and wait until all hosts are known."""
    cell.start()
    until(lambda: cell.cli("getHosts", "-o", "json").count('"decayed": false'), lambda count: count == 3, 60)


@pytest.mark.parametrize("end", ["node1", "node2"])
def test_a_link_that_is_cut_ends_a_move(slow: RunningCell, end: str) -> None:
    """A migration whose link is cut at either end is given up within seconds; the guest runs on where it was."""
    with a_move(slow, f"cut-{end}") as move:
        slow.cut(end)
        if end == "node2":
            until(lambda: move.guest.row()["state"], lambda state: state == "Running", 30)
            assert "not moved to node2" in move.guest.row()["reason"]
        else:
            until(lambda: move.guest.row()["state"], lambda state: state == "Orphaned", 30)
        slow.heal(end)
        move.ends(("node1",))
        until(lambda: slow.cli("getHosts", "-o", "json").count('"decayed": false'), lambda count: count == 3, 60)


def test_a_target_that_loses_its_power_ends_a_move(slow: RunningCell) -> None:
    """When the target is switched off in the middle the guest runs on where it was."""
    with a_move(slow, "dark-target") as move:
        slow.power_cut("node2")
        move.ends(("node1",))
        slow.boot("node2")
        mend(slow)
        move.ends(("node1",))


def test_a_source_that_loses_its_power_takes_its_guest_along(slow: RunningCell) -> None:
    """When the source is switched off before the guest has moved, its instance is Held with the reason, and it runs nowhere."""
    with a_move(slow, "dark-source") as move:
        slow.power_cut("node1")
        until(lambda: move.guest.row()["state"], lambda state: state == "Orphaned", 30)
        slow.boot("node1")
        mend(slow)
        held = until(lambda: move.guest.row(), lambda row: row["state"] == "Held", 60)
        assert "its host node1 was rebooted" in held["reason"]
        assert move.guest.homes() == []


@pytest.mark.parametrize("victim", ["agent node1", "agent node2", "libvirtd node1", "libvirtd node2", "manager"])
def test_a_program_that_is_killed_does_not_end_a_guest_that_moves(slow: RunningCell, victim: str) -> None:
    """An agent, a libvirtd or the control plane killed in the middle of a migration: the guest runs once, at one of the two ends."""
    with a_move(slow, f"killed-{victim.replace(' ', '-')}") as move:
        kill(slow, victim)
        mend(slow)
        move.ends(("node1", "node2"))


def test_a_guest_that_is_destroyed_while_it_moves_is_gone_at_both_ends(slow: RunningCell) -> None:
    """A destroyed instance does not wait for its migration, and nothing of it is left anywhere."""
    with a_move(slow, "doomed") as move:
        begun = time.monotonic()
        move.guest.do("destroyVm", "--wait")
        assert time.monotonic() - begun < 8
        assert move.guest.homes() == []


def kill(cell: RunningCell, what: str) -> None:
    """kill -9 of a program, by its role."""
    match what.split():
        case ["agent", host]:
            cell.kill("nodes", host)
        case ["libvirtd", host]:
            role = f"libvirtd:{host}"
            script = (
                "import os, signal, sys; from pathlib import Path; from tashi.sandbox import processes;"
                "os.kill(processes.main_process(processes.processes_of(Path(sys.argv[1])), sys.argv[2]).pid, signal.SIGKILL)"
            )
            subprocess.run([sys.executable, "-c", script, str(cell.state_dir), role], check=True)
        case _:
            cell.kill("manager")


def test_throw_away_disks_that_are_not_shared_are_copied_along() -> None:
    """Between hosts that keep throw-away disks to themselves a guest takes its disk with it, by migration and by suspension."""
    words = ("--hypervisor", "qemu", "--hosts", "2", "--memory", "2048", "--set", "Qemu.scratchDir=/var/lib/libvirt/scratch")
    with running_cell(*words) as cell:
        guest = Traveller(cell, "carrier", "node1")
        assert overlays(cell) == ["node1"]
        for host in ("node2", "node1"):
            guest.do("migrateVm", "--dst", host, "--wait")
            guest.settles(host)
            until(lambda cell=cell: overlays(cell), lambda found, host=host: found == [host], 10)
            guest.wait_for_beats(2)
        cell.cli("setHostState", "--host", "node1", "--state", "Drained")
        guest.do("suspendVm", "--wait")
        assert overlays(cell) == []
        guest.do("resumeVm", "--wait")
        assert (guest.homes(), overlays(cell)) == (["node2"], ["node2"])
        guest.wait_for_beats(2)
        assert guest.boots() == 1
        guest.do("destroyVm", "--wait")
        assert overlays(cell) == []


def overlays(cell: RunningCell) -> list[str]:
    """The hosts that hold a throw-away disk."""
    return sorted(path.relative_to(cell.state_dir / "nodes").parts[0] for path in cell.state_dir.glob("nodes/*/lib/scratch/*/*/0.qcow2"))
