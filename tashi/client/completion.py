"""Completion in the shell, with the names that live in the cell: `eval "$(register-python-argcomplete tashi)"`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import argcomplete

from tashi.client.cell import connect
from tashi.client.parse import FORMATS
from tashi.client.process import run_to_end
from tashi.client.verbs import PROGRAMS, VERBS, Argument, Verb


def complete() -> None:
    """Answer the shell and end the process."""
    argcomplete.autocomplete(parser())


def parser() -> argparse.ArgumentParser:
    """The table of verbs as argcomplete reads it; nothing else is parsed with it."""
    whole = argparse.ArgumentParser(prog="tashi", add_help=False)
    verbs = whole.add_subparsers()
    for verb in VERBS:
        one = verbs.add_parser(verb.name)
        _add(one, verb.arguments)
        one.add_argument("-o", choices=FORMATS)
        for column in (*verb.shape.columns, "all"):
            one.add_argument(f"--show-{column}", action="store_true")
            one.add_argument(f"--hide-{column}", action="store_true")
        if verb.waits_for:
            one.add_argument("--wait", action="store_true")
            one.add_argument("--timeout")
    for program in PROGRAMS:
        _add(verbs.add_parser(program.name), program.completes)
    return whole


def _add(parser: argparse.ArgumentParser, arguments: Iterable[Argument]) -> None:
    for argument in arguments:
        option: Any = parser.add_argument(f"--{argument.name}", help=argument.help)
        if argument.completes:
            option.completer = _live_names(argument)


def _live_names(argument: Argument) -> Any:
    verb: Verb = next(verb for verb in VERBS if verb.name == argument.completes)

    async def ask(names: list[str], reactor: Any) -> int:
        async with connect(reactor, seconds=1.0) as cell:
            names.extend(str(row[verb.shape.name]) for row in await verb.action(cell))
        return 0

    def completer(**_: object) -> list[str]:
        names: list[str] = []
        try:
            run_to_end(lambda reactor: ask(names, reactor))
        except Exception:  # a shell that completes has no place for words
            return []
        return names

    return completer
