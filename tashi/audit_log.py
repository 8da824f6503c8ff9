"""The audit log: one JSON line per record in a file of its own, rotated by size; what cannot be written never stops the cell.

Each line names who asked by which door for which verb on what, and the result: {"timestamp", "who", "door", "verb", "target", "result"},
and a "count" where several refusals are told as one.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from twisted.logger import Logger

MODE: Final = 0o640
"""The owner may read and write, the group may read."""


class AuditLog:
    """Appends lines to the file at ``path``.

    A file that grows beyond ``size`` bytes becomes PATH.1, and so on up to PATH.``kept``; 0 for ``size``: it never does. A file that
    another program has moved away is made anew before the next line.
    """

    log = Logger()

    def __init__(self, path: Path, size: int, kept: int) -> None:
        self._path = path
        self._size = size
        self._kept = kept
        self._file = -1
        self._torn = False
        self.missing = 0
        """How many records could not be written since the last that could."""

    def write(self, line: str) -> None:
        """Append one line. An error is logged once, until a line can be written again."""
        data = line.encode() + b"\n"
        try:
            self._prepare(len(data))
            self._append(data)
        except OSError as error:
            self.missing += 1
            if self.missing == 1:
                self.log.error("cannot write the audit log {path}: {why}; records are missing from it", path=self._path, why=error.strerror)
            return
        if self.missing:
            self.log.warn("the audit log {path} is written again; {count} records are missing", path=self._path, count=self.missing)
            self.missing = 0

    def reopen(self) -> None:
        """Close the file; the next line opens, or makes, what then has its name."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _prepare(self, length: int) -> None:
        status = os.fstat(self._file) if self._file >= 0 else None
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(self._path, follow_symlinks=False)
            if status is not None and os.path.samestat(status, there):
                if not self._size or status.st_size + length <= self._size or not status.st_size:
                    return
                self._rotate()
        self.reopen()
        # O_NONBLOCK: a pipe that nobody reads is an error, and does not stop the cell.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        self._file = os.open(self._path, flags, MODE)
        if stat.S_ISREG(os.fstat(self._file).st_mode):
            os.fchmod(self._file, MODE)  # whatever the umask is

    def _rotate(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{number}") for number in range(1, self._kept + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        if not self._kept:
            self._path.unlink()

    def _append(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        while data:
            written = os.write(self._file, data)
            data = data[written:]
            self._torn = bool(data)
        self._torn = False
