"""The arguments of a verb, which may hold anything: each looked at before it is used."""

from __future__ import annotations

from typing import Any, Final

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.model.bounds import LARGEST, LONGEST_TEXT, MOST_ITEMS
from tashi.model.names import MAX_ID, shown

Arguments = dict[str, Any]
DEEPEST: Final = 8
LONGEST_KEY: Final = 64
LONGEST: Final = {"data": 8192}
"""Arguments that may be longer than other texts: what is typed into a console."""


def check_bounds(arguments: Arguments) -> None:
    """YourMistake(bad-argument) unless all lists, texts and numbers in the arguments are within the bounds of `tashi.model.bounds`."""
    level: list[tuple[str, Any]] = list(arguments.items())
    for _ in range(DEEPEST):
        deeper: list[tuple[str, Any]] = []
        for name, value in level:
            if len(name) > LONGEST_KEY or not name.isprintable():
                raise YourMistake(BAD_ARGUMENT, f"there is no argument {shown(name)}; use names of at most {LONGEST_KEY} characters")
            if isinstance(value, str):
                if len(value) > LONGEST.get(name, LONGEST_TEXT):
                    raise YourMistake(BAD_ARGUMENT, f"{name} has {len(value)} characters; use at most {LONGEST.get(name, LONGEST_TEXT)}")
            elif isinstance(value, int) and not isinstance(value, bool):
                if abs(value) > LARGEST:
                    raise YourMistake(BAD_ARGUMENT, f"{name} is {shown(value)}; use a number of at most {LARGEST}")
            elif isinstance(value, list | dict):
                if len(value) > MOST_ITEMS:
                    raise YourMistake(BAD_ARGUMENT, f"{name} has {len(value)} elements; use at most {MOST_ITEMS}")
                deeper += value.items() if isinstance(value, dict) else [(name, one) for one in value]
        level = deeper
        if not level:
            return
    raise YourMistake(BAD_ARGUMENT, f"{shown(level[0][0])} is nested too deeply; use at most {DEEPEST} levels")


def reference(arguments: Arguments, name: str) -> int | str:
    """The id or name in this argument; YourMistake(bad-argument) when it is neither."""
    value = arguments.get(name)
    if value is None or value == "":
        raise YourMistake(BAD_ARGUMENT, f"{name} is missing; give an id or a name")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise YourMistake(BAD_ARGUMENT, f"{name} is {shown(value)}; expected an id, which is an integer, or a name")
    if isinstance(value, int) and not 0 <= value <= MAX_ID:
        raise YourMistake(BAD_ARGUMENT, f"{name} is {shown(value)}; an id is from 0 to {MAX_ID}")
    return value


def text(arguments: Arguments, name: str) -> str:
    """The text in this argument; YourMistake(bad-argument) when it is none."""
    value = arguments.get(name)
    if not isinstance(value, str):
        raise YourMistake(BAD_ARGUMENT, f"{name} is missing or no text")
    return value


def optional_text(arguments: Arguments, name: str) -> str | None:
    """A text, or None; YourMistake(bad-argument) when it is something else."""
    return text(arguments, name) if arguments.get(name) is not None else None
