"""What libvirt is told of an order, and what is refused before it is told anything."""

from __future__ import annotations

import uuid
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tashi.errors import OurFault
from tashi.model.instance import Disk, Nic
from tashi.model.orders import Start
from tashi.node.domain.xml import NAMESPACE, AttachedDisk, Mark, domain_xml, mark_xml, nics_of, read_mark

CELL = "6f1e2f1c-7b5e-4b57-8a52-0a6b1c8a2a11"
UUID = "0b1f6b0e-6f0e-5d4e-9f43-0b7f4b1d2c3a"


def an_order(**changes: Any) -> Start:
    """A Start order for one small machine."""
    values: dict[str, Any] = {
        "instance_id": 7, "generation": 3, "name": "tizzy", "uuid": UUID, "cores": 2, "memory": 512, "disks": (Disk(uri="a.img"),),
    }  # fmt: skip
    return Start(**(values | changes))


def a_domain(
    order: Start, kind: str = "qemu", disks: tuple[AttachedDisk, ...] = (), bridges: dict[int, str] | None = None
) -> ElementTree.Element:
    """The order's XML, parsed again."""
    text = domain_xml(order, cell=CELL, kind=kind, disks=disks, bridges=bridges or {}, console="/console/7.log", secret="s", megahertz=2000)
    return ElementTree.fromstring(text)


def attribute(domain: ElementTree.Element, path: str, name: str) -> str | None:
    """One attribute of one element that is there."""
    element = domain.find(path)
    assert element is not None, path
    return element.get(name)


def test_size_and_names() -> None:
    """Name, UUID, memory and cores are the order's."""
    domain = a_domain(an_order())
    assert domain.findtext("name") == "tashi-7-tizzy"
    assert domain.findtext("uuid") == UUID
    assert (domain.findtext("memory"), attribute(domain, "memory", "unit")) == ("512", "MiB")
    assert domain.findtext("vcpu") == "2"


@pytest.mark.parametrize("kind", ["qemu", "kvm", "test"])
def test_kind(kind: str) -> None:
    """The domain's type is the one that was found to work."""
    assert a_domain(an_order(), kind).get("type") == kind


def test_mark_is_read_back() -> None:
    """The mark in the domain's metadata, and the one that is set later, say the same."""
    mark = Mark(cell=CELL, instance_id=7, generation=3, name="tizzy")
    element = a_domain(an_order()).find(f"metadata/{{{NAMESPACE}}}instance")
    assert element is not None
    assert read_mark(ElementTree.tostring(element, encoding="unicode")) == mark == read_mark(mark_xml(mark))


@pytest.mark.parametrize("text", ["", "<", "<instance/>", "<instance cell='c' id='x' generation='1' name='n'/>"])
def test_no_mark(text: str) -> None:
    """What is not our mark is nobody's."""
    assert read_mark(text) is None


def test_overlay_says_its_whole_chain() -> None:
    """An overlay names its image and its image's format, and that nothing lies beneath."""
    domain = a_domain(an_order(), disks=(AttachedDisk(path="/o/0.qcow2", format="qcow2", base="/i/a.img", base_format="raw"),))
    disk = "devices/disk"
    assert attribute(domain, f"{disk}/driver", "type") == "qcow2"
    assert attribute(domain, f"{disk}/source", "file") == "/o/0.qcow2"
    assert attribute(domain, f"{disk}/backingStore/format", "type") == "raw"
    assert attribute(domain, f"{disk}/backingStore/source", "file") == "/i/a.img"
    assert domain.find(f"{disk}/backingStore/backingStore") is not None


def test_block_device() -> None:
    """A disk that is a device of the host is named as one."""
    domain = a_domain(an_order(), disks=(AttachedDisk(path="/dev/vg/lv7-tizzy", format="raw", device=True),))
    assert attribute(domain, "devices/disk", "type") == "block"
    assert attribute(domain, "devices/disk/source", "dev") == "/dev/vg/lv7-tizzy"


@pytest.mark.parametrize(("bus", "second"), [("virtio", "vdb"), ("scsi", "sdb"), ("ide", "hdb")])
def test_disk_interface(bus: str, second: str) -> None:
    """The hint diskInterface chooses the bus, and the disks are lettered along it."""
    disks = tuple(AttachedDisk(path=f"/i/{name}", format="raw") for name in "ab")
    domain = a_domain(an_order(hints={"diskInterface": bus}), disks=disks)
    assert [target.get("dev") for target in domain.iterfind("devices/disk/target")][1] == second
    assert {target.get("bus") for target in domain.iterfind("devices/disk[@device='disk']/target")} == {bus}


@pytest.mark.parametrize(("count", "names"), [(1, "hda hdc"), (2, "hda hdb hdc"), (3, "hda hdb hdd hdc"), (4, "hda hdb hdc hdd")])
def test_cdrom(count: int, names: str) -> None:
    """There is an empty CD-ROM drive hdc, around which IDE disks are lettered, unless they need its place."""
    disks = tuple(AttachedDisk(path=f"/i/{number}", format="raw") for number in range(count))
    domain = a_domain(an_order(hints={"diskInterface": "ide"}), disks=disks)
    assert " ".join(target.get("dev", "") for target in domain.iterfind("devices/disk/target")) == names
    drives = domain.findall("devices/disk[@device='cdrom']")
    assert [drive.find("source") for drive in drives] == [None] * (count < 4)


def test_screen() -> None:
    """The screen is shown nowhere, and its password is one that has expired."""
    screen = a_domain(an_order()).find("devices/graphics")
    assert screen is not None
    assert screen.attrib == {"type": "vnc", "passwd": "s", "passwdValidTo": "1970-01-01T00:00:01"}
    assert [listen.attrib for listen in screen] == [{"type": "none"}]


def test_nics() -> None:
    """A card sits on its network's bridge, with its own MAC address or one that is always the same."""
    order = an_order(nics=(Nic(network=10, mac="52:54:00:AA:00:01"), Nic(network=10)))
    domain = a_domain(order, bridges={10: "br10"})
    cards = domain.findall("devices/interface")
    assert [attribute(card, "source", "bridge") for card in cards] == ["br10", "br10"]
    assert attribute(cards[0], "mac", "address") == "52:54:00:aa:00:01"
    assert attribute(cards[1], "mac", "address") == nics_of(order)[1].mac == nics_of(an_order(nics=order.nics))[1].mac


def test_network_without_bridge() -> None:
    """A network that this host is not on is refused by its number."""
    with pytest.raises(OurFault, match="no bridge for network 20"):
        a_domain(an_order(nics=(Nic(network=20),)), bridges={10: "br10"})


def test_host_without_networks() -> None:
    """Where no bridge is configured at all, network 0 is no card."""
    assert a_domain(an_order(nics=(Nic(network=0),))).find("devices/interface") is None
    with pytest.raises(OurFault):
        a_domain(an_order(nics=(Nic(network=1),)))


def test_cpu_share() -> None:
    """Only a share that differs from the usual one needs the machine's control groups."""
    assert a_domain(an_order(cpu_share=512)).findtext("cputune/shares") == "512"
    assert a_domain(an_order()).find("cputune") is None


@pytest.mark.parametrize(("speed", "share"), [(1500, "75000"), (2000, "100000"), (5000, "100000"), (1, "1000")])
def test_cpu_speed(speed: int, share: str) -> None:
    """A speed is a quota of each core's time: all of it at most, and never nothing."""
    domain = a_domain(an_order(cpu_speed=speed))
    assert (domain.findtext("cputune/period"), domain.findtext("cputune/quota")) == ("100000", share)


def test_cpu_speed_of_an_unknown_host() -> None:
    """A host that does not know its own speed cannot keep another."""
    with pytest.raises(OurFault, match="how fast"):
        domain_xml(an_order(cpu_speed=1000), cell=CELL, kind="qemu", disks=(), bridges={}, console="/c", secret="s")


def test_disk_weight() -> None:
    """Only a weight that was asked for needs the machine's control groups."""
    assert a_domain(an_order(disk_weight=300)).findtext("blkiotune/weight") == "300"
    assert a_domain(an_order()).find("blkiotune") is None


def test_bandwidth() -> None:
    """Limits stand on every network card, in whole kilobytes, rounded up; what is not limited is not mentioned."""
    domain = a_domain(an_order(nics=(Nic(network=10), Nic(network=10)), net_down=1001), bridges={10: "br10"})
    for card in domain.findall("devices/interface"):
        assert attribute(card, "bandwidth/inbound", "average") == "126"
        assert card.find("bandwidth/outbound") is None
    domain = a_domain(an_order(nics=(Nic(network=10),), net_down=8, net_up=16), bridges={10: "br10"})
    assert attribute(domain, "devices/interface/bandwidth/outbound", "average") == "2"


def test_disk_limits() -> None:
    """Limits stand on every disk; what is not limited is not mentioned."""
    disks = tuple(AttachedDisk(path=f"/i/{name}", format="raw") for name in "ab")
    found = a_domain(an_order(disk_iops=200, disk_bytes=10**6), disks=disks).findall("devices/disk/iotune")
    assert [{one.tag: one.text for one in limits} for limits in found] == [{"total_bytes_sec": "1000000", "total_iops_sec": "200"}] * 2
    assert a_domain(an_order(disk_iops=200), disks=disks).find("devices/disk/iotune/total_bytes_sec") is None
    assert a_domain(an_order(), disks=disks).find("devices/disk/iotune") is None


def test_memory_limit() -> None:
    """A guest that is to do without some of its memory begins so."""
    domain = a_domain(an_order(memory_limit=96))
    assert (domain.findtext("memory"), domain.findtext("currentMemory")) == ("512", "96")
    assert a_domain(an_order()).find("currentMemory") is None


def test_hints() -> None:
    """The original's hints take effect."""
    domain = a_domain(an_order(hints={"noAcpi": "True", "clock": "localtime", "cpumodel": "Nehalem", "nicModel": "e1000"}))
    assert domain.find("features/acpi") is None
    assert attribute(domain, "clock", "offset") == "localtime"
    assert domain.findtext("cpu/model") == "Nehalem"
    assert attribute(a_domain(an_order(hints={"clock": "dynticks"})), "clock", "offset") == "utc"


def test_console_is_kept() -> None:
    """What the guest prints goes to a file as well."""
    assert attribute(a_domain(an_order()), "devices/serial/log", "file") == "/console/7.log"


@pytest.mark.parametrize("hints", [{"diskInterface": "nvme"}, {"nicModel": "x'/><y"}, {"cpumodel": "a b"}])
def test_bad_hints(hints: dict[str, str]) -> None:
    """A hint that cannot be kept is refused with its name."""
    with pytest.raises(OurFault, match=next(iter(hints))):
        a_domain(an_order(hints=hints))


@pytest.mark.parametrize("name", ["x'/><qemu:commandline>", "", "a\x00b", "../x", "a" * 64])
def test_bad_names(name: str) -> None:
    """A name that is no host name never reaches libvirt."""
    with pytest.raises(OurFault):
        a_domain(an_order(name=name))


@given(st.dictionaries(st.sampled_from(["cpumodel", "clock", "nicModel", "diskInterface", "noAcpi", "other"]), st.text()), st.text())
def test_nothing_gets_in(hints: dict[str, str], text: str) -> None:
    """Whatever a hint or a MAC address holds, the domain has the elements it always has, or is refused."""
    try:
        domain = a_domain(an_order(hints=hints, nics=(Nic(network=1, mac=text),)), bridges={1: "br1"})
    except OurFault:
        return
    assert {child.tag for child in domain} <= {
        "name", "uuid", "metadata", "memory", "vcpu", "os", "features", "cpu", "clock", "on_poweroff", "on_reboot", "on_crash", "devices",
    }  # fmt: skip
    assert [child.tag for child in domain.find("devices") or ()] == [
        "disk",
        "interface",
        "serial",
        "console",
        "memballoon",
        "graphics",
        "video",
    ]


def test_uuid_must_be_one() -> None:
    """An order whose UUID is a path is no order."""
    with pytest.raises(ValueError):
        a_domain(an_order(uuid="../../etc"))
    assert uuid.UUID(a_domain(an_order()).findtext("uuid"))
