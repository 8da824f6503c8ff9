"""What an operator accepts by hand: to start with the records that are left, once.

`tashi db accept-loss` leaves a token in the state directory; it is good for one start and for the loss that it was made for.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from tashi.errors import CONFLICT, OurFault
from tashi.files import sync_directory, write_whole
from tashi.model.marks import CELL, LOSS, Loss, beyond, highest
from tashi.store.sqlite_file import Finding, State, log_of, with_companions
from tashi.store.sqlite_schema import migrate

TOKEN: Final = "accept-loss"


def write_token(state_dir: Path, finding: Finding) -> None:
    """Let the next start accept this loss. Raises OSError."""
    write_whole(state_dir / TOKEN, msgspec.json.encode(finding.mark))


def take_token(state_dir: Path, finding: Finding) -> bool:
    """Return whether the operator has accepted this loss. A token for another one is removed."""
    path = state_dir / TOKEN
    try:
        accepted = path.read_bytes() == msgspec.json.encode(finding.mark) and finding.state is not State.WHOLE
    except FileNotFoundError:
        return False
    if not accepted:
        drop_token(state_dir)
    return accepted


def drop_token(state_dir: Path) -> None:
    """Forget what was accepted."""
    (state_dir / TOKEN).unlink(missing_ok=True)


def accept(path: Path, finding: Finding, now: float) -> list[Path]:
    """Make a database of what is left, with the `Loss` in it for the cluster manager; return the files that were set aside.

    ``now``: seconds since the epoch. Raises OurFault for the database of another cell, sqlite3.Error and OSError.
    """
    if finding.state is State.OTHER_CELL:
        words = "a database of another cell is never accepted; put the right one in its place, or choose another stateDir"
        raise OurFault(CONFLICT, f"{finding.problem}; {words}")
    suffix = time.strftime(".lost-%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside: list[Path] = []
    match finding.state:
        case State.UNUSABLE:
            aside = set_aside(with_companions(path), suffix)
        case State.FOREIGN_LOG:
            aside = set_aside(with_companions(path)[1:], suffix)
        case _ if log_of(path).exists():
            kept = log_of(path).with_name(log_of(path).name + suffix)
            shutil.copy2(log_of(path), kept)
            aside = [kept]
    put_loss(
        path, finding.problem, finding.mark.numbers, finding.mark.cell, unmarked=finding.expected is None
    )
    return aside


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
