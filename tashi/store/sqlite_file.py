"""A SQLite database file looked at from outside, before anything writes to it: is this the database that its marker describes?

SQLite itself asks no such thing. It drops the frames of a damaged write-ahead log, deletes the log of an empty file, and applies
a log to whatever file lies beside it, all without a word.
"""

from __future__ import annotations

import enum
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from tashi.errors import OurFault
from tashi.model.marks import CELL, Mark
from tashi.store.marker import Expected, Marker

_MAGIC: Final = b"SQLite format 3\0"
_MOST_FAULTS: Final = 5

Result = TypeVar("Result")

SQLiteError: Final = sqlite3.Error
"""What the functions of this package raise for a file that SQLite cannot use."""


class State(enum.Enum):
    """What an examination found."""

    WHOLE = "whole"
    NO_MARKER = "no marker"
    """The database has records, and its marker is missing or damaged."""
    OLDER = "older"
    """It is a database of this cell, and commits are missing."""
    FOREIGN_LOG = "foreign log"
    """The file is older than the write-ahead log beside it."""
    UNUSABLE = "unusable"
    """The file is missing, empty, damaged, or no database."""
    OTHER_CELL = "other cell"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an examination; ``problem`` is for people, and empty when the database is whole."""

    state: State
    problem: str = ""
    expected: Expected | None = None

    @property
    def mark(self) -> Mark:
        """What the marker says; an empty mark when there is no marker."""
        return self.expected.mark if self.expected is not None else Mark()


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a database says of itself: its schema, its cell, and the last commit of each of its runs."""

    schema: int = 0
    cell: str = ""
    runs: dict[str, int] = {}

    @property
    def commits(self) -> int:
        """The number of its last commit."""
        return max(self.runs.values(), default=0)

    def contains(self, mark: Mark) -> bool:
        """Whether the commit of this mark is in the database."""
        return mark.commits == 0 or self.runs.get(mark.run, 0) >= mark.commits


def examine(path: Path, marker: Marker) -> Finding:
    """Compare the database file with its marker. Neither is changed. No connection of this process may be open on the file."""
    try:
        expected = marker.read()
    except OurFault as fault:
        return Finding(state=State.NO_MARKER, problem=fault.message)
    unusable = _unusable(path)
    if expected is None:
        if unusable or not _contents_or_none(path).runs:
            return Finding(
                state=State.WHOLE
            )  # a new cell, or one of an older version; what is no database is refused when it is opened
        return Finding(state=State.NO_MARKER, problem=f"the marker {marker.path} is missing")
    mark = expected.mark
    if mark.commits == 0:
        return Finding(state=State.WHOLE, expected=expected)
    should = f"expected at least {mark.commits} commits of cell {mark.cell} (by {marker.path})"

    def finding(state: State, found: str) -> Finding:
        return Finding(state=state, problem=f"{should}; found {found}", expected=expected)

    if unusable:
        return finding(State.UNUSABLE, unusable)
    alone = _contents_or_none(path, "immutable=1")
    if alone.cell and mark.cell and alone.cell != mark.cell:
        return finding(State.OTHER_CELL, f"the database of cell {alone.cell}")
    logged = log_of(path).exists() and log_of(path).stat().st_size > 0
    if logged and alone.schema and alone.commits < expected.checkpointed:
        return finding(
            State.FOREIGN_LOG,
            f"a database file with {alone.commits} commits beside a write-ahead log that is not its own",
        )
    try:
        found, faults = contents(path), quick_check(path)
    except sqlite3.Error as error:
        found, faults = Contents(), [str(error)]
    if logged and (faults or found.commits < alone.commits) and not _faults_alone(path):
        return finding(
            State.FOREIGN_LOG,
            f"a database file with {alone.commits} commits beside a write-ahead log that is not its own",
        )
    if faults:
        return finding(State.UNUSABLE, f"a damaged database: {'; '.join(faults)}")
    if found.cell and mark.cell and found.cell != mark.cell:
        return finding(State.OTHER_CELL, f"the database of cell {found.cell}")
    if not found.contains(mark):
        run = "" if mark.run in found.runs else f", none of them of the last run ({mark.run})"
        return finding(
            State.OLDER, f"{found.commits} commits{run}: an older copy, or a lost or damaged write-ahead log"
        )
    return Finding(state=State.WHOLE, expected=expected)


def contents(path: Path) -> Contents:
    """Return what the database says of itself, its write-ahead log included. Raises sqlite3.Error."""
    return reading(path, _contents)


def quick_check(path: Path) -> list[str]:
    """Return what SQLite's quick check finds wrong. Raises sqlite3.Error."""
    return reading(path, lambda connection: _check(connection, "quick_check"))


def _faults_alone(path: Path) -> list[str]:
    """What is wrong with the database file without its write-ahead log."""
    try:
        return reading(path, lambda connection: _check(connection, "quick_check"), "immutable=1")
    except sqlite3.Error as error:
        return [str(error)]


def integrity_check(path: Path) -> list[str]:
    """Return what SQLite's integrity check, which reads every page and every index, finds wrong. Raises sqlite3.Error."""
    return reading(path, lambda connection: _check(connection, "integrity_check"))


def reading(path: Path, look: Callable[[sqlite3.Connection], Result], option: str = "") -> Result:
    """Return what ``look`` returns of a connection that cannot write. Raises sqlite3.Error, also when there is no file."""
    if not option and not log_of(path).exists():
        option = "immutable=1"  # else SQLite would make an empty log, which stays
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro" + (f"&{option}" if option else "")
    connection = sqlite3.connect(uri, uri=True)
    try:
        connection.execute("PRAGMA busy_timeout = 5000")
        return look(connection)
    finally:
        connection.close()


def log_of(path: Path) -> Path:
    """The write-ahead log of a database file."""
    return path.with_name(path.name + "-wal")


def with_companions(path: Path) -> tuple[Path, ...]:
    """A database file and the files that SQLite keeps beside it."""
    return path, log_of(path), path.with_name(path.name + "-shm"), path.with_name(path.name + "-journal")


def _unusable(path: Path) -> str:
    """Why the file cannot be a database; empty when it may be one."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        return f"no file {path}"
    if not head:
        return f"an empty file {path}"
    return "" if head == _MAGIC else f"no SQLite database in {path}"


def _contents_or_none(path: Path, option: str = "") -> Contents:
    """The contents, as far as they can be read: a file in the middle of a checkpoint is whole only with its log."""
    try:
        return reading(path, _contents, option)
    except sqlite3.Error:
        return Contents()


def _contents(connection: sqlite3.Connection) -> Contents:
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    runs = dict(connection.execute("SELECT id, last_commit FROM runs")) if "runs" in tables else {}
    row: Any = None
    if "settings" in tables:
        row = connection.execute("SELECT record FROM settings WHERE id = ?", (CELL,)).fetchone()
    try:
        cell = msgspec.json.decode(row[0], type=str) if row else ""
    except msgspec.DecodeError:
        cell = ""
    return Contents(schema=schema, cell=cell, runs=runs)


def _check(connection: sqlite3.Connection, pragma: str) -> list[str]:
    found = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}({_MOST_FAULTS})")]
    return [] if found == ["ok"] else found
