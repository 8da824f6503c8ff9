"""The words of a command line, checked against the table of verbs, as one Command; nothing is done here.

Every verb takes --help, --examples, -o table|json|name, --show-COLUMN and --hide-COLUMN; some take --wait and --timeout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tashi.client import arguments
from tashi.client.usage import nearest
from tashi.client.verbs import PROGRAMS, VERBS, Argument, Program, Verb
from tashi.errors import YourMistake

FORMATS = ("table", "json", "name")
_FLAGS = ("--help", "--examples", "--wait")
_OPTIONS = ("-o", "--output", "--timeout")
_BY_NAME: dict[str, Verb | Program] = {verb.name.lower(): verb for verb in (*VERBS, *PROGRAMS)}


class WrongUsage(Exception):
    """The command line cannot be understood; the words say what is wrong with it and what is near."""


class Command(msgspec.Struct, frozen=True):
    """What the user asks for. ``asks_for`` is "help" or "examples" when only words are wanted; ``timeout`` is in seconds."""

    verb: Verb | Program | None
    values: dict[str, Any] = {}
    output: str = "table"
    columns: tuple[tuple[bool, str], ...] = ()
    wait: bool = False
    timeout: float = 300.0
    asks_for: str = ""
    rest: tuple[str, ...] = ()  # of a program


def parse(words: Sequence[str]) -> Command:
    """The command in these words; WrongUsage says what is wrong."""
    if not words:
        raise WrongUsage("say what to do")
    first, *rest = words
    if first in ("--help", "-h", "help", "--examples"):
        return Command(None, asks_for="examples" if first == "--examples" else "help")
    verb = _BY_NAME.get(first.lower())
    if verb is None:
        raise WrongUsage(f"Unknown function {first}{nearest(first, (known.name for known in _BY_NAME.values()))}")
    if isinstance(verb, Program):
        return Command(verb, rest=tuple(rest))
    return _parse_verb(verb, rest)


def _parse_verb(verb: Verb, words: Sequence[str]) -> Command:
    known = {f"--{argument.name}": argument for argument in verb.arguments}
    values: dict[str, Any] = {}
    columns: list[tuple[bool, str]] = []
    settings: dict[str, Any] = {}
    remaining = iter(words)
    for word in remaining:
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if word in ("--help", "-h", "--examples"):
            return Command(verb, asks_for="examples" if word == "--examples" else "help")
        if option.startswith(("--show-", "--hide-")) and not equals:
            columns.append((option.startswith("--show-"), _column(verb, option)))
            continue
        if word == "--wait" and verb.waits_for:
            settings["wait"] = True
            continue
        if option not in known and (option not in _OPTIONS or (option == "--timeout" and not verb.waits_for)):
            offered = (*known, *_OPTIONS, *_FLAGS, *(f"--{wish}-{column}" for wish in ("show", "hide") for column in verb.shape.columns))
            hint = nearest(option, (name for name in offered if verb.waits_for or name not in ("--wait", "--timeout")))
            raise WrongUsage(f"Unknown argument {word if equals == '' else option} for {verb.name}{hint}")
        if not equals:
            value = next(remaining, None)  # type: ignore[assignment]
            if value is None:
                raise WrongUsage(f"{option} of {verb.name} needs a value")
        if option in known:
            argument = known[option]
            converted = _converted(verb, argument, value)
            if argument.name not in values:
                values[argument.name] = converted
            elif arguments.adds_up(converted):
                values[argument.name] = arguments.combine(values[argument.name], converted)
            else:
                raise WrongUsage(f"{option} of {verb.name} is given twice; give it once")
        elif ("timeout" if option == "--timeout" else "output") in settings:
            raise WrongUsage(f"{option} of {verb.name} is given twice; give it once")
        elif option == "--timeout":
            settings["timeout"] = _converted(verb, Argument("timeout", "", arguments.seconds), value)
        elif value in FORMATS:
            settings["output"] = value
        else:
            raise WrongUsage(f"{option} {value} is no form of output; use {', '.join(FORMATS)}")
    missing = [f"--{argument.name}" for argument in verb.arguments if argument.required and argument.name not in values]
    if missing:
        raise WrongUsage(f"{verb.name} needs {' and '.join(missing)} with a value")
    return Command(verb, values, columns=tuple(columns), **settings)


def _converted(verb: Verb, argument: Argument, value: str) -> Any:
    try:
        return argument.convert(value)
    except YourMistake as error:
        raise WrongUsage(f"{verb.name} --{argument.name}: {error.message}") from None


def _column(verb: Verb, option: str) -> str:
    asked = option[len("--show-") :]
    for column in (*verb.shape.columns, "all"):
        if column.lower() == asked.lower():
            return column
    raise WrongUsage(f"Unknown column {asked} of {verb.name}{nearest(asked, verb.shape.columns)}")
