"""Domains that leave this machine and come to it, by libvirt's peer-to-peer migration: the source's daemon speaks to the target's.

Before anything is touched the target has looked at all it must have for the domain. A migration has a connection of its own, since it
takes one of the few calls that a daemon answers a client at once. One that stands still or takes too long is ended, and the domain stays.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import libvirt
import msgspec

from tashi.errors import INTERNAL, OurFault
from tashi.model.instance import console_name
from tashi.model.orders import Deed, Migrate, Offer, Receive, Start
from tashi.node.domain.arrival import arrival, cdrom_of
from tashi.node.domain.landing import check_identity, files_of, mark_of_described, needs_of, without_secrets
from tashi.node.domain.target_address import check_target_address
from tashi.node.domain.xen import xml_for_xen
from tashi.node.domain.xml import domain_xml, mark_for
from tashi.node.faults import HypervisorAway
from tashi.node.libvirt.jobs import Job, Jobs
from tashi.node.network.bridges import Bridges
from tashi.node.storage.disks import Disks
from tashi.node.storage.generations import is_throw_away
from tashi.node.storage.scratch import scratch_of

REACHABLE_SECONDS: Final = 5.0
_PORTS: Final = {"qemu+tls": 16514, "qemu+tcp": 16509, "qemu+ssh": 22}
_FLAGS: Final = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_AUTO_CONVERGE
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
)
_STEP: Final = 0.2


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How domains come here: libvirt's address of this machine for its neighbours; and how they leave: MB a second, 0 for no limit."""

    address: str
    bandwidth: int = 0


NOWHERE: Final = Way(address="")
"""No other host has a way to this one."""


class Moves:
    """Both ends of a migration on this machine."""

    def __init__(self, uri: str, way: Way, disks: Disks, jobs: Jobs, consoles: Path, bridges: Bridges) -> None:
        self._uri = uri
        self._way = way
        self._disks = disks
        self._jobs = jobs
        self._consoles = consoles
        self._bridges = bridges
        self._expected: set[str] = set()

    def depart(self, domain: Any, deed: Deed) -> Offer:
        """Describe the domain, and leave a sign by which a target that shares our disks knows that it does."""
        check_movable(domain, deed.uuid, self._disks)
        self._disks.check_bases(deed.uuid, files_of(domain.XMLDesc()))
        if not domain.isPersistent():
            raise OurFault(INTERNAL, "the domain is not defined on its host; it was made by somebody else")
        self._disks.take(deed.uuid, lambda: files_of(domain.XMLDesc()))
        self._disks.generations.leave_sign(deed.uuid, deed.generation)
        return Offer(domain=without_secrets(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)))

    def receive(self, cell: str, connection: Any, kind: str, deed: Receive) -> Offer:
        """Look at all that the domain needs here, make what is missing, and say how it will be here; OurFault when it cannot be had."""
        self._check(connection, kind, deed.described)
        shared = self._disks.generations.finds_sign(deed.uuid, mark_of_described(deed.described).generation)
        if shared:
            directory = self._disks.directory_of(deed.uuid, files_of(deed.described))
        else:
            self._disks.prepare(deed.uuid, deed.generation, deed.disks, scratch_of(deed))
            directory = self._disks.generations.path(deed.uuid, deed.generation)
        landing = self.land(connection, cell, kind, deed, deed.described, directory)
        self._expected.add(deed.uuid)
        return Offer(domain=landing, address=self._way.address, shared=shared)

    def has_arrived(self, domain_uuid: str) -> bool:
        """Whether this domain, which is seen to run here, was expected; told once."""
        expected = domain_uuid in self._expected
        self._expected.discard(domain_uuid)
        return expected

    def land(
        self, connection: Any, cell: str, kind: str, order: Receive | Start, described: str, directory: Path
    ) -> str:
        """Return the described domain as it will be on this host, built from the record; its disks are in this directory already.
        OurFault when one is not, or when the description is of another machine than the record."""
        check_identity(described, mark_for(order, cell))
        simulated = kind == "test"
        disks = self._disks.check(order.disks) if simulated else self._disks.existing(directory, order.disks, scratch_of(order))
        cdrom = cdrom_of(described)
        self._consoles.mkdir(parents=True, exist_ok=True)
        own = domain_xml(
            order,
            cell=cell,
            kind=kind,
            disks=disks,
            bridges=self._bridges.ready((nic.network for nic in order.nics), simulated),
            console=str(self._consoles / f"{console_name(UUID(cell), order.instance_id, order.incarnation, order.name)}.log"),
            secret=secrets.token_urlsafe(6),
            megahertz=connection.getInfo()[3] if order.cpu_speed else 0,
        )
        if kind == "xen":
            own = xml_for_xen(own, order, str(self._disks.images))
        return arrival(described, own, self._disks.cdrom(cdrom) if cdrom else "")

    def migrate(self, domain: Any, deed: Migrate) -> None:
        """Move the domain; when this returns it is not here any more. OurFault when it stays."""
        with self._jobs.under_way(deed.uuid) as job:
            if _is_busy(domain):  # whoever ran here before us has begun it
                _await_end(domain, job)
                if not _is_here(domain):
                    return
                raise OurFault(INTERNAL, "a migration that was under way when the node agent was restarted has failed")
            check_target_address(deed.address, self._way.address)
            _check_reachable(deed.address)
            files = list(files_of(domain.XMLDesc()))
            self._disks.check_bases(deed.uuid, files)
            if deed.shared:
                self._disks.let_go(deed.uuid, files)
            try:
                with self._own_connection() as own:
                    copied = [] if deed.shared else _own_disks(deed)
                    flags = _FLAGS | (libvirt.VIR_MIGRATE_NON_SHARED_INC if copied else 0)
                    own.lookupByUUIDString(deed.uuid).migrateToURI3(deed.address, self._parameters(deed, copied), flags)
            except libvirt.libvirtError as error:
                words = job.why_ended or _why(error, deed.address)
                if not _is_here(domain):
                    return
                self._disks.take(deed.uuid, lambda: files)
                raise OurFault(INTERNAL, words) from error

    def _check(self, connection: Any, kind: str, described: str) -> None:
        needs = needs_of(described)
        if needs.kind != kind:
            raise OurFault(INTERNAL, f"the domain runs under {needs.kind}, and this host has {kind}")
        try:
            connection.getDomainCapabilities(None, needs.architecture or None, needs.machine or None, needs.kind)
        except libvirt.libvirtError as error:
            raise OurFault(INTERNAL, f"this host cannot run a machine of type {needs.machine}: {error.get_error_message()}") from error
        if needs.cpu and kind == "kvm" and not _cpu_fits(connection, needs):
            raise OurFault(INTERNAL, "this host's CPU lacks what the domain's guest was promised; see `virsh hypervisor-cpu-compare`")
        free = _free_kilobytes(connection)
        if free < needs.memory:
            raise OurFault(INTERNAL, f"this host has {free // 1024} MB of memory left, and the domain needs {needs.memory // 1024}")

    def _parameters(self, deed: Migrate, copied: list[str]) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            libvirt.VIR_MIGRATE_PARAM_DEST_XML: deed.landing,
            libvirt.VIR_MIGRATE_PARAM_PERSIST_XML: deed.landing,
        }
        if self._way.bandwidth:
            parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = self._way.bandwidth
        if copied:
            parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = copied
        return parameters

    @contextlib.contextmanager
    def _own_connection(self) -> Iterator[Any]:
        try:
            connection = libvirt.open(self._uri)
        except libvirt.libvirtError as error:
            raise HypervisorAway(f"no connection to {self._uri}: {error.get_error_message()}") from error
        try:
            yield connection
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()


def _own_disks(deed: Migrate) -> list[str]:
    """The names of the disks that are the domain's alone: its overlays and scratch space."""
    return sorted({name for path, name in files_of(deed.landing).items() if is_throw_away(deed.uuid, Path(path))})


def _why(error: libvirt.libvirtError, address: str) -> str:
    """libvirt's words, and what they mean where they alone would not tell."""
    said = error.get_error_message() or str(error)
    if error.get_error_domain() == libvirt.VIR_FROM_RPC:
        return f"the connection to libvirt at {urlsplit(address).hostname or address} was lost ({said})"
    return said


def check_movable(domain: Any, domain_uuid: str, disks: Disks) -> None:
    """OurFault when the domain uses a file that no other host could have, such as a logical volume."""
    for path in files_of(domain.XMLDesc()):
        if disks.place_of(domain_uuid, path) is None:
            raise OurFault(INTERNAL, f"the domain uses {path}, which only its host has; it has to stay there")


def _cpu_fits(connection: Any, needs: Any) -> bool:
    compared = connection.compareHypervisorCPU(None, needs.architecture, needs.machine, needs.kind, needs.cpu, 0)
    return bool(compared != libvirt.VIR_CPU_COMPARE_INCOMPATIBLE)


def _free_kilobytes(connection: Any) -> int:
    """What could be given to a guest without taking it from another."""
    memory = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    return int(memory.get("free", 0) + memory.get("buffers", 0) + memory.get("cached", 0))


def _check_reachable(address: str) -> None:
    """Find out at once what libvirt would need minutes for: that nobody answers there."""
    parts = urlsplit(address)
    port = parts.port or _PORTS.get(parts.scheme)
    if not parts.hostname or port is None:
        return
    try:
        socket.create_connection((parts.hostname, port), REACHABLE_SECONDS).close()
    except OSError as error:
        raise OurFault(INTERNAL, f"libvirt of the target does not answer at {parts.hostname}:{port}: {error}") from None


def _is_busy(domain: Any) -> bool:
    return bool(domain.jobInfo()[0] not in (libvirt.VIR_DOMAIN_JOB_NONE, libvirt.VIR_DOMAIN_JOB_COMPLETED))


def _is_here(domain: Any) -> bool:
    """Whether the domain still has life on this machine."""
    try:
        return bool(domain.isActive())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise


def _await_end(domain: Any, job: Job) -> None:
    """Wait for a job that nobody here waits for; it ends by itself, or is ended."""
    with contextlib.suppress(libvirt.libvirtError):
        while _is_busy(domain) and not job.is_overdue():
            time.sleep(_STEP)
