"""Backups of a SQLite database: made while the control plane runs, put back while it does not, and looked through.

A backup is one SQLite file without a log. Beside the records it has a table `backup` with its manifest and, if asked for, secrets.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from tashi.errors import CONFLICT, INTERNAL, OurFault, YourMistake
from tashi.files import sync_directory
from tashi.model.marks import highest
from tashi.store.backups import Manifest
from tashi.store.marker import Expected, Marker
from tashi.store.sqlite_file import contents, integrity_check, reading, with_companions
from tashi.store.sqlite_loss import put_loss, seal_what_is_there, set_aside
from tashi.store.tables import HISTORY, RECORDS, from_text

MOST_PROBLEMS: Final = 20
_MANIFEST: Final = "manifest"
_SECRET: Final = "secret/"


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a restore. ``manifest`` is None for a plain copy of a database; ``kept`` are the files that were replaced."""

    manifest: Manifest | None
    kept: tuple[Path, ...]
    secrets: dict[str, bytes]


def back_up(
    database: Path, target: Path, *, version: str, now: float, secrets: Mapping[str, bytes], replace: bool
) -> Manifest:
    """Copy the database as it is now into ``target``, whole or not at all, readable by its owner only.

    ``now``: seconds since the epoch. YourMistake when the target is no place for a backup, or exists and is not to be replaced; OurFault
    when the database is damaged. Raises sqlite3.Error and OSError.
    """
    _check_target(database, target, replace)
    temporary = _copy(database, target)
    try:
        wrong = problems(temporary)
        if wrong:
            raise OurFault(
                INTERNAL,
                f"{database} is damaged, and no backup was made: {wrong[0]}; `tashi db check` lists everything",
            )
        found = contents(temporary)
        manifest = Manifest(
            cell=found.cell,
            made_at=now,
            version=version,
            commits=found.commits,
            run=max(found.runs, key=lambda run: found.runs[run], default=""),
            numbers=_counters(temporary),
            secrets=tuple(sorted(secrets)),
        )
        rows = {_MANIFEST: msgspec.json.encode(manifest)} | {
            _SECRET + name: content for name, content in secrets.items()
        }
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            # the database may be a backup that was put there by hand
            connection.execute("DROP TABLE IF EXISTS backup")
            connection.execute("CREATE TABLE backup (name TEXT PRIMARY KEY, content BLOB NOT NULL)")
            connection.executemany("INSERT INTO backup VALUES (?, ?)", rows.items())
        finally:
            connection.close()
        _settle(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return manifest


def _check_target(database: Path, target: Path, replace: bool) -> None:
    """YourMistake unless a backup may be written here: never over a file of the database, and over another
    plain file only with ``replace``."""
    names = [path.name for path in with_companions(database)] + [f"{database.name}-journal"]
    if target.name in names and target.parent.exists() and target.parent.samefile(database.parent):
        raise YourMistake(CONFLICT, f"{target} is a file of the database itself; choose another name")
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise YourMistake(CONFLICT, f"{target}: expected a new or a regular file; choose another name")
    if target.exists() and not replace:
        raise YourMistake(CONFLICT, f"{target} exists; choose another name, or replace it with --force")


def restore(database: Path, marker: Marker, source: Path, *, now: float) -> Restored:
    """Put a backup, or any copy of a database, in the place of the database. The caller holds the state directory's lock.

    What was there is set aside with its log. The restored database holds a `Loss` with numbers above all that were given out, as far as
    the marker, the replaced database and the copy can tell. YourMistake when the copy is another cell's, OurFault when it is damaged.
    Raises sqlite3.Error and OSError.
    """
    expected = _expected(marker)
    manifest = manifest_of(source)
    kept_secrets = _secrets_of(source)
    temporary = _copy(source, database)
    try:
        wrong = problems(temporary)
        if wrong:
            words = f"{source} is damaged, and nothing was restored: {wrong[0]}; `tashi db check {source}` lists everything"
            raise OurFault(INTERNAL, words)
        cell, present = contents(temporary).cell, _present(database)
        ours = expected.mark.cell if expected is not None else present[0]
        if ours and cell != ours:
            words = "restore it into a state directory of its own ([ClusterManagerService] stateDir)"
            raise YourMistake(
                CONFLICT,
                f"{source} is of cell {cell or 'unknown'}, and this state directory is of cell {ours}; {words}",
            )
        made = f", made {_date(manifest.made_at)} by Tashi {manifest.version}" if manifest is not None else ""
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            connection.execute("DROP TABLE IF EXISTS backup")
        finally:
            connection.close()
        numbers = highest(expected.mark.numbers if expected is not None else {}, present[1])
        numbers = put_loss(temporary, f"restored from {source}{made}", numbers, unmarked=expected is None)
        kept = set_aside(
            with_companions(database), time.strftime(".replaced-%Y%m%dT%H%M%SZ", time.gmtime(now))
        )
        _settle(temporary, database)
    finally:
        temporary.unlink(missing_ok=True)
    seal_what_is_there(database, marker, numbers)
    return Restored(manifest=manifest, kept=tuple(kept), secrets=kept_secrets)


def problems(database: Path) -> list[str]:
    """Return everything that is wrong with a database: pages, indexes, and rows that are no records. At most MOST_PROBLEMS."""
    try:
        return (integrity_check(database) or reading(database, _wrong_rows))[:MOST_PROBLEMS]
    except sqlite3.Error as error:
        return [str(error)]


def manifest_of(source: Path) -> Manifest | None:
    """Return what a backup says of itself; None for a database that is no backup. Raises sqlite3.Error."""
    rows = _backup_rows(source, _MANIFEST)
    return msgspec.json.decode(rows[_MANIFEST], type=Manifest) if rows else None


def _secrets_of(source: Path) -> dict[str, bytes]:
    return {
        name.removeprefix(_SECRET): content for name, content in _backup_rows(source, _SECRET + "%").items()
    }


def _backup_rows(source: Path, like: str) -> dict[str, bytes]:
    def look(connection: sqlite3.Connection) -> dict[str, bytes]:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'backup'").fetchone():
            return {}
        return dict(connection.execute("SELECT name, content FROM backup WHERE name LIKE ?", (like,)))

    return reading(source, look)


def _wrong_rows(connection: sqlite3.Connection) -> list[str]:
    wrong: list[str] = []
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"instances", "settings", HISTORY} <= tables:
        return ["expected a database of Tashi, got another one"]
    for table in (name for name in (*RECORDS, HISTORY) if name in tables):  # an older version had fewer
        for key, text in connection.execute(f"SELECT id, record FROM {table} ORDER BY id"):
            try:
                from_text(table, text, key)
            except OurFault as fault:
                wrong.append(fault.message.partition(";")[0])
    return wrong


def _counters(database: Path) -> dict[str, int]:
    return reading(
        database,
        lambda connection: {
            kind: int(text) for kind, text in connection.execute("SELECT id, record FROM counters")
        },
    )


def _present(database: Path) -> tuple[str, dict[str, int]]:
    """The cell and the counters of the database that is to be replaced, as far as they can be read."""
    try:
        return contents(database).cell, _counters(database)
    except (sqlite3.Error, ValueError, OSError):
        return "", {}


def _expected(marker: Marker) -> Expected | None:
    try:
        return marker.read()
    except OurFault:
        return None  # the restore makes a new one


def _copy(source: Path, target: Path) -> Path:
    """A copy of a database beside the target, its log included, in a file of its own that only its owner can read."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    copy = sqlite3.connect(temporary, isolation_level=None)
    try:
        reading(source, lambda connection: connection.backup(copy))
        copy.execute("PRAGMA journal_mode = DELETE")
    except BaseException:
        temporary.unlink()
        raise
    finally:
        copy.close()
    return temporary


def _settle(temporary: Path, target: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(target)
    sync_directory(target.parent)


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
