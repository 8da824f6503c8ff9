"""Domains that carry this cell's mark and that no record accounts for: what their host says of them, and what the cell keeps of it."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

MOST_STRAYS: Final = 200
"""How many strays of one host are kept; a host that reports more has a fault, or lies."""
HIGHEST_NUMBER: Final = 2**31 - 1
"""The highest instance id and the highest generation that are believed."""
MOST_DISKS: Final = 16
_INCARNATION: Final = re.compile(r"(?:[0-9a-f]{32})?")

_Name = Annotated[str, msgspec.Meta(max_length=63)]
_Disk = Annotated[str, msgspec.Meta(max_length=128)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class DomainSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """The size of a domain that is alive, and what its mark says beside its identity: memory in MB, the owner's user id,
    the names of its persistent disks."""

    name: _Name = ""
    user_id: int | None = None
    cores: _Count = 0
    memory: _Count = 0
    disks: Annotated[tuple[_Disk, ...], msgspec.Meta(max_length=MOST_DISKS)] = ()


class Stray(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """A domain of this cell without a record of its incarnation on its host. ``since``: when it was first seen, in seconds since the
    epoch; ``note``: what became of the attempt to destroy it."""

    instance_id: int
    incarnation: str = ""
    generation: int = 0
    paused: bool = False
    name: str = ""
    user_id: int | None = None
    cores: int = 0
    memory: int = 0
    disks: tuple[str, ...] = ()
    since: float = 0.0
    note: str = ""

    @property
    def key(self) -> tuple[int, str]:
        """The id and the incarnation."""
        return self.instance_id, self.incarnation


def is_incarnation(text: str) -> bool:
    """Return whether this is an incarnation as we write it: 32 hexadecimal digits, or nothing."""
    return bool(_INCARNATION.fullmatch(text))
