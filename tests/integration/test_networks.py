"""Networks on a real kernel: VLAN bridges or why there are none, scripts for taps, what taps say, and guests of real machines."""

from __future__ import annotations

import ipaddress
import json
import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from tashi.app import node_agent
from tashi.config import load
from tashi.errors import OurFault
from tashi.model.instance import Nic
from tashi.model.orders import Seen
from tashi.node.libvirt.connection import LibvirtConnection
from tashi.node.libvirt.guest import LibvirtHypervisor
from tashi.node.network import ifup
from tashi.node.network.bridges import Bridges
from tashi.node.network.packets import Claim, claim_in
from tashi.node.network.taps import LONGEST_FRAME, listen
from tashi.node.network.vlans import Vlans
from tests.contracts.hypervisor_contract import CELL, an_order
from tests.integration.cells import RunningCell
from tests.integration.network_namespace import network_namespace
from tests.integration.private_libvirtd import wait_until
from tests.integration.test_node_libvirt import QemuCase
from tests.unit.test_packets import arp, dhcp

pytestmark = pytest.mark.integration


def ip(*words: str) -> Any:
    """What `ip` says, as data; AssertionError when it refuses."""
    done = subprocess.run(["ip", "-json", "-details", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "[]")


def links() -> dict[str, Any]:
    """The network devices here by name."""
    return {link["ifname"]: link for link in ip("link")}


@pytest.fixture
def wires() -> Iterator[None]:
    """A network namespace with two ends of a wire, eth0 and far0."""
    with network_namespace():
        ip("link", "add", "eth0", "type", "veth", "peer", "name", "far0")
        for end in ("eth0", "far0"):
            ip("link", "set", "dev", end, "up")
        wait_until(lambda: all(links()[end]["operstate"] == "UP" for end in ("eth0", "far0")))
        yield


def kernel_makes_vlans() -> bool:
    """Whether this kernel does; nothing is left of the trial."""
    command = ["ip", "link", "add", "link", "far0", "name", "trial", "type", "vlan", "id", "7"]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode == 0:
        ip("link", "delete", "dev", "trial")
    return made.returncode == 0


@pytest.mark.usefixtures("wires")
class TestVlans:
    """VLANs of eth0, on a kernel that has them or has not: what it cannot do is refused with its reason."""

    def test_a_network_made_when_needed(self) -> None:
        """VLAN and bridge are made once, however many ask at once, and stay; without VLANs the refusal says why and what to do."""
        bridges = Bridges({5: "far0"}, Vlans("eth0", "vmbr.{id}"))
        if not kernel_makes_vlans():
            before = set(links())
            assert bridges.offered() == ((5,), False)
            with pytest.raises(OurFault, match=r"network 12 cannot be made as a VLAN of eth0: .+; make a bridge for it by hand, and name"):
                bridges.ready([5, 12])
            assert set(links()) == before
            return
        assert bridges.offered() == ((5,), True)
        made: list[dict[int, str]] = []
        starts = [threading.Thread(target=lambda: made.append(bridges.ready([5, 12, 4094]))) for _ in range(4)]
        for start in starts:
            start.start()
        for start in starts:
            start.join()
        assert made == [{5: "far0", 12: "vmbr.12", 4094: "vmbr.4094"}] * 4
        found = links()
        assert (found["eth0.12"]["linkinfo"]["info_data"]["id"], found["eth0.12"]["master"]) == (12, "vmbr.12")
        assert {"UP"} <= set(found["vmbr.12"]["flags"]) & set(found["eth0.12"]["flags"])
        assert "tashi-vlan-try" not in found
        assert Bridges({}, Vlans("eth0", "vmbr.{id}")).ready([12]) == {12: "vmbr.12"}

    def test_what_is_somebody_else_s(self) -> None:
        """A device that has the name and is something else is left alone."""
        ip("link", "add", "name", "eth0.12", "type", "bridge")
        with pytest.raises(OurFault, match=r"eth0\.12 is something else"):
            Vlans("eth0", "vmbr.{id}").make(12)
        if kernel_makes_vlans():
            ip("link", "add", "name", "br13", "type", "bridge")
            ip("link", "add", "link", "eth0", "name", "eth0.13", "type", "vlan", "id", "13")
            ip("link", "set", "dev", "eth0.13", "master", "br13")
            with pytest.raises(OurFault, match=r"eth0\.13 belongs to br13"):
                Vlans("eth0", "vmbr.{id}").make(13)
            assert links()["eth0.13"]["master"] == "br13"


class TestScripts:
    """The operator's script for a tap device."""

    def a_script(self, directory: Path, text: str, mode: int = 0o755) -> Path:
        """A script of the shell."""
        script = directory / "qemu-ifup.7"
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(mode)
        return script

    def test_run(self, tmp_path: Path) -> None:
        """It gets the tap's name, nothing of the agent's environment, and no shell looks at either."""
        script = self.a_script(tmp_path, f'echo "$0 $# $1 $(env | cut -d= -f1 | sort | tr "\\n" " ")" >{tmp_path}/said; (sleep 60 &)')
        ifup.run_script(script, "vnet0; id")
        words = (tmp_path / "said").read_text().split()
        assert words[:4] == [str(script), "1", "vnet0;", "id"] and set(words[4:]) <= {"LC_ALL", "PATH", "PWD", "SHLVL", "_"}

    def test_failure(self, tmp_path: Path) -> None:
        """Its exit code and its last words are told."""
        script = self.a_script(tmp_path, "echo first >&2; echo no such bridge >&2; exit 3")
        with pytest.raises(OurFault, match=r"qemu-ifup\.7 vnet0 ended with 3: no such bridge$"):
            ifup.run_script(script, "vnet0")

    def test_too_slow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that hangs is ended, with what it has started."""
        monkeypatch.setattr(ifup, "SECONDS", 0.5)
        script = self.a_script(tmp_path, f"sleep 60 & echo $! >{tmp_path}/child; wait")
        with pytest.raises(OurFault, match=r"was not through within 0\.5 s"):
            ifup.run_script(script, "vnet0")
        child = int((tmp_path / "child").read_text())
        wait_until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])

    @pytest.mark.parametrize("fault", ["missing", "relative", "no program", "writable", "directory writable", "another's"])
    def test_not_trusted(self, tmp_path: Path, fault: str) -> None:
        """What is not there, is no program, or could have been written by others is refused with its reason, before anything is run."""
        mode = {"no program": 0o644, "writable": 0o757}.get(fault, 0o755)
        script = self.a_script(tmp_path, f"touch {tmp_path}/ran", mode)
        reasons = {"missing": "cannot be found", "relative": "is not absolute", "no program": "is no program"}
        if fault == "missing":
            script.unlink()
        elif fault == "directory writable":
            tmp_path.chmod(0o777)
        elif fault == "another's":
            os.chown(script, 12345, 0)
        path = "qemu-ifup.{id}" if fault == "relative" else str(tmp_path / "qemu-ifup.{id}")
        with pytest.raises(OurFault, match=rf"\[Networks\] ifup names .*qemu-ifup\.7, which .*{reasons.get(fault, 'changed by others')}"):
            Bridges({7: "br7"}, ifup=path).check()
        assert not (tmp_path / "ran").exists()

    def test_an_agent_that_would_need_it(self, tmp_path: Path) -> None:
        """It does not start without, and says why."""
        file = tmp_path / "NodeManager.cfg"
        file.write_text(f"[NodeManagerService]\nstateDir = {tmp_path}/state\n[Networks]\n7 = br7\nifup = {tmp_path}/none\n")
        file.chmod(0o600)
        with pytest.raises(SystemExit, match=r"agent cannot start: \[Networks\] ifup names .*/none, which cannot be found"):
            node_agent(Clock(), load(("NodeManager",), environ={}, directories=[tmp_path]))

    def test_a_link_to_a_script(self, tmp_path: Path) -> None:
        """One script may serve many networks by links, and learns by its own name which one it is called for."""
        script = self.a_script(tmp_path, f'basename "$0" >{tmp_path}/said')
        (tmp_path / "qemu-ifup.8").symlink_to(script)
        Bridges({7: "br7", 8: "br8"}, ifup=str(tmp_path / "qemu-ifup.{id}")).check()
        ifup.run_script(tmp_path / "qemu-ifup.8", "vnet0")
        assert (tmp_path / "said").read_text() == "qemu-ifup.8\n"


@pytest.mark.usefixtures("wires")
def test_what_a_tap_lets_through() -> None:
    """Of all that passes, in both directions, only ARP and what a DHCP server says is heard; each with its direction."""
    noise = [
        dhcp("10.0.0.9", ports="00440043"), dhcp("10.0.0.9", ports="00350044"), dhcp("10.0.0.9", protocol=6),
        dhcp("10.0.0.9", fragment=b"\0\x10"), bytes(12) + b"\x86\xdd" + bytes(60), bytes(60),
    ]  # fmt: skip
    with listen("eth0") as heard, ExitStack() as ends:
        senders = [ends.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) for _ in range(2)]
        for sender, device in zip(senders, ("far0", "eth0"), strict=True):
            sender.bind((device, 0))
        with pytest.raises(BlockingIOError):
            heard.recvfrom(LONGEST_FRAME)
        found = []
        for sender, word in zip(senders, (arp("10.0.0.7"), dhcp("10.0.0.9", options=bytes(4))), strict=True):
            for frame in (*noise, word):
                sender.send(frame)
            select.select([heard], [], [], 20)
            found.append(heard.recvfrom(LONGEST_FRAME))
        with pytest.raises(BlockingIOError):
            heard.recvfrom(LONGEST_FRAME)
    assert [claim_in(frame) for frame, _ in found] == [Claim("52:54:00:12:34:56", "10.0.0.7"), Claim("52:54:00:12:34:56", "10.0.0.9", True)]
    assert [address[2] == socket.PACKET_OUTGOING for _, address in found] == [False, True]


class QemuNetworkTests(QemuCase):
    """Cards of real machines, on a bridge that is there and one that is not."""

    def setUp(self) -> None:
        """A bridge, and an agent that lives where libvirt does."""
        stack = ExitStack()
        self.addCleanup(stack.close)
        stack.enter_context(network_namespace(self.machine.init()))
        ip("link", "add", "name", "br10", "type", "bridge")
        self.addCleanup(ip, "link", "delete", "dev", "br10")
        super().setUp()
        self.script = self.directory / "qemu-ifup"
        self.succeeding(True)

    def succeeding(self, well: bool) -> None:
        """Let the script note for whom it was called, and end well or not."""
        end = "exit 0" if well else "echo the bridge is full >&2; exit 1"
        self.script.write_text(f'#!/bin/sh\necho "$1" $(cat /sys/class/net/"$1"/address) >>{self.directory}/called\n{end}\n')
        self.script.chmod(0o755)

    def a_hypervisor(self) -> tuple[LibvirtHypervisor, LibvirtConnection]:
        """See QemuCase."""
        hypervisor, connection = super().a_hypervisor()
        hypervisor._bridges = Bridges({10: "br10", 11: "br10", 12: "br12"}, ifup=str(self.directory / "qemu-ifup"))
        return hypervisor, connection

    def called(self) -> list[str]:
        """The devices that the script was called for."""
        file = self.directory / "called"
        return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []

    def test_cards(self) -> None:
        """Each card is on its bridge with its own address; the script was called for it when the start is told; it is called again for a
        start that nobody knows the end of, and a guest that is at work already goes on whatever it says."""
        order = an_order(nics=(Nic(network=10, mac="52:54:00:00:00:01"), Nic(network=11)))
        self.assertEqual(self.hypervisor.facts().networks, (10, 11))
        started = self.hypervisor.start(CELL, order)
        (cards,) = self.hypervisor.cards(CELL).values()
        self.assertEqual([(card.network, card.mac) for card in cards], [(nic.network, nic.mac) for nic in started.nics])
        self.assertEqual({links()[card.tap]["master"] for card in cards}, {"br10"})
        self.assertEqual(self.called(), [card.tap for card in cards])
        again, _ = self.a_hypervisor()
        self.succeeding(False)
        self.assertEqual(again.start(CELL, order).seen, Seen.RUNNING)
        self.assertEqual(self.called(), [card.tap for card in [*cards, cards[0]]])
        self.assertEqual(again.cards(CELL), {7: cards})
        self.hypervisor.destroy(CELL, order.uuid, order.generation)
        self.assertEqual(self.hypervisor.cards(CELL), {})

    def test_failing_script(self) -> None:
        """A start whose script fails is refused in its words, and nothing is left of it."""
        self.succeeding(False)
        order = an_order(nics=(Nic(network=10),))
        with self.assertRaisesRegex(OurFault, "ended with 1: the bridge is full"):
            self.hypervisor.start(CELL, order)
        self.assertEqual((len(self.called()), self.listed(), self.scratch(), self.machine.guests()), (1, {}, [], []))
        self.succeeding(True)
        self.assertEqual(self.hypervisor.start(CELL, order).seen, Seen.RUNNING)

    def test_missing_bridge(self) -> None:
        """A network whose bridge is not there is neither offered nor begun with; one that comes later is."""
        order = an_order(nics=(Nic(network=10), Nic(network=12)))
        with self.assertRaisesRegex(OurFault, "the bridge br12 of network 12 is not there"):
            self.hypervisor.start(CELL, order)
        self.assertEqual((self.listed(), self.scratch(), self.called()), ({}, [], []))
        ip("link", "add", "name", "br12", "type", "bridge")
        self.addCleanup(ip, "link", "delete", "dev", "br12")
        self.assertEqual(self.hypervisor.facts().networks, (10, 11, 12))
        self.hypervisor.start(CELL, order)
        self.assertEqual(len(self.called()), 2)

    def listed(self) -> dict[int, Seen]:
        """What is seen here."""
        return {seen.instance_id: seen.seen for seen in self.hypervisor.domains(CELL)}


def test_addresses_of_real_guests(qemu_cell: RunningCell) -> None:
    """What a guest says on its wires is shown with its cards soon after it is up."""
    qemu_cell.cli("createVm", "--name", "talker", "--disks", "tashi", "--nics", "0,0::52:54:00:fe:dc:ba", "--wait")
    try:
        rows = qemu_cell.wait_for_instances(
            lambda rows: all(nic["ip"] for row in rows if row["name"] == "talker" for nic in row["nics"]), 90
        )
        first, second = next(row["nics"] for row in rows if row["name"] == "talker")
        assert second == {"network": 0, "mac": "52:54:00:fe:dc:ba", "ip": "169.254.220.186", "learnt": "169.254.220.186"}
        assert ipaddress.ip_address(first["ip"]).is_link_local
        assert "169.254.220.186:52:54:00:fe:dc:ba" in qemu_cell.cli("getInstances", "--show-nics", "--hide-disk")
    finally:
        qemu_cell.cli("destroyVm", "--instance", "talker", "--wait")
