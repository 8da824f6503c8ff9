"""Libvirt's event loop in a thread of its own, and its lifecycle events in our words.

Callbacks run in that thread: they may only hand on what they were told, never call libvirt, log or raise.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import libvirt

from tashi.model.orders import Seen

Listener = Callable[[str | None, Seen | None, str], None]
"""Called with a domain's UUID, what it seems to be now and how it ended; with None first when anything may have changed."""

ENDED: Final = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "shut down",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "crashed",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: "migrated away",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: "saved",
}
_SEEN: Final = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: Seen.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: Seen.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: Seen.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: Seen.GONE,
    libvirt.VIR_DOMAIN_EVENT_CRASHED: Seen.GONE,
}
_starting = threading.Lock()
_loop: threading.Thread | None = None


def start_event_loop() -> None:
    """Start the thread, once in the life of the process, and before any connection is opened."""
    global _loop
    with _starting:
        if _loop is None:
            libvirt.registerErrorHandler(lambda *ignored: None, None)  # errors come as exceptions; it would print them, too
            libvirt.virEventRegisterDefaultImpl()
            _loop = threading.Thread(target=_run, name="libvirt-events", daemon=True)
            _loop.start()


def subscribe(connection: Any, listener: Listener) -> None:
    """Tell the listener of every change in the life of a domain of this connection."""

    def lifecycle(connection: Any, domain: Any, event: int, detail: int, opaque: Any) -> None:
        seen = _SEEN.get(event)
        if seen is not None:
            ended = ENDED.get(detail, "ended") if event == libvirt.VIR_DOMAIN_EVENT_STOPPED else ""
            listener(domain.UUIDString(), seen, ended)

    connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)


def _run() -> None:
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()
            continue
        time.sleep(0.1)  # an error that stays must not spin
