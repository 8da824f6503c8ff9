"""What the lines of the snapshot text say of hosts, instances, users and SLA classes: each as its number, its name and its fields.

The tables of this file are all that can be said. Nothing is looked up here: who is meant by a name is for `text` to find.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import msgspec

from tashi.model.states import HostState, InstanceState
from tashi.scheduling.text.grammar import Line, Malformed, Sizes, did_you_mean, number, one_size, sizes, whole, wholes

Fields = dict[str, Any]
Converter = Callable[[str], Any]

HINTS: Final = ("targetHost", "allowElsewhere", "location", "auditability", "isolation", "with", "apart", "group", "densePack")
"""Those that are written by their names; any other is ``hint.NAME=value``."""
CONFIG: Final = ("location", "auditability")
"""The same of a host's configuration: any other is ``config.NAME=value``."""


class Kind(msgspec.Struct, frozen=True):
    """What may follow the name on a line of this kind. ``flags`` are single words; ``prefix`` begins the names that are free."""

    values: Mapping[str, Converter]
    flags: tuple[str, ...] = ()
    prefix: str = ""
    named: tuple[str, ...] = ()  # those that need no prefix
    sized: bool = False
    placed: bool = False

    def accepted(self) -> list[str]:
        """All of it, to choose from."""
        free = [f"{self.prefix}NAME="] if self.prefix else []
        return [*self.flags, *(f"{name}=" for name in self.values), *free, *(["on"] if self.placed else [])]


_SPEED: Final = one_size("speed", "300MHz")
_MEMORY: Final = one_size("memory", "512M")
KINDS: Final = {
    "host": Kind(
        {
            "rating": whole, "state": HostState.__getitem__, "hypervisor": str, "networks": wholes, "reserved": str, "usage": _SPEED,
            "empty-since": number, **dict.fromkeys(CONFIG, str),
        },
        ("down", "decayed", "draining", "vlans", "measured", "auditability"), "config.", CONFIG, sized=True,
    ),
    "vm": Kind(
        {
            "user": str, "sla": str, "state": InstanceState.__getitem__, "networks": wholes, "disk": str, "usage": _SPEED,
            "limit": _MEMORY, "shrunk-from": _MEMORY, "moved-at": number, "moving-to": str, "left-on": str, "refused-by": str,
            "reason": str, "becomes": sizes, "adapting-to": sizes, **dict.fromkeys(HINTS, str),
        },
        ("busy", "allowElsewhere", "auditability", "isolation", "densePack"), "hint.", HINTS, sized=True, placed=True,
    ),
    "user": Kind({"priority": whole}),
    "sla": Kind({"priority": whole, "memory": _MEMORY}),
}  # fmt: skip
_STATES: Final[Mapping[str, type[HostState] | type[InstanceState]]] = {"host": HostState, "vm": InstanceState}


class Entry:
    """A host, an instance, a user or a class. ``number`` is None where the line gives none; ``fields`` are by the names of `Kind`,
    besides ``cores``, ``memory``, ``speed``, ``on`` and ``disks``."""

    __slots__ = ("fields", "line", "name", "number", "places")

    def __init__(self, line: Line, sizes: Sizes) -> None:
        """Reads the line; YourMistake says what is wrong with it. ``sizes`` spells each size once."""
        self.line = line
        self.fields: Fields = {}
        self.places: dict[str, int] = {}
        words, start = line.words, 0
        self.number: int | None = None
        if words and line.kind != "sla" and not words[0][1] and words[0][0].isdecimal() and not line.is_quoted(0):
            self.number, start = converted(line, 0, whole, words[0][0]), 1
        nameless = len(words) <= start or words[start][1] or (sizes[words[start][0]] and not line.is_quoted(start))
        if nameless and (line.kind != "user" or self.number is None):
            line.refuse(start, f"the name of the {line.kind} is missing here; put it in quotation marks if it looks like a size")
        self.name = str(self.number) if nameless else words[start][0]
        self._read(start if nameless else start + 1, sizes)

    def refuse(self, field: str, why: str) -> NoReturn:
        """The value of this field is wrong."""
        self.line.refuse(self.places.get(field), why)

    def _read(self, start: int, sizes: Sizes) -> None:
        """What follows the name: ``name=value``, sizes, single words, and where an instance is."""
        line, fields, places = self.line, self.fields, self.places
        kind = KINDS[line.kind]
        on = False
        for place in range(start, len(line.words)):
            name, sign, value = line.words[place]
            found: Any = value
            if on:
                if sign:
                    break
                name, found, on = "on", name, False
            elif sign:
                if kind.prefix and name.removeprefix(kind.prefix) in kind.named:
                    name = name.removeprefix(kind.prefix)
                found = self._value(kind, place, name, value)
            elif kind.sized and sizes[name]:
                name, found = sizes[name] or ("", 0)
            elif name in kind.flags:
                found = "True"
            elif name == "on" and kind.placed:
                on = True
                continue
            else:
                what = "no size such as 8c, 16G, 512M or 2400MHz, and no word" if kind.sized else "no word"
                line.refuse(place, f"{name} is {what} of a {line.kind}{did_you_mean(name, kind.accepted())}")
            if name == "disk":
                fields.setdefault("disks", []).append(found)
                continue
            if name in fields:
                line.refuse(place, f"{name} is said twice")
            fields[name] = found
            places[name] = place
        if on:
            line.refuse(len(line.words), "the name of a host is missing after `on`")

    def _value(self, kind: Kind, place: int, name: str, value: str) -> Any:
        convert = kind.values.get(name)
        if convert is not None:
            return converted(self.line, place, convert, value, name)
        if kind.prefix and name.startswith(kind.prefix):
            return value
        self.line.refuse(place, f"a {self.line.kind} has no {name}={did_you_mean(f'{name}=', kind.accepted())}")


def converted(line: Line, place: int, convert: Converter, value: str, name: str = "") -> Any:
    """The value of a word; YourMistake when it is none."""
    try:
        return convert(value)
    except Malformed as error:
        line.refuse(place, f"{name} is {value or 'empty'}, which {error}" if name else f"{value} {error}")
    except KeyError:
        states = [state.name for state in _STATES[line.kind]]
        line.refuse(place, f"there is no state {value}{did_you_mean(value, states)}")
