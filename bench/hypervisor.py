"""The agent's hypervisor in this process, on a libvirt that is there already, and orders for guests that boot nothing."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

from tashi.model.instance import Disk, domain_uuid
from tashi.model.orders import Start
from tashi.node.libvirt.connection import LibvirtConnection
from tashi.node.libvirt.guest import LibvirtHypervisor
from tashi.node.libvirt.host import HostReader, Offer
from tashi.node.network.bridges import Bridges
from tashi.node.storage.disks import Disks

CELL: Final = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
IMAGE: Final = "halt.img"
HALT: Final = bytes.fromhex("faf4ebfd").ljust(510, b"\0") + b"\x55\xaa"
"""A boot sector that stops the processor."""


def a_hypervisor(uri: str, directory: Path) -> LibvirtHypervisor:
    """As an agent makes it, with its files in this directory."""
    images = directory / "images"
    images.mkdir(parents=True, exist_ok=True)
    (images / IMAGE).write_bytes(HALT.ljust(2**20, b"\0"))
    disks = Disks(images, directory / "scratch")
    return LibvirtHypervisor(LibvirtConnection(uri), HostReader(Offer(), directory), disks, directory / "console", Bridges({}))


def a_start(number: int) -> Start:
    """An order for a small guest."""
    name = str(domain_uuid(uuid.UUID(CELL), number))
    return Start(instance_id=number, generation=1, name=f"bench{number}", uuid=name, cores=1, memory=32, disks=(Disk(uri=IMAGE),))
