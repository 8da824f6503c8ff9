"""Screens, consoles and CD-ROMs of real QEMU guests: the contract, and what only real ones show."""

from __future__ import annotations

import os
import queue
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tashi.errors import UNKNOWN_IMAGE, OurFault
from tashi.model.instance import Disk
from tashi.node.access.logs import ConsoleLogs
from tashi.node.libvirt.access import LibvirtAccess
from tashi.node.storage.disks import Disks
from tests.contracts.guest_access_contract import HERE, GuestAccessContract
from tests.contracts.hypervisor_contract import CELL, PATIENCE, an_order
from tests.integration.private_libvirtd import wait_until
from tests.integration.rfb import log_in
from tests.integration.test_node_libvirt import GREETING, QemuCase

pytestmark = pytest.mark.integration

ISO = bytes(16 * 2048) + (b"\x01CD001\x01" + bytes(33) + b"TOOLS").ljust(2048, b"\0") + bytes(2**16)


class GuestAccessCase(QemuCase):
    """A guest that has just been started."""

    def setUp(self) -> None:
        """The guest, and the way into it."""
        super().setUp()
        self.images = self.directory / "images"
        (self.images / "tools.iso").write_bytes(ISO)
        disks = Disks(self.images, self.directory / "scratch")
        self.access = LibvirtAccess(self.connection, disks, ConsoleLogs(self.directory / "console"))
        self.hypervisor.start(CELL, an_order(7))
        self.domain = self.connection.get().lookupByUUIDString(HERE)

    def screen(self) -> socket.socket:
        """A connection to the guest's screen."""
        connection = socket.socket(fileno=self.access.connect_to_screen(CELL, HERE))
        self.addCleanup(connection.close)
        return connection


class QemuGuestAccessTests(GuestAccessContract, GuestAccessCase):
    """The contract, kept by a real guest."""

    def speak(self) -> bytes:
        """See GuestAccessContract. A guest that is reset while its BIOS begins may stay silent."""
        wait_until(lambda: GREETING in self.access.read_log("tashi-7-vm7", 0))
        self.domain.reset()
        return GREETING

    def end(self) -> None:
        """See GuestAccessContract."""
        self.domain.destroy()


class QemuScreenTests(GuestAccessCase):
    """What a viewer needs to be let in."""

    def test_listens_nowhere(self) -> None:
        """Until somebody is connected to it a screen cannot be reached, and with the password it was made with nobody is let in."""
        guest = self.machine.guests()[-1]
        inodes = {
            os.readlink(entry).partition("[")[2].rstrip("]")
            for entry in Path(f"/proc/{guest}/fd").iterdir()
            if stat.S_ISSOCK(os.stat(entry).st_mode)
        }
        listening = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{guest}/net/{name}").read_text().splitlines()[1:]]
        self.assertEqual([line for line in listening if line[9] in inodes], [])
        for password in ("", "wrong"):
            with self.assertRaises(PermissionError):
                log_in(self.screen(), password)

    def test_password(self) -> None:
        """The password that was set lets in while it is valid, and no other."""
        self.access.set_vnc_password(CELL, HERE, "s3cret-1", 60.0)
        with self.assertRaises(PermissionError):
            log_in(self.screen(), "s3cret-2")
        self.assertIn("tashi-7-vm7", log_in(self.screen(), "s3cret-1"))

    def test_expired(self) -> None:
        """A password whose time is over lets nobody in."""
        self.access.set_vnc_password(CELL, HERE, "s3cret-1", 0.0)
        with self.assertRaises(PermissionError):
            log_in(self.screen(), "s3cret-1")
        self.access.set_vnc_password(CELL, HERE, "s3cret-1", 1.0)

        def is_refused() -> bool:
            with self.screen() as screen:
                try:
                    log_in(screen, "s3cret-1")
                except PermissionError:
                    return True
            return False

        wait_until(is_refused, 10.0)

    def test_empty_password(self) -> None:
        """A password of no letters does not open the screen to everybody."""
        self.access.set_vnc_password(CELL, HERE, "", 60.0)
        with self.assertRaises(PermissionError):
            log_in(self.screen(), "")


class QemuCdromTests(GuestAccessCase):
    """What may be a CD-ROM."""

    def drive(self) -> str:
        """What QEMU has in the drive."""
        return str(self.domain.XMLDesc()).partition("device='cdrom'")[2].partition("</disk>")[0]

    def test_changed(self) -> None:
        """The guest's drive holds the image, read as raw and not written, now and in the domain's definition; then it is empty."""
        self.access.change_cdrom(CELL, HERE, "tools.iso")
        self.assertIn("tools.iso", self.drive())
        self.assertIn("tools.iso", self.domain.XMLDesc(2))
        self.assertEqual(self.domain.blockInfo("hdc")[0], len(ISO))
        self.access.change_cdrom(CELL, HERE, "")
        self.assertNotIn("tools.iso", self.drive())

    def test_hostile(self) -> None:
        """What would make the host open another file is refused before QEMU sees it."""
        secret = self.directory / "secret"
        secret.write_bytes(bytes(2**16))
        (self.images / "link.iso").symlink_to(secret)
        run = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(secret), str(self.images / "backed.iso")]
        subprocess.run(run, check=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(self.images / "plain.iso"), "1M"], check=True)
        (self.images / "vmdk.iso").write_bytes(b"# Disk DescriptorFile\nversion=1\n")
        os.mkfifo(self.images / "pipe.iso")
        for name in ("link.iso", "backed.iso", "plain.iso", "vmdk.iso", "pipe.iso", "/etc/passwd", "json:{}", "nbd:x", ".."):
            with self.assertRaises(OurFault) as caught:
                self.access.change_cdrom(CELL, HERE, name)
            self.assertEqual(caught.exception.code, UNKNOWN_IMAGE)
        self.assertNotIn("source file", self.drive())

    def test_ide_disks(self) -> None:
        """A machine of three IDE disks has its drive beside them; one of four says that it has none."""
        disk = Disk(uri="boot.img")
        for count, hints in ((3, {"diskInterface": "ide"}), (4, {"diskInterface": "ide"})):
            order = an_order(count, disks=(disk,) * count, hints=hints)
            self.hypervisor.start(CELL, order)
            if count == 3:
                self.access.change_cdrom(CELL, order.uuid, "tools.iso")
            else:
                with self.assertRaisesRegex(OurFault, "without a CD-ROM drive"):
                    self.access.change_cdrom(CELL, order.uuid, "tools.iso")


class QemuConsoleTests(GuestAccessCase):
    """Who is at the console."""

    def open(self, force: bool = False) -> tuple[object, queue.Queue[bytes]]:
        """A console with what is received; its end is an empty text."""
        said: queue.Queue[bytes] = queue.Queue()
        console = self.access.open_console(CELL, HERE, force, said.put, lambda: said.put(b""))
        self.addCleanup(console.close)
        return console, said

    def test_one_at_a_time(self) -> None:
        """A console that is in use, even by a program that is not ours, is refused, and taken over by force."""
        _, said = self.open()
        with self.assertRaisesRegex(OurFault, "console"):
            self.open()
        self.open(force=True)
        while said.get(timeout=PATIENCE):
            pass

    def test_log(self) -> None:
        """What the guest says while nobody looks on is in the log, byte by byte."""
        wait_until(lambda: GREETING in self.access.read_log("tashi-7-vm7", 0))
        whole = self.access.read_log("tashi-7-vm7", 0)
        self.assertEqual(self.access.read_log("tashi-7-vm7", 3), whole[3:])
