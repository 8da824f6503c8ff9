"""The way to a guest's screen: a port that takes one viewer, within a minute, and is not there before and afterwards.

QEMU's own VNC server listens nowhere. Whoever comes to the port first is connected to it through libvirt, and QEMU asks for the password,
which was made for this one time; so the port goes when it has been used, and the viewer when the screen does.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import string
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols import portforward
from twisted.python.failure import Failure

from tashi.errors import BUSY, INTERNAL, OurFault
from tashi.interfaces import IGuestAccess
from tashi.model.questions import VncOpen

PORTS: Final = range(5900, 6000)
VALID_SECONDS: Final = 60.0
_PASSWORD_LETTERS: Final = string.ascii_letters + string.digits
_PASSWORD_LENGTH: Final = 8  # VNC looks at no more


class VncDoors:
    """The ports of this host that are open for a viewer. ``run(function, *arguments)`` calls in a thread; ``seconds``: for how long."""

    log = Logger()

    def __init__(self, reactor: Any, access: IGuestAccess, run: Callable[..., Deferred[Any]], seconds: float = VALID_SECONDS) -> None:
        self._reactor = reactor
        self._access = access
        self._run = run
        self._seconds = seconds
        self._doors: dict[str, _Door] = {}

    async def open(self, cell: str, domain: str, address: str, incarnation: str = "") -> VncOpen:
        """A port on this address of ours for one viewer of the domain's screen; one that was open, or in use, is closed."""
        self._close(domain)
        password = "".join(secrets.choice(_PASSWORD_LETTERS) for _ in range(_PASSWORD_LENGTH))
        await self._run(self._access.set_vnc_password, cell, domain, password, self._seconds, incarnation)
        self._close(domain)  # another one, asked for meanwhile
        door = self._doors[domain] = _Door(lambda viewer: self._connect(cell, domain, incarnation, viewer))
        try:
            door.listen(self._reactor, address, self._seconds)
        except OurFault:
            self._close(domain)
            raise
        return VncOpen(host=address, port=door.port, password=password)

    async def close(self, cell: str, domain: str, incarnation: str = "") -> None:
        """Nobody is let in any more, and who is there is turned out."""
        self._close(domain)
        await self._run(self._access.set_vnc_password, cell, domain, secrets.token_urlsafe(6), 0.0, incarnation)

    def _close(self, domain: str) -> None:
        door = self._doors.pop(domain, None)
        if door is not None:
            door.close()

    def _connect(self, cell: str, domain: str, incarnation: str, viewer: _Viewer) -> None:
        def connected(descriptor: int) -> None:
            screen = portforward.ProxyClientFactory()
            screen.setServer(viewer)
            try:
                if viewer.transport.connected:
                    self._reactor.adoptStreamConnection(descriptor, socket.AF_UNIX, screen)
            finally:
                os.close(descriptor)

        def failed(failure: Failure) -> None:
            self.log.warn("a viewer was not let in at a screen: {why}", why=failure.getErrorMessage())
            viewer.transport.abortConnection()

        self._run(self._access.connect_to_screen, cell, domain, incarnation).addCallback(connected).addErrback(failed)


class _Viewer(portforward.Proxy):
    """Somebody who came to the port; waits until there is a screen."""

    transport: Any

    def __init__(self, came: Callable[[_Viewer], None]) -> None:
        self._came = came

    def connectionMade(self) -> None:
        """See IProtocol."""
        self.transport.pauseProducing()
        self._came(self)


class _Door(Factory):  # type: ignore[type-arg]
    """One port, until it was used or time is up, and then its viewer."""

    noisy = False

    def __init__(self, connect: Callable[[_Viewer], None]) -> None:
        self._connect = connect
        self._listener: Any = None
        self._timer: Any = None
        self._viewer: _Viewer | None = None
        self.port = 0

    def listen(self, reactor: Any, address: str, seconds: float) -> None:
        """Take a free port, for so many seconds; OurFault when there is none."""
        for port in PORTS:
            try:
                self._listener = reactor.listenTCP(port, self, backlog=1, interface=address)
            except CannotListenError as error:
                why = error.socketError
                if getattr(why, "errno", None) != errno.EADDRINUSE:
                    raise OurFault(INTERNAL, f"the agent cannot listen on {address}: {why}; see [Libvirt] vncAddress") from None
            else:
                self.port = port
                self._timer = reactor.callLater(seconds, self._shut)
                return
        raise OurFault(BUSY, f"the ports {PORTS.start} to {PORTS.stop - 1} of {address} are all in use; stop a VNC that is not needed")

    def buildProtocol(self, address: Any) -> Any:
        """See IProtocolFactory: only the first one comes in."""
        if self._viewer is not None:
            return None
        self._viewer = _Viewer(self._connect)
        self._shut()
        return self._viewer

    def close(self) -> None:
        """No port and no viewer any more."""
        self._shut()
        if self._viewer is not None and self._viewer.transport is not None:
            self._viewer.transport.abortConnection()

    def _shut(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._listener is not None:
            self._listener.stopListening()
            self._listener = None
