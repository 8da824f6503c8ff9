"""The arguments of verbs, one by one: what is missing or of another kind is refused by its name."""

from __future__ import annotations

from typing import Any

from tashi.errors import BAD_ARGUMENT, YourMistake

Arguments = dict[str, Any]


def reference(arguments: Arguments, name: str) -> int | str:
    """The id or name of something; YourMistake(bad-argument) when there is none."""
    value = arguments.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise YourMistake(BAD_ARGUMENT, f"{name} is missing; give an id or a name")
    return value


def text(arguments: Arguments, name: str) -> str:
    """A text; YourMistake(bad-argument) when there is none."""
    value = arguments.get(name)
    if not isinstance(value, str):
        raise YourMistake(BAD_ARGUMENT, f"{name} is missing or no text")
    return value


def optional_text(arguments: Arguments, name: str) -> str | None:
    """A text, or None; YourMistake(bad-argument) when it is something else."""
    return text(arguments, name) if arguments.get(name) is not None else None
