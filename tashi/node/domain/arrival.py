"""A domain that comes from another host, or from a file, built from the record as a new one is. Pure: text in, text out.

Its description is only asked for what the guest's memory depends on: the type of machine, the CPU, the addresses of devices, and the
controllers that libvirt adds by itself. Each of these is taken by an allow-list of elements, attributes and values. Everything else is
what the record says and this host has: files and their formats, bridges, limits, console, screen. So a host cannot give its neighbour a
domain with a directory or a device of that neighbour, with arguments for QEMU, with another user's disk, or with a screen for everybody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from xml.etree import ElementTree

from tashi.errors import CONFLICT, INTERNAL, OurFault
from tashi.model.names import shown

Element = ElementTree.Element


class Allowed(NamedTuple):
    """What may be taken of an element: attributes by the pattern of their values, children, and text by its pattern."""

    attributes: Mapping[str, str] = {}
    children: Mapping[str, Allowed] = {}
    text: str = ""


_NAME: Final = r"[A-Za-z0-9_.:+-]{1,64}"
_NUMBER: Final = r"(?:0x)?[0-9a-fA-F]{1,8}"
_SWITCH: Final = r"on|off|yes|no"
_ADDRESS: Final = Allowed(
    {
        "type": r"pci|drive|usb|virtio-serial|isa",
        **dict.fromkeys(("domain", "bus", "slot", "function", "controller", "target", "unit"), _NUMBER),
        "port": r"[0-9.]{1,16}",
        "multifunction": _SWITCH,
    }
)
_CPU: Final = Allowed(
    {
        "mode": r"custom|host-model|host-passthrough|maximum",
        "match": r"exact|minimum|strict",
        "check": r"none|partial|full",
        "migratable": _SWITCH,
    },
    {
        "model": Allowed({"fallback": r"allow|forbid"}, text=_NAME),
        "vendor": Allowed(text=_NAME),
        "topology": Allowed(dict.fromkeys(("sockets", "dies", "clusters", "cores", "threads"), _NUMBER)),
        "feature": Allowed({"policy": r"force|require|optional|disable|forbid", "name": _NAME}),
        "cache": Allowed({"level": r"[0-9]", "mode": r"emulate|passthrough|disable"}),
        "maxphysaddr": Allowed({"mode": r"emulate|passthrough", "bits": _NUMBER}),
    },
)
_DEVICES: Final = {
    "controller": Allowed(
        {
            "type": r"ide|usb|pci|sata|scsi|virtio-serial|fdc",
            "index": _NUMBER,
            "model": _NAME,
            "ports": _NUMBER,
        },
        {
            "address": _ADDRESS,
            "master": Allowed({"startport": _NUMBER}),
            "model": Allowed({"name": _NAME}),
            "target": Allowed(dict.fromkeys(("chassis", "chassisNr", "port", "busNr", "index"), _NUMBER)),
        },
    ),
    "input": Allowed({"type": r"mouse|keyboard|tablet", "bus": r"ps2|usb|virtio|xen"}, {"address": _ADDRESS}),
    "audio": Allowed({"id": _NUMBER, "type": r"none"}),
    "watchdog": Allowed({"model": r"itco", "action": r"reset|pause"}, {"address": _ADDRESS}),
}
"""Devices that libvirt adds by itself."""
_REQUIRED: Final = {"controller": "type", "input": "type", "audio": "type", "watchdog": "model"}
_TARGET: Final = Allowed({"dev": r"(?:vd|sd|hd|xvd)[a-z]{1,2}", "bus": r"virtio|scsi|ide|sata|xen"})
_VIDEO: Final = Allowed(
    {"type": r"vga|cirrus|virtio|bochs|xen", **dict.fromkeys(("vram", "heads"), _NUMBER), "primary": _SWITCH}
)
_DOMAIN_NAME: Final = re.compile(r"tashi-[0-9]{1,19}-[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_DISK: Final = "disk"
_CDROM: Final = "cdrom"


def cdrom_of(described: str) -> str:
    """Return the name of the image in the domain's CD-ROM drive, '' when that is empty; where it lies is not taken."""
    for drive in _parsed(described).iterfind(f"devices/disk[@device='{_CDROM}']"):
        source = drive.find("source")
        if source is not None:
            return source.get("file", "").rpartition("/")[2]
    return ""


def arrival(described: str, own: str, cdrom: str = "") -> str:
    """Return the domain ``own``, which was made from the record for this host, with what the guest's memory depends on from
    ``described``. ``cdrom``: the file in its drive.

    Raises OurFault when the two are not the same machine: other sizes, another number of disks, other network cards.
    """
    theirs, domain = _parsed(described), _parsed(own)
    _check_equal("uuid", theirs.findtext("uuid", ""), domain.findtext("uuid", ""))
    _check_equal("hypervisor", theirs.get("type", ""), domain.get("type", ""))
    _check_equal("memory in KiB", _kilobytes(theirs.find("memory")), _kilobytes(domain.find("memory")))
    _check_equal("number of cores", theirs.findtext("vcpu", "").strip(), domain.findtext("vcpu", "").strip())
    _take_name(theirs, domain)
    _take_machine(theirs, domain)
    _take_balloon(theirs, domain)
    _take_cpu(theirs, domain)
    ours, other = _devices(domain), _devices(theirs)
    _take_disks(other, ours, cdrom)
    _take_cards(other, ours)
    for tag in ("memballoon", "video"):
        _take_single(other, ours, tag)
    for tag, allowed in _DEVICES.items():
        for device in other.findall(tag):
            taken = _taken(device, allowed)
            if taken.get(_REQUIRED[tag]) is not None:
                ours.append(taken)
    return ElementTree.tostring(domain, encoding="unicode")


def _taken(element: Element, allowed: Allowed) -> Element:
    """A copy of what is allowed of the element."""
    copy = ElementTree.Element(element.tag)
    for name, pattern in allowed.attributes.items():
        value = element.get(name)
        if value is not None and re.fullmatch(pattern, value, re.ASCII):
            copy.set(name, value)
    text = (element.text or "").strip()
    if allowed.text and re.fullmatch(allowed.text, text, re.ASCII):
        copy.text = text
    for child in element:
        rule = allowed.children.get(child.tag)
        if rule is not None:
            copy.append(_taken(child, rule))
    return copy


def _take_name(theirs: Element, domain: Element) -> None:
    """libvirt moves a domain under the name that it has, even if the instance is called something else by now."""
    name = theirs.findtext("name", "")
    if not _DOMAIN_NAME.fullmatch(name):
        raise _refusal("name tashi-ID-NAME", name)
    _child(domain, "name").text = name


def _take_machine(theirs: Element, domain: Element) -> None:
    system, ours = theirs.find("os/type"), domain.find("os/type")
    assert ours is not None
    machine = "" if system is None else system.get("machine", "")
    _check_equal("architecture", "" if system is None else system.get("arch", ""), ours.get("arch", ""))
    if machine:
        if not re.fullmatch(_NAME, machine, re.ASCII):
            raise _refusal("a type of machine", machine)
        ours.set("machine", machine)


def _take_balloon(theirs: Element, domain: Element) -> None:
    """What the guest uses of its memory at this moment."""
    most, present = int(_kilobytes(domain.find("memory"))), _kilobytes(theirs.find("currentMemory"))
    if present.isdigit() and 0 < int(present) <= most:
        current = domain.find("currentMemory")
        if current is None:
            current = ElementTree.Element("currentMemory")
            domain.insert(list(domain).index(_child(domain, "memory")) + 1, current)
        current.attrib.clear()
        current.set("unit", "KiB")
        current.text = present


def _take_cpu(theirs: Element, domain: Element) -> None:
    cpu = domain.find("cpu")
    place = len(domain) if cpu is None else list(domain).index(cpu)
    if cpu is not None:
        domain.remove(cpu)
    described = theirs.find("cpu")
    if described is not None:
        domain.insert(place, _taken(described, _CPU))


def _take_disks(theirs: Element, ours: Element, cdrom: str) -> None:
    disks, described = (devices.findall(f"disk[@device='{_DISK}']") for devices in (ours, theirs))
    _check_equal("number of disks", str(len(described)), str(len(disks)))
    for disk, other in zip(disks, described, strict=True):
        _take_target(other, disk)
        _take_address(other, disk)
    drives = theirs.findall(f"disk[@device='{_CDROM}']")
    for drive in ours.findall(f"disk[@device='{_CDROM}']"):
        if len(drives) != 1:
            ours.remove(drive)  # an older version has made it without one
            continue
        _take_target(drives[0], drive)
        _take_address(drives[0], drive)
        if cdrom:
            drive.insert(
                list(drive).index(_child(drive, "driver")) + 1, ElementTree.Element("source", file=cdrom)
            )


def _take_target(theirs: Element, disk: Element) -> None:
    target = theirs.find("target")
    taken = ElementTree.Element("target") if target is None else _taken(target, _TARGET)
    if set(taken.attrib) != {"dev", "bus"}:
        raise _refusal("the name and the bus of a disk", "" if target is None else str(target.attrib))
    present = _child(disk, "target")
    present.attrib.clear()
    present.attrib.update(taken.attrib)


def _take_cards(theirs: Element, ours: Element) -> None:
    cards = {_mac(card): card for card in ours.findall("interface")}
    described = {_mac(card): card for card in theirs.findall("interface")}
    _check_equal("network cards", " ".join(sorted(described)), " ".join(sorted(cards)))
    for mac, card in cards.items():
        _take_address(described[mac], card)


def _take_single(theirs: Element, ours: Element, tag: str) -> None:
    """The address of a device of which there is one, or none where an older version has made the domain without it."""
    device, described = ours.find(tag), theirs.find(tag)
    if device is None:
        return
    if described is None:
        ours.remove(device)
        return
    _take_address(described, device)
    model = described.find("model")
    if tag == "video" and model is not None:
        taken = _taken(model, _VIDEO)
        if taken.get("type") is not None:
            device.remove(_child(device, "model"))
            device.insert(0, taken)


def _take_address(theirs: Element, device: Element) -> None:
    address = theirs.find("address")
    if address is not None:
        device.append(_taken(address, _ADDRESS))


def _mac(card: Element) -> str:
    mac = card.find("mac")
    return "" if mac is None else mac.get("address", "").lower()


def _kilobytes(element: Element | None) -> str:
    """An amount of memory in KiB, as text; '' when it is none."""
    text = "" if element is None else (element.text or "").strip()
    unit = "KiB" if element is None else element.get("unit", "KiB")
    if not re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) or unit not in ("KiB", "MiB"):
        return ""
    return str(int(text) * (1024 if unit == "MiB" else 1))


def _child(element: Element, tag: str) -> Element:
    found = element.find(tag)
    assert found is not None
    return found


def _devices(domain: Element) -> Element:
    found = domain.find("devices")
    if found is None:
        raise _refusal("devices", "")
    return found


def _check_equal(what: str, got: str, expected: str) -> None:
    if got != expected:
        raise OurFault(
            CONFLICT,
            f"the domain is not the one in the record: {what}: expected {shown(expected)}, got {shown(got)}",
        )


def _refusal(expected: str, got: str) -> OurFault:
    return OurFault(
        INTERNAL,
        f"the description of the domain that is to come is damaged: expected {expected}, got {shown(got)}",
    )


def _parsed(described: str) -> Element:
    try:
        return ElementTree.fromstring(described)
    except ElementTree.ParseError:
        raise OurFault(INTERNAL, "the description of the domain that is to come is damaged") from None
