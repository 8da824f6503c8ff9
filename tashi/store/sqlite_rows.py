"""The rows of a SQLite database: all of them read, changes written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tashi.interfaces import Change
from tashi.store.tables import HISTORY, RECORDS, from_text, to_text

PUT: Final = {table: f"INSERT OR REPLACE INTO {table} (id, record) VALUES (?, ?)" for table in RECORDS} | {
    HISTORY: "INSERT OR REPLACE INTO history (id, name, resource_id, record) VALUES (?, ?, ?, ?)"
}
REMOVE: Final = {table: f"DELETE FROM {table} WHERE id = ?" for table in (*RECORDS, HISTORY)}
SELECT: Final = {table: f"SELECT id, record FROM {table} ORDER BY id" for table in RECORDS}


def load_all(connection: Any) -> dict[str, dict[int | str, Any]]:
    """Return all live records by table and key. OurFault when one cannot be decoded."""
    return {
        table: {key: from_text(table, text, key) for key, text in connection.execute(select).fetchall()}
        for table, select in SELECT.items()
    }


def write(connection: Any, changes: Iterable[Change]) -> None:
    """Write the changes in the connection's transaction; the last change of a row counts."""
    latest = {(change.table, change.key): change.record for change in changes}
    put: dict[str, list[tuple[Any, ...]]] = {}
    remove: dict[str, list[tuple[int | str]]] = {}
    for (table, key), record in latest.items():
        if record is None:
            remove.setdefault(table, []).append((key,))
        elif table == HISTORY:
            put.setdefault(table, []).append((key, record.name, record.resource_id, to_text(record)))  # type: ignore[union-attr]
        else:
            put.setdefault(table, []).append((key, to_text(record)))
    for table, rows in put.items():
        connection.executemany(PUT[table], rows)
    for table, keys in remove.items():
        connection.executemany(REMOVE[table], keys)
