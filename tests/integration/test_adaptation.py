"""One real virtual machine, paused, reset, adapted and shut down while it runs; its console's heartbeat tells what it notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tashi.sandbox.processes import main_process, processes_of
from tashi.sandbox.qemu_host import init_of
from tests.integration.cells import RunningCell, alive, compute, running_cell, until

pytestmark = pytest.mark.integration
BOOT_SECONDS = 60


class Guest:
    """A virtual machine whose console tells that it lives."""

    def __init__(self, cell: RunningCell, name: str, *words: str) -> None:
        self.cell = cell
        self.name = name
        row = json.loads(cell.cli("createVm", "--name", name, "--disks", "tashi.img", "--memory", "128", "--wait", "-o", "json", *words))[0]
        self.domain = cell.virsh(row["host"], "domuuid", f"tashi-{row['id']}-{name}").strip()
        self.log = next(cell.state_dir.rglob(f"console/{self.domain}.*.log"))
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
        return subprocess.run(
            ["virsh", "-c", uri, verb, self.domain, *words], capture_output=True, text=True, timeout=30, check=True
        ).stdout

    def description(self, *words: str) -> ElementTree.Element:
        """The domain as libvirt has it."""
        return ElementTree.fromstring(self.virsh("dumpxml", *words))

    def given(self) -> list[str]:
        """What of its resources libvirt says it has, in its own words, live and defined."""
        paths = ("memory", "currentMemory", "cputune", "blkiotune", "devices/disk/iotune")
        descriptions = (self.description(), self.description("--inactive"))
        found = [one.find(path) for one in descriptions for path in paths]
        return [ElementTree.tostring(element, encoding="unicode").strip() for element in found if element is not None]

    def classes(self) -> list[str]:
        """The rates to which the host's kernel holds what goes to the guest."""
        card = self.description().find("devices/interface/target")
        assert card is not None
        init = init_of(processes_of(self.cell.state_dir), "node1")
        command = ["nsenter", "-t", str(init and init.pid), "--net", "--", "tc", "class", "show", "dev", card.attrib["dev"]]
        return re.findall(r"class htb .*? rate (\S+)", subprocess.run(command, capture_output=True, text=True, check=True).stdout)

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


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        (("--iops", "2000", "--bytes", "50000000"), {"total_bytes_sec": "50000000", "total_iops_sec": "2000"}),
        (("--bytes", "none"), {"total_iops_sec": "2000"}),
        (("--iops", "0"), {}),
    ],
)
def test_disk_limits(guest: Guest, words: tuple[str, ...], limits: dict[str, str]) -> None:
    """What each disk may do in a second is limited live and in the definition, and the limits are taken away one by one."""
    assert guest.do("adaptDiskBandwidth", *words, "--wait") == ""
    for definition in ((), ("--inactive",)):
        assert {limit.tag: limit.text for limit in guest.description(*definition).findall("devices/disk/iotune/*")} == limits
    row = guest.row()
    recorded = {"total_bytes_sec": row["diskBytes"], "total_iops_sec": row["diskIops"]}
    assert {name: str(limit) for name, limit in recorded.items() if limit is not None} == limits


def test_kept(cell: RunningCell, guest: Guest) -> None:
    """Share, quota, limits of disks and the balloon outlive a reset of the guest, and libvirtd and the agent killed at once."""
    guest.do("adaptCpuShare", "--share", "600", "--wait")
    guest.do("adaptMemoryLimit", "--limit", "96", "--wait")
    guest.do("adaptDiskBandwidth", "--iops", "2000", "--bytes", "50000000", "--wait")
    speed = json.loads(cell.cli("getHosts", "-o", "json"))[0]["cpuSpeed"] // 2
    asyncio.run(_ask(cell, f"updatecompute {json.dumps({'resourceId': guest.name, 'cpu_speed': speed})}"))
    given, row, printed = guest.given(), guest.row(), len(guest.printed())
    guest.do("vmmSpecificCall", "--arg", "reset")
    guest.wait_for("HB 3 ", after=printed)
    assert guest.memory() < 70_000
    assert (guest.given(), guest.row()) == (given, row)
    cell.kill("nodes", "node1")
    libvirtd = main_process(processes_of(cell.state_dir), "libvirtd:node1")
    assert libvirtd is not None
    os.kill(libvirtd.pid, signal.SIGKILL)
    until(lambda: alive(libvirtd.pid), lambda living: not living, 10)
    cell.start()
    until(guest.row, lambda found: found == row, 30)
    assert guest.given() == given
    guest.do("adaptMemoryLimit", "--limit", "128", "--wait")
    asyncio.run(_ask(cell, f"updatecompute {json.dumps({'resourceId': guest.name, 'cpu_speed': 0, 'disk_iops': 0, 'disk_bytes': 0})}"))
    assert guest.row()["cpuSpeed"] is None
    assert "vcpu_quota     : -1" in guest.virsh("schedinfo")


async def _ask(cell: RunningCell, body: str) -> None:
    async with cell.peer("ism") as ism:
        reply = await ism.ask(cell.sink, body)
        assert reply["status"] == "OK", reply


def test_network_limits(cell: RunningCell, guest: Guest) -> None:
    """What the guest receives is limited for real; where the kernel cannot limit what it sends, that is refused, and the other limit is
    still in place."""
    make_tc_lenient(cell)
    guest.do("adaptNetworkBandwidth", "--downspeed", "8001", "--wait")
    before = guest.row()
    assert (before["netDown"], guest.classes()) == (8008, ["8008Kbit"])
    guest.cell_says("adaptNetworkBandwidth", "--downspeed", "16000", "--upspeed", "4000", "--wait")
    after = guest.row()
    if after["netUp"] is None:  # a kernel that polices nothing
        assert "the host refuses: " in after["reason"]
        assert (after, guest.classes()) == (before | {"reason": after["reason"]}, ["8008Kbit"])
        for definition in ((), ("--inactive",)):
            found = guest.description(*definition).findall("devices/interface/bandwidth/*")
            assert [(limit.tag, limit.get("average")) for limit in found] == [("inbound", "1001")]
    guest.do("adaptNetworkBandwidth", "--downspeed", "none", "--upspeed", "none", "--wait")
    assert (guest.row()["netDown"], guest.row()["netUp"], guest.classes()) == (None, None, [])


def make_tc_lenient(cell: RunningCell) -> None:
    """Lay over the host's tc one that does without what a small kernel lacks: a fair queue is a plain one there, and the filter that leads
    to the default class is left out, since everything goes to that class anyway."""
    system = Path(shutil.which("tc") or "/sbin/tc").resolve()
    real, wrapper = cell.state_dir / "tc.real", cell.state_dir / "tc"
    shutil.copy(system, real)
    wrapper.write_text(_LENIENT_TC.format(python=sys.executable, real=real))
    wrapper.chmod(0o755)
    init = init_of(processes_of(cell.state_dir), "node1")
    assert init is not None
    inside = ["nsenter", "-t", str(init.pid), "--mount", "--"]
    subprocess.run([*inside, "mount", "--bind", str(wrapper), str(system)], check=True)


_LENIENT_TC = """#!{python} -I
import os, sys
words = sys.argv[1:]
if "fw" in words:
    sys.exit(0)
if "sfq" in words:
    words[words.index("sfq"):] = ["pfifo"]
os.execv("{real}", ["tc", *words])
"""


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
        before = _domain(cell, created["ids"][0])
        restart = {"resourceId": "key-spoken", "cpu_cores": 2, "memory_size": 160, "restart": True}
        reply = await ism.ask(cell.sink, f"reprovisioncompute {json.dumps(restart)}")
        assert (reply["status"], reply["ids"], reply["state"]) == ("OK", created["ids"], "Running"), reply
        after = _domain(cell, created["ids"][0])
        assert [before.findtext(name) for name in ("name", "uuid")] == [after.findtext(name) for name in ("name", "uuid")]
        assert [card.attrib for card in before.iter("mac")] == [card.attrib for card in after.iter("mac")]
        assert (before.get("id") != after.get("id"), after.findtext("vcpu"), after.findtext("memory")) == (True, "2", str(160 * 1024))
        assert (before.findtext("cputune/quota"), after.findtext("cputune/shares")) == (after.findtext("cputune/quota"), "300")
        assert (await ism.ask(cell.sink, "deletecompute key-spoken"))["status"] == "OK"


def _domain(cell: RunningCell, number: int) -> ElementTree.Element:
    """The instance's domain as libvirt has it."""
    command = ["virsh", "-c", cell.description["hosts"][0]["uri"], "dumpxml", f"tashi-{number}-spoken"]
    return ElementTree.fromstring(subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout)


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
    """A guest without a power button runs on, with a reason; its owner may destroy it."""
    guest = Guest(cell, "deaf", "--hints", "noAcpi=True")
    guest.do("shutdownVm")
    row = until(guest.row, lambda row: "has not shut down for 5 s" in row["reason"], 30)
    assert row["state"] == "Running"
    guest.do("destroyVm", "--wait")
    assert "deaf" not in [row["name"] for row in cell.instances()]
