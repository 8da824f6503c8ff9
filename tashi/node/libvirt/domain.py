"""One domain on libvirt: found by its UUID, known by our mark, and what is seen of it in our words."""

from __future__ import annotations

import uuid
from typing import Any, Final

import libvirt

from tashi.errors import CONFLICT, INTERNAL, OurFault
from tashi.model.orders import Observation, Seen
from tashi.node.domain.xml import NAMESPACE, PREFIX, Mark, mark_xml, read_mark
from tashi.node.libvirt.connection import gone_meanwhile

PAUSED: Final = frozenset({libvirt.VIR_DOMAIN_PAUSED})
ENDED: Final = frozenset({libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_NOSTATE})
_REASONS: Final = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: "shut down",
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: "migrated away",
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: "saved",
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: "failed to start",
}


def canonical(text: str) -> str:
    """The UUID as libvirt writes it, fit for a file name."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise OurFault(INTERNAL, "the order names no domain: its UUID is not one") from None


def find(connection: Any, domain_uuid: str) -> Any:
    """The domain, or None."""
    with gone_meanwhile():
        return connection.lookupByUUIDString(domain_uuid)
    return None


def mark_of(domain: Any) -> Mark | None:
    """Our mark on the domain; None on a stranger."""
    try:
        return read_mark(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise


def own_mark(domain: Any, cell: str) -> Mark:
    """Our mark on the domain; OurFault when it is somebody else's."""
    mark = mark_of(domain)
    if mark is None or mark.cell != cell:
        raise OurFault(INTERNAL, f"the domain {domain.name()} has the instance's UUID but is not this cell's; it was left alone")
    return mark


def renewed(domain: Any, mark: Mark, generation: int, where: int = libvirt.VIR_DOMAIN_AFFECT_LIVE) -> Mark:
    """The mark with this generation, written into the domain while it lives: what is defined keeps that of the order that began it, which
    is enough to know it by when it has ended. ``where``: libvirt's word for another place."""
    if mark.generation == generation:
        return mark
    mark = Mark(cell=mark.cell, instance_id=mark.instance_id, generation=generation, name=mark.name)
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, mark_xml(mark), PREFIX, NAMESPACE, where)
    return mark


def has_run(domain: Any) -> bool:
    """Return whether a domain that is shut off has run: libvirt knows how it ended, and that is no failed start."""
    state, why = domain.state()
    return state == libvirt.VIR_DOMAIN_CRASHED or (why in _REASONS and why != libvirt.VIR_DOMAIN_SHUTOFF_FAILED)


def seen_of(domain: Any, mark: Mark) -> Observation:
    """What is seen of the domain with this mark."""
    state, why = domain.state()
    seen, reason = Seen.RUNNING, ""
    if state in ENDED:
        seen = Seen.GONE
        reason = "crashed" if state == libvirt.VIR_DOMAIN_CRASHED else _REASONS.get(why, "")
    elif state in PAUSED:
        seen = Seen.PAUSED
    return Observation(instance_id=mark.instance_id, generation=mark.generation, seen=seen, reason=reason)


def running_domain(connection: Any, cell: str, domain_uuid: str) -> Any:
    """The cell's domain of this UUID; OurFault when there is none, when it does not run, or when it is not this cell's."""
    domain = find(connection, canonical(domain_uuid))
    if domain is None or domain.state()[0] in ENDED:
        raise OurFault(CONFLICT, "the instance does not run on its host any more")
    own_mark(domain, cell)
    return domain
