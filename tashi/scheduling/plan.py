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


Action = Place | Postpone


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, in the order in which to do it."""

    actions: tuple[Action, ...] = ()


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
