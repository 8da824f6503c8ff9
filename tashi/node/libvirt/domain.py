"""One domain on libvirt: found by its UUID, known by our mark, and what is seen of it in our words."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any, Final

import libvirt
import msgspec

from tashi.errors import CONFLICT, INTERNAL, OurFault
from tashi.model.causes import OFF, Cause, in_words
from tashi.model.disks import is_own
from tashi.model.instance import console_name, domain_uuid
from tashi.model.orders import Observation, Seen
from tashi.model.stray import MOST_DISKS, DomainSummary
from tashi.node.domain.description import described
from tashi.node.domain.xml import NAMESPACE, PREFIX, Mark, mark_xml, read_mark
from tashi.node.libvirt.causes import STATES, cause_of
from tashi.node.libvirt.connection import gone_meanwhile

PAUSED: Final = frozenset({libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED})
ENDED: Final = frozenset({libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_NOSTATE})
"""States without a guest; whether the domain has ended or is only off, `seen_of` tells."""


def canonical(text: str) -> str:
    """The UUID as libvirt writes it, fit for a file name."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise OurFault(INTERNAL, "the order names no domain: its UUID is not one") from None


def find(connection: Any, named: str) -> Any:
    """The domain of this UUID, or None."""
    with gone_meanwhile():
        return connection.lookupByUUIDString(named)
    return None


def mark_of(domain: Any) -> Mark | None:
    """Our mark on the domain; None on a stranger, and on a clone, which has the metadata of another domain but not its UUID."""
    try:
        mark = read_mark(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise
    return mark if mark is not None and _has_uuid(mark, domain.UUIDString()) else None


def _has_uuid(mark: Mark, text: str) -> bool:
    try:
        return domain_uuid(uuid.UUID(mark.cell), mark.instance_id) == uuid.UUID(text)
    except ValueError:
        return False


def own_mark(domain: Any, cell: str, incarnation: str | None) -> Mark:
    """The cell's mark on the domain of this incarnation (None: of any); OurFault when it is somebody else's."""
    mark = mark_of(domain)
    if mark is None or mark.cell != cell:
        raise OurFault(
            INTERNAL,
            f"the domain {domain.name()} has the instance's UUID but no mark of this cell; it was left alone: put back its metadata, "
            "or end it with `virsh destroy` and `virsh undefine`",
        )
    if incarnation is not None and mark.incarnation != incarnation:
        raise OurFault(
            INTERNAL,
            f"the domain {domain.name()} has the instance's UUID but belongs to another instance (incarnation "
            f"{mark.incarnation or 'none'}); it was left alone, see `tashi getStrays`",
        )
    return mark


def renewed(domain: Any, mark: Mark, generation: int, where: int = libvirt.VIR_DOMAIN_AFFECT_LIVE) -> Mark:
    """The mark with this generation, written into the domain while it lives: what is defined keeps that of the order that began it, which
    is enough to know it by when it has ended. ``where``: libvirt's word for another place."""
    if mark.generation == generation:
        return mark
    mark = msgspec.structs.replace(mark, generation=generation)
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, mark_xml(mark), PREFIX, NAMESPACE, where)
    return mark


def has_run(domain: Any) -> bool:
    """Return whether a domain that is shut off has run: libvirt knows how it ended, and that is no failed start."""
    return cause_of(*domain.state()) not in (None, Cause.FAILED)


def seen_of(domain: Any, mark: Mark) -> Observation:
    """What is seen of the domain with this mark, with the cause where it does not run."""
    state, why = domain.state()
    seen, cause, detail = STATES.get(state, Seen.RUNNING), cause_of(state, why), ""
    if state in ENDED and _is_saved_by_host(domain):
        cause = Cause.SAVED_BY_HOST
    if cause in OFF:
        seen = Seen.PAUSED
    if cause is Cause.IO_ERROR:
        cause, detail = _disk_trouble(domain)
    reason = in_words(cause, detail) if cause is not None else ""
    return Observation(
        instance_id=mark.instance_id,
        generation=mark.generation,
        incarnation=mark.incarnation,
        seen=seen,
        reason=reason,
        cause=cause,
    )


def console_of(domain: Any) -> str:
    """The name of the log of this domain's console."""
    with gone_meanwhile():
        mark = mark_of(domain)
        if mark is not None:
            return console_name(uuid.UUID(mark.cell), mark.instance_id, mark.incarnation, mark.name)
    return str(domain.name())


def sized(domain: Any, mark: Mark, observation: Observation) -> Observation:
    """The observation with the size of the domain, if that is alive."""
    if observation.seen not in (Seen.RUNNING, Seen.PAUSED):
        return observation
    _, most, _, cores, _ = domain.info()
    disks: tuple[str, ...] = ()
    with contextlib.suppress(OurFault):  # a damaged definition
        found = described(domain.XMLDesc(), domain.UUIDString()).disks
        disks = tuple(disk.uri[:128] for disk in found if is_own(disk.uri))[:MOST_DISKS]
    summary = DomainSummary(
        name=mark.name[:63], user_id=mark.user_id, cores=int(cores), memory=-(-int(most) // 1024), disks=disks
    )
    return msgspec.structs.replace(observation, domain=summary)


def observed_as(observation: Observation, cause: Cause) -> Observation:
    """The observation of a domain that is off, for this cause."""
    seen = Seen.PAUSED if cause in OFF else Seen.GONE
    return msgspec.structs.replace(observation, seen=seen, cause=cause, reason=in_words(cause))


def _is_saved_by_host(domain: Any) -> bool:
    with contextlib.suppress(libvirt.libvirtError):  # some drivers know no managed saves
        return bool(domain.hasManagedSaveImage())
    return False


def _disk_trouble(domain: Any) -> tuple[Cause, str]:
    """Whether an I/O error was one of space, and the disks that had it."""
    errors: dict[str, int] = {}
    with contextlib.suppress(libvirt.libvirtError):  # its process does not answer: an I/O error it is in any case
        errors = domain.diskErrors()
    full = sorted(disk for disk, error in errors.items() if error == libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE)
    if full:
        return Cause.NO_SPACE, ", ".join(full)
    return Cause.IO_ERROR, ", ".join(sorted(errors))


def running_domain(connection: Any, cell: str, named: str, incarnation: str) -> Any:
    """The cell's domain of this UUID and incarnation; OurFault when there is none, when it does not run, or when it is another's."""
    domain = find(connection, canonical(named))
    if domain is None or domain.state()[0] in ENDED:
        raise OurFault(CONFLICT, "the instance does not run on its host any more")
    own_mark(domain, cell, incarnation)
    return domain
