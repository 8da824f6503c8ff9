"""A guest's serial console as a libvirt stream: what it says comes in libvirt's event thread, what is typed goes out at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import libvirt

from tashi.errors import BUSY, CONFLICT, OurFault

READ_BYTES: Final = 64 * 1024
_WOULD_WAIT: Final = -2
_EVENTS: Final = libvirt.VIR_STREAM_EVENT_READABLE | libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP


class LibvirtConsole:
    """An IConsole. The stream is always read at once, for libvirt's client would keep without limit what nobody fetches."""

    def __init__(self, domain: Any, force: bool, received: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._received = received
        self._ended = ended
        self._closed = False
        self._stream = domain.connect().newStream(libvirt.VIR_STREAM_NONBLOCK)
        domain.openConsole(None, self._stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE if force else libvirt.VIR_DOMAIN_CONSOLE_SAFE)
        self._stream.eventAddCallback(_EVENTS, self._happened, None)

    def write(self, data: bytes) -> None:
        """See IConsole."""
        while data:
            try:
                sent = self._stream.send(data)
            except libvirt.libvirtError as error:
                raise OurFault(CONFLICT, f"the console takes no input: {error.get_error_message()}") from None
            if sent == _WOULD_WAIT:
                raise OurFault(BUSY, "the guest does not read what is typed; try again later")
            data = data[sent:]

    def close(self) -> None:
        """See IConsole."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(libvirt.libvirtError):
                self._stream.eventRemoveCallback()
            with contextlib.suppress(libvirt.libvirtError):
                self._stream.abort()

    def _happened(self, stream: Any, events: int, opaque: Any) -> None:
        """In libvirt's event thread, where nothing may be raised."""
        try:
            data = stream.recv(READ_BYTES)
        except libvirt.libvirtError:
            data = b""
        if data == _WOULD_WAIT:
            return
        if data:
            self._received(data)
        else:
            with contextlib.suppress(libvirt.libvirtError):
                stream.eventRemoveCallback()
            self._ended()
