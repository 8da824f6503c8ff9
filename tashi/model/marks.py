"""Marks: how far a cell's records had come at some moment. A store that does not contain a mark has lost records.

A mark is kept outside the records: in a file beside the database, and on the disks of the agents.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

import msgspec

BLOCKS: Final[dict[str, int]] = {"instance": 1_000, "host": 1_000, "user": 1_000}
"""How many numbers of a kind are reserved at once; `OTHER_BLOCK` for kinds that nobody sees as ids."""
OTHER_BLOCK: Final = 100_000

GENERATION_STEP: Final = 1_000
"""How far the generation of each instance moves when records were lost."""

LOSS: Final = "storeLost"
"""The setting that holds a `Loss` (as JSON text) until the cluster manager has dealt with it."""

CELL: Final = "cell"
"""The setting that holds the UUID of the cell."""

MOST_TEXT: Final = 1_024
"""Characters of the longest signed mark."""


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A point in the life of a cell's records.

    ``run`` names one run of the control plane, ``commits`` counts all commits since the database was made. ``numbers`` are the
    highest numbers that may have been given out by then, by kind.
    """

    cell: str = ""
    run: str = ""
    commits: int = 0
    numbers: dict[str, int] = {}


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Records were lost: why, and the numbers above which new ones are safe."""

    reason: str
    numbers: dict[str, int] = {}


def reserved(kind: str, number: int) -> int:
    """Return the end of the block that holds this number, which is always above the number."""
    block = BLOCKS.get(kind, OTHER_BLOCK)
    return (number // block + 1) * block


def beyond(counters: Mapping[str, int]) -> dict[str, int]:
    """Return numbers a whole block above these: for a copy of unknown age, where nothing says what was given out since."""
    return {kind: number + BLOCKS.get(kind, 10 * OTHER_BLOCK) for kind, number in counters.items()}


def highest(*numbers: Mapping[str, int]) -> dict[str, int]:
    """Return the highest number of each kind."""
    kinds = {kind for each in numbers for kind in each}
    return {kind: max(each.get(kind, 0) for each in numbers) for kind in sorted(kinds)}


def sign(mark: Mark, key: str) -> str:
    """Return the mark as one line of text that only the holder of the key can make."""
    text = msgspec.json.encode(mark).decode()
    return f"{_signature(text, key)} {text}"


def verify(text: str, key: str) -> Mark | None:
    """Return the mark in a text that `sign` made with the same key; None for any other text."""
    if len(text) > MOST_TEXT:
        return None
    signature, _, body = text.partition(" ")
    if not hmac.compare_digest(signature.encode(), _signature(body, key).encode()):
        return None
    try:
        return msgspec.json.decode(body, type=Mark)
    except msgspec.DecodeError:
        return None


def _signature(text: str, key: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
