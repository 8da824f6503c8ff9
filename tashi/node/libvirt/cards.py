"""The network cards of the cell's guests on this machine, as libvirt has plugged them in."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import libvirt

from tashi.node.domain.xml import NAMESPACE, Mark, read_mark
from tashi.node.libvirt.connection import LibvirtConnection
from tashi.node.network.cards import Card, cards_of

Run = tuple[str, int]
"""One life of a domain: its UUID, and the number libvirt gives it each time it starts."""


class CardReader:
    """Reads each run of a domain once; a call is then one question to libvirt, however many guests there are."""

    def __init__(self, connection: LibvirtConnection) -> None:
        self._connection = connection
        self._known: dict[Run, tuple[Mark | None, tuple[Card, ...]]] = {}

    def cards(self, cell: str) -> Mapping[int, tuple[Card, ...]]:
        """See IHypervisor."""
        with self._connection.talking("the network cards could not be listed") as connection:
            self._read(connection)
        return {mark.instance_id: cards for mark, cards in self._known.values() if mark is not None and mark.cell == cell}

    def _read(self, connection: Any) -> None:
        if connection.getType().lower() == "test":
            return  # its cards have no wires
        known: dict[Run, tuple[Mark | None, tuple[Card, ...]]] = {}
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            run = domain.UUIDString(), domain.ID()
            with contextlib.suppress(libvirt.libvirtError):  # it has ended meanwhile
                known[run] = self._known.get(run) or _read(ElementTree.fromstring(domain.XMLDesc()))
        self._known = known


def _read(domain: ElementTree.Element) -> tuple[Mark | None, tuple[Card, ...]]:
    element = domain.find(f"metadata/{{{NAMESPACE}}}instance")
    mark = None if element is None else read_mark(ElementTree.tostring(element, encoding="unicode"))
    return mark, cards_of(domain)
