"""The bounds of everything that crosses a process boundary: types for the fields of records, enforced whenever one is decoded.

A record that an agent sends is decoded at the control plane, an order at the agent; both use the same records, so both ends check. What an
honest agent reads from its machine is cut to these bounds before it is sent (`cut`, `clamped`).
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

MOST_ITEMS: Final = 10_000
LONGEST_TEXT: Final = 1024
LONGEST_NAME: Final = 63
LONGEST_XML: Final = 256 * 1024
MOST_CORES: Final = 4096
"""Of one host."""
MOST_MEMORY: Final = 2**31
"""MB of one host."""
MOST_MEGAHERTZ: Final = 1_000_000
LARGEST: Final = 2**63 - 1

Text = Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]
Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
Xml = Annotated[str, msgspec.Meta(max_length=LONGEST_XML)]
Id = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
"""A number of an instance, a host or an order."""
Amount = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
Cores = Annotated[int, msgspec.Meta(ge=1, le=MOST_CORES)]
Memory = Annotated[int, msgspec.Meta(ge=0, le=MOST_MEMORY)]
Megahertz = Annotated[int, msgspec.Meta(ge=0, le=MOST_MEGAHERTZ)]
Network = Annotated[int, msgspec.Meta(ge=0, le=4095)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Page = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Moment = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""Seconds since the epoch."""
Items = msgspec.Meta(max_length=MOST_ITEMS)
"""``Annotated[tuple[..., ...], Items]`` and the like: a list of at most 10,000."""


def cut(text: str, most: int = LONGEST_TEXT) -> str:
    """The text in valid Unicode and at most this long; what is cut off is marked by an ellipsis."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"


def one_line(text: str, most: int = 300) -> str:
    """The text as a message of ours may quote it: what cannot be printed is replaced by question marks, and it is cut."""
    return cut("".join(one if one.isprintable() else "?" for one in text[: most + 1]), most)


def clamped(value: int, least: int, most: int) -> int:
    """The value within the limits."""
    return max(least, min(value, most))
