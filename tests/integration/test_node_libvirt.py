"""The agent's hypervisor on a real libvirtd with real QEMU processes: the contract, crashes of either, and what is left afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import libvirt
import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tashi.errors import OurFault
from tashi.model.causes import Cause
from tashi.model.instance import Disk, Resources
from tashi.model.orders import Adapt, Depart, Destroy, Observation, Seen, Start, Suspend, Unpause
from tashi.node import kvm_probe
from tashi.node.executor import Executor
from tashi.node.libvirt import adapt as libvirt_adapt
from tashi.node.libvirt.connection import LibvirtConnection
from tashi.node.libvirt.guest import LibvirtHypervisor
from tashi.node.libvirt.host import HostReader, Offer
from tashi.node.network.bridges import Bridges
from tashi.node.storage.disks import Disks
from tashi.node.threads import Threads
from tests.contracts.hypervisor_contract import CELL, HypervisorContract, a_deed, an_order, without_size
from tests.integration.private_libvirtd import PrivateLibvirtd, wait_until

pytestmark = pytest.mark.integration

GREETING = b"the guest is here\r\n"
# a boot sector that writes the greeting to the first serial port and halts
BOOT_SECTOR = bytes.fromhex("fa31c08ed8be167cbaf803ac84c07403eeebf8f4ebfd") + GREETING + b"\0"
BOOT_IMAGE = BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + bytes(2**20 - 512)


class QemuCase(TestCase):
    """A machine with libvirtd for the class, an agent's hypervisor for each test."""

    machine: ClassVar[PrivateLibvirtd]
    timeout = 120

    @classmethod
    def setUpClass(cls) -> None:
        """Switch the machine on."""
        cls.machine = PrivateLibvirtd()
        cls.machine.start()

    @classmethod
    def tearDownClass(cls) -> None:
        """Switch it off."""
        cls.machine.stop()

    def setUp(self) -> None:
        """An image directory, and directories of the agent's own."""
        self.directory = Path(tempfile.mkdtemp(prefix="tashi-node-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "images").mkdir(parents=True)
        (self.directory / "images" / "boot.img").write_bytes(BOOT_IMAGE)
        self.hypervisor, self.connection = self.a_hypervisor()
        self.addCleanup(self.clear)

    def a_hypervisor(self) -> tuple[LibvirtHypervisor, LibvirtConnection]:
        """The hypervisor as an agent that starts makes it."""
        connection = LibvirtConnection(self.machine.uri)
        disks = Disks(self.directory / "images", self.directory / "scratch")
        host = HostReader(Offer(reserved=512), self.machine.directory)  # one probe for all
        return LibvirtHypervisor(connection, host, disks, self.directory / "console", Bridges({})), connection

    def clear(self) -> None:
        """Leave no domain behind."""
        for domain in self.connection.get().listAllDomains():
            if domain.isActive():
                domain.destroy()
            domain.undefine()
        self.connection.close()

    def scratch(self) -> list[str]:
        """The overlays that there are."""
        scratch = self.directory / "scratch"
        return sorted(str(path.relative_to(scratch)) for path in scratch.glob("*/*/*") if path.suffix in (".qcow2", ".raw"))


class QemuContractTests(HypervisorContract, QemuCase):
    """The contract, kept by real machines."""

    def end(self, domain: str) -> Cause:
        """See HypervisorContract: the guest's process is killed."""
        before = self.machine.guests()
        os.kill(before[-1], signal.SIGKILL)
        found = self.connection.get().lookupByUUIDString(domain)
        wait_until(lambda: not found.isActive())
        return Cause.CRASHED

    def pause(self, domain: str) -> None:
        """See HypervisorContract."""
        self.connection.get().lookupByUUIDString(domain).suspend()

    def save(self, domain: str) -> None:
        """See HypervisorContract."""
        self.connection.get().lookupByUUIDString(domain).managedSave()

    def test_adapt(self) -> None:
        """See HypervisorContract; a machine without control groups for its guests refuses in libvirt's words."""
        try:
            super().test_adapt()
        except OurFault as fault:
            self.assertIn("cgroup", fault.message)
            self.assertEqual(self.listed()[7].seen, Seen.RUNNING)

    def test_no_balloon(self) -> None:
        """A guest that gives no memory back keeps what it has, and is said to."""
        self.patch(libvirt_adapt, "BALLOON_SECONDS", 0.5)
        self.hypervisor.start(CELL, an_order())
        with self.assertRaisesRegex(OurFault, "balloon stands at 32 MB"):
            self.hypervisor.do(CELL, a_deed(Adapt, wished=Resources(memory=16)))
        domain = self.connection.get().lookupByUUIDString(an_order().uuid)
        for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
            self.assertIn("<currentMemory unit='KiB'>32768<", domain.XMLDesc(flags))


class QemuTests(QemuCase):
    """What only real machines show."""

    def test_facts(self) -> None:
        """The memory is the machine's, not one node's of it, less what is reserved; the accelerator is one that was tried."""
        facts = self.hypervisor.facts()
        total = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        assert total is not None
        self.assertEqual(facts.memory, int(total[1]) // 1024 - 512)
        self.assertEqual(facts.cores, os.cpu_count())
        works = kvm_probe.boots("kvm", "qemu-system-x86_64")
        self.assertEqual(facts.hypervisor, "qemu (kvm)" if works else "qemu (tcg)")

    def test_guest_boots(self) -> None:
        """The guest really runs from the image, and what it prints is kept."""
        self.hypervisor.start(CELL, an_order())
        console = self.directory / "console" / "tashi-7-vm7.log"
        wait_until(lambda: console.exists() and GREETING in console.read_bytes())
        self.hypervisor.destroy(CELL, an_order().uuid, 4)
        self.assertFalse(console.exists())

    def test_overlay(self) -> None:
        """A disk that is not persistent is an overlay with a known chain, and goes with its domain; the image stays as it was."""
        order = an_order(disks=(Disk(uri="boot.img"), Disk(uri="boot.img")))
        self.hypervisor.start(CELL, order)
        self.assertEqual(self.scratch(), [f"{order.uuid}/3/0.qcow2", f"{order.uuid}/3/1.qcow2"])
        overlay = self.directory / "scratch" / order.uuid / "3" / "0.qcow2"
        said = subprocess.run(["qemu-img", "info", "-U", "--output=json", str(overlay)], capture_output=True, check=True).stdout
        self.assertIn(str(self.directory / "images" / "boot.img").encode(), said)
        self.assertIn(b'"backing-filename-format": "raw"', said)
        self.hypervisor.destroy(CELL, order.uuid, order.generation)
        self.assertEqual(self.scratch(), [])
        self.assertEqual((self.directory / "images" / "boot.img").read_bytes(), BOOT_IMAGE)

    def test_persistent_disk(self) -> None:
        """A persistent disk is the image itself, and survives its domain."""
        order = an_order(disks=(Disk(uri="boot.img", persistent=True),))
        self.hypervisor.start(CELL, order)
        self.assertEqual(self.scratch(), [])
        self.assertIn(str(self.directory / "images" / "boot.img"), self.connection.get().lookupByUUIDString(order.uuid).XMLDesc())
        self.hypervisor.destroy(CELL, order.uuid, order.generation)
        self.assertTrue((self.directory / "images" / "boot.img").exists())

    def test_failed_start(self) -> None:
        """A start that libvirt refuses is told in its words, and neither a domain nor an overlay is left."""
        order = an_order(memory=2**31 - 1)
        with self.assertRaises(Exception) as caught:
            self.hypervisor.start(CELL, order)
        self.assertIn("tashi-7-vm7 was not started", str(caught.exception))
        self.assertEqual(self.connection.get().listAllDomains(), [])
        self.assertEqual(self.scratch(), [])

    def test_agent_restart(self) -> None:
        """A new agent knows the domains of the former one, which ran on."""
        self.hypervisor.start(CELL, an_order(1))
        guests = self.machine.guests()
        self.connection.close()
        self.hypervisor, self.connection = self.a_hypervisor()
        (seen,) = self.hypervisor.domains(CELL)
        self.assertEqual(without_size(seen), Observation(instance_id=1, generation=3, seen=Seen.RUNNING))
        self.assertEqual(self.machine.guests(), guests)

    def test_defined_and_never_started(self) -> None:
        """Of a domain that an agent left half made nothing is told, and it is made anew."""
        order = an_order()
        self.hypervisor.start(CELL, order)
        domain = self.connection.get().lookupByUUIDString(order.uuid)
        definition = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        domain.destroy()
        domain.undefine()
        self.connection.get().defineXML(definition)
        self.assertEqual(list(self.hypervisor.domains(CELL)), [Observation(instance_id=7, generation=3, seen=Seen.GONE)])
        self.assertIsNone(self.hypervisor.settle(CELL, order.uuid, order.generation))
        self.assertEqual(self.scratch(), [])
        self.connection.get().defineXML(definition)
        self.assertEqual(self.hypervisor.start(CELL, order).seen, Seen.RUNNING)

    def test_mark_survives(self) -> None:
        """The generation of a later order stands in the running domain and in its definition."""
        self.hypervisor.start(CELL, an_order())
        self.hypervisor.start(CELL, an_order(generation=8))
        domain = self.connection.get().lookupByUUIDString(an_order().uuid)
        for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
            self.assertIn('generation="8"', domain.XMLDesc(flags))


class QemuExecutorTests(QemuCase):
    """Orders on a real machine while parts of it fail."""

    def setUp(self) -> None:
        """An executor with real threads."""
        super().setUp()
        self.told: list[Observation] = []
        self.threads = Threads(reactor, 2, 1.0)
        self.threads.start()
        self.addCleanup(self.threads.stop)
        self.executor = Executor(self.hypervisor, self.threads.run, reactor, self.told.append)
        self.addCleanup(self.executor.stop)
        self.executor.enter(CELL)
        self.hypervisor.watch(lambda *hint: reactor.callFromThread(self.executor.notice, *hint))  # type: ignore[attr-defined]

    async def until_told(self, instance_id: int, seen: Seen) -> Observation:
        """The observation, as soon as it was told."""
        for _ in range(3000):
            for told in self.told:
                if (told.instance_id, told.seen) == (instance_id, seen):
                    return told
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        raise AssertionError(f"{seen} of {instance_id} was not told: {self.told}")

    async def test_killed_guest(self) -> None:
        """A guest whose process is killed is told as crashed, and nothing of it is left."""
        self.executor.give([an_order()])
        await self.until_told(7, Seen.RUNNING)
        os.kill(self.machine.guests()[-1], signal.SIGKILL)
        told = await self.until_told(7, Seen.GONE)
        self.assertEqual((told.reason, told.generation), ("crashed", 3))
        self.assertEqual(self.scratch(), [])
        self.assertEqual(self.connection.get().listAllDomains(), [])

    async def test_libvirtd_crashes(self) -> None:
        """While libvirtd is down guests run on and orders wait; afterwards they are carried out, and what ended meanwhile is told."""
        self.executor.give([an_order(1), an_order(2)])
        await self.until_told(1, Seen.RUNNING)
        await self.until_told(2, Seen.RUNNING)
        guests = self.machine.guests()
        self.machine.kill()
        os.kill(guests[-1], signal.SIGKILL)
        self.executor.give([an_order(3), Destroy(instance_id=2, generation=4, uuid=an_order(2).uuid)])
        self.assertTrue(set(self.machine.guests()) <= set(guests))
        self.machine.start()
        await self.until_told(3, Seen.RUNNING)
        await self.until_told(2, Seen.GONE)
        self.assertNotIn(Seen.FAILED, [told.seen for told in self.told])
        running = {seen.instance_id for seen in await self.threads.run(self.hypervisor.domains, CELL)}
        self.assertTrue(3 in running and 2 not in running)

    async def test_hung_guest(self) -> None:
        """A guest whose process stands still delays its own orders only."""
        self.executor.give([an_order(1)])
        await self.until_told(1, Seen.RUNNING)
        guest = self.machine.guests()[-1]
        os.kill(guest, signal.SIGSTOP)
        self.addCleanup(self.go_on, guest)
        domain = self.connection.get().lookupByUUIDString(an_order(1).uuid)
        hung = [self.threads.run(self.ask, domain) for _ in range(2)]  # as many as there are threads
        self.executor.give([an_order(2)])
        await self.until_told(2, Seen.RUNNING)
        self.assertFalse(any(call.called for call in hung))
        self.executor.give([Destroy(instance_id=1, generation=4, uuid=an_order(1).uuid)])
        self.go_on(guest)
        await self.until_told(1, Seen.GONE)
        for call in hung:
            await call

    def ask(self, domain: Any) -> None:
        """A question that only the guest's own process can answer."""
        with contextlib.suppress(libvirt.libvirtError):  # it may be destroyed before it can answer
            domain.setMemoryStatsPeriod(3)

    def go_on(self, guest: int) -> None:
        """Let a stopped process run."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(guest, signal.SIGCONT)


class SavedTests(QemuCase):
    """Suspended domains, those of an older version among them, and the images that they need."""

    saved = "suspend/7_vm7"

    def suspended(self, **changes: Any) -> Start:
        """A domain that was suspended, and the order that lets it go on."""
        self.hypervisor.start(CELL, an_order(**changes))
        self.assertIs(self.hypervisor.do(CELL, a_deed(Suspend, saved=self.saved)), Seen.SAVED)
        self.assertEqual((self.listed(), self.scratch()), ({}, []))
        return an_order(generation=6, saved=self.saved, **changes)

    def listed(self) -> dict[int, Seen]:
        """What is seen now, by instance."""
        return {seen.instance_id: seen.seen for seen in self.hypervisor.domains(CELL)}

    def kept(self) -> list[str]:
        """What is kept of the suspended domain."""
        directory = self.directory / "suspend"
        return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))

    def refused(self, order: Start) -> str:
        """Why the domain may not go on; it stays saved, whole."""
        before = self.kept()
        with self.assertRaises(OurFault) as caught:
            self.hypervisor.start(CELL, order)
        self.assertEqual((self.listed(), self.scratch(), self.kept()), ({}, [], before))
        self.assertEqual(list((self.directory / "scratch").glob(order.uuid)), [])
        return caught.exception.message

    def test_resume(self) -> None:
        """A domain goes on with its disks in the generation of the order that lets it, and nothing is left of what was kept."""
        order = self.suspended()
        self.assertEqual(self.hypervisor.start(CELL, order).seen, Seen.RUNNING)
        self.assertEqual((self.scratch(), self.kept()), ([f"{order.uuid}/6/0.qcow2"], []))
        self.hypervisor.destroy(CELL, order.uuid, 5)  # its mark answers to a later order: all of it goes
        self.assertEqual(self.scratch(), [])

    def test_image_replaced(self) -> None:
        """H4: a suspended domain does not go on over another image; with the former one put back it does."""
        order = self.suspended()
        image, former = self.directory / "images" / "boot.img", self.directory / "former"
        image.rename(former)
        shutil.copy2(former, image)
        self.assertIn("boot.img is not the file that the instance had", self.refused(order))
        image.unlink()
        self.assertIn("boot.img, which is missing", self.refused(order))
        former.rename(image)
        self.assertEqual(self.hypervisor.start(CELL, order).seen, Seen.RUNNING)

    def test_suspended_over_a_replaced_image(self) -> None:
        """H4: a domain that is suspended after its image was replaced still needs the former one, and goes on with it."""
        self.hypervisor.start(CELL, an_order())
        image, former = self.directory / "images" / "boot.img", self.directory / "former"
        image.rename(former)
        shutil.copy2(former, image)
        order = self.suspended()
        self.assertIn("boot.img is not the file that the instance had", self.refused(order))
        former.replace(image)
        self.assertEqual(self.hypervisor.start(CELL, order).seen, Seen.RUNNING)

    def test_persistent_disk_changed(self) -> None:
        """H4: nor does it when somebody has written to its persistent disk; when that is accepted, it does."""
        image = self.directory / "images" / "disk-7-vm7-0.img"
        image.write_bytes(BOOT_IMAGE)
        order = self.suspended(disks=(Disk(uri=image.name, persistent=True),))
        with image.open("r+b") as file:
            file.write(BOOT_IMAGE[:16])
        words = self.refused(order)
        self.assertIn(f"{image.name} is not the file that the instance had", words)
        record = self.directory / "suspend" / "7_vm7.disks" / "at-rest.json"
        self.assertIn(f"remove {record}", words)
        record.unlink()
        self.assertEqual(self.hypervisor.start(CELL, order).seen, Seen.RUNNING)

    def test_no_move_over_a_replaced_image(self) -> None:
        """H4: a domain that runs over an image which was replaced goes on, and is not moved to a host that would read the new one."""
        order = an_order()
        self.hypervisor.start(CELL, order)
        image = self.directory / "images" / "boot.img"
        self.hypervisor.do(CELL, a_deed(Depart))
        shutil.copy2(image, image.with_name("new"))
        image.with_name("new").rename(image)
        with self.assertRaisesRegex(OurFault, "boot.img is not the file that the instance had"):
            self.hypervisor.do(CELL, a_deed(Depart, generation=5))
        self.assertEqual(self.listed(), {7: Seen.RUNNING})

    def test_saved_by_its_host(self) -> None:
        """H4: a domain that libvirt has saved does not go on over another image, either; with the former one it does."""
        order = an_order()
        self.hypervisor.start(CELL, order)
        self.connection.get().lookupByUUIDString(order.uuid).managedSave()
        image, former = self.directory / "images" / "boot.img", self.directory / "former"
        image.rename(former)
        shutil.copy2(former, image)
        with self.assertRaisesRegex(OurFault, "boot.img is not the file that the instance had"):
            self.hypervisor.do(CELL, a_deed(Unpause))
        self.assertEqual((self.listed(), self.scratch()), ({7: Seen.PAUSED}, [f"{order.uuid}/3/0.qcow2"]))
        former.rename(image)
        self.hypervisor.do(CELL, a_deed(Unpause, generation=5))
        self.assertEqual(self.listed(), {7: Seen.RUNNING})

    def older(self, order: Start) -> None:
        """Let the domain be one that an older version has started: its overlay lies in no generation."""
        self.hypervisor.start(CELL, order)
        connection = self.connection.get()
        domain = connection.lookupByUUIDString(order.uuid)
        described = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        domain.destroy()
        domain.undefine()
        directory = self.directory / "scratch" / order.uuid
        (directory / "3" / "0.qcow2").rename(directory / "0.qcow2")
        (directory / "owner").write_text("qemu+tls://this.host/system")
        shutil.rmtree(directory / "3")
        connection.defineXML(described.replace(f"{order.uuid}/3/0.qcow2", f"{order.uuid}/0.qcow2")).create()

    def test_older_version(self) -> None:
        """A domain of an older version is known, suspended with its disk, goes on in a generation, and is removed."""
        order = an_order()
        self.older(order)
        seen = self.hypervisor.settle(CELL, order.uuid, 3)
        self.assertTrue(seen is not None and seen.seen is Seen.RUNNING)
        self.assertIs(self.hypervisor.do(CELL, a_deed(Suspend, saved=self.saved)), Seen.SAVED)
        self.assertFalse((self.directory / "scratch" / order.uuid).exists())
        again = an_order(generation=6, saved=self.saved)
        self.assertEqual(self.hypervisor.start(CELL, again).seen, Seen.RUNNING)
        self.assertEqual(self.scratch(), [f"{order.uuid}/6/0.qcow2"])
        self.hypervisor.destroy(CELL, order.uuid, 7)
        self.assertEqual((self.scratch(), self.listed()), ([], {}))

    def test_older_version_destroyed(self) -> None:
        """A domain of an older version is destroyed with its disk."""
        order = an_order()
        self.older(order)
        self.hypervisor.destroy(CELL, order.uuid, 4)
        self.assertFalse((self.directory / "scratch" / order.uuid).exists())

    def test_elsewhere(self) -> None:
        """A host that comes back and is told to clear away what it had leaves the overlay of the host where the instance runs."""
        order = an_order()
        self.hypervisor.start(CELL, order)
        other = Disks(self.directory / "images", self.directory / "scratch", host="node2")
        (attached,) = other.prepare(order.uuid, 7, order.disks)
        self.hypervisor.settle(CELL, order.uuid, 3)
        self.hypervisor.destroy(CELL, order.uuid, 9)
        self.assertEqual(self.scratch(), [f"{order.uuid}/7/0.qcow2"])
        self.assertTrue(Path(attached.path).exists())


class ProbeTests(TestCase):
    """The guest that tells whether an accelerator works."""

    def a_directory(self) -> Path:
        """An empty one, gone after the test."""
        directory = Path(tempfile.mkdtemp(prefix="tashi-probe-"))
        self.addCleanup(shutil.rmtree, directory)
        return directory

    def test_boots(self) -> None:
        """Where there is no hardware to fail, the probe comes through."""
        self.assertTrue(kvm_probe.boots("tcg", "qemu-system-x86_64", 20.0))

    def test_no_emulator(self) -> None:
        """An emulator that is not there runs nothing."""
        self.assertFalse(kvm_probe.boots("tcg", "/nonexistent/qemu"))

    def test_answer_is_kept(self) -> None:
        """The second question of the same boot is answered without a guest."""
        directory = self.a_directory()
        first = kvm_probe.kvm_works(directory)
        kept = (directory / "kvm.json").read_bytes()
        flipped = kept.replace(b"true", b"false") if first else kept.replace(b"false", b"true")
        (directory / "kvm.json").write_bytes(flipped)
        self.assertEqual(kvm_probe.kvm_works(directory), not first)

    def test_source(self) -> None:
        """The bytes of the boot sector are what its source assembles to."""
        directory = self.a_directory()
        source = Path(kvm_probe.__file__).with_suffix(".S")
        subprocess.run(["as", "-o", "probe.o", str(source)], cwd=directory, check=True)
        subprocess.run(["ld", "-Ttext", "0x7c00", "--oformat", "binary", "-o", "probe.bin", "probe.o"], cwd=directory, check=True)
        self.assertEqual((directory / "probe.bin").read_bytes(), kvm_probe.SECTOR)
