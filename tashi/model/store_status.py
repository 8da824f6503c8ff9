"""How the store of a cell is, for `tashi status`."""

from __future__ import annotations

import msgspec


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Sizes are in bytes, ``last_backup`` in seconds since the epoch.

    ``state`` is "ok", or "away" while commits fail: ``away_seconds`` and ``reason`` say for how long and why. ``last_backup`` is None when
    `tashi db backup` was never run here. ``warnings`` are sentences for the operator.
    """

    kind: str
    path: str = ""
    state: str = "ok"
    away_seconds: float = 0.0
    reason: str = ""
    commits: int = 0
    bytes: int = 0
    log_bytes: int = 0
    last_backup: float | None = None
    last_backup_file: str = ""
    warnings: tuple[str, ...] = ()
