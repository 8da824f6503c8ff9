"""What the description of a domain says: its needs, its files, the order it answers to. Pure: text in, values out."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree

import msgspec

from tashi.errors import INTERNAL, OurFault
from tashi.node.domain.xml import NAMESPACE, Mark, mark_in

_PLACES: Final = ("file", "dev")
_MARK: Final = f"metadata/{{{NAMESPACE}}}instance"


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a described domain needs of the host that is to have it: memory in KiB; libvirt's words for the rest."""

    kind: str
    memory: int
    architecture: str
    machine: str
    cpu: str  # as XML; empty: none is named


def needs_of(described: str) -> Needs:
    """What the domain needs; OurFault when the description is none."""
    domain = _parsed(described)
    system = domain.find("os/type")
    cpu = domain.find("cpu")
    return Needs(
        kind=domain.get("type", ""),
        memory=int(domain.findtext("currentMemory") or domain.findtext("memory") or 0),
        architecture="" if system is None else system.get("arch", ""),
        machine="" if system is None else system.get("machine", ""),
        cpu="" if cpu is None else ElementTree.tostring(cpu, encoding="unicode"),
    )


def mark_of_described(described: str) -> Mark:
    """The mark of the described domain; OurFault when it does not carry ours."""
    element = _parsed(described).find(_MARK)
    mark = None if element is None else mark_in(element)
    if mark is None:
        raise OurFault(INTERNAL, "the description of the domain carries no mark of this cell")
    return mark


def files_of(described: str) -> dict[str, str]:
    """The files of the domain's disks, those beneath overlays among them, each with the name of its disk, such as vda."""
    return {
        source.get(place, ""): disk.find("target").get("dev", "")  # type: ignore[union-attr]
        for disk in _parsed(described).iterfind("devices/disk")
        for source in disk.iter("source")
        for place in _PLACES
        if source.get(place)
    }


def without_secrets(described: str) -> str:
    """The description without the password of the domain's screen, for which the target sets another."""
    domain = _parsed(described)
    for screen in domain.iterfind("devices/graphics"):
        for secret in ("passwd", "passwdValidTo"):
            screen.attrib.pop(secret, None)
    return ElementTree.tostring(domain, encoding="unicode")


def check_identity(described: str, mark: Mark) -> None:
    """OurFault when the described domain is of another cell, instance or incarnation than the mark."""
    found = mark_of_described(described)
    if (found.cell, found.instance_id, found.incarnation) != (mark.cell, mark.instance_id, mark.incarnation):
        raise OurFault(
            INTERNAL,
            f"expected the domain of {told_identity(mark)}, got the one of {told_identity(found)}; it was left alone",
        )


def told_identity(mark: Mark) -> str:
    """Whose domain this is, in words."""
    return f"instance {mark.instance_id} of cell {mark.cell}, incarnation {mark.incarnation or 'none'}"


def _parsed(described: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(described)
    except ElementTree.ParseError:
        raise OurFault(INTERNAL, "the description of the domain that is to come is damaged") from None
