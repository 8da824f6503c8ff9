"""What every `IGuestAccess` keeps: mixed into a TestCase that says how to make one and how to move its guest."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable

from tashi.errors import CONFLICT, UNKNOWN_IMAGE, OurFault
from tashi.interfaces import IConsole, IGuestAccess
from tests.contracts.hypervisor_contract import CELL, OTHER_CELL, PATIENCE, an_order

HERE, NOT_HERE = an_order(7).uuid, an_order(8).uuid


class GuestAccessContract:
    """The promises of `tashi.interfaces.IGuestAccess`; the cell's domain 7 runs, and ``tools.iso`` is an image of the host."""

    access: IGuestAccess

    def speak(self) -> bytes:
        """Let the guest say this on its console."""
        raise NotImplementedError

    def end(self) -> None:
        """Let the guest end."""
        raise NotImplementedError

    def an_open_console(self, force: bool = False) -> tuple[IConsole, queue.Queue[bytes]]:
        """A console with what is received; its end is an empty text."""
        said: queue.Queue[bytes] = queue.Queue()
        return self.access.open_console(CELL, HERE, force, said.put, lambda: said.put(b"")), said

    def hear(self, said: queue.Queue[bytes], words: bytes) -> None:
        """Wait for these words."""
        heard = b""
        while words not in heard:
            heard += said.get(timeout=PATIENCE)

    def refusal(self, call: Callable[[], object]) -> OurFault:
        """The fault that the call ends in."""
        try:
            call()
        except OurFault as fault:
            return fault
        raise AssertionError("it was done")

    def test_only_what_runs(self) -> None:
        """What does not run here, or is another cell's, has neither screen nor console nor drive."""
        for cell, domain in ((CELL, NOT_HERE), (OTHER_CELL, HERE)):
            for call in (
                lambda cell=cell, domain=domain: self.access.set_vnc_password(cell, domain, "secret", 60.0),
                lambda cell=cell, domain=domain: self.access.connect_to_screen(cell, domain),
                lambda cell=cell, domain=domain: self.access.change_cdrom(cell, domain, ""),
                lambda cell=cell, domain=domain: self.access.open_console(cell, domain, True, lambda data: None, lambda: None),
            ):
                fault = self.refusal(call)
                assert fault.code == CONFLICT if cell == CELL else "left alone" in fault.message

    def test_only_its_own_incarnation(self) -> None:
        """O1: the domain of another incarnation has neither screen nor console nor drive for this one."""
        other = "f" * 32
        for call in (
            lambda: self.access.set_vnc_password(CELL, HERE, "secret", 60.0, other),
            lambda: self.access.connect_to_screen(CELL, HERE, other),
            lambda: self.access.change_cdrom(CELL, HERE, "", other),
            lambda: self.access.open_console(CELL, HERE, True, lambda data: None, lambda: None, other),
        ):
            assert "left alone" in self.refusal(call).message

    def test_screen(self) -> None:
        """A password can be set as often as one likes, and the connection to a screen is the caller's."""
        for _ in range(2):
            self.access.set_vnc_password(CELL, HERE, "secret", 60.0)
        os.close(self.access.connect_to_screen(CELL, HERE))

    def test_cdrom(self) -> None:
        """A CD-ROM is changed and taken out as often as one likes; one that is no image stays out."""
        for image in ("tools.iso", "tools.iso", "", "", "tools.iso"):
            self.access.change_cdrom(CELL, HERE, image)
        for image in ("missing.iso", "../tools.iso", "TOOLS.iso"):
            assert self.refusal(lambda image=image: self.access.change_cdrom(CELL, HERE, image)).code == UNKNOWN_IMAGE

    def test_console(self) -> None:
        """What the guest says is received, what is typed is taken, and closing once more does no harm."""
        console, said = self.an_open_console()
        self.hear(said, self.speak())
        console.write(b"hello")
        for _ in range(2):
            console.close()
        self.an_open_console()[0].close()

    def test_end_of_a_console(self) -> None:
        """The end of the guest is the end of its console."""
        _, said = self.an_open_console()
        self.end()
        while said.get(timeout=PATIENCE):
            pass

    def test_no_log(self) -> None:
        """Of a guest that never was there is no log."""
        assert self.access.read_log("tashi-99-nobody", 0) == b""
