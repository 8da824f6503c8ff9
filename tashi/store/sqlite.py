"""The embedded store: one SQLite file in the state directory, write-ahead log, every commit on the disk before it is told.

One connection in one thread of its own; the reactor never waits for the disk. A marker outside the file says how far it had come
(`tashi.store.marker`); a database that has lost records is not opened.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.enterprise import adbapi
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from tashi.clocks import WallClock
from tashi.errors import INTERNAL, OurFault
from tashi.interfaces import Change
from tashi.model.instance import Instance
from tashi.model.marks import CELL, Mark, reserved
from tashi.model.store_status import StoreStatus
from tashi.store import backups
from tashi.store.marker import Marker
from tashi.store.sqlite_file import State, examine, log_of
from tashi.store.sqlite_loss import accept
from tashi.store.sqlite_rows import load_all, write
from tashi.store.sqlite_schema import SCHEMA_VERSION, migrate
from tashi.store.tables import HISTORY, from_text

__all__ = ["SCHEMA_VERSION", "SQLiteStore"]

CHECKPOINT_SECONDS: Final = 5.0
"""How long a commit may stand in the write-ahead log only; then it is copied into the database file, and the marker is sealed."""

REMEDY: Final = (
    "Nothing was changed. Restore a backup with `tashi db restore FILE`, or go on with the records that are left: "
    "`tashi db accept-loss`, then start as usual (or `twistd -n tashi --accept-loss`)"
)
_TROUBLE: Final = {
    State.NO_MARKER: "the database {} may have lost records",
    State.OLDER: "the database {} has lost records",
    State.FOREIGN_LOG: "the database {} has lost records",
    State.UNUSABLE: "the database {} has lost records",
    State.OTHER_CELL: "the database {} is not this cell's",
}

_GONE_BY_ID: Final = "SELECT record FROM history WHERE id = ?"
_GONE_BY_KEY: Final = (
    "SELECT record FROM history WHERE resource_id = ? AND json_extract(record, '$.ownerJid') = ? "
    "ORDER BY id DESC LIMIT 1"
)
_GONE_BY_NAME: Final = "SELECT record FROM history WHERE name = ? ORDER BY id DESC LIMIT 1"
_GONE_BY_NAME_AND_USER: Final = (
    "SELECT record FROM history WHERE name = ? AND json_extract(record, '$.userId') = ? "
    "ORDER BY id DESC LIMIT 1"
)
_BEGIN_RUN: Final = "INSERT INTO runs (first_commit, last_commit, id) VALUES (?, ?, ?)"
_COUNT: Final = "UPDATE runs SET last_commit = ? WHERE first_commit = ?"
_WORDS: Final = {
    "SQLITE_FULL": "the disk is full; free some space",
    "SQLITE_READONLY": "it cannot be written; look whether the file system is mounted read-only, and whose file it is",
    "SQLITE_IOERR": "the disk failed; look into the kernel's log",
    "SQLITE_CANTOPEN": "it cannot be opened; look whether its directory is there",
    "SQLITE_BUSY": "another program holds it; stop that program",
}
"""What an error of SQLite means to an operator, by the beginning of its name."""


class SQLiteStore:
    """An IStore in the file at ``path``; ``:memory:`` works for tests.

    ``marker``: where the marker is kept; None for none. ``accept_loss``: start once with what is left of a database.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, path: str, marker: Path | None = None, *, accept_loss: bool = False
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._marker = Marker(marker) if marker is not None else None
        self._accept_loss = accept_loss
        self._examined = self._closed = self._open = False
        self._cell = self._run = ""
        self._first = self._commits = self._checkpointed = 0
        self._numbers: dict[str, int] = {}
        self._runs: dict[str, int] = {}
        self._files: dict[Path, tuple[int, int] | None] = {}
        """Device and inode of the database file and its log, as this connection has them open."""
        self._checkpoint: DelayedCall | None = None
        self._pool = adbapi.ConnectionPool(
            "sqlite3",
            path,
            check_same_thread=False,
            cp_min=1,
            cp_max=1,
            cp_openfun=_configure,
            cp_reactor=reactor,
            cp_noisy=False,
        )

    async def load(self) -> Mapping[str, Mapping[int | str, Any]]:
        """See IStore; makes the tables of a new file. OurFault, with the files untouched, when records are missing."""
        try:
            # Later the file is never opened but by SQLite: closing it would end the locks of our own connection.
            if not self._examined and self._path != ":memory:":
                await deferToThreadPool(self._reactor, self._pool.threadpool, self._examine)
            self._examined = True
            return await self._pool.runWithConnection(self._begin)
        except sqlite3.DatabaseError as error:
            words = "restore a backup with `tashi db restore FILE`, or name another file in [SQL] uri"
            raise OurFault(INTERNAL, f"the database {self._path} cannot be used: {error}; {words}") from error

    async def commit(self, changes: Sequence[Change]) -> None:
        """See IStore."""
        try:
            await self._pool.runWithConnection(self._commit, changes)
        except sqlite3.Error as error:
            for name, words in _WORDS.items():
                if str(getattr(error, "sqlite_errorname", "")).startswith(name):
                    raise OurFault(INTERNAL, f"{self._path}: {words} ({error})") from error
            raise
        except OSError as error:
            raise OurFault(INTERNAL, f"the marker of {self._path} cannot be written: {error}") from error
        if self._checkpoint is None and not self._closed:
            self._checkpoint = self._reactor.callLater(CHECKPOINT_SECONDS, self._checkpoint_now)

    async def find_gone(
        self,
        *,
        instance_id: int | None = None,
        key: tuple[str, str] | None = None,
        name: str | None = None,
        user_id: int | None = None,
    ) -> Instance | None:
        """See IStore."""
        values: tuple[int | str, ...]
        if instance_id is not None:
            query, values = _GONE_BY_ID, (instance_id,)
        elif key is not None:
            query, values = _GONE_BY_KEY, (key[1], key[0])
        elif name is None:
            return None
        elif user_id is None:
            query, values = _GONE_BY_NAME, (name,)
        else:
            query, values = _GONE_BY_NAME_AND_USER, (name, user_id)
        rows = await self._pool.runQuery(query, values)
        return from_text(HISTORY, rows[0][0], values[0]) if rows else None

    def mark(self) -> Mark:
        """See IStore."""
        return Mark(cell=self._cell, run=self._run, commits=self._commits, numbers=dict(self._numbers))

    def contains(self, mark: Mark) -> bool:
        """See IStore."""
        last = self._commits if mark.run == self._run else self._runs.get(mark.run, 0)
        return mark.commits == 0 or last >= mark.commits

    def status(self) -> StoreStatus:
        """See IStore."""
        path = Path(self._path)
        last = backups.last(self._marker.path.parent) if self._marker is not None else None
        return StoreStatus(
            kind="sqlite",
            path=self._path,
            commits=self._commits,
            bytes=_size(path),
            log_bytes=_size(log_of(path)),
            last_backup=last.at if last else None,
            last_backup_file=last.file if last else "",
        )

    async def close(self) -> None:
        """See IStore."""
        if self._closed:
            return
        self._closed = True
        if self._checkpoint is not None and self._checkpoint.active():
            self._checkpoint.cancel()
        if self._open:
            try:
                await self._pool.runWithConnection(self._write_back, "TRUNCATE")
            except (sqlite3.Error, OSError) as error:
                self.log.warn(
                    "the write-ahead log of {path} stays as it is: {error}", path=self._path, error=str(error)
                )
        self._pool.close()
        if self._marker is not None:
            self._marker.close()

    # in the store's thread

    def _examine(self) -> None:
        """Refuse a database that has lost records, unless the operator has accepted that."""
        path = Path(self._path)
        if self._marker is not None:
            finding = examine(path, self._marker)
            if finding.state is State.WHOLE and self._accept_loss:
                self.log.warn("--accept-loss has no effect: nothing is lost; start without it")
            elif finding.state is not State.WHOLE:
                if not self._accept_loss:
                    trouble = _TROUBLE[finding.state].format(path)
                    raise OurFault(INTERNAL, f"{trouble}: {finding.problem}. {REMEDY}")
                for kept in accept(path, self._marker, finding, WallClock().seconds()):
                    self.log.warn("{file} was kept for you to look at", file=str(kept))
                self.log.warn("records were lost, and that was accepted: {problem}", problem=finding.problem)
                finding = examine(path, self._marker)
            if finding.expected is None:
                # A marker that expects nothing: the first start may be cut short.
                self._marker.seal(Mark(), 0)
            self._numbers = dict(finding.mark.numbers)
            self._checkpointed = finding.expected.checkpointed if finding.expected else 0
        # What SQLite makes beside it gets the same mode.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))

    def _begin(self, connection: Any) -> dict[str, dict[int | str, Any]]:
        """Make the tables, begin a run, and read everything."""
        self._open = True
        migrate(connection, self._path)
        tables = load_all(connection)
        self._runs = dict(connection.execute("SELECT id, last_commit FROM runs").fetchall())
        self._commits = self._first = max(self._runs.values(), default=0) + 1
        self._run = secrets.token_hex(8)
        connection.execute(_BEGIN_RUN, (self._first, self._first, self._run))
        connection.commit()
        self._cell = str(tables["settings"].get(CELL, ""))
        self._reserve([Change("counters", kind, number) for kind, number in tables["counters"].items()])
        self._seal()
        if self._path != ":memory:":
            path = Path(self._path)
            self._files = {file: _identity(file) for file in (path, log_of(path))}
        return tables

    def _check_in_place(self) -> None:
        """Raise OurFault when a file was replaced or removed under this connection: a commit would go to a file
        that nobody finds again."""
        for file, identity in self._files.items():
            if _identity(file) != identity:
                raise OurFault(
                    INTERNAL,
                    f"{file} was replaced or removed while it was in use; put it back, or stop the control plane "
                    "and restore a backup with `tashi db restore FILE`",
                )

    def _commit(self, connection: Any, changes: Sequence[Change]) -> None:
        """Write the changes. The numbers in them are reserved first, and the commit is counted in the marker before anybody is told."""
        self._check_in_place()
        known = self._cell, self._numbers
        self._reserve(changes)
        if known != (self._cell, self._numbers):
            try:
                self._seal()
            except OSError:
                self._cell, self._numbers = known
                raise
        write(connection, changes)
        connection.execute(_COUNT, (self._commits + 1, self._first))
        connection.commit()
        self._commits += 1
        if self._marker is not None:
            self._marker.note(self._commits)

    def _reserve(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.table == "counters" and isinstance(change.record, int):
                kind = str(change.key)
                if change.record > self._numbers.get(kind, 0):
                    self._numbers = self._numbers | {kind: reserved(kind, change.record)}
            elif change.table == "settings" and change.key == CELL:
                self._cell = str(change.record)

    def _seal(self) -> None:
        if self._marker is not None:
            self._marker.seal(self.mark(), self._checkpointed)

    def _write_back(self, connection: Any, mode: str = "PASSIVE") -> None:
        """Copy the write-ahead log into the database file, as far as no reader is in the way."""
        busy, frames, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        if not busy and frames == copied:
            self._checkpointed = self._commits
        self._seal()

    # in the reactor

    def _checkpoint_now(self) -> None:
        self._checkpoint = None
        work: Deferred[Any] = self._pool.runWithConnection(self._write_back)
        work.addErrback(
            lambda failure: self.log.warn(
                "no checkpoint of {path}: {why}", path=self._path, why=failure.getErrorMessage()
            )
        )


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a commit that was answered survives a power cut
    connection.execute("PRAGMA busy_timeout = 5000")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and the inode of a file, which is never opened here; None when it is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
