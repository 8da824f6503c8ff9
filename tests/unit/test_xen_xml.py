"""What Xen's driver of libvirt is told of an order, and what is refused there."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from tashi.errors import OurFault
from tashi.model.instance import Disk, Nic
from tashi.model.orders import Start
from tashi.node.domain.xen import share_of, weight_of, xml_for_xen
from tashi.node.domain.xml import NAMESPACE, AttachedDisk, domain_xml

CELL = "6f1e2f1c-7b5e-4b57-8a52-0a6b1c8a2a11"
UUID = "0b1f6b0e-6f0e-5d4e-9f43-0b7f4b1d2c3a"
DISKS = tuple(AttachedDisk(path=f"/o/{number}.qcow2", format="qcow2", base="/i/a.img", base_format="raw") for number in (0, 1))


def a_domain(**changes: Any) -> ElementTree.Element:
    """An order for Xen as libvirt gets it."""
    fields: dict[str, Any] = {"cores": 2, "memory": 512, "disks": (Disk(uri="a.img"),), "nics": (Nic(network=10),)}
    order = Start(instance_id=7, generation=3, name="tizzy", uuid=UUID, **(fields | changes))
    text = domain_xml(order, cell=CELL, kind="xen", disks=DISKS, bridges={10: "br10"}, console="/c/7.log", secret="s", megahertz=2000)
    return ElementTree.fromstring(xml_for_xen(text, order, "/images"))


def targets(domain: ElementTree.Element) -> list[tuple[str | None, str | None]]:
    """Where the guest sees its disks."""
    return [(target.get("dev"), target.get("bus")) for target in domain.iterfind("devices/disk/target")]


def test_whole_machine() -> None:
    """Unless asked otherwise a guest is a whole machine with Xen's own devices, our mark, and what it may use of its memory."""
    domain = a_domain(memory_limit=256)
    assert (domain.get("type"), domain.findtext("os/type"), domain.findtext("currentMemory")) == ("xen", "hvm", "256")
    assert domain.find(f"metadata/{{{NAMESPACE}}}instance") is not None
    assert targets(domain) == [("xvda", "xen"), ("xvdb", "xen")]
    assert domain.find("devices/interface/model") is None
    assert [balloon.attrib for balloon in domain.findall("devices/memballoon")] == [{"model": "xen"}]
    assert domain.find("devices/serial/log") is None


def test_other_devices() -> None:
    """The hints name other devices for a whole machine; a paravirtual one has Xen's disks."""
    hints = {"diskInterface": "ide", "nicModel": "e1000"}
    assert targets(a_domain(hints=hints)) == [("hda", "ide"), ("hdb", "ide")]
    assert a_domain(hints=hints).find("devices/interface/model") is not None
    assert targets(a_domain(hints=hints | {"vmtype": "pygrub"})) == [("xvda", "xen"), ("xvdb", "xen")]


def test_paravirtual() -> None:
    """A paravirtual guest boots by its disk's own boot loader, or by a kernel among the images."""
    domain = a_domain(hints={"vmtype": "pygrub"})
    assert (domain.findtext("bootloader"), domain.findtext("os/type")) == ("pygrub", "linux")
    assert domain.find("features") is None and domain.find("devices/serial") is None
    domain = a_domain(hints={"vmtype": "kernel", "kernel": "vmlinuz", "ramdisk": "initrd.gz"})
    assert (domain.findtext("os/kernel"), domain.findtext("os/initrd")) == ("/images/vmlinuz", "/images/initrd.gz")
    assert domain.find("bootloader") is None


@pytest.mark.parametrize(
    ("hints", "word"),
    [
        ({"vmtype": "lxc"}, "vmtype"),
        ({"vmtype": "kernel"}, "kernel"),
        ({"vmtype": "kernel", "kernel": "../../boot/vmlinuz"}, "kernel"),
        ({"vmtype": "kernel", "kernel": "vmlinuz", "ramdisk": "/etc/shadow"}, "ramdisk"),
    ],
)
def test_bad_hints(hints: dict[str, str], word: str) -> None:
    """A hint that cannot be kept, or names a file elsewhere, is refused by its name."""
    with pytest.raises(OurFault, match=word):
        a_domain(hints=hints)


@pytest.mark.parametrize("limit", ["disk_weight", "disk_iops", "disk_bytes", "net_down"])
def test_what_xen_does_not_limit(limit: str) -> None:
    """A limit that would not be kept is refused rather than forgotten."""
    with pytest.raises(OurFault, match="does not limit"):
        a_domain(**{limit: 300})
    assert a_domain(net_up=8).find("devices/interface/bandwidth/outbound") is not None


def test_shares() -> None:
    """The usual share is Xen's usual weight, there and back; neither end is passed."""
    assert (weight_of(1024), share_of(256)) == (256, 1024)
    assert (weight_of(2), weight_of(262_144)) == (1, 65_535)
    assert a_domain(cpu_share=512, cpu_speed=1000).find("cputune") is None
