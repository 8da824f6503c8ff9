"""A domain's network cards as they are read back from its XML."""

from __future__ import annotations

from xml.etree import ElementTree

from tashi.model.instance import Nic
from tashi.model.orders import Start
from tashi.node.domain.xml import domain_xml
from tashi.node.network.cards import Card, cards_of

UUID = "0b1f6b0e-6f0e-5d4e-9f43-0b7f4b1d2c3a"
NICS = (Nic(network=10, mac="52:54:00:00:00:01"), Nic(network=4000, mac="52:54:00:00:00:02"))


def a_domain() -> ElementTree.Element:
    """The XML of a domain with two cards on one bridge."""
    order = Start(instance_id=7, generation=1, name="vm7", uuid=UUID, cores=1, memory=64, disks=(), nics=NICS)
    text = domain_xml(order, cell=UUID, kind="qemu", disks=(), bridges={10: "br0", 4000: "br0"}, console="/console", secret="shut-8ch")
    return ElementTree.fromstring(text)


def test_cards_of_a_domain_that_runs() -> None:
    """Each card has its network, though both are on one bridge, and its tap device."""
    domain = a_domain()
    for place, interface in enumerate(domain.iterfind("devices/interface")):
        ElementTree.SubElement(interface, "target", dev=f"vnet{place}")
    assert cards_of(domain) == (Card(10, "52:54:00:00:00:01", "vnet0"), Card(4000, "52:54:00:00:00:02", "vnet1"))


def test_cards_without_a_wire() -> None:
    """A domain that does not run has no tap devices, and a card that somebody else added is none of ours."""
    assert cards_of(a_domain()) == ()
    text = "<domain><devices><interface><alias name='net0'/><target dev='vnet0'/></interface><interface/></devices></domain>"
    assert cards_of(ElementTree.fromstring(text)) == ()
