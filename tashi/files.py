"""Files that are whole whenever they are there: a reader, or a crash, sees the old content or the new."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Replace the file; unless ``mode`` says otherwise only its owner can read it. Raises OSError."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
