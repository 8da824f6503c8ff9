"""The contract of `IHypervisor`, kept by the one in memory and by libvirt's test driver."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import libvirt
from twisted.trial.unittest import TestCase

from tashi.errors import OurFault
from tashi.model.causes import Cause
from tashi.model.instance import Disk, Nic, Resources
from tashi.model.orders import Adapt, Seen, Shutdown
from tashi.node.domain.xml import NAMESPACE
from tashi.node.fake import FakeHypervisor
from tashi.node.libvirt.connection import LibvirtConnection
from tashi.node.libvirt.guest import LibvirtHypervisor
from tashi.node.libvirt.host import HostReader, Offer
from tashi.node.network.bridges import Bridges
from tashi.node.storage.disks import Disks
from tests.contracts.hypervisor_contract import CELL, HypervisorContract, a_deed, an_order

NODE = """<node><cpu><mhz>2000</mhz><model>x86_64</model><active>64</active><nodes>1</nodes><sockets>4</sockets>
<cores>16</cores><threads>1</threads></cpu><memory>16777216</memory></node>"""


class FakeHypervisorTests(HypervisorContract, TestCase):
    """The hypervisor in memory."""

    def setUp(self) -> None:
        """One machine with one image."""
        self.fake = self.hypervisor = FakeHypervisor(images=["boot.img"])

    def end(self, domain: str) -> Cause:
        """See HypervisorContract."""
        self.fake.change(domain, Seen.GONE, Cause.CRASHED)
        return Cause.CRASHED

    def pause(self, domain: str) -> None:
        """See HypervisorContract."""
        self.fake.change(domain, Seen.PAUSED, Cause.ADMINISTRATOR)

    def save(self, domain: str) -> None:
        """See HypervisorContract."""
        self.fake.change(domain, Seen.PAUSED, Cause.SAVED_BY_HOST)


class TestDriverTests(HypervisorContract, TestCase):
    """Libvirt's test driver, a host of its own for each test."""

    keeps_what_has_ended = False

    def setUp(self) -> None:
        """A node file and an image directory."""
        directory = Path(tempfile.mkdtemp(prefix="tashi-node-"))
        self.addCleanup(shutil.rmtree, directory)
        (directory / "images").mkdir()
        (directory / "images" / "boot.img").write_bytes(b"\xeb" * 512)
        (directory / "node.xml").write_text(NODE)
        self.connection = LibvirtConnection(f"test://{directory / 'node.xml'}")
        self.addCleanup(self.connection.close)
        self.hypervisor = LibvirtHypervisor(
            self.connection,
            HostReader(Offer(cores=8), directory),
            Disks(directory / "images", directory / "scratch"),
            directory / "console",
            Bridges({10: "br10"}),
        )

    def end(self, domain: str) -> Cause:
        """See HypervisorContract."""
        self.connection.get().lookupByUUIDString(domain).shutdown()
        return Cause.SHUT_DOWN

    def pause(self, domain: str) -> None:
        """See HypervisorContract."""
        self.connection.get().lookupByUUIDString(domain).suspend()

    def save(self, domain: str) -> None:
        """See HypervisorContract; libvirt saves only what is defined."""
        found = self.connection.get().lookupByUUIDString(domain)
        self.connection.get().defineXML(found.XMLDesc())
        found.managedSave()

    def test_h1_start_over_a_domain_without_its_mark(self) -> None:
        """H1: a Start that finds its domain alive and without our mark is no failure, after which another host would start it."""
        order = an_order()
        self.hypervisor.start(CELL, order)
        domain = self.connection.get().lookupByUUIDString(order.uuid)
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, "tashi", NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        seen = self.hypervisor.start(CELL, order)
        self.assertEqual((seen.seen, seen.cause, seen.generation), (Seen.MISSING, Cause.UNMARKED, order.generation))
        self.assertTrue(domain.isActive())

    def test_shutdown(self) -> None:
        """A guest that heeds its power button ends."""
        self.hypervisor.start(CELL, an_order())
        self.hypervisor.do(CELL, a_deed(Shutdown))
        self.assertEqual(self.listed(), {})

    def test_resources_of_a_start(self) -> None:
        """A domain is made with what its order gives it, and adapted beyond that; bandwidths are whole kilobytes, rounded up."""
        order = an_order(cpu_share=2048, cpu_speed=1000, disk_weight=200, net_down=8001, nics=(Nic(network=10),))
        self.hypervisor.start(CELL, order)
        domain = self.connection.get().lookupByUUIDString(order.uuid)
        for text in ("<shares>2048<", "<quota>50000<", "<weight>200<", "<inbound average='1001'/>"):
            self.assertIn(text, domain.XMLDesc())
        wished = Resources(memory=16, net_down=801, net_up=1)
        adapted = self.hypervisor.do(CELL, a_deed(Adapt, wished=wished))
        self.assertEqual(adapted, Resources(memory=16, net_down=808, net_up=8))
        self.assertEqual(domain.info()[1:3], [32 * 1024, 16 * 1024])

    def test_disk_limits(self) -> None:
        """A domain is made with the limits of its order on every disk; a change of them is as good as done."""
        order = an_order(disk_iops=200, memory_limit=16, disks=(Disk(uri="boot.img"), Disk(uri="boot.img")))
        self.hypervisor.start(CELL, order)
        domain = self.connection.get().lookupByUUIDString(order.uuid)
        self.assertEqual(domain.info()[1:3], [32 * 1024, 16 * 1024])
        self.assertEqual(domain.XMLDesc().count("<total_iops_sec>200<"), 2)
        for generation, wished in enumerate((Resources(disk_iops=100, disk_bytes=10**15), Resources(disk_iops=0, disk_bytes=0)), start=4):
            self.assertEqual(self.hypervisor.do(CELL, a_deed(Adapt, generation=generation, wished=wished)), wished)

    def test_end_of_limits(self) -> None:
        """A network card's limits are taken away one by one."""
        order = an_order(net_down=8, net_up=16, nics=(Nic(network=10),))
        self.hypervisor.start(CELL, order)
        domain = self.connection.get().lookupByUUIDString(order.uuid)
        self.assertEqual(self.hypervisor.do(CELL, a_deed(Adapt, wished=Resources(net_up=0))), Resources(net_up=0))
        self.assertIn("<inbound average='1'/>", domain.XMLDesc())
        self.assertNotIn("<outbound", domain.XMLDesc())
        self.assertEqual(self.hypervisor.do(CELL, a_deed(Adapt, generation=5, wished=Resources(net_down=0))), Resources(net_down=0))
        self.assertNotIn("<inbound", domain.XMLDesc())

    def test_all_or_nothing(self) -> None:
        """Of an adaptation that libvirt refuses in part nothing stays."""
        order = an_order(disk_weight=200)
        self.hypervisor.start(CELL, order)
        with self.assertRaisesRegex(OurFault, "no network card"):
            self.hypervisor.do(CELL, a_deed(Adapt, wished=Resources(disk_weight=500, net_up=8)))
        with self.assertRaises(OurFault):
            self.hypervisor.do(CELL, a_deed(Adapt, generation=5, wished=Resources(disk_weight=500, memory=2**31 - 1)))
        domain = self.connection.get().lookupByUUIDString(order.uuid)
        self.assertEqual((domain.blkioParameters()["weight"], domain.info()[2]), (200, 32 * 1024))

    def test_offer(self) -> None:
        """The operator's cap is kept, and what is not capped is the node file's."""
        facts = self.hypervisor.facts()
        self.assertEqual((facts.cores, facts.memory, facts.cpu_speed), (8, 16384, 2000))
        self.assertEqual((facts.hypervisor, facts.networks), ("test", (10,)))

    def test_strangers(self) -> None:
        """A domain without our mark is not seen."""
        self.connection.get().createXML(
            "<domain type='test'><name>tashi-1-x</name><memory>65536</memory><os><type>hvm</type></os></domain>"
        )
        self.assertEqual(self.listed(), {})
        self.assertEqual(libvirt.virConnect.numOfDomains(self.connection.get()), 1)
