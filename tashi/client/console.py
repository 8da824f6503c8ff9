"""`tashi console`: the terminal, or a pipe, at the serial console of an instance. Ctrl-] leaves.

What the guest says goes to stdout as it is, words of ours to stderr. The exit code is 0 when we left, 1 when the console was closed from
the other side, and as that of any verb when it could not be opened.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from tashi.client import arguments
from tashi.client.cell import Cell, Row, connect
from tashi.client.process import run_to_end
from tashi.client.table import visible
from tashi.client.unreachable import CannotReach
from tashi.errors import TashiError, YourMistake

LEAVE: Final = b"\x1d"
AT_A_TIME: Final = 4096
STAY_SECONDS: Final = 3.0
CLOSE_SECONDS: Final = 2.0


def main(argv: Sequence[str]) -> int:
    """Be the console that these words ask for; the exit code."""
    from tashi.client.command import CANNOT_REACH, INTERRUPTED, exit_code

    asked = _parser().parse_args(argv)
    try:
        if asked.log:
            code = run_to_end(lambda reactor: print_log(asked.instance, reactor))
        else:
            with raw_terminal(sys.stdin.fileno()) as is_terminal:
                code = run_to_end(lambda reactor: sit_down(asked.instance, asked.force, is_terminal, asked.stay, reactor))
    except CannotReach as error:
        _say(str(error))
        return CANNOT_REACH
    except TashiError as error:
        _say(f"Failed in calling console: {error.message}")
        return exit_code(error)
    return INTERRUPTED if code is None else code


async def print_log(instance: str | int, reactor: Any) -> int:
    """All that the instance's console has said, to stdout."""
    offset = 0
    async with connect(reactor) as cell:
        while page := await cell.readConsoleLog(instance, offset):
            _put(page)
            offset += len(page)
    return 0


async def sit_down(instance: str | int, force: bool, is_terminal: bool, stay: float, reactor: Any) -> int:
    """Carry what is typed to the guest and what it says to stdout, until Ctrl-] on a terminal, until ``stay`` seconds after the end of
    any other stdin, or until the console closes."""
    from twisted.internet.defer import CancelledError, Deferred

    async with connect(reactor) as cell:
        opened = await cell.openConsole(instance, force)
        _say(f"at the console of {opened['name']}" + ("; Ctrl-] leaves" if is_terminal else ""))
        reading = Deferred.fromCoroutine(_show(cell, opened))
        typist = _Typist(reactor, cell, opened, LEAVE if is_terminal else b"", stay, reading.cancel)
        typist.start()
        try:
            ended = await reading
        except CancelledError:
            if not typist.left:
                raise
        if typist.left:
            return 0
        _say(ended)
        return 1


async def _show(cell: Cell, opened: Row) -> str:
    """Put out what the guest says, until it says no more: why."""
    while True:
        said = await cell.readConsole(opened["id"], opened["session"])
        if said["missed"]:
            _say(f"[{said['missed']} bytes were said too fast to be shown]")
        _put(said["data"])
        if said["ended"]:
            return str(said["ended"])


class _Typist:
    """Types what comes on stdin, which is read in a thread: it may be a terminal, a pipe or a file. ``key``: what leaves, if anything;
    ``leave`` is called when the console does not close although we left."""

    def __init__(self, reactor: Any, cell: Cell, opened: Row, key: bytes, stay: float, leave: Callable[[], None]) -> None:
        self.left = False
        self._reactor = reactor
        self._cell = cell
        self._opened = opened
        self._key = key
        self._stay = stay
        self._give_up = leave

    def start(self) -> None:
        """Begin to type."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """In the thread; a key is read when the one before it has been typed."""
        from twisted.internet.threads import blockingCallFromThread

        while data := os.read(sys.stdin.fileno(), AT_A_TIME):
            before, leaving, _ = data.partition(self._key) if self._key else (data, b"", b"")
            try:
                if before:
                    blockingCallFromThread(self._reactor, self._type, before)
            except TashiError as error:
                self._reactor.callFromThread(_say, error.message)
            except CannotReach:
                return  # whoever reads is told, too
            if leaving:
                break
        self._reactor.callFromThread(self._reactor.callLater, 0 if self._key else self._stay, self._leave)

    def _type(self, data: bytes) -> Any:
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(self._cell.writeConsole(self._opened["id"], self._opened["session"], data))

    def _leave(self) -> None:
        from twisted.internet.defer import Deferred

        self.left = True
        closing = Deferred.fromCoroutine(self._cell.closeConsole(self._opened["id"], self._opened["session"]))
        closing.addErrback(lambda failure: None)  # the session ends by itself, too
        self._reactor.callLater(CLOSE_SECONDS, self._give_up)


@contextlib.contextmanager
def raw_terminal(descriptor: int) -> Iterator[bool]:
    """Whether this is a terminal; if so every key goes through as it is while the block lasts, and then it is as it was."""
    if not os.isatty(descriptor):
        yield False
        return
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield True
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _put(data: bytes) -> None:
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


def _say(words: str) -> None:
    """Words of ours, on a line of their own even on a terminal that takes everything as it is."""
    start, end = ("\r\n", "\r\n") if sys.stdin.isatty() else ("", "\n")
    sys.stderr.write(f"{start}{visible(words)}{end}")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tashi console", description="Sits you down at the serial console of a running instance.")
    parser.add_argument("--instance", type=_reference, action=_Once, required=True, help="the instance, by id or name")
    parser.add_argument("--force", action="store_true", help="take the console from whoever is at it")
    parser.add_argument(
        "--for", dest="stay", type=_seconds, default=STAY_SECONDS, metavar="SECONDS",
        help="where stdin is no terminal: how long to stay after its end (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument("--log", action="store_true", help="print what the console has said so far, of an instance that has ended, too")
    return parser


class _Once(argparse.Action):
    """An option that is refused when it is given twice."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "is given twice; give it once")
        setattr(namespace, self.dest, values)


def _reference(value: str) -> int | str:
    try:
        return arguments.typed_reference(value)
    except YourMistake as error:
        raise argparse.ArgumentTypeError(error.message) from None


def _seconds(value: str) -> float:
    try:
        return arguments.seconds(value)
    except YourMistake as error:
        raise argparse.ArgumentTypeError(error.message) from None
