"""A domain as another host describes it, made into the domain that this host will have. Pure: text in, text out.

Everything of it stays as the guest knows it. Only what belongs to a host is this host's: where its files lie, which bridge its network
cards are plugged into, where its console is kept, and the order by which it is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from xml.etree import ElementTree

import msgspec

from tashi.errors import BAD_ARGUMENT, INTERNAL, OurFault
from tashi.node.domain.xml import NAMESPACE, Mark, mark_in, shut_screen, write_mark

_PLACES: Final = ("file", "dev")
_MARK: Final = f"metadata/{{{NAMESPACE}}}instance"


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a described domain needs of the host that is to have it: memory in KiB; libvirt's words for the rest."""

    kind: str
    memory: int
    emulator: str
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
        emulator=domain.findtext("devices/emulator", ""),
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
    """The description without the password of the domain's screen, for which `landed` sets another."""
    domain = _parsed(described)
    for screen in domain.iterfind("devices/graphics"):
        for secret in ("passwd", "passwdValidTo"):
            screen.attrib.pop(secret, None)
    return ElementTree.tostring(domain, encoding="unicode")


def landed(
    described: str,
    *,
    mark: Mark,
    files: Mapping[str, str],
    bridge_of: Callable[[str], str],
    console: str,
    secret: str,
) -> str:
    """The domain as this host will have it, with this mark.

    ``files``: where each of its files is here; ``bridge_of``: the bridge for the card with this MAC address; ``console``: the file
    that keeps what the guest prints; ``secret``: its screen's password, which lets nobody in.
    OurFault names a file that has no place here, or says that the domain is of another cell, instance or incarnation."""
    found = mark_of_described(described)
    if (found.cell, found.instance_id, found.incarnation) != (mark.cell, mark.instance_id, mark.incarnation):
        raise OurFault(
            INTERNAL,
            f"expected the domain of {told_identity(mark)}, got the one of {told_identity(found)}; it was left alone",
        )
    domain = _parsed(described)
    element = domain.find(_MARK)
    assert element is not None
    write_mark(element, msgspec.structs.replace(found, generation=mark.generation))
    for disk in domain.iterfind("devices/disk"):
        for source in disk.iter("source"):
            for place in _PLACES:
                if path := source.get(place):
                    if path not in files:
                        raise OurFault(BAD_ARGUMENT, f"the domain uses {path}, which this host cannot have; it has to stay where it is")
                    source.set(place, files[path])
    for card in domain.iterfind("devices/interface[@type='bridge']"):
        mac, plug = card.find("mac"), card.find("source")
        if mac is not None and plug is not None:
            plug.set("bridge", bridge_of(mac.get("address", "")))
    for log in domain.iterfind("devices/*/log"):
        log.set("file", console)
    for screen in domain.iterfind("devices/graphics[@type='vnc']"):
        shut_screen(screen, secret)
    return ElementTree.tostring(domain, encoding="unicode")


def told_identity(mark: Mark) -> str:
    """Whose domain this is, in words."""
    return f"instance {mark.instance_id} of cell {mark.cell}, incarnation {mark.incarnation or 'none'}"


def _parsed(described: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(described)
    except ElementTree.ParseError:
        raise OurFault(INTERNAL, "the description of the domain that is to come is damaged") from None
