"""Files that are whole whenever they are there, files that only their owner may read, and files that one process at a time holds."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import IO, Final

from tashi.errors import INTERNAL, OurFault

SHORTEST_SECRET: Final = 32
"""Characters of a secret that nobody can guess."""


def write_whole(path: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Replace the file durably; unless ``mode`` says otherwise only its owner can read it. Raises OSError."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make what was renamed in this directory survive a power cut. Raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_secret(path: Path, remedy: str, *, follow: bool = False) -> str:
    """Return the secret in a file that belongs to root or to the caller and that nobody else may read.

    ``remedy`` tells what to do about an unusable secret. ``follow``: the file may be a symbolic link. Raises OurFault.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OurFault(INTERNAL, f"{path}: expected a regular file that holds a secret; {remedy}")
            if status.st_uid not in (0, os.geteuid()):
                raise OurFault(INTERNAL, f"{path}: holds a secret and belongs to user {status.st_uid}; {remedy}")
            if status.st_mode & 0o077:
                raise OurFault(INTERNAL, f"{path}: holds a secret and may be read by others; `chmod 600 {path}`")
            text = os.read(descriptor, 4096).decode("ascii").strip()
        finally:
            os.close(descriptor)
    except UnicodeDecodeError:
        raise OurFault(INTERNAL, f"{path}: expected a secret of ASCII characters; {remedy}") from None
    except OSError as error:
        if path.is_symlink() and not follow:
            raise OurFault(INTERNAL, f"{path}: expected a regular file that holds a secret, got a symbolic link; {remedy}") from None
        raise OurFault(INTERNAL, f"the secret in {path} cannot be read: {error.strerror}") from None
    if len(text) < SHORTEST_SECRET:
        count = f"{len(text)} characters" if text else "an empty file"
        raise OurFault(INTERNAL, f"{path}: expected a secret of at least {SHORTEST_SECRET} characters, got {count}; {remedy}")
    return text


def hold(path: Path) -> IO[str] | None:
    """Lock the file for as long as the result is open; None: another process holds it. The kernel ends the lock with its process.

    Only its owner may open the file, since whoever may open it may lock it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o600), "r+")
    if os.fstat(file.fileno()).st_mode & 0o077:
        os.fchmod(file.fileno(), 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
