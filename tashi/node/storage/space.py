"""What is said when a file system has no room: which directory, what it was for, how much is missing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from tashi.errors import INTERNAL, OurFault

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def free_bytes(directory: Path) -> int:
    """What may still be written to the file system of the directory, which need not exist yet."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def require(directory: Path, size: int, what: str) -> None:
    """OurFault when the directory's file system has not so many bytes left."""
    free = free_bytes(directory)
    if size > free:
        raise OurFault(INTERNAL, f"{what} needs {in_words(size)}, and {directory} has {in_words(free)} free; make room there")


def fault(error: OSError, directory: Path, what: str) -> OurFault:
    """The words for what could not be written there."""
    if error.errno in _FULL:
        return OurFault(INTERNAL, f"{what} was not made: {directory} is full ({in_words(free_bytes(directory))} free); make room there")
    return OurFault(INTERNAL, f"{what} was not made in {directory}: {error.strerror or error}")


def in_words(size: float) -> str:
    """So many bytes in the largest unit that leaves a whole part."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
