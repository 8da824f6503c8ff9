"""The image directory as the cluster manager sees it: which files there are, and which one a name means.

A host looks at an image again at the moment of use. What is read here only keeps files out of the list that a
host would refuse.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from tashi.errors import UNKNOWN_IMAGE, TashiError, YourMistake
from tashi.model.image_header import HEADER_BYTES, sniff
from tashi.model.instance import is_former_name
from tashi.model.names import check_image
from tashi.model.saved import HEAD_BYTES, xml_of_saved

_SUFFIXES = ("", ".img", ".qcow2")


class ImageFile(msgspec.Struct, frozen=True, kw_only=True):
    """One plain file: ``size`` in words, as in 1.76G. ``refused``: why no instance can have it; empty: one can, as
    far as is known."""

    name: str
    size: str
    refused: str = ""


class ImageDirectory:
    """The plain files directly inside ``path``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._headers: dict[str, tuple[tuple[int, int, int], str]] = {}
        """For each file that was read its inode, size and modification time, and why it is refused."""

    def resolve(self, identifier: str, may_use: Callable[[str], bool]) -> str:
        """Return the file name for an image's name, given with or without its ending. A file that ``may_use``
        rejects is not there.

        Raises YourMistake: bad-argument for what cannot be a name, unknown-image when there is no such file.
        """
        check_image("imageIdentifier", identifier)
        for suffix in _SUFFIXES:
            if self._is_plain_file(identifier + suffix) and may_use(identifier + suffix):
                return identifier + suffix
        raise YourMistake(UNKNOWN_IMAGE, f"there is no image {identifier} in {self.path}; see `tashi getImages`")

    def list(self) -> list[ImageFile]:
        """Return all files by name; hidden ones, such as a copy that is not finished, are left out."""
        found: dict[str, os.stat_result] = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.path):
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                        found[entry.name] = entry.stat(follow_symlinks=False)
        self._headers = {name: header for name, header in self._headers.items() if name in found}
        return [
            ImageFile(name=name, size=_in_words(status.st_size), refused=self._refusal(name, status))
            for name, status in sorted(found.items())
        ]

    def _refusal(self, name: str, status: os.stat_result) -> str:
        """Why a host would refuse the file; each version of it is read once."""
        version = status.st_ino, status.st_size, status.st_mtime_ns
        known = self._headers.get(name)
        if known is not None and known[0] == version:
            return known[1]
        try:
            check_image("imageIdentifier", name)
            sniff(name, _head(os.path.join(self.path, name)), status.st_size)
            refused = ""
        except TashiError as error:
            refused = error.message
        except OSError:
            return ""  # the hosts may be able to read it
        self._headers[name] = version, refused
        return refused

    def may_be_saved(self, saved: str) -> bool:
        """Return whether a suspended instance's memory is kept beside the images, or may be: without them the share is not there."""
        path = Path(self.path).parent / saved
        return path.exists() or path.with_name(f"{path.name}.part").exists() or not os.path.isdir(self.path)

    def is_saved(self, saved: str) -> bool:
        """Return whether a suspended instance's memory is kept beside the images, all of it."""
        return (Path(self.path).parent / saved).is_file()

    def forget_saved(self, saved: str, cell: str) -> None:
        """Remove what a suspended instance has left beside the images, in a thread: the files may be large. What does not say by its
        name whose it is stays unless its content says that it is of this cell."""
        path = Path(self.path).parent / saved

        def remove() -> None:
            if is_former_name(saved) and not _is_of_cell(path, cell):
                return
            for file in (path, path.with_name(f"{path.name}.part")):
                with contextlib.suppress(OSError):  # nothing is lost but room
                    file.unlink(missing_ok=True)
            shutil.rmtree(path.with_name(f"{path.name}.disks"), ignore_errors=True)

        threading.Thread(target=remove, daemon=True).start()

    def _is_plain_file(self, name: str) -> bool:
        try:
            return stat.S_ISREG(os.lstat(os.path.join(self.path, name)).st_mode)
        except OSError:
            return False


def _head(path: str) -> bytes:
    """The first bytes of a plain file; OSError when it is something else or cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, HEADER_BYTES, 0)
    finally:
        os.close(descriptor)


def _in_words(size: float) -> str:
    for unit in "BKMGT":
        if size < 1024 or unit == "T":
            break
        size /= 1024
    return f"{size:.1f}B" if unit == "B" else f"{size:.2f}{unit}"


def _is_of_cell(path: Path, cell: str) -> bool:
    """Whether the memory in this file is of a domain that names this cell."""
    try:
        with path.open("rb") as file:
            return bool(cell) and cell in xml_of_saved(file.read(HEAD_BYTES))
    except OSError:
        return False
