"""Screen, console and CD-ROM drive of the cell's domains on this machine's libvirt, behind `IGuestAccess`.

QEMU's VNC server listens nowhere: its connections are handed to it one by one through libvirt, by whoever has let somebody in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import libvirt

from tashi.errors import CONFLICT, OurFault
from tashi.model.questions import DomainDescription
from tashi.node.access.logs import ConsoleLogs
from tashi.node.domain.description import described
from tashi.node.libvirt.connection import LibvirtConnection
from tashi.node.libvirt.console import LibvirtConsole
from tashi.node.libvirt.domain import canonical, find, own_mark, running_domain
from tashi.node.storage.disks import Disks


class LibvirtAccess:
    """An IGuestAccess on the connection that the hypervisor uses, too."""

    def __init__(self, connection: LibvirtConnection, disks: Disks, logs: ConsoleLogs) -> None:
        self._connection = connection
        self._disks = disks
        self._logs = logs

    def set_vnc_password(self, cell: str, domain_uuid: str, password: str, seconds: float, incarnation: str = "") -> None:
        """See IGuestAccess."""
        with self._connection.talking("its screen cannot be shown") as connection:
            domain = running_domain(connection, cell, domain_uuid, incarnation)
            screen = _device(domain, "graphics[@type='vnc']", "screen", libvirt.VIR_DOMAIN_XML_SECURE)
            screen.set("passwd", password)
            screen.set("passwdValidTo", time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + seconds)))
            domain.updateDeviceFlags(ElementTree.tostring(screen, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def connect_to_screen(self, cell: str, domain_uuid: str, incarnation: str = "") -> int:
        """See IGuestAccess."""
        with self._connection.talking("its screen cannot be shown") as connection:
            return int(running_domain(connection, cell, domain_uuid, incarnation).openGraphicsFD(0, 0))

    def change_cdrom(self, cell: str, domain_uuid: str, image: str, incarnation: str = "") -> None:
        """See IGuestAccess."""
        path = self._disks.cdrom(image) if image else ""
        with self._connection.talking("its CD-ROM was not changed") as connection:
            domain = running_domain(connection, cell, domain_uuid, incarnation)
            drive = _device(domain, "disk[@device='cdrom']", "CD-ROM drive")
            for child in list(drive):
                if child.tag not in ("target", "readonly", "address"):
                    drive.remove(child)
            ElementTree.SubElement(drive, "driver", name="qemu", type="raw")
            if path:
                ElementTree.SubElement(drive, "source", file=path)
            where = libvirt.VIR_DOMAIN_AFFECT_LIVE | (libvirt.VIR_DOMAIN_AFFECT_CONFIG if domain.isPersistent() else 0)
            domain.updateDeviceFlags(ElementTree.tostring(drive, encoding="unicode"), where)

    def open_console(
        self,
        cell: str,
        domain_uuid: str,
        force: bool,
        received: Callable[[bytes], None],
        ended: Callable[[], None],
        incarnation: str = "",
    ) -> LibvirtConsole:
        """See IGuestAccess."""
        with self._connection.talking("its console cannot be opened") as connection:
            return LibvirtConsole(running_domain(connection, cell, domain_uuid, incarnation), force, received, ended)

    def describe(self, cell: str, domain_uuid: str, incarnation: str = "") -> DomainDescription:
        """See IGuestAccess."""
        with self._connection.talking("the domain cannot be described") as connection:
            domain = find(connection, canonical(domain_uuid))
            if domain is None:
                raise OurFault(CONFLICT, "the domain is not on this host any more")
            own_mark(domain, cell, incarnation)
            return described(domain.XMLDesc(), canonical(domain_uuid))

    def read_log(self, name: str, offset: int) -> bytes:
        """See IGuestAccess."""
        return self._logs.read(name, offset)


def _device(domain: Any, path: str, what: str, flags: int = 0) -> ElementTree.Element:
    device = ElementTree.fromstring(domain.XMLDesc(flags)).find(f"devices/{path}")
    if device is None:
        raise OurFault(CONFLICT, f"the instance was made without a {what}")
    return device
