"""``python -m bench.observed PLUGIN FILE``: one of our programs under twistd, which notes in FILE when what passes some points in it.

The points are wrapped from outside, in this process only; nothing in the program knows of it. Lines are JSON: point, name of the
machine, seconds since the epoch, which is the same clock in all processes of a machine.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any, Final

_NAME: Final = re.compile("idle[0-9]{4}")
_REPLY: Final = re.compile(r'"resources":\["(idle[0-9]{4})"\]')

ARRIVED, CREATING, CREATED, EVENT, ANSWERED = "arrived", "creating", "created", "event", "answered"


class Notes:
    """The file of notes."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 - for as long as the process lives

    def note(self, point: str, content: str, when: float) -> None:
        """Note that something passes the point, if it names a machine of the benchmark."""
        found = _NAME.search(content)
        if found:
            self._file.write(json.dumps([point, found.group(), when]) + "\n")


def observe_manager(notes: Notes) -> None:
    """Note when a command's bytes come out of TLS, and when its reply has been written."""
    from tashi.xmpp.connection import Connection
    from tashi.xmpp.guard import GuardedXmlStream

    received, send = GuardedXmlStream.dataReceived, Connection.send

    @functools.wraps(received)
    def data_received(self: Any, data: bytes) -> None:
        if b"createcompute" in data:
            notes.note(ARRIVED, data.decode(), time.time())
        received(self, data)

    @functools.wraps(send)
    def noted_send(self: Any, stanza: Any) -> None:
        send(self, stanza)
        reply = _REPLY.search(stanza) if isinstance(stanza, str) else None
        if reply is not None:
            notes.note(ANSWERED, reply.group(1), time.time())

    GuardedXmlStream.dataReceived = data_received  # type: ignore[method-assign]
    Connection.send = noted_send  # type: ignore[method-assign]


def observe_agent(notes: Notes) -> None:
    """Note when libvirt is asked to create a domain, when it has, and when it tells of it."""
    import libvirt

    create, register = libvirt.virConnect.createXML, libvirt.virConnect.domainEventRegisterAny

    def create_xml(self: Any, xml: str, *more: Any) -> Any:
        notes.note(CREATING, xml, time.time())
        domain = create(self, xml, *more)
        notes.note(CREATED, xml, time.time())
        return domain

    def register_any(self: Any, domain: Any, event: int, callback: Callable[..., None], opaque: Any) -> Any:
        def noted(connection: Any, subject: Any, *details: Any) -> None:
            notes.note(EVENT, subject.name(), time.time())
            callback(connection, subject, *details)

        return register(self, domain, event, noted, opaque)

    libvirt.virConnect.createXML = create_xml
    libvirt.virConnect.domainEventRegisterAny = register_any


def main(plugin: str, path: str) -> None:
    """Run the program; does not return."""
    notes = Notes(path)
    (observe_manager if plugin == "tashi" else observe_agent)(notes)
    sys.argv = ["twistd", "-n", "--pidfile=", plugin]
    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    main(*sys.argv[1:])
