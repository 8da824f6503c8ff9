"""The port to a guest's screen, over real sockets on this machine: one viewer, in time, and then no port."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tashi.errors import OurFault
from tashi.model.questions import VncOpen
from tashi.node.access.vnc import PORTS, VncDoors
from tests.fake_access import FakeAccess

CELL, WEB, OTHER = "cell", "web", "other"


class Viewer(Protocol):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.shown = b""
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        self.shown += data

    def connectionLost(self, reason: Any = None) -> None:
        """See IProtocol."""
        self.gone.callback(None)


class VncDoorsTests(TestCase):
    """A host with two guests."""

    timeout = 20

    def setUp(self) -> None:
        """No port is open."""
        self.access = FakeAccess({WEB, OTHER})
        self.doors = VncDoors(reactor, self.access, maybeDeferred, seconds=5.0)
        self.viewers: list[Viewer] = []

    async def tearDown(self) -> None:
        """Leave no port and no viewer."""
        for domain in (WEB, OTHER):
            await self.doors.close(CELL, domain)
        for viewer in self.viewers:
            assert viewer.transport is not None
            viewer.transport.loseConnection()
            await viewer.gone
        for screen in self.access.screens:
            screen.close()
        await self.a_moment()

    async def a_moment(self) -> None:
        """Let the reactor do what is to be done."""
        await deferLater(reactor, 0.02)  # type: ignore[arg-type]

    async def open(self, domain: str = WEB) -> VncOpen:
        """Ask for a port."""
        return await self.doors.open(CELL, domain, "127.0.0.1")

    async def come(self, port: int) -> Viewer:
        """A viewer comes to the port."""
        viewer = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Viewer())
        self.viewers.append(viewer)
        return viewer

    async def screen(self, count: int = 1) -> socket.socket:
        """The other end of the last connection to a screen."""
        while len(self.access.screens) < count:
            await self.a_moment()
        self.access.screens[-1].settimeout(5)
        return self.access.screens[-1]

    async def test_one_viewer(self) -> None:
        """The first one who comes sees the screen and can use it, and for the next there is no port."""
        found = await self.open()
        self.assertIn(found.port, PORTS)
        self.assertEqual((len(found.password), self.access.passwords), (8, [(found.password, 5.0)]))
        viewer = await self.come(found.port)
        screen = await self.screen()
        screen.sendall(b"RFB")
        while viewer.shown != b"RFB":
            await self.a_moment()
        assert viewer.transport is not None
        viewer.transport.write(b"key")
        self.assertEqual(await deferToThread(screen.recv, 10), b"key")
        with self.assertRaises(ConnectionRefusedError):
            await self.come(found.port)

    async def test_screen_goes(self) -> None:
        """When the guest ends its viewer is let go."""
        viewer = await self.come((await self.open()).port)
        (await self.screen()).close()
        await viewer.gone

    async def test_viewer_goes(self) -> None:
        """When the viewer goes the screen is told."""
        viewer = await self.come((await self.open()).port)
        screen = await self.screen()
        assert viewer.transport is not None
        viewer.transport.loseConnection()
        await viewer.gone
        self.assertEqual(await deferToThread(screen.recv, 10), b"")

    async def test_expiry(self) -> None:
        """After its time the port is gone."""
        self.doors = VncDoors(reactor, self.access, maybeDeferred, seconds=0.05)
        found = await self.open()
        await deferLater(reactor, 0.1)  # type: ignore[arg-type]
        with self.assertRaises(ConnectionRefusedError):
            await self.come(found.port)

    async def test_stopped(self) -> None:
        """Stopping closes the port, turns the viewer out, and spoils the password."""
        first, other = await self.open(), await self.open(OTHER)
        self.assertNotEqual((first.port, first.password), (other.port, other.password))
        viewer = await self.come(first.port)
        await self.screen()
        await self.doors.close(CELL, WEB)
        await viewer.gone
        self.assertNotEqual(self.access.passwords[-1][0], first.password)
        self.assertEqual(self.access.passwords[-1][1], 0.0)
        await self.come(other.port)

    async def test_asked_again(self) -> None:
        """Asking again closes what was open, and ends what was in use."""
        viewer = await self.come((await self.open()).port)
        await self.screen()
        second = await self.open()
        await viewer.gone
        third = await self.open()
        await self.come(third.port)
        await self.screen(2)
        self.assertEqual(len({second.password, third.password}), 2)

    async def test_guest_has_gone(self) -> None:
        """Whoever comes for a guest that has ended is let go, and asking for it again says so."""
        found = await self.open()
        self.access.domains.clear()
        viewer = await self.come(found.port)
        await viewer.gone
        with self.assertRaises(OurFault):
            await self.open()
        self.access.domains.add(WEB)
        self.access.domains.add(OTHER)

    async def test_wrong_address(self) -> None:
        """An address that is not this host's is refused with the name of the option."""
        with self.assertRaisesRegex(OurFault, "vncAddress"):
            await self.doors.open(CELL, WEB, "192.0.2.1")
