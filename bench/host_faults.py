"""What comes of each fault in the middle of a move between real hosts: one line of a table for each."""

from __future__ import annotations

import time
from typing import Any, Final

from bench.trial import HOSTS, STEP, Line, Row, Trial
from tests.integration.cells import running_cell
from tests.integration.test_migration import kill
from tests.integration.travellers import Traveller

SLOW: Final = (
    "--set", "Libvirt.migrationBandwidth=10", "--set", "ClusterManagerService.expireHostTime=5",
    "--set", "NodeManagerService.registerFrequency=1",
)  # fmt: skip
PROGRAMS: Final = (
    ("the source's agent is killed", "agent node1"), ("the target's agent is killed", "agent node2"),
    ("the source's libvirtd is killed", "libvirtd node1"), ("the target's libvirtd is killed", "libvirtd node2"),
    ("the control plane is killed", "manager"),
)  # fmt: skip


async def faults(reactor: Any) -> list[Line]:
    """Each fault in the middle of a move from node1 to node2, which takes about ten seconds in this cell."""
    with running_cell(*HOSTS, *SLOW) as cell:
        trial = Trial(reactor, cell)
        lines = [await link_cut(trial, "node1"), await link_cut(trial, "node2")]
        lines += [await power_cut_source(trial), await power_cut_target(trial)]
        lines += [await killed(trial, what, victim) for what, victim in PROGRAMS]
        return [*lines, await destroyed(trial), await crashed(trial)]


async def under_way(trial: Trial, name: str) -> Traveller:
    """A guest that is on its way."""
    guest = Traveller(trial.cell, name, "node1")
    guest.do("migrateVm", "--dst", "node2")
    await trial.until(guest, lambda row: row is not None and row["state"] == "MigrateTrans")
    while len(guest.homes()) < 2:
        await trial.pause(STEP)
    await trial.pause(1.0)
    return guest


async def runs_once(trial: Trial, guest: Traveller) -> tuple[float, Row]:
    """Seconds until it runs where the record says and nowhere else, and its row."""
    begun = time.monotonic()
    while True:
        _, row = await trial.until(guest, lambda row: row is not None and row["state"] == "Running" and not row["decayed"])
        assert row is not None
        if guest.homes() == [row["host"]]:
            break
    return time.monotonic() - begun, row


def ended(guest: Traveller) -> None:
    """It has run all the time; it is not needed any more, and all hosts are on that may have something of it."""
    guest.wait_for_beats(2)
    assert guest.boots() == 1
    guest.do("destroyVm", "--wait")


def outcome(row: Row) -> str:
    """Where it is and why, in words."""
    return f"runs on {row['host']}" + (f": {row['reason']}" if row["reason"] else "")


def mended(trial: Trial) -> None:
    """Start what has ended."""
    trial.cell.start()


async def link_cut(trial: Trial, end: str) -> Line:
    """The link of one end is cut, and mended when that is known."""
    guest = await under_way(trial, f"cut-{end}")
    trial.cell.cut(end)
    if end == "node2":
        seconds, row = await trial.until(guest, lambda row: row is not None and row["state"] == "Running")
        assert row is not None
        trial.cell.heal(end)
        await runs_once(trial, guest)
        ended(guest)
        return "the target's link is cut", outcome(row), f"{seconds:.1f} s", ""
    seconds, _ = await trial.until(guest, lambda row: row is not None and row["state"] == "Orphaned")
    trial.cell.heal(end)
    again, row = await runs_once(trial, guest)
    ended(guest)
    return "the source's link is cut, and mended", f"Orphaned; then {outcome(row)}", f"{seconds:.1f} s", f"{again:.1f} s"


async def power_cut_source(trial: Trial) -> Line:
    """The source is switched off, and on again when that is known."""
    guest = await under_way(trial, "dark-source")
    trial.cell.power_cut("node1")
    seconds, _ = await trial.until(guest, lambda row: row is not None and row["state"] == "Orphaned")
    trial.cell.boot("node1")
    mended(trial)
    again, _ = await trial.until(guest, lambda row: row is None)
    assert guest.homes() == []
    return "the source is switched off, and on", "Orphaned; then told as failed, it runs nowhere", f"{seconds:.1f} s", f"{again:.1f} s"


async def power_cut_target(trial: Trial) -> Line:
    """The target is switched off."""
    guest = await under_way(trial, "dark-target")
    trial.cell.power_cut("node2")
    seconds, row = await runs_once(trial, guest)
    trial.cell.boot("node2")
    mended(trial)
    ended(guest)
    return "the target is switched off", outcome(row), f"{seconds:.1f} s", ""


async def killed(trial: Trial, what: str, victim: str) -> Line:
    """kill -9 of a program, which is started again at once."""
    guest = await under_way(trial, victim.replace(" ", "-"))
    kill(trial.cell, victim)
    mended(trial)
    again, row = await runs_once(trial, guest)
    ended(guest)
    return f"{what}, and started", outcome(row), "", f"{again:.1f} s"


async def destroyed(trial: Trial) -> Line:
    """The instance is not wanted any more."""
    guest = await under_way(trial, "doomed")
    begun = time.monotonic()
    async with trial.link() as api:
        await api.destroyVm(guest.id)
        await api.waitFor([guest.id], "gone")
    assert guest.homes() == []
    return "the instance is destroyed", "gone at both ends", f"{time.monotonic() - begun:.1f} s", ""


async def crashed(trial: Trial) -> Line:
    """The QEMU of a guest that stays where it is is killed."""
    guest = Traveller(trial.cell, "crashed", "node1")
    pid = trial.cell.inside("node1", "cat", f"/run/libvirt/qemu/tashi-{guest.id}-{guest.name}.pid").strip()
    trial.cell.inside("node1", "kill", "-9", pid)
    seconds, _ = await trial.until(guest, lambda row: row is None)
    return "QEMU is killed (no move under way)", "told as failed, it runs nowhere", f"{seconds:.2f} s", ""
