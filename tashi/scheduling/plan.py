"""A plan: the actions a scheduler wants, as values. Somebody else carries them out."""

from __future__ import annotations

import re
from typing import Final

import msgspec

_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Start this instance on this host; ``why`` is the policy and the score in words."""

    instance_id: int
    host_id: int
    why: str = ""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why one host does not take one instance."""

    host: str
    reason: str

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}"


class Postpone(msgspec.Struct, frozen=True, kw_only=True):
    """This instance waits: one reason per host."""

    instance_id: int
    refusals: tuple[Refusal, ...] = ()


class Migrate(msgspec.Struct, frozen=True, kw_only=True):
    """Move this running instance to this host; ``evacuates``: because its own is to be emptied, so that no gain is asked for."""

    instance_id: int
    host_id: int
    why: str = ""
    evacuates: bool = False


class Shrink(msgspec.Struct, frozen=True, kw_only=True):
    """Let the guest of this instance use no more than so many MB, so that there is room for a more important one."""

    instance_id: int
    memory: int
    why: str = ""


class Grow(msgspec.Struct, frozen=True, kw_only=True):
    """Give the guest of an instance that was shrunk back so many MB, at most what it had."""

    instance_id: int
    memory: int
    why: str = ""


class PowerOn(msgspec.Struct, frozen=True, kw_only=True):
    """Switch this host on."""

    host_id: int
    why: str = ""


class PowerOff(msgspec.Struct, frozen=True, kw_only=True):
    """Switch this empty host off."""

    host_id: int
    why: str = ""


Action = Place | Postpone | Migrate | Shrink | Grow | PowerOn | PowerOff


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """How good a cluster's layout is: hosts that hold anything, and how unevenly they are loaded (0: all alike)."""

    hosts_in_use: int
    imbalance: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, in the order in which to do it: every step fits when those before it have been taken.

    ``before`` and ``after``: what its moves are about. ``bound``: no plan could do with fewer hosts. ``remarks``: what the scheduler
    has to say, such as contradictions that it planned around.
    """

    actions: tuple[Action, ...] = ()
    before: Figures | None = None
    after: Figures | None = None
    bound: int | None = None
    remarks: tuple[str, ...] = ()


def in_words(refusals: tuple[Refusal, ...], most: int = 20) -> str:
    """The refusals as one sentence: at most so many hosts by name, the rest counted by reason (numbers left out, at most as many)."""
    if not refusals:
        return "no host has joined the cell yet"
    words = [str(refusal) for refusal in refusals[:most]]
    rest: dict[str, int] = {}
    for refusal in refusals[most:]:
        reason = _NUMBER.sub("...", refusal.reason)
        rest[reason] = rest.get(reason, 0) + 1
    kinds = sorted(rest.items(), key=lambda kind: -kind[1])
    words += [f"{count} more: {reason}" for reason, count in kinds[:most]]
    if len(kinds) > most:
        words.append(f"{sum(count for _, count in kinds[most:])} more for other reasons")
    return "; ".join(words)
