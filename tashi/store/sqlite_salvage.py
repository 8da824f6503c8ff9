"""The records that can still be read in a damaged SQLite file, in a new file."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from tashi.errors import OurFault
from tashi.interfaces import Change
from tashi.store.sqlite_file import log_of, reading
from tashi.store.sqlite_rows import write
from tashi.store.sqlite_schema import migrate
from tashi.store.tables import HISTORY, RECORDS, from_text

_PAGE: Final = 4096


def salvage(path: Path) -> Path:
    """Return a new database beside the damaged one, with every record of it and its log that can be read and decoded.

    Its schema is new, and it has no runs: it contains no mark. Raises sqlite3.Error for the new file only, and OSError.
    """
    if log_of(path).exists() and not (path.exists() and path.stat().st_size):
        with TemporaryDirectory(dir=path.parent) as directory:
            # SQLite deletes the log of an empty file, but reads it over a page of zeros.
            stand_in = Path(directory) / path.name
            stand_in.write_bytes(bytes(_PAGE))
            shutil.copy(log_of(path), log_of(stand_in))
            return _salvaged(stand_in, path)
    return _salvaged(path, path)


def _salvaged(source: Path, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(temporary)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection, str(temporary))
        for table in (*RECORDS, HISTORY):
            write(
                connection, [Change(table, key, record) for key, record in _readable(source, table).items()]
            )
        connection.commit()
    finally:
        connection.close()
    return temporary


def _readable(path: Path, table: str) -> dict[int | str, msgspec.Struct | int | str]:
    """The records of a table that can be read from either end, as far as the damage, and decoded."""
    texts = {**_rows(path, table, "DESC"), **_rows(path, table, "ASC")}
    found = {}
    for key, text in texts.items():
        with contextlib.suppress(OurFault):
            found[key] = from_text(table, text, key)
    return found


def _rows(path: Path, table: str, order: str) -> dict[int | str, str]:
    rows: dict[int | str, str] = {}

    def look(connection: sqlite3.Connection) -> None:
        for key, text in connection.execute(f"SELECT id, record FROM {table} ORDER BY id {order}"):
            rows[key] = text

    with contextlib.suppress(sqlite3.Error):
        reading(path, look)
    return rows
