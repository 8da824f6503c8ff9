"""What an operator accepts by hand: to go on with the records that are left, once."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tashi.errors import CONFLICT, OurFault
from tashi.files import sync_directory
from tashi.model.marks import CELL, LOSS, Loss, Mark, beyond, highest
from tashi.store.marker import Marker
from tashi.store.sqlite_file import Finding, State, contents, log_of, with_companions
from tashi.store.sqlite_salvage import salvage
from tashi.store.sqlite_schema import migrate


def accept(path: Path, marker: Marker, finding: Finding, now: float) -> list[Path]:
    """Make a database of what is left, with the `Loss` in it for the cluster manager; return the files that are kept.

    A log that is not the file's is put aside. Of a damaged file every record is kept that can be read. The marker
    expects what is left from now on. ``now``: seconds since the epoch. Raises OurFault for the database of another
    cell, sqlite3.Error and OSError.
    """
    if finding.state is State.OTHER_CELL:
        words = "a database of another cell is never accepted; put the right one in its place, or choose another stateDir"
        raise OurFault(CONFLICT, f"{finding.problem}; {words}")
    suffix = time.strftime(".lost-%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside: list[Path] = []
    match finding.state:
        case State.UNUSABLE:
            left = salvage(path)
            aside = set_aside(with_companions(path), suffix)
            left.replace(path)
            sync_directory(path.parent)
        case State.FOREIGN_LOG:
            aside = set_aside(with_companions(path)[1:], suffix)
        case _ if log_of(path).exists():
            kept = log_of(path).with_name(log_of(path).name + suffix)
            shutil.copy2(log_of(path), kept)
            aside = [kept]
    unmarked = finding.expected is None
    numbers = put_loss(path, finding.problem, finding.mark.numbers, finding.mark.cell, unmarked=unmarked)
    seal_what_is_there(path, marker, numbers)
    return aside


def seal_what_is_there(path: Path, marker: Marker, numbers: dict[str, int]) -> None:
    """Let the marker expect exactly this database, and these numbers. Raises sqlite3.Error and OSError."""
    found = contents(path)
    run = max(found.runs, key=lambda run: found.runs[run], default="")
    mark = Mark(cell=found.cell, run=run, commits=found.commits, numbers=numbers)
    marker.seal(mark, 0 if log_of(path).exists() else found.commits)
    marker.close()


def put_loss(
    path: Path, reason: str, numbers: Mapping[str, int], cell: str = "", *, unmarked: bool = False
) -> dict[str, int]:
    """Write a `Loss` into the database, and the cell where it names none; return the numbers of the loss.

    The database is made if there is none. ``unmarked``: nothing but the copy itself says which numbers were
    given out. Raises sqlite3.Error.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection, str(path))
        connection.execute("BEGIN IMMEDIATE")
        counters = {kind: int(text) for kind, text in connection.execute("SELECT id, record FROM counters")}
        pending = connection.execute("SELECT record FROM settings WHERE id = ?", (LOSS,)).fetchone()
        earlier = (
            msgspec.json.decode(msgspec.json.decode(pending[0], type=str), type=Loss).numbers
            if pending
            else {}
        )
        safe = highest(numbers, earlier, beyond(counters) if unmarked else counters)
        loss = Loss(reason=reason, numbers=safe)
        put = "INSERT OR REPLACE INTO settings (id, record) VALUES (?, ?)"
        connection.execute(put, (LOSS, _text(msgspec.json.encode(loss).decode())))
        if cell:
            connection.execute(
                "INSERT OR IGNORE INTO settings (id, record) VALUES (?, ?)", (CELL, _text(cell))
            )
        connection.execute("COMMIT")
    finally:
        connection.close()
    return safe


def set_aside(paths: tuple[Path, ...], suffix: str) -> list[Path]:
    """Rename the files that there are, to names that nothing has yet; return these. Raises OSError."""
    kept: list[Path] = []
    present = [path for path in paths if path.exists()]
    number = 1
    while any(path.with_name(path.name + suffix + _again(number)).exists() for path in present):
        number += 1
    for path in present:
        kept.append(path.rename(path.with_name(path.name + suffix + _again(number))))
    if kept:
        sync_directory(kept[0].parent)
    return kept


def _again(number: int) -> str:
    return f"-{number}" if number > 1 else ""


def _text(value: str) -> str:
    return msgspec.json.encode(value).decode()
