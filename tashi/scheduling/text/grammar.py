"""The words of the snapshot text: how a line is split, how sizes, times and settings are spelt, and how a mistake is told.

A line is words separated by blanks; ``name=value`` is one word. What holds a blank, a quotation mark or nothing is written as a JSON
string: ``reason="no such image"``. A word that begins with # ends the line.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.scheduling.snapshot import SchedulingSettings

HEADER: Final = "# tashi snapshot 1"
"""How a snapshot begins that a program wrote; a person may leave it out."""

Word = tuple[str, str, str]
"""A name, ``=`` or nothing, a value."""

_HEADER: Final = re.compile(r"#\s*tashi\s+snapshot\s+(\S+)")
# What has been read is not given back (*+): a long word with a mistake in it is told as fast as a short one.
_STRING: Final = r'"(?:[^"\\]|\\.)*+"'
_WORD: Final = re.compile(rf'(?=\S)((?:[^\s"=]|{_STRING})*+)(=?+)((?:[^\s"]|{_STRING})*+)(?=\s|\Z)')
_BLANKS: Final = re.compile(r"\s*")
_QUOTED: Final = re.compile(_STRING)
_BARE: Final = re.compile(r'[^\s"\\#=\x00-\x1f\x7f\ud800-\udfff][^\s"\\=\x00-\x1f\x7f\ud800-\udfff]*\Z')
_WHOLE: Final = re.compile(r"-?[0-9]{1,15}\Z")
_SIZE: Final = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,6})?)(c|M|G|T|MHz|GHz)\Z")
_UNITS: Final = {
    "c": ("cores", 1),
    "M": ("memory", 1),
    "G": ("memory", 1024),
    "T": ("memory", 1024**2),
    "MHz": ("speed", 1),
    "GHz": ("speed", 1000),
}
_MOST: Final = {"cores": 2**20, "memory": 2**40, "speed": 2**20}
"""More no machine has; sums of so much are still whole numbers of 64 bits."""
_TRUTH: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_DEFAULTS: Final = SchedulingSettings()


class Malformed(ValueError):
    """What a value is to look like, in words that end a sentence."""


class Line:
    """One line of the text: ``kind`` is its first word, ``words`` are the others."""

    __slots__ = ("kind", "number", "text", "words")

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text
        bare = '"' not in text and "#" not in text
        words = [word.partition("=") for word in text.split()] if bare else self._quoted_words()
        self.kind = words[0][0] if words and not words[0][1] else ""
        self.words = words[1:] if self.kind else words

    def refuse(self, place: int | None, why: str) -> NoReturn:
        """YourMistake: this word (None: the line as a whole) is wrong."""
        where = "" if place is None else f", character {self._starts(place)}"
        raise YourMistake(BAD_ARGUMENT, f"line {self.number}{where}: {why}")

    def is_quoted(self, place: int) -> bool:
        """Whether this word begins with a quotation mark."""
        return '"' in self.text and self.text[self._starts(place) - 1 :].startswith('"')

    def _starts(self, place: int) -> int:
        starts = [match.start() for match in self._matches()]
        return starts[place + 1] + 1 if place + 1 < len(starts) else len(self.text) + 1

    def _quoted_words(self) -> list[Word]:
        words: list[Word] = []
        for match in self._matches():
            try:
                name, value = (_QUOTED.sub(lambda part: str(json.loads(part[0])), text) for text in (match[1], match[3]))
            except ValueError:
                why = "between quotation marks only the escapes of JSON are known, such as \\n"
                raise YourMistake(BAD_ARGUMENT, f"line {self.number}, character {match.start() + 1}: {why}") from None
            words.append((name, match[2], value))
        return words

    def _matches(self) -> Iterator[re.Match[str]]:
        """The words as they are written, up to one that begins with #."""
        text, at = self.text, 0
        while (blanks := _BLANKS.match(text, at)) and (at := blanks.end()) < len(text) and text[at] != "#":
            match = _WORD.match(text, at)
            if match is None:
                why = 'a quotation mark is not closed; write "..." with \\" for one inside'
                raise YourMistake(BAD_ARGUMENT, f"line {self.number}, character {at + 1}: {why}")
            yield match
            at = match.end()


def lines_of(text: str) -> Iterator[Line]:
    """The lines that say anything; YourMistake when a later version of the program wrote them."""
    lines = text.removeprefix("\ufeff").split("\n")
    header = _HEADER.match(lines[0])
    if header and header[1] != "1":
        raise YourMistake(BAD_ARGUMENT, f"line 1: this is version {header[1]} of the format, and only version 1 is known here")
    for number, words in enumerate(lines, start=1):
        line = Line(number, words)
        if line.kind or line.words:
            yield line


def quoted(text: str) -> str:
    """The text as one word, or part of one."""
    return text if _BARE.match(text) else json.dumps(text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest of the known words after a semicolon, else all of them when they are few, else nothing."""
    names = list(dict.fromkeys(known))
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, 1, 0.6)
    if near:
        return f"; did you mean {by_lower[near[0]]}?"
    return f"; there are {', '.join(names)}" if 0 < len(names) <= 40 else ""


def whole(text: str) -> int:
    """A whole number."""
    if not _WHOLE.match(text):
        raise Malformed("is no whole number")
    return int(text)


def number(text: str) -> float:
    """A finite number, such as a time in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Malformed("is no number")
    return value


def truth(text: str) -> bool:
    """True or False."""
    if text.lower() not in _TRUTH:
        raise Malformed("is neither True nor False")
    return _TRUTH[text.lower()]


def wholes(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    if not all(map(_WHOLE.match, parts := text.split(",") if text else [])):
        raise Malformed("are no whole numbers with commas between them, such as 0,7")
    return tuple(map(int, parts))


def size(text: str) -> tuple[str, int] | None:
    """``cores``, ``memory`` (MB) or ``speed`` (MHz), and how much of it; None: this is no size that can be."""
    match = _SIZE.match(text)
    if match is None:
        return None
    name, unit = _UNITS[match[2]]
    amount = float(match[1]) * unit
    return (name, int(amount)) if amount == int(amount) and abs(amount) <= _MOST[name] else None


class Sizes(dict[str, "tuple[str, int] | None"]):
    """What `size` makes of each word, found out once: a cluster has few sizes."""

    def __missing__(self, word: str) -> tuple[str, int] | None:
        found = self[word] = size(word)
        return found


def sizes(text: str) -> dict[str, int]:
    """Sizes with slashes between them."""
    found = [size(part) for part in text.split("/")]
    named = dict(one for one in found if one is not None)
    if len(named) != len(found):
        raise Malformed("are no sizes with slashes between them, such as 4c/8G")
    return named


def one_size(name: str, example: str) -> Callable[[str], int]:
    """A converter for a size of one kind."""

    def convert(text: str) -> int:
        found = size(text)
        if found is None or found[0] != name:
            raise Malformed(f"is no {name}, such as {example}")
        return found[1]

    return convert


def setting(name: str, text: str) -> tuple[str, Any]:
    """The field of SchedulingSettings that has this name in the configuration, and its value; KeyError when there is none."""
    field = _SETTINGS[name.lower()]
    kind = type(getattr(_DEFAULTS, field))
    value: Any = {bool: truth, int: whole, float: number}.get(kind, str)(text)
    if kind in (int, float):
        least, most = RANGES.get(field, _NOT_NEGATIVE)
        if not least <= value <= most:
            raise Malformed(f"is not from {least:g} to {most:g}" if most < math.inf else f"is not at least {least:g}")
    return field, value


def _camel(field: str) -> str:
    first, *rest = field.split("_")
    return "".join([first, *map(str.title, rest)])


SETTING_NAMES: Final[Mapping[str, str]] = {
    field: {"policy": "scheduler", "most_moves": "maxMoves", "most_moves_per_host": "maxMovesPerHost"}.get(field, _camel(field))
    for field in SchedulingSettings.__struct_fields__
}
"""How the configuration calls the fields of SchedulingSettings."""
_NOT_NEGATIVE: Final = (0.0, math.inf)
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "cpu_cores_over_rate": (1, 1000),
    "cpu_speed_over_rate": (1, 1000),
    "min_gain": (0, 1),
    "hold_rounds": (1, math.inf),
    "most_moves": (1, math.inf),
    "most_moves_per_host": (1, math.inf),
    "optimal_seconds": (0.01, math.inf),
}
"""The least and the most that a number of SchedulingSettings may be, as in the configuration; any other may be 0 or more."""
_SETTINGS: Final = {
    **{name.lower(): field for field, name in SETTING_NAMES.items()},
    "cpucoresovercommit": "cpu_cores_over_rate",
    "cpuspeedovercommit": "cpu_speed_over_rate",
}
