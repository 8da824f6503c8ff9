"""Libvirt's event loop in a thread of its own, and its lifecycle events in our words.

Callbacks run in that thread: they may only hand on what they were told, never call libvirt, log or raise.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import libvirt

from tashi.model.causes import Cause
from tashi.model.orders import Seen
from tashi.node.libvirt.causes import hint_of

Listener = Callable[[str | None, Seen | None, Cause | None], None]
"""Called with a domain's UUID, what it seems to be now and why; with None first when anything may have changed."""

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
        hint = hint_of(event, detail)
        if hint is not None:
            listener(domain.UUIDString(), *hint)

    connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)


def _run() -> None:
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()
            continue
        time.sleep(0.1)  # an error that stays must not spin
