# PYTHON_ARGCOMPLETE_OK
"""The `tashi` command: words in, data on stdout, chatter on stderr, an exit code out.

0 done, 1 failed, 2 wrong usage, 3 not allowed, 4 no such thing, 5 cannot reach the control plane.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from tashi.client import table
from tashi.client.cell import Cell, connect
from tashi.client.parse import Command, WrongUsage, parse
from tashi.client.process import run_to_end
from tashi.client.unreachable import CannotReach
from tashi.client.usage import example_lines, full_usage, verb_usage
from tashi.client.verbs import Program, Verb
from tashi.errors import AMBIGUOUS, FORBIDDEN, TashiError

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
NOT_ALLOWED: Final = 3
NO_SUCH_THING: Final = 4
CANNOT_REACH: Final = 5
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the words (by default those of this process) say, and return the exit code."""
    if "_ARGCOMPLETE" in os.environ:
        from tashi.client.completion import complete

        complete()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the request may have taken effect already
    try:
        code = _run(parse(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except WrongUsage as error:
        _say(f"{error}\n\nUse `tashi --help` to see what there is")
        return WRONG_USAGE
    except BrokenPipeError:
        # Whoever read our output has seen enough; without this Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _run(command: Command) -> int:
    verb = command.verb
    if command.asks_for:
        examples = command.asks_for == "examples"
        whole = full_usage(examples) if verb is None else example_lines(verb) if examples else verb_usage(verb)
        sys.stdout.write(whole)
        return DONE
    if isinstance(verb, Program):
        import importlib

        return int(importlib.import_module(verb.module).main(list(command.rest)) or 0)
    command = _with_password(command)
    code = run_to_end(lambda reactor: execute(command, reactor))
    if code is None:
        _say("interrupted; what the control plane has been asked for stands: look with `tashi getInstances`")
        return INTERRUPTED
    return code


async def execute(command: Command, reactor: Any, socket: str | None = None) -> int:
    """Carry the command out at the control plane behind the socket (by default the configured one); the exit code."""
    verb = command.verb
    assert isinstance(verb, Verb)
    try:
        async with connect(reactor, socket=socket) as cell:
            return await _carry_out(cell, verb, command, reactor)
    except CannotReach as error:
        _say(str(error))
        return CANNOT_REACH
    except TashiError as error:
        _say(f"Failed in calling {verb.name}: {error.message}")
        return exit_code(error)


async def _carry_out(cell: Cell, verb: Verb, command: Command, reactor: Any) -> int:
    rows = await verb.action(cell, **command.values)
    failures: list[str] = []
    if command.wait:
        from tashi.client.waiting import wait_for

        rows, failures = await wait_for(cell, rows, verb.waits_for, command.timeout, reactor, sys.stderr)
    if command.output == "json":
        text = table.as_json(rows)
    elif command.output == "name":
        text = table.as_names(rows, verb.shape)
    elif verb.sentence is None:
        text = table.as_table(rows, verb.shape, table.columns_of(verb.shape, command.columns, rows))
    else:
        sentence = verb.sentence(rows, command.values)
        text = "" if sentence is None else "\n".join(map(table.visible, sentence.splitlines())) + "\n"
    sys.stdout.write(text)
    for failure in failures:
        _say(failure)
    return FAILED if failures else DONE


def exit_code(error: TashiError) -> int:
    """The exit code that an error of the control plane means."""
    if error.code == FORBIDDEN:
        return NOT_ALLOWED
    if error.code == AMBIGUOUS:
        return WRONG_USAGE
    return NO_SUCH_THING if error.code.startswith("unknown-") else FAILED


def _with_password(command: Command) -> Command:
    """The command with the password itself where ``--passwd -`` asked to read it."""
    import msgspec

    password = command.values.get("passwd")
    if password is None:
        return command
    if password != "-":
        _say("warning: others on this machine may see a password on the command line; --passwd - reads it from the terminal or stdin")
        return command
    if sys.stdin.isatty():
        from getpass import getpass

        password = getpass("Password: ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise WrongUsage("the password read from stdin is empty")
    return msgspec.structs.replace(command, values={**command.values, "passwd": password})


def _say(words: str) -> None:
    print("\n".join(map(table.visible, words.splitlines())), file=sys.stderr)
