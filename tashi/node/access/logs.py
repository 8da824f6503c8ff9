"""What guests said on their consoles: one file a domain, which libvirt's log daemon writes and cuts into parts when it grows.

The console of a guest that ended by itself is kept for whoever asks why, but not for ever.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.model.names import shown
from tashi.model.questions import LOG_PAGE_BYTES

MOST_SECONDS: Final = 7 * 24 * 3600.0
MOST_LOGS: Final = 1000
MOST_BYTES: Final = 2**30
MOST_PARTS: Final = 9  # beside the newest; virtlogd's max_backups says how many there really are
PRUNE_SECONDS: Final = 600.0


class ConsoleLogs:
    """The logs in one directory, which is made when the first domain is."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pruned = 0.0

    def path(self, name: str) -> Path:
        """The file to which the console of the domain of this name is to be written."""
        return self._directory / f"{name}.log"

    def make_room(self) -> None:
        """Make the directory, if it is not there."""
        self._directory.mkdir(parents=True, exist_ok=True)

    def read(self, name: str, offset: int) -> bytes:
        """At most LOG_PAGE_BYTES of the log from this byte on; none when there is no more, or no log."""
        if "/" in name or offset < 0:
            raise YourMistake(BAD_ARGUMENT, f"{shown(name)} from {offset} on is no part of a console's log")
        for part in self._parts(name):
            with contextlib.suppress(FileNotFoundError):
                size = part.stat().st_size
                if offset < size:
                    with part.open("rb") as stream:
                        stream.seek(offset)
                        return stream.read(LOG_PAGE_BYTES)
                offset -= size
        return b""

    def forget(self, name: str) -> None:
        """Remove the log."""
        for part in self._parts(name):
            part.unlink(missing_ok=True)

    def prune(self, living: Collection[str]) -> None:
        """Of the logs of domains that are no more, keep the newest that are not too old, too many or too long; looks now and then only."""
        moment, now = time.monotonic(), time.time()  # files tell their age by the time of day
        if moment - self._pruned < PRUNE_SECONDS:
            return
        self._pruned = moment
        kept = size = 0
        for written, length, path in sorted(self._ended(living), reverse=True):
            kept, size = kept + 1, size + length
            if now - written > MOST_SECONDS or kept > MOST_LOGS or size > MOST_BYTES:
                path.unlink(missing_ok=True)

    def _parts(self, name: str) -> list[Path]:
        """The files of a log, oldest first, whether they are there or not."""
        whole = self.path(name)
        return [*(whole.with_name(f"{whole.name}.{number}") for number in reversed(range(MOST_PARTS))), whole]

    def _ended(self, living: Collection[str]) -> Iterator[tuple[float, int, Path]]:
        """When each file of a domain that is no more was written last, its length, and where it is."""
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._directory):
                if entry.name.rpartition(".log")[0] not in living:
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        yield status.st_mtime, status.st_size, Path(entry.path)
