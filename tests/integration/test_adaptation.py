"""One real virtual machine, paused, reset, adapted and shut down while it runs; its console's heartbeat tells what it notices."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cells import RunningCell, running_cell, until

pytestmark = pytest.mark.integration
BOOT_SECONDS = 60


class Guest:
    """A virtual machine whose console tells that it lives."""

    def __init__(self, cell: RunningCell, name: str, *words: str) -> None:
        self.cell = cell
        self.name = name
        row = json.loads(cell.cli("createVm", "--name", name, "--disks", "tashi.img", "--memory", "128", "--wait", "-o", "json", *words))[0]
        self.log = next(cell.state_dir.rglob(f"console/tashi-{row['id']}-{name}.log"))
        self.wait_for("GUEST-UP")

    def wait_for(self, text: str, after: int = 0, seconds: float = BOOT_SECONDS) -> None:
        """Wait until the guest has printed this behind the first ``after`` characters."""
        until(lambda: self.printed()[after:], lambda printed: text in printed, seconds)

    def printed(self) -> str:
        return Path(self.log).read_text(errors="replace")

    def beats(self) -> int:
        """How often its heart has beaten."""
        return len(re.findall(r"^HB ", self.printed(), re.MULTILINE))

    def do(self, verb: str, *words: str, code: int = 0) -> str:
        """A verb of the client on this machine."""
        return self.cell.cli(verb, "--instance", self.name, *words, code=code)

    def row(self) -> dict[str, Any]:
        return next(row for row in self.cell.instances() if row["name"] == self.name)


@pytest.fixture(scope="module")
def cell() -> Iterator[RunningCell]:
    """A host that says after five seconds that a guest does not shut down."""
    with running_cell("--hypervisor", "qemu", "--set", "ClusterManagerService.shutdownGrace=5") as cell:
        yield cell


@pytest.fixture(scope="module")
def guest(cell: RunningCell) -> Guest:
    """A guest that several tests use, and leave running."""
    return Guest(cell, "web")


@pytest.fixture(scope="module")
def other(cell: RunningCell) -> Guest:
    """A guest beside it, which the last of the tests that use it ends."""
    return Guest(cell, "brief")


def test_pause(guest: Guest, other: Guest) -> None:
    """A paused guest's heart stands still while another one's beats, and beats on when it is unpaused."""
    assert guest.do("pauseVm", "--wait") == ""
    assert guest.row()["state"] == "Paused"
    before, others = guest.beats(), other.beats()
    until(other.beats, lambda beats: beats >= others + 4, BOOT_SECONDS)
    assert guest.beats() == before
    assert "VmState is not Running - it is Paused" in guest.do("shutdownVm", code=1)
    guest.do("unpauseVm", "--wait")
    assert guest.row()["state"] == "Running"
    until(guest.beats, lambda beats: beats > before, BOOT_SECONDS)


def test_reset(guest: Guest) -> None:
    """A reset guest boots again."""
    printed = len(guest.printed())
    assert guest.do("vmmSpecificCall", "--arg", "reset") == "Sent reset signal to instance\n"
    guest.wait_for("GUEST-UP", after=printed)
    assert guest.row()["state"] == "Running"


def test_shutdown(cell: RunningCell, other: Guest) -> None:
    """A guest that heeds its power button ends, and leaves the list."""
    assert other.do("shutdownVm", "--wait") == ""
    assert "brief" not in [row["name"] for row in cell.instances()]
    assert not any("brief" in domain for domain in cell.domains())


def test_shutdown_unheeded(cell: RunningCell) -> None:
    """A guest without a power button stays ShuttingDown, with a reason; its owner may destroy it."""
    guest = Guest(cell, "deaf", "--hints", "noAcpi=True")
    guest.do("shutdownVm")
    row = until(guest.row, lambda row: "has not shut down for 5 s" in row["reason"], 30)
    assert row["state"] == "ShuttingDown"
    guest.do("destroyVm", "--wait")
    assert "deaf" not in [row["name"] for row in cell.instances()]
