"""A domain of ours read back from its XML, to be adopted."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tashi.errors import OurFault
from tashi.model.instance import Disk, Nic
from tashi.node.domain.description import described
from tashi.node.domain.xml import AttachedDisk
from tests.unit.test_domain_xml import a_domain, an_order

MAC = "52:54:00:12:34:56"


def a_text(**changes: object) -> str:
    """A domain with an overlay, a persistent disk, scratch space and a card."""
    order = an_order(incarnation="a" * 32, user_id=1000, cores=2, memory=512, nics=(Nic(network=7, mac=MAC),), **changes)
    disks = (
        AttachedDisk(
            path=f"/overlays/{order.uuid}/3/0.qcow2", format="qcow2", base="/share/images/tashi.img", base_format="raw"
        ),
        AttachedDisk(path="/share/images/disk-7-tizzy-1.img", format="raw"),
        AttachedDisk(path=f"/overlays/{order.uuid}/3/scratch.raw", format="raw"),
    )
    return ElementTree.tostring(a_domain(order, disks=disks, bridges={7: "br7"}), encoding="unicode")


def test_described() -> None:
    """O1: the mark says whose it is, and the definition what it is: an overlay stands for its image, scratch space is left out."""
    found = described(a_text(memory_limit=256, cpu_share=2048), an_order().uuid)
    assert (found.instance_id, found.incarnation, found.name, found.user_id) == (7, "a" * 32, an_order().name, 1000)
    assert (found.cores, found.memory, found.memory_limit, found.cpu_share) == (2, 512, 256, 2048)
    assert found.disks == (Disk(uri="tashi.img"), Disk(uri="disk-7-tizzy-1.img", persistent=True))
    assert found.nics == (Nic(network=7, mac=MAC),)


def test_what_is_not_ours_is_not_described() -> None:
    """A domain without a mark, or with a size that is no number, is refused in words."""
    for text in ("<domain/>", "not xml", a_text().replace(">2</vcpu>", ">two</vcpu>")):
        with pytest.raises(OurFault):
            described(text, an_order().uuid)
