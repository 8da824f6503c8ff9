"""The network cards of a domain: how they are marked in its XML, and read back from there. Pure.

A card's alias carries its network's id, since several networks may share a bridge; libvirt keeps it, also when the domain moves.
"""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree

import msgspec

_ALIAS: Final = re.compile(r"ua-network-([0-9]{1,9})-[0-9]{1,3}")


class Card(msgspec.Struct, frozen=True):
    """A card of a domain that runs; ``tap`` is the host's end of its wire."""

    network: int
    mac: str
    tap: str


def alias_of(network: int, place: int) -> str:
    """How the card at this place is called in the domain's XML."""
    return f"ua-network-{network}-{place}"


def network_of(alias: str) -> int | None:
    """The network of the card of this alias; None when the card is not ours."""
    found = _ALIAS.fullmatch(alias)
    return None if found is None else int(found[1])


def cards_of(domain: ElementTree.Element) -> tuple[Card, ...]:
    """The cards of a domain by its live XML; those that are not ours, or have no tap, are not among them."""
    found = []
    for interface in domain.iterfind("devices/interface"):
        values = {child.tag: child.attrib for child in interface}
        alias = _ALIAS.fullmatch(values.get("alias", {}).get("name", ""))
        tap = values.get("target", {}).get("dev", "")
        if alias is not None and tap:
            found.append(Card(network=int(alias[1]), mac=values.get("mac", {}).get("address", "").lower(), tap=tap))
    return tuple(found)
