"""Records to JSON text and back, in one place: what crosses a process boundary crosses here.

Perspective Broker carries one string up to 640 KiB per value; `pages` cuts what is longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.model.bounds import one_line

PAGE_BYTES = 480 * 1024
"""Most bytes of one page: well under PB's 655,360."""

Record = TypeVar("Record")
_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def encode(value: object) -> bytes:
    """The JSON text of a record or of plain data."""
    return _encoder.encode(value)


def decode(text: bytes | str, kind: type[Record] | Any) -> Any:
    """The record in the JSON text; YourMistake(bad-argument) names the field that is wrong."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise YourMistake(BAD_ARGUMENT, f"not a valid message: {one_line(str(error))}") from None


def pages(text: bytes) -> Sequence[bytes]:
    """The text cut into pieces that PB carries; joined again they are the text."""
    return [text[start : start + PAGE_BYTES] for start in range(0, len(text), PAGE_BYTES)] or [b""]
