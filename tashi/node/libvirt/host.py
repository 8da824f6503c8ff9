"""What a machine offers, as libvirt tells it: memory, cores, speed, and which kind of domain runs best."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import msgspec

from tashi import __version__
from tashi.errors import INTERNAL, OurFault
from tashi.model.host import HostFacts
from tashi.model.host_identity import HostIdentity
from tashi.node.kvm_probe import kvm_works
from tashi.node.libvirt.connection import LibvirtConnection
from tashi.node.machine import boot_id, machine_id
from tashi.node.sendable import facts_within_bounds


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator lets the cell have: memory in MB; 0 is no cap. ``reserved`` MB stay with a qemu machine itself."""

    cores: int = 0
    memory: int = 0
    reserved: int = 0


class HostReader:
    """Reads the facts of the machine behind a connection; the kind of its domains is found out once."""

    def __init__(self, offer: Offer, state_directory: Path) -> None:
        self._offer = offer
        self._state_directory = state_directory
        self._kind = ""
        self._process = str(uuid.uuid4())
        self._identified: tuple[Any, str] = (None, "")
        self._asking = threading.Lock()

    def domain_kind(self, connection: Any) -> str:
        """libvirt's domain type here: test, xen, kvm where a guest was seen to run under it, else qemu."""
        with self._asking:
            if not self._kind:
                self._kind = self._find_kind(connection)
            return self._kind

    def facts(self, connection: Any) -> HostFacts:
        """HostFacts of the machine now."""
        kind = self.domain_kind(connection)
        _, megabytes, cores, megahertz, *_ = connection.getInfo()
        with contextlib.suppress(libvirt.libvirtError):  # the test driver has none; elsewhere they know of memory that getInfo misses
            megabytes = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)["total"] // 1024
        if kind != "test":
            megabytes = max(0, megabytes - self._offer.reserved)
        return facts_within_bounds(
            HostFacts(
                memory=_capped(megabytes, self._offer.memory),
                cores=_capped(cores, self._offer.cores),
                cpu_speed=megahertz,
                version=__version__,
                fqdn=os.uname().nodename,
                hypervisor={"test": "test", "xen": "xen", "kvm": "qemu (kvm)"}.get(kind, "qemu (tcg)"),
            )
        )

    def identity(self, libvirt_connection: LibvirtConnection) -> HostIdentity:
        """Return which machine is behind the connection. The domains of a simulated host end with this process, which is its boot."""
        with libvirt_connection.talking("the host could not be identified") as connection:
            if connection.getType().lower() == "test":
                host_uuid, boot = str(uuid.uuid5(uuid.NAMESPACE_URL, str(self._state_directory.resolve()))), self._process
            else:
                host_uuid, boot = self._host_uuid(connection), boot_id()
        return HostIdentity(machine_id=machine_id(), host_uuid=host_uuid, uri=libvirt_connection.uri, boot_id=boot)

    def _host_uuid(self, connection: Any) -> str:
        """Ask once a connection: it leads to the same daemon for as long as it lives."""
        known, host_uuid = self._identified
        if known is not connection:
            host_uuid = ElementTree.fromstring(connection.getCapabilities()).findtext("host/uuid", "")
            self._identified = (connection, host_uuid)
        return host_uuid

    def _find_kind(self, connection: Any) -> str:
        driver = connection.getType().lower()
        if driver in ("test", "xen"):
            return driver
        if driver != "qemu":
            raise OurFault(INTERNAL, f"libvirt's {driver} driver is not supported; use a qemu:///, xen:/// or test:/// URI")
        capabilities = ElementTree.fromstring(connection.getCapabilities())
        for architecture in capabilities.iterfind("guest/arch[@name='x86_64']"):
            emulator = architecture.findtext("emulator", "qemu-system-x86_64")
            if architecture.find("domain[@type='kvm']") is not None and kvm_works(self._state_directory, emulator):
                return "kvm"
        return "qemu"


def _capped(value: int, cap: int) -> int:
    return min(value, cap) if cap else value
