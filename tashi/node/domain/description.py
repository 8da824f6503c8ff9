"""A domain of ours read back from its XML: what a record of it needs to say. Pure: text in, values out."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree

from tashi.errors import INTERNAL, OurFault
from tashi.model.instance import DEFAULT_CPU_SHARE, Disk, Nic
from tashi.model.questions import DomainDescription
from tashi.node.domain.landing import mark_of_described
from tashi.node.network.cards import network_of

_KIB_A_MB: Final = 1024


def described(text: str, domain_uuid: str) -> DomainDescription:
    """Describe the domain of this UUID by its XML. OurFault when that carries no mark of ours or is damaged.

    A file in a directory called like the UUID is the domain's own: an overlay stands for the image beneath it, and scratch space,
    which goes with the domain, is left out. Any other disk is an image that is used itself, a persistent disk.
    """
    mark = mark_of_described(text)
    domain = ElementTree.fromstring(text)
    memory, limit = _mebibytes(domain.find("memory")), _mebibytes(domain.find("currentMemory"))
    return DomainDescription(
        instance_id=mark.instance_id,
        incarnation=mark.incarnation,
        name=mark.name,
        user_id=mark.user_id,
        cores=_whole(domain.findtext("vcpu")),
        memory=memory,
        memory_limit=limit if 0 < limit < memory else None,
        cpu_share=_whole(domain.findtext("cputune/shares") or str(DEFAULT_CPU_SHARE)),
        disks=tuple(filter(None, (_disk(disk, domain_uuid) for disk in domain.iterfind("devices/disk[@device='disk']")))),
        nics=tuple(filter(None, map(_nic, domain.iterfind("devices/interface")))),
    )


def _disk(element: ElementTree.Element, domain_uuid: str) -> Disk | None:
    source = element.find("source")
    path = "" if source is None else source.get("file") or source.get("dev") or ""
    if domain_uuid not in path.split("/"):
        return Disk(uri=_name(path), persistent=True) if element.get("type") == "file" else None
    base = element.find("backingStore/source")
    return None if base is None else Disk(uri=_name(base.get("file", "")))


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _nic(element: ElementTree.Element) -> Nic | None:
    mac, alias = element.find("mac"), element.find("alias")
    network = network_of("" if alias is None else alias.get("name", ""))
    return None if mac is None or network is None else Nic(network=network, mac=mac.get("address", "").lower())


def _mebibytes(element: ElementTree.Element | None) -> int:
    """A size in MB; libvirt itself always writes KiB."""
    if element is None:
        return 0
    return _whole(element.text) if element.get("unit") == "MiB" else -(-_whole(element.text) // _KIB_A_MB)


def _whole(text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise OurFault(INTERNAL, "the domain's definition is damaged: a size in it is not a number") from None
