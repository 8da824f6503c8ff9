"""The image directory as the cluster manager sees it: which images there are, and which one a name means.

Whether an image's content is what it claims is looked at on the host that uses it, at the moment of use.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
from pathlib import Path

import msgspec

from tashi.errors import UNKNOWN_IMAGE, YourMistake
from tashi.model.names import check_image

_SUFFIXES = ("", ".img", ".qcow2")


class Image(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One image: ``image_size`` in words, as in 1.76G."""

    id: int
    image_name: str
    image_size: str


class ImageDirectory:
    """The plain files directly inside ``path``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def resolve(self, identifier: str) -> str:
        """The file name for an image's name, given with or without its ending.

        Raises YourMistake: bad-argument for what cannot be a name, unknown-image when there is no such file.
        """
        check_image("imageIdentifier", identifier)
        for suffix in _SUFFIXES:
            if self._is_plain_file(identifier + suffix):
                return identifier + suffix
        raise YourMistake(UNKNOWN_IMAGE, f"there is no image {identifier} in {self.path}; see `tashi getImages`")

    def list(self) -> list[Image]:
        """All images, by name; a copy that is not finished is none."""
        sizes: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.path):
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                        sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        return [Image(id=place, image_name=name, image_size=_in_words(size)) for place, (name, size) in enumerate(sorted(sizes.items()))]

    def forget_saved(self, saved: str) -> None:
        """Remove what a suspended instance has left beside the images, in a thread: the files may be large."""
        path = Path(self.path).parent / saved

        def remove() -> None:
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


def _in_words(size: float) -> str:
    for unit in "BKMGT":
        if size < 1024 or unit == "T":
            break
        size /= 1024
    return f"{size:.1f}B" if unit == "B" else f"{size:.2f}{unit}"
