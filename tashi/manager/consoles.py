"""The verbs of serial consoles: open, read, write, close, and the log of what was said. Only for an instance's owner and administrators.

Nothing of a session is kept here: its name is a secret that only its host and whoever opened it know, and whose instance it is
is looked at again at every step. A reader who hangs up ends the session.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from twisted.internet.defer import CancelledError, Deferred

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.manager.arguments import Arguments, reference, text
from tashi.manager.cluster import Cluster
from tashi.manager.lookup import Lookup, living_instance
from tashi.manager.questions import Questions, must_run
from tashi.model.instance import Instance, console_name
from tashi.model.questions import (
    CloseConsole,
    ConsoleOpened,
    ConsoleOutput,
    LogPage,
    OpenConsole,
    ReadConsole,
    ReadLog,
    WriteConsole,
)
from tashi.model.user import Principal


class Consoles:
    """Each method is a verb: who asks, and with what arguments."""

    def __init__(self, cluster: Cluster, lookup: Lookup, questions: Questions) -> None:
        self._cluster = cluster
        self._lookup = lookup
        self._questions = questions

    @property
    def verbs(self) -> dict[str, Callable[[Principal, Arguments], Awaitable[Any]]]:
        """What can be asked, by the verb's name in small letters."""
        return {
            "openconsole": self.open,
            "readconsole": self.read,
            "writeconsole": self.write,
            "closeconsole": self.close,
            "readconsolelog": self.read_log,
        }

    def open(self, who: Principal, arguments: Arguments) -> Awaitable[Any]:
        """A session at the console of a Running instance: its id and the session's name."""
        instance = living_instance(self._cluster, who, reference(arguments, "instance"))
        must_run(instance)
        opening = self._open(instance, arguments.get("force") is True)
        return self._questions.audited(who, "openconsole", f"{instance.name} ({instance.id})", opening)

    async def _open(self, instance: Instance, force: bool) -> Any:
        answer = await self._questions.ask(instance, OpenConsole, force=force)
        assert isinstance(answer, ConsoleOpened)
        return {"id": instance.id, "name": instance.name, "session": answer.session}

    async def read(self, who: Principal, arguments: Arguments) -> Any:
        """What the guest has said since the last time, when it says something; ``ended`` says why there will be no more."""
        session = text(arguments, "session")
        named = reference(arguments, "instance")
        if isinstance(named, int) and named not in self._cluster.instances:
            return {"data": "", "missed": 0, "ended": "the instance has ended"}
        instance = living_instance(self._cluster, who, named)
        try:
            output = await self._questions.ask(instance, ReadConsole, session=session)
        except CancelledError:
            Deferred.fromCoroutine(self.close(who, arguments)).addErrback(lambda failure: None)  # the session ends by itself, too
            raise
        assert isinstance(output, ConsoleOutput)
        return {"data": _encoded(output.data), "missed": output.missed, "ended": output.ended and self._why(instance, output.ended)}

    async def write(self, who: Principal, arguments: Arguments) -> Any:
        """Type this."""
        instance = living_instance(self._cluster, who, reference(arguments, "instance"))
        session, data = text(arguments, "session"), _decoded(text(arguments, "data"))
        await self._questions.ask(instance, WriteConsole, session=session, data=data)

    async def close(self, who: Principal, arguments: Arguments) -> Any:
        """Leave the console."""
        instance = living_instance(self._cluster, who, reference(arguments, "instance"))
        await self._questions.ask(instance, CloseConsole, session=text(arguments, "session"))

    async def read_log(self, who: Principal, arguments: Arguments) -> Any:
        """A page of all that the console has said, from ``offset`` on; empty at the end. An instance that has ended may have one, too."""
        asked, offset = reference(arguments, "instance"), arguments.get("offset", 0)
        if type(offset) is not int or not 0 <= offset < 2**63:
            raise YourMistake(BAD_ARGUMENT, "offset is not a number of bytes")
        instance = await self._lookup.typed(who, asked)
        page = await self._questions.ask(instance, ReadLog, name=self._log_of(instance), offset=offset)
        assert isinstance(page, LogPage)
        return {"data": _encoded(page.data), "next": offset + len(page.data)}

    def _log_of(self, instance: Instance) -> str:
        cell = UUID(self._cluster.settings["cell"])
        return console_name(cell, instance.id, instance.incarnation, instance.name)

    def _why(self, before: Instance, words: str) -> str:
        """Why the host says that the console has closed, with what is known here."""
        instance = self._cluster.instances.get(before.id)
        if instance is None:
            return f"{words}: the instance has ended"
        return f"{words}: {instance.name} is {instance.state.name} on host {self._cluster.host_name(instance.host_id)}"


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise YourMistake(BAD_ARGUMENT, "data is not base64") from None
