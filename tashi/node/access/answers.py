"""What this host answers when it is asked something at once: each question to whoever knows, every failure in words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tashi.errors import INTERNAL, OurFault, TashiError
from tashi.interfaces import IGuestAccess
from tashi.model.questions import (
    Answer,
    ChangeCdrom,
    CloseConsole,
    ConsoleOpened,
    DescribeDomain,
    Done,
    LogPage,
    OpenConsole,
    Question,
    ReadConsole,
    ReadLog,
    Refused,
    ShutDownHost,
    StartVnc,
    StopVnc,
    WriteConsole,
)
from tashi.node.access.consoles import Consoles
from tashi.node.access.vnc import VncDoors


class Answers:
    """Answers for the domains of one host. ``vnc_address``: where viewers come to; empty: where the control plane's link ends.
    ``shut_down`` has the machine shut down unless something of the cell runs on it."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        access: IGuestAccess,
        run: Callable[..., Deferred[Any]],
        vnc_address: str = "",
        shut_down: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._shut_down = shut_down
        self._access = access
        self._run = run
        self._vnc_address = vnc_address
        self._vnc = VncDoors(reactor, access, run)
        self._consoles = Consoles(reactor, access, run)

    async def answer(self, cell: str, address: str, question: Question) -> Answer:
        """The answer, asked over a link that ends at this address of ours; never an exception."""
        try:
            return await self._answer(cell, address, question)
        except TashiError as error:
            return Refused(code=error.code, message=error.message)
        except Exception:
            self.log.failure("a question was not answered")
            return Refused(code=INTERNAL, message="the node agent failed; its log says how")

    def link_lost(self, why: str) -> None:
        """Nobody is there any more who could read a console."""
        self._consoles.close_all(why)

    async def _answer(self, cell: str, address: str, question: Question) -> Answer:
        match question:
            case StartVnc():
                return await self._vnc.open(cell, question.uuid, self._vnc_address or address, question.incarnation)
            case StopVnc():
                await self._vnc.close(cell, question.uuid, question.incarnation)
            case ChangeCdrom():
                await self._run(self._access.change_cdrom, cell, question.uuid, question.image, question.incarnation)
            case OpenConsole():
                return ConsoleOpened(session=await self._consoles.open(cell, question))
            case ReadConsole():
                return await self._consoles.read(question)
            case WriteConsole():
                await self._consoles.write(question)
            case CloseConsole():
                self._consoles.close(question)
            case ReadLog():
                return LogPage(data=await self._run(self._access.read_log, question.name, question.offset))
            case DescribeDomain():
                return await self._run(self._access.describe, cell, question.uuid, question.incarnation)
            case ShutDownHost():
                if self._shut_down is None:
                    raise OurFault(INTERNAL, "this host does not shut down when it is asked to")
                await self._shut_down(cell)
        return Done()
