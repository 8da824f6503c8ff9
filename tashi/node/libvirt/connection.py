"""One connection to a libvirt daemon, opened when it is needed and again after it was lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Final

import libvirt

from tashi.errors import INTERNAL, OurFault
from tashi.model.causes import Cause
from tashi.model.orders import Seen
from tashi.node.faults import HypervisorAway
from tashi.node.libvirt.events import Listener, start_event_loop, subscribe

KEEPALIVE_SECONDS: Final = 5
KEEPALIVE_COUNT: Final = 3  # a daemon silent for longer than 5 * 3 s is given up, and every call that waits for it fails


class LibvirtConnection:
    """The connection of this URI. A test-driver host given by a file lives and dies with it, so there is never a second one."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._listeners: list[Listener] = []
        self._connection: Any = None
        self._opening = threading.Lock()

    def watch(self, listener: Listener) -> None:
        """Tell the listener of domains' lives from the next connection on, and of the loss of a connection."""
        self._listeners.append(listener)

    def get(self) -> Any:
        """The live connection; HypervisorAway when there is none to be had."""
        with self._opening:
            if self._connection is None or not is_alive(self._connection):
                self._connection = None
                self._connection = self._open()
            return self._connection

    def apart(self) -> LibvirtConnection:
        """A connection of its own to the same host, for calls that may hang: libvirtd carries out five of one connection at once. A
        test-driver host has only this one."""
        return self if self.uri.startswith("test:") else LibvirtConnection(self.uri)

    def close(self) -> None:
        """Let go of the connection; calls that still wait on it fail."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    @contextlib.contextmanager
    def talking(self, purpose: str) -> Iterator[Any]:
        """The connection for a few calls; a libvirt error in them becomes an OurFault that begins with the purpose."""
        connection = self.get()
        try:
            yield connection
        except libvirt.libvirtError as error:
            words = f"{purpose}: {error.get_error_message() or error}"
            if not is_alive(connection):
                raise HypervisorAway(words) from error
            raise OurFault(INTERNAL, words) from error

    def _open(self) -> Any:
        start_event_loop()
        try:
            connection = libvirt.open(self.uri)
            with contextlib.suppress(libvirt.libvirtError):  # the test driver knows neither
                connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
                connection.registerCloseCallback(lambda *ignored: self._tell(None, None, None), None)
            subscribe(connection, self._tell)
        except libvirt.libvirtError as error:
            raise HypervisorAway(f"no connection to {self.uri}: {error.get_error_message() or error}") from error
        return connection

    def _tell(self, uuid: str | None, seen: Seen | None, cause: Cause | None) -> None:
        for listener in self._listeners:
            listener(uuid, seen, cause)


def is_alive(connection: Any) -> bool:
    """Whether the connection still leads to a daemon."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


@contextlib.contextmanager
def gone_meanwhile(code: int = libvirt.VIR_ERR_NO_DOMAIN) -> Iterator[None]:
    """Go on when the domain is not there, or no longer; or after this error of libvirt's."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (code, libvirt.VIR_ERR_NO_DOMAIN):
            raise
