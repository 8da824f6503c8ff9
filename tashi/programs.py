"""Running a program of the machine: its words as a list, never through a shell, with a deadline and nothing on its standard input."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tashi.errors import INTERNAL, TIMEOUT, OurFault

MOST_OUTPUT: Final = 64 * 1024
"""Bytes of a program's output that are kept: the last ones."""
LINGER: Final = 1.0
"""Seconds for the last of the output of a program that has ended, which a child of its own may hold open for ever."""


async def run(reactor: Any, words: Sequence[str], seconds: float, turns: DeferredSemaphore | None = None) -> str:
    """What the program prints, when it ends with 0. OurFault with the last line of what it says when it ends otherwise, when there is no
    such program, and when it has not ended in time: then it is killed, as it is when nobody waits for it any more. ``turns`` limits how
    many run at once."""
    if turns is not None:
        await turns.acquire()
    try:
        return await _run(reactor, words, seconds)
    finally:
        if turns is not None:
            turns.release()


async def _run(reactor: Any, words: Sequence[str], seconds: float) -> str:
    path = shutil.which(words[0])
    if path is None:
        raise OurFault(INTERNAL, f"there is no program {words[0]}; install it, or correct the configuration")
    running = _Running(reactor, words[0], seconds)
    try:
        reactor.spawnProcess(running, path, list(words), env=dict(os.environ))
    except OSError as error:
        raise OurFault(INTERNAL, f"{words[0]} cannot be run: {error.strerror}") from None
    return await running.ended


class _Running(ProcessProtocol):
    """One run of a program; ``ended`` fires with its output."""

    transport: Any

    def __init__(self, reactor: Any, name: str, seconds: float) -> None:
        self.ended: Deferred[str] = Deferred(lambda ended: self._kill(None))
        self._reactor = reactor
        self._name = name
        self._seconds = seconds
        self._output = b""
        self._late: Any = None
        self._linger: Any = None

    def connectionMade(self) -> None:
        """See ProcessProtocol."""
        self.transport.closeStdin()
        self._late = self._reactor.callLater(self._seconds, self._too_late)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """See ProcessProtocol: what it prints and what it complains of, in the order in which it comes."""
        self._output = (self._output + data)[-MOST_OUTPUT:]

    def processExited(self, reason: Failure) -> None:
        """See ProcessProtocol."""
        self._linger = self._reactor.callLater(LINGER, self._end, reason)

    def processEnded(self, reason: Failure) -> None:
        """See ProcessProtocol."""
        self._end(reason)

    def _too_late(self) -> None:
        self._kill(OurFault(TIMEOUT, f"{self._name} has not ended within {self._seconds:g} s and was killed"))

    def _kill(self, outcome: OurFault | None) -> None:
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
        self._finish(outcome)

    def _end(self, reason: Failure) -> None:
        value: Any = reason.value
        text = self._output.decode(errors="replace")
        if value.exitCode == 0:
            self._finish(text)
        else:
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            how = f"code {value.exitCode}" if value.exitCode is not None else f"signal {value.signal}"
            self._finish(OurFault(INTERNAL, f"{self._name} ended with {how}" + (f": {lines[-1][:300]}" if lines else "")))

    def _finish(self, outcome: str | OurFault | None) -> None:
        for call in (self._late, self._linger):
            if call is not None and call.active():
                call.cancel()
        self.transport.loseConnection()
        if self.ended.called or outcome is None:
            return
        if isinstance(outcome, str):
            self.ended.callback(outcome)
        else:
            self.ended.errback(outcome)
