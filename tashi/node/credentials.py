"""What an agent shows at the door: a secret of its own, made once and kept, and the cell's join secret while it has one."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from tashi.files import read_secret, write_whole
from tashi.model.marks import MOST_TEXT

_MARK: Final = "cell.mark"


def own_secret(state_directory: Path) -> str:
    """Return the agent's own secret from ``node.secret``, made there the first time. OurFault when it is unusable."""
    path = state_directory / "node.secret"
    if not path.exists() and not path.is_symlink():
        write_whole(path, secrets.token_hex(32))
    return read_secret(path, "remove it, unregister this host with `tashi unregisterHost`, and start the agent: it makes a new one")


def join_secret(path: Path) -> str:
    """Return the join secret in this file; '' when there is no file. OurFault when it is unusable."""
    if not path.exists():
        return ""
    return read_secret(path, "copy join.secret from the control plane's state directory again", follow=True)


def kept_mark(state_directory: Path) -> str:
    """Return the last mark that the control plane told; '' when there is none, or none that can be read."""
    try:
        with (state_directory / _MARK).open(encoding="ascii") as file:
            return file.read(MOST_TEXT)
    except (OSError, UnicodeDecodeError):
        return ""


def keep_mark(state_directory: Path, mark: str) -> None:
    """Keep a mark of the control plane for the next login; a longer text than a mark is not kept. Raises OSError."""
    if mark.isascii() and len(mark) <= MOST_TEXT:
        write_whole(state_directory / _MARK, mark)
