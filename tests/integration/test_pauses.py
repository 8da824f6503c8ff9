"""Guests that their host pauses, saves, moves or ends, on a real libvirtd with real QEMU processes (H6, H8)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import libvirt
import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tashi.errors import OurFault
from tashi.model.causes import Cause
from tashi.model.instance import Disk, Resources
from tashi.model.orders import Adapt, Depart, Destroy, Observation, Pause, Seen, Shutdown, Suspend, Unpause
from tashi.node.executor import Executor
from tashi.node.libvirt.connection import LibvirtConnection
from tashi.node.libvirt.guest import LibvirtHypervisor
from tashi.node.libvirt.host import HostReader, Offer
from tashi.node.network.bridges import Bridges
from tashi.node.storage.disks import Disks
from tashi.node.threads import Threads
from tests.contracts.hypervisor_contract import CELL, a_deed, an_order
from tests.integration.private_libvirtd import PrivateLibvirtd
from tests.integration.test_node_libvirt import QemuCase

pytestmark = pytest.mark.integration

# a boot sector that writes 4 KiB into every 64 KiB of the first disk, from 1 MiB to 64 MiB, again and again
WRITER = bytes.fromhex(
    "fa31c08ed88ed0bc007cfbbe327cb80043cd136681063a7c8000000066813e3a7c80ff010072e466c7063a7c00080000ebd9"
    "10000800008000000008000000000000"
)
WRITER_IMAGE = WRITER.ljust(510, b"\0") + b"\x55\xaa"
IMAGE_BYTES = 64 * 2**20
SMALL, LARGE = "size=8m", "size=256m"


class OwnCalls:
    """The reactor as a clock, whose calls end with the test: an executor that is stopped leaves some that do nothing any more."""

    def __init__(self) -> None:
        self._calls: list[Any] = []

    def seconds(self) -> float:
        """The reactor's time."""
        return float(reactor.seconds())  # type: ignore[attr-defined]

    def callLater(self, delay: float, call: Callable[..., object], *arguments: Any) -> Any:
        """As the reactor's."""
        self._calls.append(reactor.callLater(delay, call, *arguments))  # type: ignore[attr-defined]
        return self._calls[-1]

    def cancel(self) -> None:
        """Cancel those that have not happened."""
        for call in self._calls:
            if call.active():
                call.cancel()


class PauseCase(QemuCase):
    """A machine whose overlays lie on a small file system, with an executor on real threads."""

    small: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        """The file system is there before the machine, which sees what is mounted then."""
        cls.small = Path(tempfile.mkdtemp(prefix="tashi-small-"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(cls.small)], check=True)
        cls.machine = PrivateLibvirtd()
        cls.machine.start()

    @classmethod
    def tearDownClass(cls) -> None:
        """Unmount it."""
        cls.machine.stop()
        subprocess.run(["umount", "--lazy", str(cls.small)], check=True)
        shutil.rmtree(cls.small)

    def setUp(self) -> None:
        """A host without guests, and what it tells."""
        super().setUp()
        self.resize(SMALL)
        self.addCleanup(self.remove_overlays)
        image = self.directory / "images" / "writer.img"
        image.write_bytes(WRITER_IMAGE)
        os.truncate(image, IMAGE_BYTES)
        self.told: list[Observation] = []
        self.threads = Threads(reactor, 2, 5.0)
        self.threads.start()
        self.addCleanup(self.threads.stop)
        self.executor = self.an_executor()

    def an_executor(self) -> Executor:
        """An executor as an agent that starts has one."""
        clock = OwnCalls()
        self.addCleanup(clock.cancel)
        executor = Executor(self.hypervisor, self.threads.run, clock, self.told.append)
        self.addCleanup(executor.stop)
        executor.enter(CELL)
        self.hypervisor.watch(lambda *hint: reactor.callFromThread(executor.notice, *hint))  # type: ignore[attr-defined]
        return executor

    def a_hypervisor(self) -> tuple[LibvirtHypervisor, LibvirtConnection]:
        """See QemuCase."""
        connection = LibvirtConnection(self.machine.uri)
        disks = Disks(self.directory / "images", self.small / "overlays")
        host = HostReader(Offer(reserved=512), self.machine.directory)
        return LibvirtHypervisor(connection, host, disks, self.directory / "console", Bridges({})), connection

    def clear(self) -> None:
        """See QemuCase; saves are removed, too."""
        for domain in self.connection.get().listAllDomains():
            if domain.isActive():
                domain.destroy()
            if domain.isPersistent():
                flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                domain.undefineFlags(flags)
        self.connection.close()

    def remove_overlays(self) -> None:
        """Leave the file system empty."""
        shutil.rmtree(self.small / "overlays", ignore_errors=True)

    def resize(self, size: str) -> None:
        """Give the overlays' file system this size."""
        subprocess.run(["mount", "-o", f"remount,{size}", str(self.small)], check=True)

    def overlays(self) -> list[str]:
        """The overlays that there are."""
        return sorted(path.name for path in (self.small / "overlays").rglob("[0-9]*.qcow2"))

    @property
    def domain(self) -> Any:
        """The domain of instance 7, as an administrator of the host has it."""
        return self.connection.get().lookupByUUIDString(an_order().uuid)

    async def until(self, condition: Callable[[Observation], bool], count: int = 0) -> Observation:
        """The first observation, of those after the first ``count``, that meets the condition, as soon as it is told."""
        for _ in range(4000):
            found = next((told for told in self.told[count:] if condition(told)), None)
            if found is not None:
                return found
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        raise AssertionError(f"it was not told: {self.told[count:]}")

    async def until_seen(self, seen: Seen, cause: Cause | None = None, count: int = 0) -> Observation:
        """The first observation of this kind."""
        return await self.until(lambda told: (told.seen, told.cause) == (seen, cause), count)

    async def begin(self, image: str = "boot.img") -> None:
        """Start instance 7."""
        self.executor.give([an_order(disks=(Disk(uri=image),))])
        await self.until_seen(Seen.RUNNING)


class FullDiskTests(PauseCase):
    """H6: a guest whose overlay has no room."""

    async def begin_full(self) -> None:
        """Start a guest that writes until its host pauses it."""
        await self.begin("writer.img")
        told = await self.until_seen(Seen.PAUSED, Cause.NO_SPACE)
        self.assertIn("vda", told.reason)
        self.assertIn("no space left", told.reason)

    async def test_it_continues_by_itself(self) -> None:
        """A guest that was paused by a full disk continues within seconds when there is room again; nobody asks for it."""
        await self.begin_full()
        count = len(self.told)
        self.resize(LARGE)
        await self.until_seen(Seen.RUNNING, count=count)
        self.assertEqual(self.domain.state()[0], libvirt.VIR_DOMAIN_RUNNING)

    async def test_unpause_without_room(self) -> None:
        """Unpausing without room is refused, with how much there is and where; with room it works, though it was refused."""
        await self.begin_full()
        self.executor.give([a_deed(Unpause)])
        told = await self.until(lambda told: told.done)
        self.assertEqual((told.seen, told.cause), (Seen.PAUSED, Cause.NO_SPACE))
        self.assertRegex(told.refused, f"still no space.*{self.small}.*free")
        self.resize(LARGE)
        self.executor.give([a_deed(Unpause, generation=5)])
        told = await self.until(lambda told: told.done and told.generation == 5)
        self.assertEqual((told.seen, told.refused), (Seen.RUNNING, ""))

    async def test_room_that_does_not_last(self) -> None:
        """A guest that fills what little room there is pauses again, and its unpause ends refused or it is told as paused again."""
        await self.begin_full()
        self.resize("size=16m")
        count = len(self.told)
        self.executor.give([a_deed(Unpause)])
        await self.until(lambda told: told.done, count)
        await self.until(lambda told: told.cause is Cause.NO_SPACE and told.generation == 4, count)

    async def test_a_pause_of_its_owner(self) -> None:
        """Its owner cannot pause it while its host does: it would continue by itself."""
        await self.begin_full()
        self.executor.give([a_deed(Pause)])
        told = await self.until(lambda told: told.done)
        self.assertIn("no space left", told.refused)
        with self.assertRaisesRegex(OurFault, "no space left"):  # nor is it moved: its rest here could continue by itself
            self.hypervisor.do(CELL, a_deed(Depart, generation=5))

    async def test_a_new_agent(self) -> None:
        """An agent that starts finds why the guest is paused, and has it continue when there is room."""
        await self.begin_full()
        self.executor.stop()
        self.executor = self.an_executor()
        (listed,) = await self.executor.survey()
        self.assertEqual((listed.seen, listed.cause), (Seen.PAUSED, Cause.NO_SPACE))
        count = len(self.told)
        self.resize(LARGE)
        await self.until_seen(Seen.RUNNING, count=count)

    async def test_destroyed(self) -> None:
        """A guest that was paused by a full disk can be destroyed, which makes room."""
        await self.begin_full()
        self.executor.give([Destroy(instance_id=7, generation=5, uuid=an_order().uuid)])
        await self.until_seen(Seen.GONE)
        self.assertEqual(self.overlays(), [])


class AdministratorTests(PauseCase):
    """H6, H8: what somebody does to our domains with virsh."""

    async def test_managed_save(self) -> None:
        """H8: `virsh managedsave` is no end: the domain, its save and its overlay stay, and it is told as saved by its host."""
        await self.begin()
        process = self.machine.guests()[-1]
        self.domain.managedSave()
        told = await self.until_seen(Seen.PAUSED, Cause.SAVED_BY_HOST)
        self.assertIn("saved by its host", told.reason)
        self.assertTrue(self.domain.hasManagedSaveImage())
        self.assertEqual(self.overlays(), ["0.qcow2"])
        self.executor.give([a_deed(Adapt, wished=Resources(cpu_share=100))])
        told = await self.until(lambda told: told.done)
        self.assertIn("saved by its host", told.refused)
        self.executor.give([a_deed(Unpause, generation=5)])
        told = await self.until(lambda told: told.done and told.generation == 5)
        self.assertEqual((told.seen, told.cause, told.refused), (Seen.RUNNING, None, ""))
        self.assertFalse(self.domain.hasManagedSaveImage())
        self.assertNotIn(process, self.machine.guests())

    async def test_managed_save_of_a_paused_guest(self) -> None:
        """A guest that was paused when its host saved it runs when it is asked to continue."""
        await self.begin()
        self.domain.suspend()
        await self.until_seen(Seen.PAUSED, Cause.ADMINISTRATOR)
        self.domain.managedSave()
        await self.until_seen(Seen.PAUSED, Cause.SAVED_BY_HOST)
        self.executor.give([a_deed(Unpause)])
        told = await self.until(lambda told: told.done)
        self.assertEqual((told.seen, told.refused), (Seen.RUNNING, ""))

    async def test_restored_by_its_host(self) -> None:
        """H8: a saved domain that libvirt-guests starts again is told as running, without an order."""
        await self.begin()
        self.domain.managedSave()
        await self.until_seen(Seen.PAUSED, Cause.SAVED_BY_HOST)
        count = len(self.told)
        self.domain.create()
        told = await self.until_seen(Seen.RUNNING, count=count)
        self.assertEqual(told.generation, 3)

    async def test_saved_while_libvirtd_restarts(self) -> None:
        """A saved domain is one after a restart of libvirtd and of the agent, too, and a repeated Start leaves it so."""
        await self.begin()
        self.domain.managedSave()
        await self.until_seen(Seen.PAUSED, Cause.SAVED_BY_HOST)
        self.executor.stop()
        self.connection.close()
        self.machine.kill()
        self.machine.start()
        self.hypervisor, self.connection = self.a_hypervisor()
        self.executor = self.an_executor()
        (listed,) = await self.executor.survey()
        self.assertEqual((listed.seen, listed.cause, listed.generation), (Seen.PAUSED, Cause.SAVED_BY_HOST, 3))
        count = len(self.told)
        self.executor.give([an_order(generation=6)])
        told = await self.until(lambda told: told.generation == 6, count)
        self.assertEqual((told.seen, told.cause), (Seen.PAUSED, Cause.SAVED_BY_HOST))
        self.assertTrue(self.domain.hasManagedSaveImage())

    async def test_a_saved_domain_is_destroyed(self) -> None:
        """An ordered Destroy removes a domain that its host has saved, with the save and its overlay: then it is ours to remove."""
        await self.begin()
        self.domain.managedSave()
        await self.until_seen(Seen.PAUSED, Cause.SAVED_BY_HOST)
        self.executor.give([Destroy(instance_id=7, generation=5, uuid=an_order().uuid)])
        await self.until_seen(Seen.GONE)
        self.assertEqual((self.connection.get().listAllDomains(), self.overlays()), ([], []))
        self.assertEqual(list((self.machine.directory / "lib").rglob("*.save")), [])

    async def test_saved_to_a_file(self) -> None:
        """H8: `virsh save` into a file of somebody's is no end either; only whoever has the file can have it continue."""
        await self.begin()
        file = str(self.small / "mine.save")
        self.addCleanup(Path(file).unlink, missing_ok=True)
        self.resize(LARGE)
        self.domain.save(file)
        await self.until_seen(Seen.PAUSED, Cause.SAVED_TO_FILE)
        for deed, words in ((a_deed(Unpause), "virsh restore"), (a_deed(Suspend, saved="suspend/7_x"), "does not run")):
            with self.assertRaisesRegex(OurFault, words):
                self.hypervisor.do(CELL, deed)
        self.machine.kill()
        self.machine.start()  # which has forgotten why the domain is off
        await self.until(lambda told: self.machine.guests() == [])
        listed = await self.executor.survey()
        self.assertEqual([(one.seen, one.cause) for one in listed], [(Seen.PAUSED, Cause.SAVED_TO_FILE)])
        self.assertEqual(self.overlays(), ["0.qcow2"])
        count = len(self.told)
        self.connection.get().restore(file)
        await self.until_seen(Seen.RUNNING, count=count)

    async def test_destroyed(self) -> None:
        """A domain that somebody destroys has ended, and it is told by whom; nothing of it is left."""
        await self.begin()
        self.domain.destroy()
        told = await self.until_seen(Seen.GONE, Cause.DESTROYED)
        self.assertEqual(told.reason, "destroyed by an administrator of its host")
        self.assertEqual((self.connection.get().listAllDomains(), self.overlays()), ([], []))

    async def test_suspended_and_resumed(self) -> None:
        """A domain that somebody suspends is told as paused by an administrator, and as running when it is resumed."""
        await self.begin()
        self.domain.suspend()
        told = await self.until_seen(Seen.PAUSED, Cause.ADMINISTRATOR)
        self.assertIn("administrator", told.reason)
        count = len(self.told)
        self.domain.resume()
        await self.until_seen(Seen.RUNNING, count=count)

    async def test_killed(self) -> None:
        """A guest whose process is killed has crashed."""
        await self.begin()
        os.kill(self.machine.guests()[-1], signal.SIGKILL)
        await self.until_seen(Seen.GONE, Cause.CRASHED)
        self.assertEqual((self.connection.get().listAllDomains(), self.overlays()), ([], []))

    async def test_undefined_while_it_runs(self) -> None:
        """A running domain that somebody undefines or resets runs on; when it then ends, nothing of it is left."""
        await self.begin()
        self.domain.reset()
        self.domain.undefine()
        await self.threads.run(lambda: None)
        (listed,) = await self.executor.survey()
        self.assertEqual((listed.seen, self.domain.isPersistent()), (Seen.RUNNING, 0))
        self.assertEqual([told.seen for told in self.told], [Seen.RUNNING])
        os.kill(self.machine.guests()[-1], signal.SIGKILL)
        await self.until_seen(Seen.GONE, Cause.CRASHED)
        self.assertEqual(self.overlays(), [])

    async def test_a_saved_domain_is_undefined(self) -> None:
        """A saved domain that somebody undefines with its save has ended, and it is told so."""
        await self.begin()
        self.domain.managedSave()
        await self.until_seen(Seen.PAUSED, Cause.SAVED_BY_HOST)
        self.domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
        await self.until_seen(Seen.GONE, Cause.UNDEFINED)
        self.assertEqual(self.overlays(), [])

    async def test_reverted_to_a_snapshot(self) -> None:
        """H8: a domain that somebody reverts to a snapshot without memory is off, kept, and starts when it is asked to continue."""
        await self.begin()
        self.executor.stop()  # it would clear away what ends
        domain = self.domain
        domain.destroy()
        domain.snapshotCreateXML("<domainsnapshot><name>off</name></domainsnapshot>")
        domain.create()
        self.executor = self.an_executor()
        await self.executor.survey()
        count = len(self.told)
        domain.revertToSnapshot(domain.snapshotLookupByName("off"))
        await self.until_seen(Seen.PAUSED, Cause.REVERTED, count)
        self.assertEqual(self.overlays(), ["0.qcow2"])
        self.executor.give([a_deed(Unpause)])
        told = await self.until(lambda told: told.done)
        self.assertEqual((told.seen, told.refused), (Seen.RUNNING, ""))

    async def test_deeds_on_a_saved_domain(self) -> None:
        """A saved domain cannot be shut down or suspended, in words, and to pause it is nothing."""
        await self.begin()
        self.domain.managedSave()
        await self.until_seen(Seen.PAUSED, Cause.SAVED_BY_HOST)
        for deed in (a_deed(Shutdown), a_deed(Suspend, saved="suspend/7_x")):
            with self.assertRaisesRegex(OurFault, "saved by its host"):
                self.hypervisor.do(CELL, deed)
        self.assertIsNone(self.hypervisor.do(CELL, a_deed(Pause)))
        self.assertTrue(self.domain.hasManagedSaveImage())
