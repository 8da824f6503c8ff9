"""Rows of plain data as text: the table of old, JSON, or bare names.

A cell of the table is a space and the value, padded to the widest of its column; a rule of dashes stands under the header, and
the rows are sorted by the first column. What would not be one line of visible text is shown escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

Row = Mapping[str, Any]


class Shape(msgspec.Struct, frozen=True):
    """A kind of rows: all columns there are, those shown unless asked otherwise, and the one that is the name."""

    columns: tuple[str, ...]
    shown: tuple[str, ...]
    name: str = "name"
    derived: Mapping[str, Callable[[Row], object]] = {}  # columns of the table that JSON spells in another way
    when_filled: tuple[str, ...] = ()  # columns that are shown, too, when a row has something in them


def _first_disk(row: Row) -> str | None:
    disks = row.get("disks")
    return _disk(disks[0]) if disks else None


def _disk(disk: Row) -> str:
    return f"{disk['uri']}:True" if disk.get("persistent") else str(disk["uri"])


def _disks(row: Row) -> str:
    return ",".join(map(_disk, row.get("disks") or ()))


def _nics(row: Row) -> str:
    return ",".join(f"{nic.get('network', '')}:{nic.get('ip') or ''}:{nic.get('mac') or ''}" for nic in row.get("nics") or ())


_INSTANCE_COLUMNS = (
    "id", "hostId", "name", "user", "state", "disk", "memory", "cores", "userId", "host", "cpuShare", "disks", "nics", "hints",
    "resourceId", "fqdn", "reason", "decayed", "sla", "maxMemory", "cpuSpeed", "diskWeight", "diskIops", "diskBytes",
    "netDown", "netUp", "stats",
)  # fmt: skip
_HOST_COLUMNS = (
    "id", "reserved", "name", "decayed", "up", "state", "version", "memory", "cores", "notes", "cpuSpeed", "config", "priority",
)  # fmt: skip
_LAYOUT_COLUMNS = ("id", "name", "state", "instances", "usedMemory", "memory", "usedCores", "cores")

INSTANCES: Final = Shape(_INSTANCE_COLUMNS, _INSTANCE_COLUMNS[:8], derived={"disk": _first_disk, "disks": _disks, "nics": _nics})
HOSTS: Final = Shape((*_HOST_COLUMNS, "stats", "mac", "strays"), _HOST_COLUMNS)
LAYOUT: Final = Shape((*_LAYOUT_COLUMNS, "usedCpu", *(c for c in HOSTS.columns if c not in _LAYOUT_COLUMNS)), _LAYOUT_COLUMNS)
STRAYS: Final = Shape(
    ("id", "name", "host", "state", "user", "cores", "memory", "since", "reason", "hostId", "userId", "incarnation"),
    ("id", "name", "host", "state", "user", "cores", "memory", "since", "reason"),
)
USERS: Final = Shape(("id", "name", "priority", "jid"), ("id", "name", "priority", "jid"))
_IMAGE_COLUMNS = ("id", "imageName", "imageSize")
IMAGES: Final = Shape(
    (*_IMAGE_COLUMNS, "owner", "refused"), _IMAGE_COLUMNS, "imageName",
    derived={"owner": lambda row: row.get("owner", ""), "refused": lambda row: row.get("refused", "")},
    when_filled=("owner", "refused"),
)  # fmt: skip
CALLER: Final = Shape(("userId", "name", "admin"), ("userId", "name", "admin"))
SLOTS: Final = Shape(("slots", "cores", "memory"), ("slots", "cores", "memory"), name="slots")
WORDS: Final = Shape(("instance", "text"), ("instance", "text"), name="instance")


def columns_of(shape: Shape, wishes: Sequence[tuple[bool, str]], rows: Sequence[Row] = ()) -> list[str]:
    """The columns to show of these rows after the (show or hide, column or "all") wishes, in the order in which they were given."""
    columns = [*shape.shown, *(column for column in shape.when_filled if any(row.get(column) for row in rows))]
    for show, column in wishes:
        if column == "all":
            columns = list(shape.columns) if show else []
        elif not show:
            columns = [kept for kept in columns if kept != column]
        elif column not in columns:
            columns.append(column)
    return columns


def as_table(rows: Sequence[Row], shape: Shape, columns: Sequence[str]) -> str:
    """The rows as a table of these columns."""
    getters = [shape.derived.get(column) or _getter(column) for column in columns]
    if columns:
        rows = sorted(rows, key=lambda row: _rank(getters[0](row)))
    filled = [[column, *(_cell(get(row)) for row in rows)] for column, get in zip(columns, getters, strict=True)]
    widths = [max(map(len, column)) for column in filled]
    padded = [[text.ljust(width) for text in column] for column, width in zip(filled, widths, strict=True)]
    header, *lines = ["".join(f" {text}" for text in line) for line in zip(*padded, strict=True)] or [""]
    return "".join(f"{line}\n" for line in (header, "-" * sum(width + 1 for width in widths), *lines))


def as_json(rows: Sequence[Row]) -> str:
    """The rows as one JSON array of objects."""
    return msgspec.json.format(msgspec.json.encode(rows), indent=1).decode() + "\n"


def as_names(rows: Sequence[Row], shape: Shape) -> str:
    """The names of the rows, one a line."""
    return "".join(f"{_cell(row.get(shape.name))}\n" for row in rows)


def visible(text: str) -> str:
    """The text with everything escaped that a terminal would not show as one line of letters."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        value = ",".join(f"{name}={content}" for name, content in value.items())
    return visible(str(value))


def _rank(value: object) -> tuple[int, Any]:
    """Nothing before numbers before texts: what stands in one column can always be sorted."""
    if isinstance(value, int | float):
        return (1, value)
    return (0, 0) if value is None else (2, str(value))


def _getter(column: str) -> Callable[[Row], object]:
    return lambda row: row.get(column)
