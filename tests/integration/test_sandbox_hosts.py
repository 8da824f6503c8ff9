"""Three hosts of the sandbox: each a machine of its own, guests move between them, and faults hit the one that is meant."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cells import RunningCell, alive, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="the sandbox needs root"),
    pytest.mark.skipif(shutil.which("prosody") is None, reason="prosody is not installed"),
    pytest.mark.skipif(shutil.which("libvirtd", path="/usr/sbin") is None, reason="libvirtd is not installed"),
]
NAMES = ("node1", "node2", "node3")


def sandbox(cell: RunningCell, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tashi.client", "sandbox", *words, "--state-dir", str(cell.state_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_hosts_are_machines_of_their_own(three_hosts: RunningCell) -> None:
    """Hosts have names, ids, UUIDs, machine and boot ids, addresses and capacities of their own."""
    rows = three_hosts.hosts()
    assert [(row["id"], row["name"], row["memory"]) for row in rows.values()] == [
        (1, "node1", 2048),
        (2, "node2", 2048),
        (3, "node3", 2048),
    ]
    capabilities = [ElementTree.fromstring(three_hosts.virsh(name, "capabilities")) for name in NAMES]
    assert len({each.findtext("host/uuid") for each in capabilities}) == 3
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        assert len({three_hosts.inside(name, "cat", path) for name in NAMES} | {Path(path).read_text()}) == 4
    assert [three_hosts.inside(name, "hostname").strip() for name in NAMES] == [f"{name}.cell.test" for name in NAMES]
    addresses = [json.loads(three_hosts.inside(name, "ip", "-4", "-j", "address", "show", "eth0")) for name in NAMES]
    assert len({address[0]["addr_info"][0]["local"] for address in addresses}) == 3


@pytest.fixture
def guest(three_hosts: RunningCell) -> Iterator[Path]:
    """A guest on node1 that is none of the cell's, with a throw-away disk on the share; the file that its console is logged to."""
    share = three_hosts.state_dir / "share"
    disk, console = share / "scratch" / "traveller.qcow2", share / "scratch" / "traveller.log"
    image = ["-F", "raw", "-b", str(share / "images" / "tashi.img")]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *image, str(disk)], check=True)
    domain = ElementTree.Element("domain", type="qemu")
    ElementTree.SubElement(domain, "name").text = "traveller"
    ElementTree.SubElement(domain, "memory", unit="MiB").text = "96"
    ElementTree.SubElement(ElementTree.SubElement(domain, "os"), "type", arch="x86_64", machine="pc").text = "hvm"
    ElementTree.SubElement(ElementTree.SubElement(domain, "features"), "acpi")
    devices = ElementTree.SubElement(domain, "devices")
    drive = ElementTree.SubElement(devices, "disk", type="file", device="disk")
    ElementTree.SubElement(drive, "driver", name="qemu", type="qcow2", cache="none")
    ElementTree.SubElement(drive, "source", file=str(disk))
    ElementTree.SubElement(drive, "target", dev="vda", bus="virtio")
    card = ElementTree.SubElement(devices, "interface", type="bridge")
    ElementTree.SubElement(card, "source", bridge="tashibr0")
    ElementTree.SubElement(card, "model", type="virtio")
    ElementTree.SubElement(ElementTree.SubElement(devices, "serial", type="pty"), "log", file=str(console), append="on")
    definition = share / "scratch" / "traveller.xml"
    definition.write_bytes(ElementTree.tostring(domain))
    three_hosts.virsh("node1", "create", str(definition))
    try:
        yield console
    finally:
        for name in NAMES:
            if "traveller" in three_hosts.domains(name):
                three_hosts.virsh(name, "destroy", "traveller")
        for file in (disk, console, definition):
            file.unlink(missing_ok=True)


def test_a_guest_moves_around_all_hosts(three_hosts: RunningCell, guest: Path) -> None:
    """A running guest with a throw-away disk is handed from libvirt to libvirt around all hosts, and its heart beats on."""

    def heartbeats() -> list[int]:
        return [int(number) for number in re.findall(rb"HB (\d+)", guest.read_bytes())] if guest.exists() else []

    until(heartbeats, lambda beats: len(beats) > 0, 90)
    for source, target in (("node1", "node2"), ("node2", "node3"), ("node3", "node1")):
        three_hosts.virsh(source, "migrate", "--live", "--p2p", "traveller", three_hosts.migration_uri(target))
        assert [name for name in NAMES if "traveller" in three_hosts.domains(name)] == [target]
        before = len(heartbeats())
        until(heartbeats, lambda beats, before=before: len(beats) > before, 30)
    beats = heartbeats()
    assert beats == list(range(1, len(beats) + 1))


def welcome(address: str, context: ssl.SSLContext) -> bytes:
    """The first byte that a host's libvirt says to whoever comes so; none when it turns them away."""
    try:
        with (
            socket.create_connection((address, 16514), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=address) as secured,
        ):
            return secured.recv(1)
    except ssl.SSLError:
        return b""


def test_nobody_else_enters_a_host(three_hosts: RunningCell) -> None:
    """A host's libvirt turns away whoever shows no certificate of the cell's own authority, and welcomes the other hosts."""
    found = re.search(r"//([\d.]+)/", three_hosts.migration_uri("node1"))
    assert found is not None
    context = ssl.create_default_context(cafile=three_hosts.state_dir / "pki" / "ca.pem")
    assert welcome(found[1], context) == b""
    others = three_hosts.state_dir / "nodes" / "node2" / "etc" / "pki"
    context.load_cert_chain(others / "clientcert.pem", others / "clientkey.pem")
    assert welcome(found[1], context) == b"\1"


def test_faults_hit_the_host_that_is_meant(three_hosts: RunningCell) -> None:
    """A host without power and one without a link are missed, the third is not; power and link bring them back as they were."""
    agents = {name: three_hosts.pid("nodes", name) for name in NAMES}
    identity = ("cat", "/etc/machine-id", "/proc/sys/kernel/random/boot_id")
    before = {name: three_hosts.inside(name, *identity).split() for name in NAMES}
    three_hosts.power_cut("node2")
    three_hosts.cut("node3")
    assert three_hosts.description["pids"]["nodes"] == agents | {"node2": None}
    assert not alive(agents["node2"])
    rows = until(three_hosts.hosts, lambda rows: not (rows["node2"]["up"] or rows["node3"]["up"]), 40)
    assert rows["node1"]["up"], three_hosts.logs()
    assert alive(agents["node3"])
    assert three_hosts.virsh("node3", "hostname").strip() == "node3.cell.test"
    three_hosts.boot("node2")
    three_hosts.heal("node3")
    rows = until(three_hosts.hosts, lambda rows: all(row["up"] and not row["decayed"] for row in rows.values()), 60)
    assert [row["id"] for row in rows.values()] == [1, 2, 3]
    assert three_hosts.pid("nodes", "node3") == agents["node3"]
    assert alive(three_hosts.pid("nodes", "node2"))
    after = {name: three_hosts.inside(name, *identity).split() for name in NAMES}
    assert after["node3"] == before["node3"]
    assert after["node2"][0] == before["node2"][0] and after["node2"][1] != before["node2"][1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("kill", "--host", "node9"), "has no host node9; it has node1, node2, node3"),
        (("boot", "--host", "node1"), "is on already"),
        (("heal", "--host", "node1"), "is not cut"),
    ],
)
def test_faults_that_make_no_sense_are_refused(three_hosts: RunningCell, words: tuple[str, ...], told: str) -> None:
    """A fault that cannot be made is told in one line, and nothing happens."""
    before = three_hosts.description
    done = sandbox(three_hosts, *words)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert three_hosts.description == before
