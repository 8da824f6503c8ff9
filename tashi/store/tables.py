"""The tables of a store: their names, what each row is, and how a row becomes text and comes back."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.request import Outgoing, Request
from tashi.model.user import User

RECORDS: Final[dict[str, type[Any]]] = {
    "instances": Instance,
    "hosts": Host,
    "users": User,
    "requests": Request,
    "outbox": Outgoing,
    "counters": int,  # highest number given out, by what it counts: numbers are never given twice
    "settings": str,
}
"""Live tables: read whole at start, written as the cluster changes."""

HISTORY: Final = "history"
"""Instances that are gone: written once, looked up rarely, never read whole."""

_encoder = msgspec.json.Encoder()
_decoders = {table: msgspec.json.Decoder(kind) for table, kind in {**RECORDS, HISTORY: Instance}.items()}


def to_text(record: object) -> str:
    """The JSON text of a row's record."""
    return _encoder.encode(record).decode()


def from_text(table: str, text: str) -> Any:
    """The record of a row of this table."""
    return _decoders[table].decode(text)
