"""How a cell is, as `tashi status` shows it: one part per subject, and what an operator should look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class StatusPart(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One subject of the status. ``words`` is one line for people, ``data`` the same for programs; each of ``warnings`` is a sentence
    about something that is wrong and makes the cell degraded; ``notes`` are advice and do not."""

    words: str
    data: Mapping[str, Any] = {}
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def duration(seconds: float) -> str:
    """Return a span of time in words, such as "45 s", "12 min", "3 h 20 min" or "8 d 4 h"."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 120:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{days} d {hours % 24} h"


def counted(counts: Mapping[str, int]) -> str:
    """Return counts in words, the names in their order, such as "3 up, 1 down"."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
