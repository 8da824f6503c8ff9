"""What an agent shows at the door: a secret of its own, made once and kept, and the cell's join secret while it has one."""

from __future__ import annotations

import secrets
from pathlib import Path

from tashi.errors import INTERNAL, OurFault
from tashi.files import write_whole


def own_secret(state_directory: Path) -> str:
    """The agent's own secret in hexadecimal, from ``node.secret``; made there the first time, readable by its owner only."""
    path = state_directory / "node.secret"
    if not path.exists():
        write_whole(path, secrets.token_hex(32))
    return _read_private(path)


def join_secret(path: Path) -> str:
    """The join secret in this file; '' when it is not there."""
    if not path.exists():
        return ""
    return _read_private(path)


def _read_private(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise OurFault(INTERNAL, f"{path} holds a secret and may be read by others; `chmod 600 {path}`")
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise OurFault(INTERNAL, f"the secret in {path} cannot be read: {error.strerror}") from None
