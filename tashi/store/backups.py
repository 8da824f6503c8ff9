"""What is known of backups: the manifest in each, and where the last one of a state directory went."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from tashi.files import write_whole

LAST: Final = "last-backup.json"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a backup says of itself. ``made_at``: seconds since the epoch; ``version``: the Tashi that made it."""

    cell: str
    made_at: float
    version: str
    commits: int
    run: str
    numbers: dict[str, int]
    secrets: tuple[str, ...] = ()


class LastBackup(msgspec.Struct, frozen=True, kw_only=True):
    """When the last backup was made (seconds since the epoch), and where it went."""

    at: float
    file: str


def last(state_dir: Path) -> LastBackup | None:
    """Return the last backup of this state directory; None when there is none, or when its note cannot be read."""
    try:
        return msgspec.json.decode((state_dir / LAST).read_bytes(), type=LastBackup)
    except (OSError, msgspec.DecodeError):
        return None


def note(state_dir: Path, backup: LastBackup) -> None:
    """Remember the last backup. Raises OSError."""
    write_whole(state_dir / LAST, msgspec.json.encode(backup))
