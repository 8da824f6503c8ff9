"""JSON as strangers send it: strict where the standard library is lenient, and never slow or deep because a message says so."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, Final, NoReturn

from tashi.errors import BAD_ARGUMENT, BAD_SYNTAX, YourMistake
from tashi.model.names import shown

MAX_DIGITS: Final = 32
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def parse_json(text: str) -> Any:
    """The value of a JSON text; YourMistake(bad-syntax) for anything that is not exactly one.

    Refused beyond the grammar: NaN and Infinity, a key twice in one object, numbers of more than MAX_DIGITS characters,
    halves of surrogate pairs.
    """
    try:
        value = _DECODER.decode(text)
        if _SURROGATE.search(text):
            _refuse_halves(value)
        return value
    except json.JSONDecodeError as error:
        around = shown(text[max(0, error.pos - 10) : error.pos + 20])
        raise YourMistake(BAD_SYNTAX, f"the argument is not JSON: {error.msg} at character {error.pos + 1}, near {around}") from None
    except RecursionError:
        raise YourMistake(BAD_SYNTAX, "the argument is nested too deeply") from None


def _refuse_halves(value: Any) -> None:
    """YourMistake(bad-argument) for a string with half of a surrogate pair, which is no character and cannot be sent or stored."""
    left = [("the argument", value)]
    while left:
        name, value = left.pop()
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise YourMistake(BAD_ARGUMENT, f"{name} is {shown(value)}, which holds half of a character; send both halves")
        if isinstance(value, dict):
            left += ((shown(key), key) for key in value)
            left += value.items()
        elif isinstance(value, list):
            left += ((name, one) for one in value)


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise YourMistake(BAD_SYNTAX, f"the argument holds a number of {len(digits)} digits; use at most {MAX_DIGITS}")
    return int(digits)


def _fraction(digits: str) -> float:
    value = float(digits)
    if len(digits) > MAX_DIGITS or not math.isfinite(value):
        raise YourMistake(BAD_SYNTAX, f"the argument holds the number {shown(digits)}, which is too large or too long")
    return value


def _constant(name: str) -> NoReturn:
    raise YourMistake(BAD_SYNTAX, f"the argument holds {name}, which is not JSON; use a number or null")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise YourMistake(BAD_SYNTAX, f"the key {shown(twice)} stands twice in one object; say it once")
    return value


_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_float=_fraction, parse_constant=_constant, object_pairs_hook=_object)
