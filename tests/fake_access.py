"""The way into guests that are in memory: an `IGuestAccess` that keeps the same contract as libvirt's."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tashi.errors import BUSY, CONFLICT, INTERNAL, UNKNOWN_IMAGE, OurFault
from tashi.model.instance import Disk
from tashi.model.questions import DomainDescription


class FakeConsole:
    """A console whose guest says back what is typed."""

    def __init__(self, received: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self.say = received
        self.end = ended
        self.typed = b""
        self.closed = 0
        self.deaf = False

    def write(self, data: bytes) -> None:
        """See IConsole."""
        if self.deaf:
            raise OurFault(BUSY, "the guest does not read what is typed")
        self.typed += data
        self.say(data)

    def close(self) -> None:
        """See IConsole."""
        self.closed += 1


class FakeAccess:
    """The domains of these UUIDs run here, for the cell whose they are or for any; ``images`` may be CD-ROMs."""

    def __init__(self, domains: set[str], images: set[str] | None = None, cell: str = "") -> None:
        self.domains = domains
        self.cell = cell
        self.incarnations: dict[str, str] = {}
        """The incarnations of the domains that have one."""
        self.images = images or set()
        self.passwords: list[tuple[str, float]] = []
        self.cdroms: list[str] = []
        self.logs: dict[str, bytes] = {}
        self.consoles: list[FakeConsole] = []
        self.screens: list[socket.socket] = []

    def set_vnc_password(self, cell: str, domain_uuid: str, password: str, seconds: float, incarnation: str = "") -> None:
        """See IGuestAccess."""
        self._check(cell, domain_uuid, incarnation)
        self.passwords.append((password, seconds))

    def connect_to_screen(self, cell: str, domain_uuid: str, incarnation: str = "") -> int:
        """See IGuestAccess; the other end is the last of `screens`."""
        self._check(cell, domain_uuid, incarnation)
        ours, theirs = socket.socketpair()
        self.screens.append(ours)
        return theirs.detach()

    def change_cdrom(self, cell: str, domain_uuid: str, image: str, incarnation: str = "") -> None:
        """See IGuestAccess."""
        if image and image not in self.images:
            raise OurFault(UNKNOWN_IMAGE, f"the image {image} cannot be opened")
        self._check(cell, domain_uuid, incarnation)
        self.cdroms.append(image)

    def open_console(
        self,
        cell: str,
        domain_uuid: str,
        force: bool,
        received: Callable[[bytes], None],
        ended: Callable[[], None],
        incarnation: str = "",
    ) -> FakeConsole:
        """See IGuestAccess."""
        self._check(cell, domain_uuid, incarnation)
        self.consoles.append(FakeConsole(received, ended))
        return self.consoles[-1]

    def describe(self, cell: str, domain_uuid: str, incarnation: str = "") -> DomainDescription:
        """See IGuestAccess."""
        self._check(cell, domain_uuid, incarnation)
        return DomainDescription(instance_id=7, incarnation=incarnation, name="vm7", cores=1, memory=32, disks=(Disk(uri="boot.img"),))

    def read_log(self, name: str, offset: int) -> bytes:
        """See IGuestAccess."""
        return self.logs.get(name, b"")[offset : offset + 10]

    def _check(self, cell: str, domain_uuid: str, incarnation: str) -> None:
        if self.cell not in ("", cell):
            raise OurFault(INTERNAL, "the domain is not this cell's; it was left alone")
        if incarnation != self.incarnations.get(domain_uuid, "") and domain_uuid in self.domains:
            raise OurFault(INTERNAL, "the domain belongs to another instance; it was left alone")
        if domain_uuid not in self.domains:
            raise OurFault(CONFLICT, "the instance does not run on its host any more")
