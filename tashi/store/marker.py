"""The marker: a small file outside the database that says how far the database had come, so that an older copy is noticed.

It holds a lower bound. `Marker.seal` replaces the file and is durable; `Marker.note` overwrites the commit number in place after
each commit, which survives the death of the process but not a power cut. The next seal follows within seconds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from tashi.errors import INTERNAL, OurFault
from tashi.files import write_whole
from tashi.model.marks import Mark

_HEAD: Final = b'{"commits":'
_DIGITS: Final = 20


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the marker says: the last mark, and how many commits the database file has without its write-ahead log."""

    mark: Mark
    checkpointed: int = 0


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    commits: int
    checkpointed: int
    cell: str
    run: str
    numbers: dict[str, int]


class Marker:
    """The marker of one database, for its one writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def read(self) -> Expected | None:
        """Return what the marker says; None when there is no marker. Raises OurFault when it cannot be read."""
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=_File)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, OSError) as error:
            raise OurFault(INTERNAL, f"the marker {self.path} is damaged ({error})") from None
        mark = Mark(cell=found.cell, run=found.run, commits=found.commits, numbers=found.numbers)
        return Expected(mark=mark, checkpointed=found.checkpointed)

    def seal(self, mark: Mark, checkpointed: int) -> None:
        """Replace the marker; it is on the disk when this returns. Raises OSError."""
        rest = {"checkpointed": checkpointed, "cell": mark.cell, "run": mark.run, "numbers": mark.numbers}
        write_whole(
            self.path, _HEAD + b"%*d" % (_DIGITS, mark.commits) + b"," + msgspec.json.encode(rest)[1:] + b"\n"
        )
        self.close()
        self._file = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)

    def note(self, commits: int) -> None:
        """Raise the commit number of a sealed marker. Raises OSError."""
        assert self._file is not None, "seal the marker first"
        os.pwrite(self._file, b"%*d" % (_DIGITS, commits), len(_HEAD))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
