"""A Start order as the XML libvirt is given, and our mark in that XML read back. Pure: elements in, text out.

Everything about a disk is said, so that nothing is guessed from what a guest may have written: its format, and for an overlay the file
beneath it with its format. What an order asks for that cannot be had is refused in words (OurFault, for the operator and the owner).
"""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Final
from xml.etree import ElementTree

import msgspec

from tashi.errors import BAD_ARGUMENT, OurFault, TashiError
from tashi.model.bounds import LARGEST, LONGEST_NAME
from tashi.model.instance import DEFAULT_CPU_SHARE, Nic, domain_name
from tashi.model.names import check_hostname, check_integer, check_mac, shown
from tashi.model.orders import Receive, Start
from tashi.node.network.cards import alias_of

NAMESPACE: Final = "urn:x-tashi:instance:1"
PREFIX: Final = "tashi"
UNPLUGGED: Final = 0
"""The network that every host has: where no bridge is configured it is no network card at all."""
DISK_BUSES: Final = {"virtio": "vd", "scsi": "sd", "ide": "hd"}
CDROM_PLACE: Final = 2
"""The drive's place on the IDE bus: hdc, which QEMU calls ide1-cd0. A machine of four IDE disks has no place for it."""
NIC_MODELS: Final = ("virtio", "e1000", "rtl8139")
CLOCKS: Final = ("utc", "localtime")
_CPU_MODEL: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BRIDGE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,15}")
_TRUE: Final = ("1", "true", "yes", "on")

PERIOD: Final = 100_000
"""Microseconds within which a core's quota is counted."""
_LEAST_QUOTA: Final = 1000

ElementTree.register_namespace(PREFIX, NAMESPACE)


class AttachedDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A file a domain gets as a disk, or a block ``device``. ``base`` is what an overlay (``path``, qcow2) lies over, with its format."""

    path: str
    format: str
    device: bool = False
    base: str = ""
    base_format: str = ""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What we write into a domain's metadata: whose it is, and which order it answers to.

    ``incarnation`` is '' and ``user_id``, the owner's, None in a domain that an older version made.
    """

    cell: str
    instance_id: int
    generation: int
    incarnation: str = ""
    name: str
    user_id: int | None = None


def domain_xml(
    order: Start | Receive,
    *,
    cell: str,
    kind: str,
    disks: Sequence[AttachedDisk],
    bridges: Mapping[int, str],
    console: str,
    secret: str,
    megahertz: int = 0,
) -> str:
    """The domain XML of an order: ``kind`` is libvirt's type (kvm, qemu, test), ``console`` the file that keeps what the guest prints,
    ``secret`` the password of its screen, which nobody is let in with before another is set, ``megahertz`` the speed of the host's cores.

    Raises OurFault(bad-argument) when the order asks for something this host cannot give.
    """
    try:
        return ElementTree.tostring(_domain(order, cell, kind, disks, bridges, console, secret, megahertz), encoding="unicode")
    except OurFault:
        raise
    except TashiError as error:
        raise OurFault(error.code, error.message) from None


def quota(speed: int, megahertz: int) -> int:
    """Microseconds of each `PERIOD` that make a core of the host as fast as ``speed`` MHz; never more than the whole core."""
    if megahertz <= 0:
        raise OurFault(BAD_ARGUMENT, "this host does not tell how fast its cores are, so that their speed cannot be limited")
    return max(_LEAST_QUOTA, min(PERIOD, round(PERIOD * speed / megahertz)))


def kilobytes(kilobits: int) -> int:
    """Whole kilobytes a second, as libvirt counts, that hold so many kbit/s."""
    return -(-kilobits // 8)


def mark_xml(mark: Mark) -> str:
    """The mark alone, as `virDomainSetMetadata` takes it: without a namespace, which that call adds itself."""
    return ElementTree.tostring(ElementTree.Element("instance", _mark_attributes(mark)), encoding="unicode")


def mark_for(order: Start | Receive, cell: str) -> Mark:
    """The mark of the domain that this order starts."""
    return Mark(
        cell=cell,
        instance_id=order.instance_id,
        generation=order.generation,
        incarnation=order.incarnation,
        name=order.name,
        user_id=order.user_id,
    )


def read_mark(text: str) -> Mark | None:
    """The mark in a metadata element; None when the text is not one of ours."""
    try:
        return mark_in(ElementTree.fromstring(text))
    except ElementTree.ParseError:
        return None


def mark_in(element: ElementTree.Element) -> Mark | None:
    """The mark that this metadata element holds; None when it is not one of ours."""
    attributes = element.attrib
    try:
        mark = Mark(
            cell=attributes["cell"],
            instance_id=int(attributes["id"]),
            generation=int(attributes["generation"]),
            incarnation=attributes.get("incarnation", ""),
            name=attributes["name"],
            user_id=int(attributes["user"]) if "user" in attributes else None,
        )
    except (KeyError, ValueError):
        return None
    numbers = (mark.instance_id, mark.generation, mark.user_id or 0)
    return mark if all(0 <= number <= LARGEST for number in numbers) and len(mark.incarnation) <= LONGEST_NAME else None


def write_mark(element: ElementTree.Element, mark: Mark) -> None:
    """Replace the mark in this metadata element."""
    element.attrib.clear()
    element.attrib.update(_mark_attributes(mark))


def nics_of(order: Start | Receive) -> tuple[Nic, ...]:
    """The order's network cards, each with a MAC address: one that was left open follows from the domain's UUID and the card's place.
    What addresses they will have is not known yet."""
    return tuple(Nic(network=nic.network, mac=nic.mac or _derived_mac(order.uuid, place)) for place, nic in enumerate(order.nics))


def shut_screen(screen: ElementTree.Element, secret: str) -> None:
    """Let nobody in at a screen: this password was valid in 1970. Without any it would be open to all, and could not be given one."""
    screen.set("passwd", secret)
    screen.set("passwdValidTo", "1970-01-01T00:00:01")


def _domain(
    order: Start | Receive,
    cell: str,
    kind: str,
    disks: Sequence[AttachedDisk],
    bridges: Mapping[int, str],
    console: str,
    secret: str,
    megahertz: int,
) -> ElementTree.Element:
    check_hostname("name", order.name)
    domain = ElementTree.Element("domain", type=kind)
    _add(domain, "name", domain_name(order.instance_id, order.name))
    _add(domain, "uuid", str(uuid.UUID(order.uuid)))
    mark = mark_for(order, cell)
    _add(_add(domain, "metadata"), f"{{{NAMESPACE}}}instance", **_mark_attributes(mark))
    _add(domain, "memory", str(order.memory), unit="MiB")
    if order.memory_limit:
        _add(domain, "currentMemory", str(check_integer("memory_limit", order.memory_limit, 1, order.memory)), unit="MiB")
    _add(domain, "vcpu", str(order.cores))
    _add_tuning(domain, order, megahertz)
    system = _add(domain, "os")
    _add(system, "type", "hvm", arch="x86_64")
    for device in ("hd", "cdrom"):  # in this order: a disk with nothing to boot may be installed from a CD-ROM
        _add(system, "boot", dev=device)
    features = _add(domain, "features")
    if order.hints.get("noAcpi", "").strip().lower() not in _TRUE:
        _add(features, "acpi")
    _add(features, "apic")
    _add_cpu(domain, kind, order.hints)
    clock = order.hints.get("clock", "utc")
    _add(domain, "clock", offset=clock if clock in CLOCKS else "utc")  # dynticks and its like were ways of qemu's that are gone
    _add(domain, "on_poweroff", "destroy")
    _add(domain, "on_reboot", "restart")
    _add(domain, "on_crash", "destroy")
    _add_devices(domain, order, disks, bridges, console)
    _add_screen(domain, secret)
    return domain


def _add_tuning(domain: ElementTree.Element, order: Start | Receive, megahertz: int) -> None:
    """What the order is given of the host's time and disks; libvirt starts no domain whose share it cannot keep."""
    if order.cpu_share != DEFAULT_CPU_SHARE or order.cpu_speed:
        tuning = _add(domain, "cputune")
        if order.cpu_share != DEFAULT_CPU_SHARE:
            _add(tuning, "shares", str(check_integer("cpuShare", order.cpu_share, 2, 262_144)))
        if order.cpu_speed:
            _add(tuning, "period", str(PERIOD))
            _add(tuning, "quota", str(quota(order.cpu_speed, megahertz)))
    if order.disk_weight:
        _add(_add(domain, "blkiotune"), "weight", str(check_integer("disk_weight", order.disk_weight, 100, 1000)))


def _add_cpu(domain: ElementTree.Element, kind: str, hints: Mapping[str, str]) -> None:
    model = hints.get("cpumodel", "")
    if model:
        if not _CPU_MODEL.fullmatch(model):
            raise OurFault(BAD_ARGUMENT, f"the hint cpumodel is {shown(model)}; use the name of a CPU model that `virsh cpu-models` lists")
        _add(_add(domain, "cpu", mode="custom", match="exact"), "model", model)
    elif kind == "kvm":
        _add(domain, "cpu", mode="host-model")


def _add_devices(
    domain: ElementTree.Element, order: Start | Receive, disks: Sequence[AttachedDisk], bridges: Mapping[int, str], console: str
) -> None:
    bus = _chosen("diskInterface", order.hints.get("diskInterface", "virtio"), tuple(DISK_BUSES))
    nic_model = _chosen("nicModel", order.hints.get("nicModel", "virtio"), NIC_MODELS)
    devices = _add(domain, "devices")
    has_drive = bus != "ide" or len(disks) <= CDROM_PLACE + 1
    places = (place for place in itertools.count() if bus != "ide" or place != CDROM_PLACE or not has_drive)
    for place, disk in zip(places, disks, strict=False):
        _add_disk(devices, disk, bus, place, order)
    if has_drive:
        _add_cdrom(devices)
    for place, nic in enumerate(nics_of(order)):
        if nic.network == UNPLUGGED and not bridges:
            continue  # a host that was told of no network at all runs its guests without one
        bridge = bridges.get(nic.network, "")
        if not _BRIDGE.fullmatch(bridge):
            raise OurFault(BAD_ARGUMENT, f"this host has no bridge for network {nic.network}; name one in its [Networks] section")
        interface = _add(devices, "interface", type="bridge")
        _add(interface, "mac", address=check_mac("mac", nic.mac))
        _add(interface, "source", bridge=bridge)
        _add(interface, "alias", name=alias_of(nic.network, place))
        _add(interface, "model", type=nic_model)
        if order.net_down or order.net_up:
            bandwidth = _add(interface, "bandwidth")
            for direction, limit in (("inbound", order.net_down), ("outbound", order.net_up)):
                if limit:
                    _add(bandwidth, direction, average=str(kilobytes(limit)))
    serial = _add(devices, "serial", type="pty")
    _add(serial, "log", file=console, append="on")
    _add(serial, "target", port="0")
    terminal = _add(devices, "console", type="pty")
    _add(terminal, "target", type="serial", port="0")
    _add(_add(devices, "memballoon", model="virtio"), "stats", period="5")


def _add_disk(devices: ElementTree.Element, disk: AttachedDisk, bus: str, place: int, order: Start | Receive) -> None:
    element = _add(devices, "disk", type="block" if disk.device else "file", device="disk")
    _add(element, "driver", name="qemu", type=disk.format, cache="writeback")
    _add(element, "source", **{"dev" if disk.device else "file": disk.path})
    beneath = _add(element, "backingStore")  # empty: there is none, and libvirt need not look for one
    if disk.base:
        beneath.set("type", "file")
        _add(beneath, "format", type=disk.base_format)
        _add(beneath, "source", file=disk.base)
        _add(beneath, "backingStore")
    _add(element, "target", dev=DISK_BUSES[bus] + _letters(place), bus=bus)
    limits = [(name, limit) for name, limit in (("total_bytes_sec", order.disk_bytes), ("total_iops_sec", order.disk_iops)) if limit]
    if limits:
        tuning = _add(element, "iotune")
        for name, limit in limits:
            _add(tuning, name, str(limit))


def _add_cdrom(devices: ElementTree.Element) -> None:
    """An empty drive, which can be filled while the domain runs."""
    drive = _add(devices, "disk", type="file", device="cdrom")
    _add(drive, "driver", name="qemu", type="raw")
    _add(drive, "target", dev=DISK_BUSES["ide"] + _letters(CDROM_PLACE), bus="ide")
    _add(drive, "readonly")


def _add_screen(domain: ElementTree.Element, secret: str) -> None:
    """A screen whose VNC server listens nowhere."""
    devices = domain.find("devices")
    assert devices is not None
    screen = _add(devices, "graphics", type="vnc")
    shut_screen(screen, secret)
    _add(screen, "listen", type="none")
    _add(_add(devices, "video"), "model", type="vga")


def _mark_attributes(mark: Mark) -> dict[str, str]:
    attributes = {"cell": mark.cell, "id": str(mark.instance_id), "generation": str(mark.generation), "name": mark.name}
    if mark.incarnation:
        attributes["incarnation"] = mark.incarnation
    if mark.user_id is not None:
        attributes["user"] = str(mark.user_id)
    return attributes


def _chosen(hint: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise OurFault(BAD_ARGUMENT, f"the hint {hint} is {shown(value)}; use one of {', '.join(choices)}")
    return value


def _letters(place: int) -> str:
    """0 is a, 25 is z, 26 is aa, as disks are lettered."""
    first, last = divmod(place, 26)
    return (_letters(first - 1) if first else "") + chr(ord("a") + last)


def _derived_mac(domain: str, place: int) -> str:
    octets = uuid.uuid5(uuid.UUID(domain), f"nic/{place}").bytes[:3]
    return "52:54:00:" + ":".join(f"{octet:02x}" for octet in octets)


def _add(parent: ElementTree.Element, tag: str, text: str | None = None, /, **attributes: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element
