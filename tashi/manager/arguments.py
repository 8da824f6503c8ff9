"""The arguments of a verb, which may hold anything: each looked at before it is used."""

from __future__ import annotations

from typing import Any

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.model.names import MAX_ID, shown

Arguments = dict[str, Any]


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
