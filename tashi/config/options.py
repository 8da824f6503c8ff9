"""How one setting is declared, and how the declarations of a section are read back.

A section of the INI files is a frozen Struct of the same name; each of its fields is one key, whose name is the field's in camelCase,
whose type, unit and range stand in the annotation, and whose default is the field's. Everything else derives from that one line:
the values of a ``Config``, the defaults file, what the check prints, what an error suggests.
"""

from __future__ import annotations

import collections.abc
import functools
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from tashi.config.values import Form


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One section of the configuration."""


class Key(msgspec.Struct, frozen=True):
    """One key: its meaning in one sentence; ``aliases`` are other accepted names, ``Section.key`` or a key of the same section."""

    meaning: str
    name: str = ""
    aliases: tuple[str, ...] = ()


class Keys(msgspec.Struct, frozen=True):
    """A family of keys read into one mapping: what follows ``prefix`` is the mapping's key; ``also`` is another section to read it from."""

    meaning: str
    prefix: str = ""
    example: str = ""
    also: str = ""


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A declared key or family of keys, as the rest of the configuration sees it."""

    section: str
    attribute: str
    name: str
    kind: Any
    form: Form
    key: Key | Keys
    default: Any
    suffix_kind: type = str

    @property
    def example(self) -> str:
        """A line that sets one of a family of keys; empty for a single key."""
        return self.key.example if isinstance(self.key, Keys) else ""


def camel_case(attribute: str) -> str:
    """``max_command_age`` as it is written in a file: ``maxCommandAge``."""
    first, *rest = attribute.split("_")
    return first + "".join(word.capitalize() for word in rest)


@functools.cache
def options_of(section: type[msgspec.Struct]) -> tuple[Option, ...]:
    """The declarations of one section, in the order they stand in."""
    hints = get_type_hints(section, include_extras=True)
    fields = (field for field in msgspec.structs.fields(section) if field.name in hints)
    return tuple(_option(section.__name__, field, hints[field.name]) for field in fields)


def _option(section: str, field: msgspec.structs.FieldInfo, hint: Any) -> Option:
    kind, *extras = get_args(hint)
    key = next(extra for extra in extras if isinstance(extra, Key | Keys))
    form = next((extra for extra in extras if isinstance(extra, Form)), Form())
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()  # type: ignore[operator]
    suffix_kind: type = str
    if get_origin(kind) is collections.abc.Mapping:
        suffix_kind, kind = get_args(kind)
        if get_args(kind) and isinstance(get_args(kind)[1], Form):
            kind, form = get_args(kind)
    name = key.prefix if isinstance(key, Keys) else key.name or camel_case(field.name)
    return Option(section=section, attribute=field.name, name=name, kind=kind, form=form, key=key, default=default, suffix_kind=suffix_kind)
