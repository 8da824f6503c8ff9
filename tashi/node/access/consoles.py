"""The sessions in which somebody sits at a guest's serial console: what the guest says waits here until it is fetched.

A session holds a bounded number of bytes: what is said faster than it is fetched pushes out what was said before, so that neither the guest
nor this agent ever waits for whoever looks on. A session that is not read any more ends by itself.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tashi.errors import BAD_ARGUMENT, BUSY, CONFLICT, OurFault, YourMistake
from tashi.interfaces import IConsole, IGuestAccess
from tashi.model.questions import INPUT_BYTES, OUTPUT_BYTES, CloseConsole, ConsoleOutput, OpenConsole, ReadConsole, WriteConsole

KEPT_BYTES: Final = 4 * OUTPUT_BYTES
READ_SECONDS: Final = 10.0
"""How long a read waits for something to be said."""
UNREAD_SECONDS: Final = 15.0
"""After this a session that nobody reads ends; one whose reader hangs up ends at once."""
BYTES_A_SECOND: Final = 16 * 1024
"""How fast one may type: beyond it libvirt's daemon would keep what the guest does not read."""
CLOSED: Final = "the console has closed"


class _Output:
    """What a guest has said and nobody has fetched; filled from any thread. ``tell`` is called when there is something again."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._data = bytearray()
        self._missed = 0

    def put(self, data: bytes) -> None:
        """The guest said this."""
        with self._lock:
            news = not self._data
            self._data += data
            excess = max(0, len(self._data) - KEPT_BYTES)
            self._missed += excess
            del self._data[:excess]
        if news:
            self._tell()

    def take(self) -> ConsoleOutput | None:
        """The oldest that is there, at most OUTPUT_BYTES of it; None when nothing is."""
        with self._lock:
            if not self._data:
                return None
            data, missed = bytes(self._data[:OUTPUT_BYTES]), self._missed
            del self._data[:OUTPUT_BYTES]
            self._missed = 0
            return ConsoleOutput(data=data, missed=missed)


class _Session:
    def __init__(self, uuid: str, tell: Callable[[_Session], None]) -> None:
        self.name = secrets.token_hex(16)
        self.uuid = uuid
        self.output = _Output(lambda: tell(self))
        self.console: IConsole | None = None
        self.ended = ""
        self.reader: Deferred[ConsoleOutput] | None = None
        self.typing = False
        self.timer: Any = None  # while somebody reads, for the end of the wait; while nobody does, for that of the session


class Consoles:
    """The sessions of this host, one a domain. ``run(function, *arguments)`` calls in a thread."""

    log = Logger()

    def __init__(self, reactor: Any, access: IGuestAccess, run: Callable[..., Deferred[Any]]) -> None:
        self._reactor = reactor
        self._access = access
        self._run = run
        self._sessions: dict[str, _Session] = {}  # until their end was told
        self._by_domain: dict[str, _Session] = {}

    async def open(self, cell: str, asked: OpenConsole) -> str:
        """The name of a new session; OurFault(conflict) when the domain has one already, unless ``force`` ends it."""
        former = self._by_domain.get(asked.uuid)
        if former is not None:
            if not asked.force:
                raise OurFault(CONFLICT, "somebody is at its console already; --force takes it from them")
            self._end(former, "somebody else has taken the console over")
        session = self._by_domain[asked.uuid] = _Session(asked.uuid, lambda it: self._reactor.callFromThread(self._tell, it))
        try:
            session.console = await self._run(
                self._access.open_console,
                cell,
                asked.uuid,
                asked.force,
                session.output.put,
                lambda: self._closed(session),
                asked.incarnation,
            )
        except BaseException:
            self._leave(session)
            raise
        if session.ended:  # meanwhile
            self._close(session)
            raise OurFault(CONFLICT, session.ended)
        self._sessions[session.name] = session
        self._wait_for_reader(session)
        return session.name

    def read(self, asked: ReadConsole) -> Deferred[ConsoleOutput]:
        """What was said, now or as soon as it is; nothing after a while. A second reader ends the wait of the first."""
        answer: Deferred[ConsoleOutput] = Deferred()
        session = self._sessions.get(asked.session)
        if session is None or session.uuid != asked.uuid:
            answer.callback(ConsoleOutput(ended=CLOSED))
            return answer
        self._answer(session, ConsoleOutput())
        session.reader = answer
        self._arm(session, READ_SECONDS, lambda: self._answer(session, ConsoleOutput()))
        self._tell(session)
        return answer

    async def write(self, asked: WriteConsole) -> None:
        """Type something, at a pace that a serial line keeps."""
        session = self._sessions.get(asked.session)
        if session is None or session.uuid != asked.uuid or session.ended or session.console is None:
            raise OurFault(CONFLICT, CLOSED)
        if len(asked.data) > INPUT_BYTES:
            raise YourMistake(BAD_ARGUMENT, f"data has {len(asked.data)} bytes; type at most {INPUT_BYTES} at a time")
        if session.typing:
            raise OurFault(BUSY, "what was typed before is still on its way; wait for its answer")
        session.typing = True
        try:
            await self._run(session.console.write, asked.data)
            await deferLater(self._reactor, len(asked.data) / BYTES_A_SECOND)
        finally:
            session.typing = False

    def close(self, asked: CloseConsole) -> None:
        """End the session, if it is there."""
        session = self._sessions.get(asked.session)
        if session is not None and session.uuid == asked.uuid:
            self._end(session, CLOSED)

    def close_all(self, why: str) -> None:
        """End all sessions for this reason."""
        for session in list(self._by_domain.values()):
            self._end(session, why)

    def _closed(self, session: _Session) -> None:
        """From any thread: the guest will say no more."""
        self._reactor.callFromThread(self._end, session, CLOSED)

    def _end(self, session: _Session, why: str) -> None:
        if not session.ended:
            session.ended = why
            self._leave(session)
            self._close(session)
            self._tell(session)

    def _leave(self, session: _Session) -> None:
        if self._by_domain.get(session.uuid) is session:
            del self._by_domain[session.uuid]

    def _close(self, session: _Session) -> None:
        if session.console is not None:
            self._run(session.console.close).addErrback(lambda failure: self.log.failure("a console was not closed", failure))

    def _tell(self, session: _Session) -> None:
        """Answer who reads, if there is something to say: first what the guest said, then that it will say no more."""
        if session.reader is None:
            return
        output = session.output.take()
        if output is not None:
            self._answer(session, output)
        elif session.ended:
            self._answer(session, ConsoleOutput(ended=session.ended))
            self._forget(session)

    def _answer(self, session: _Session, output: ConsoleOutput) -> None:
        reader, session.reader = session.reader, None
        if reader is not None:
            self._wait_for_reader(session)
            if not reader.called:
                reader.callback(output)

    def _wait_for_reader(self, session: _Session) -> None:
        def give_up() -> None:
            self._end(session, CLOSED)
            self._forget(session)

        self._arm(session, UNREAD_SECONDS, give_up)

    def _forget(self, session: _Session) -> None:
        self._sessions.pop(session.name, None)
        self._arm(session, None)

    def _arm(self, session: _Session, seconds: float | None, call: Callable[[], None] | None = None) -> None:
        """Let the session's timer make this call in so many seconds, and no other one."""
        if session.timer is not None and session.timer.active():
            session.timer.cancel()
        session.timer = None if seconds is None else self._reactor.callLater(seconds, call)
