"""One real virtual machine, paused, reset, adapted and shut down while it runs; its console's heartbeat tells what it notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cells import RunningCell, compute, running_cell, until

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

    def cell_says(self, verb: str, *words: str) -> None:
        """A verb that may succeed or not."""
        with contextlib.suppress(AssertionError):
            self.do(verb, *words)

    def memory(self) -> int:
        """The kB that the guest's last heartbeat counted."""
        return int(re.findall(r"^HB .* mem=(\d+) ", self.printed(), re.MULTILINE)[-1])

    def virsh(self, verb: str, *words: str) -> str:
        """What plain virsh on the host says of the domain."""
        uri = self.cell.description["hosts"][0]["uri"]
        name = self.log.stem
        return subprocess.run(["virsh", "-c", uri, verb, name, *words], capture_output=True, text=True, timeout=30, check=True).stdout

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


def test_simulated_host(simulated_cell: RunningCell) -> None:
    """A test:/// host does all of it, too, so that programs can be tried on it."""
    cell = simulated_cell
    cell.cli("createVm", "--name", "tried", "--disks", "tashi.img", "--wait")
    for words in (
        ("adaptCpuShare", "--share", "512"), ("adaptMemoryLimit", "--limit", "64"), ("adaptDiskBandwidth", "--weight", "300"),
        ("adaptNetworkBandwidth", "--downspeed", "801", "--upspeed", "400"), ("pauseVm",), ("unpauseVm",),
    ):  # fmt: skip
        assert cell.cli(*words, "--instance", "tried", "--wait") == ""
    cell.cli("vmmSpecificCall", "--instance", "tried", "--arg", "reset")
    row = next(row for row in cell.instances() if row["name"] == "tried")
    assert (row["cpuShare"], row["memory"], row["diskWeight"], row["netDown"], row["netUp"]) == (512, 64, 300, 808, 400)
    cell.cli("shutdownVm", "--instance", "tried", "--wait")
    assert "tried" not in [row["name"] for row in cell.instances()]


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


def test_adapt_cpu_share(guest: Guest) -> None:
    """A new share stands in the record, in the domain's definition, and in the kernel's own file."""
    assert guest.do("adaptCpuShare", "--share", "512", "--wait") == ""
    assert guest.row()["cpuShare"] == 512
    assert "<shares>512</shares>" in guest.virsh("dumpxml", "--inactive")
    shares = [int(path.read_text()) for path in Path("/sys/fs/cgroup").glob("cpu*/**/machine/qemu-*/cpu.shares")]
    weights = [int(path.read_text()) for path in Path("/sys/fs/cgroup").glob("**/machine*/**/cpu.weight")]
    assert 512 in shares or any(weight != 100 for weight in weights), (shares, weights)


def test_adapt_memory_limit(guest: Guest) -> None:
    """The guest sees its memory shrink and grow; more than it was made with is refused, and nothing changes."""
    whole = guest.memory()
    assert guest.do("adaptMemoryLimit", "--limit", "96", "--wait") == ""
    assert (guest.row()["memory"], guest.row()["maxMemory"]) == (96, 128)
    until(guest.memory, lambda now: whole - 34 * 1024 < now < whole - 30 * 1024, 10)
    guest.do("adaptMemoryLimit", "--limit", "128", "--wait")
    until(guest.memory, lambda now: now > whole - 1024, 10)
    assert "made with 128 MB" in guest.do("adaptMemoryLimit", "--limit", "129", code=1)


@pytest.mark.parametrize(
    ("verb", "words", "column", "value"),
    [
        ("adaptDiskBandwidth", ("--weight", "300"), "diskWeight", 300),
        ("adaptNetworkBandwidth", ("--downspeed", "8001"), "netDown", 8008),
        ("adaptNetworkBandwidth", ("--upspeed", "4000"), "netUp", 4000),
    ],
)
def test_adapt_or_refuse(guest: Guest, verb: str, words: tuple[str, ...], column: str, value: int) -> None:
    """What the machine can do is done; what its kernel cannot is refused in libvirt's words, and the record stays as it was."""
    before = guest.row()
    guest.cell_says(verb, *words, "--wait")
    after = guest.row()
    if after[column] != value:
        assert after == before | {"reason": after["reason"]}
        assert "the host refuses: " in after["reason"]


def test_update_by_message(cell: RunningCell) -> None:
    """An updatecompute is answered once its host has done it, and told to the recipients with before and after."""
    asyncio.run(_update(cell))


async def _update(cell: RunningCell) -> None:
    async with cell.peer("ism") as ism, cell.peer("llms") as llms:
        half = json.loads(cell.cli("getHosts", "-o", "json"))[0]["cpuSpeed"] // 2
        created = await ism.ask(cell.sink, compute("spoken", memory_size=128, cpu_speed=half))
        assert created["status"] == "OK", created
        update = {"resourceId": "key-spoken", "cpu_share": 300, "cpu_cores": 1}
        reply = await ism.ask(cell.sink, f"updatecompute {json.dumps(update)}")
        assert (reply["status"], reply["ids"], reply["state"]) == ("OK", created["ids"], "Running"), reply
        told = await llms.until(lambda messages: any(_tells_of_update(message["body"]) for message in messages))
        (event,) = (json.loads(message["body"]) for message in told if _tells_of_update(message["body"]))
        assert (event["before"], event["after"]) == ({"cpuShare": 1024}, {"cpuShare": 300})
        refused = await ism.ask(cell.sink, f"updatecompute {json.dumps(update | {'cpu_cores': 2})}")
        assert refused["code"] == "not-supported-live"
        assert (await ism.ask(cell.sink, "deletecompute key-spoken"))["status"] == "OK"


def _tells_of_update(body: str) -> bool:
    return '"adapted"' in body and '"key-spoken"' in body


def test_agent_restart(cell: RunningCell, guest: Guest) -> None:
    """What was adapted, and a pause, outlive the agent; what is wished while it is away is done when it is back."""
    guest.do("adaptCpuShare", "--share", "700", "--wait")
    cell.kill("nodes", "node1")
    guest.do("adaptCpuShare", "--share", "800")
    guest.do("pauseVm")
    cell.start()
    until(guest.row, lambda row: row["state"] == "Paused", 30)
    assert "<shares>700</shares>" in guest.virsh("dumpxml")
    guest.do("unpauseVm", "--wait")
    until(guest.row, lambda row: row["cpuShare"] == 800, 30)
    assert "<shares>800</shares>" in guest.virsh("dumpxml")


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
