"""A domain's XML as Xen's driver of libvirt (libxl) takes it, made of the one for QEMU. Pure: text in, text out.

A guest is a whole machine (the hint vmtype is hvm, or none) or a paravirtual one, which boots by its own disk (pygrub), or by a kernel
that lies among the images (kernel, and pvgrub, whose kernel is PV-GRUB; the hints kernel and ramdisk name the files). Devices are Xen's own
unless a hint names another kind. Shares and speed are no part of it: Xen's scheduler is told of them when the domain runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from xml.etree import ElementTree

from tashi.errors import BAD_ARGUMENT, OurFault, TashiError
from tashi.model.names import check_image, shown
from tashi.model.orders import Receive, Start
from tashi.node.domain.xml import DISK_BUSES

XEN_WEIGHT_OF_A_SHARE: Final = 0.25
"""Xen's usual weight is 256 where the usual share is 1024."""
_COMMAND_LINES: Final = {"kernel": "root=/dev/xvda ro console=hvc0", "pvgrub": "(hd0,0)/boot/grub/menu.lst"}
_KINDS: Final = ("hvm", "pygrub", "pvgrub", "kernel")


def xml_for_xen(text: str, order: Start | Receive, images: str) -> str:
    """The description for Xen; ``images`` is the directory in which kernels lie.

    Raises OurFault(bad-argument) when the order asks for something that Xen does not give.
    """
    domain = ElementTree.fromstring(text)
    kind = order.hints.get("vmtype", "hvm")
    if kind not in _KINDS:
        raise OurFault(BAD_ARGUMENT, f"the hint vmtype is {shown(kind)}; use one of {', '.join(_KINDS)}")
    _refuse_what_xen_does_not_limit(domain)
    for tag in ("cputune", "cpu"):
        _drop(domain, tag)
    whole = kind == "hvm"
    if not whole:
        _make_paravirtual(domain, kind, order.hints, images)
    devices = domain.find("devices")
    assert devices is not None
    for path in ("graphics", "video", "disk[@device='cdrom']"):  # the ways to these are QEMU's
        for device in devices.findall(path):
            devices.remove(device)
    for place, disk in enumerate(devices.findall("disk")):
        _make_disk(disk, place, whole)
    for interface in devices.findall("interface"):
        model = interface.find("model")
        if model is not None and (not whole or model.get("type") == "virtio"):
            interface.remove(model)
    _make_consoles(devices, whole)
    for balloon in devices.findall("memballoon"):
        balloon.clear()
        balloon.set("model", "xen")
    return ElementTree.tostring(domain, encoding="unicode")


def weight_of(share: int) -> int:
    """The weight, in Xen's words, of a CPU share."""
    return max(1, min(65_535, round(share * XEN_WEIGHT_OF_A_SHARE)))


def share_of(weight: int) -> int:
    """The CPU share that a weight of Xen's is."""
    return round(weight / XEN_WEIGHT_OF_A_SHARE)


def _refuse_what_xen_does_not_limit(domain: ElementTree.Element) -> None:
    for path, what in (
        ("blkiotune", "the weight of disks"),
        ("devices/disk/iotune", "what disks do"),
        ("devices/interface/bandwidth/inbound", "what network cards receive"),
    ):
        if domain.find(path) is not None:
            raise OurFault(BAD_ARGUMENT, f"this host runs Xen, which does not limit {what}; ask for none, or for another host")


def _make_paravirtual(domain: ElementTree.Element, kind: str, hints: Mapping[str, str], images: str) -> None:
    _drop(domain, "features")
    system = domain.find("os")
    assert system is not None
    place = list(domain).index(system)
    system.clear()
    guest = ElementTree.SubElement(system, "type", arch="x86_64", machine="xenpv")
    guest.text = "linux"
    if kind == "pygrub":
        bootloader = ElementTree.Element("bootloader")
        bootloader.text = "pygrub"
        domain.insert(place, bootloader)
        return
    for hint, tag in (("kernel", "kernel"), ("ramdisk", "initrd")):
        if hint == "kernel" or hint in hints:
            ElementTree.SubElement(system, tag).text = f"{images}/{_file(hint, hints.get(hint))}"
    ElementTree.SubElement(system, "cmdline").text = _COMMAND_LINES[kind]


def _file(hint: str, value: str | None) -> str:
    try:
        return check_image(f"the hint {hint}", value)
    except TashiError as error:
        raise OurFault(BAD_ARGUMENT, error.message) from None


def _make_disk(disk: ElementTree.Element, place: int, whole: bool) -> None:
    driver, target = disk.find("driver"), disk.find("target")
    assert driver is not None and target is not None
    driver.attrib.pop("cache", None)
    bus, name = target.attrib["bus"], target.attrib["dev"]
    if not whole or bus == "virtio":
        target.attrib.update(bus="xen", dev="xvd" + name.removeprefix(DISK_BUSES[bus]))


def _make_consoles(devices: ElementTree.Element, whole: bool) -> None:
    """What the guest prints is kept by Xen's own console daemon, if at all."""
    for serial in devices.findall("serial"):
        _drop(serial, "log")
        if not whole:
            devices.remove(serial)
    if not whole:
        for target in devices.findall("console/target"):
            target.set("type", "xen")


def _drop(parent: ElementTree.Element, tag: str) -> None:
    for child in parent.findall(tag):
        parent.remove(child)
