"""The tables of a store: their names, what each row is, and how a row becomes text and comes back."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from tashi.errors import INTERNAL, OurFault
from tashi.model.disks import DiskRecord
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
    "disks": DiskRecord,  # by file name
}
"""Live tables: read whole at start, written as the cluster changes."""

HISTORY: Final = "history"
"""Instances that are gone: written once, looked up rarely, never read whole."""

_KINDS: Final[dict[str, type[Any]]] = {**RECORDS, HISTORY: Instance}
_encoder = msgspec.json.Encoder()
_decoders = {table: msgspec.json.Decoder(kind) for table, kind in _KINDS.items()}


def to_text(record: object) -> str:
    """The JSON text of a row's record."""
    return _encoder.encode(record).decode()


def from_text(table: str, text: str | bytes, key: object) -> Any:
    """Return the record of a row of this table. OurFault, with the table and the key, when it is no such record."""
    try:
        return _decoders[table].decode(text)
    except (msgspec.DecodeError, TypeError) as error:
        if table == "hosts" and (host := _without_facts(text)) is not None:
            return host
        expected = f"table {table}, key {key}: expected a record of type {_KINDS[table].__name__}"
        remedy = "`tashi db check` lists all such rows; `tashi db restore FILE`, or `tashi db accept-loss`, which drops them"
        raise OurFault(INTERNAL, f"{expected}, got damaged text ({error}); {remedy}") from None


def _without_facts(text: str | bytes) -> Host | None:
    """The host without what its agent said of its machine, which may be out of bounds: the agent will say it anew."""
    try:
        return msgspec.convert(json.loads(text) | {"facts": None}, Host)
    except (ValueError, TypeError):
        return None
