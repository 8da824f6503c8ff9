"""The embedded store: one SQLite file in the state directory, write-ahead log, every commit on the disk before it is told.

One connection in one thread of its own; the reactor never waits for the disk.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

from twisted.enterprise import adbapi

from tashi.errors import INTERNAL, OurFault
from tashi.interfaces import Change
from tashi.model.instance import Instance
from tashi.store.tables import HISTORY, RECORDS, from_text, to_text

SCHEMA_VERSION: Final = 1
_PUT: Final = {table: f"INSERT OR REPLACE INTO {table} (id, record) VALUES (?, ?)" for table in RECORDS} | {
    HISTORY: "INSERT OR REPLACE INTO history (id, name, resource_id, record) VALUES (?, ?, ?, ?)"
}
_REMOVE: Final = {table: f"DELETE FROM {table} WHERE id = ?" for table in (*RECORDS, HISTORY)}
_SELECT: Final = {table: f"SELECT id, record FROM {table} ORDER BY id" for table in RECORDS}
_FIND_GONE: Final = {
    "instance_id": "SELECT record FROM history WHERE id = ?",
    "resource_id": "SELECT record FROM history WHERE resource_id = ? ORDER BY id DESC LIMIT 1",
    "name": "SELECT record FROM history WHERE name = ? ORDER BY id DESC LIMIT 1",
}


class SQLiteStore:
    """An IStore in the file at ``path``; ``:memory:`` works for tests."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._path = path
        self._closed = False
        if path != ":memory:":
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))  # what SQLite makes beside it gets the same mode
        self._pool = adbapi.ConnectionPool(
            "sqlite3", path, check_same_thread=False, cp_min=1, cp_max=1, cp_openfun=_configure, cp_reactor=reactor, cp_noisy=False
        )

    async def load(self) -> Mapping[str, Mapping[int | str, Any]]:
        """See IStore; makes the tables of a new file."""
        try:
            await self._pool.runWithConnection(_migrate, self._path)
            return await self._pool.runInteraction(_load)
        except sqlite3.DatabaseError as error:
            raise OurFault(
                INTERNAL, f"the database {self._path} cannot be used: {error}; put its last copy in its place, or name another in [SQL] uri"
            ) from error

    async def commit(self, changes: Sequence[Change]) -> None:
        """See IStore."""
        await self._pool.runInteraction(_write, changes)

    async def find_gone(
        self, *, instance_id: int | None = None, resource_id: str | None = None, name: str | None = None
    ) -> Instance | None:
        """See IStore."""
        for key, value in (("instance_id", instance_id), ("resource_id", resource_id), ("name", name)):
            if value is not None:
                rows = await self._pool.runQuery(_FIND_GONE[key], (value,))
                if rows:
                    return from_text(HISTORY, rows[0][0])
        return None

    async def close(self) -> None:
        """See IStore."""
        if not self._closed:
            self._closed = True
            self._pool.close()


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a commit that was answered survives a power cut
    connection.execute("PRAGMA busy_timeout = 5000")


def _migrate(connection: Any, path: str) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise OurFault(
            INTERNAL,
            f"{path} has schema version {version}, and this program knows versions up to {SCHEMA_VERSION}: "
            "a newer Tashi wrote it; start that one, or choose another file with [SQL] uri",
        )
    for number in range(version + 1, SCHEMA_VERSION + 1):
        script = resources.files("tashi.store").joinpath(f"schema/{number:04}.sql").read_text()
        connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")


def _load(transaction: Any) -> dict[str, dict[int | str, Any]]:
    tables: dict[str, dict[int | str, Any]] = {}
    for table, select in _SELECT.items():
        transaction.execute(select)
        tables[table] = {key: from_text(table, text) for key, text in transaction.fetchall()}
    return tables


def _write(transaction: Any, changes: Iterable[Change]) -> None:
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
        transaction.executemany(_PUT[table], rows)
    for table, keys in remove.items():
        transaction.executemany(_REMOVE[table], keys)
