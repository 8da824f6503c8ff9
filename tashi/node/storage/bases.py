"""What lies beneath an overlay, so that it is noticed when somebody puts another file in its place.

An overlay holds only what was written; the rest is read from the image. Over another image it is not the guest's disk any more. So the
overlay's directory keeps the inode, the size and the time of modification of each image, and who lets a domain go on compares them.

The inode tells a file that was moved here from the one that was here, even if both were built to have the same time and size. Size and
time tell a file that was written over. All clients of a file server see the same three. The device number differs between clients, and
the time of the last status change is another after a hard link, so that neither is kept.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from tashi.errors import CONFLICT, INTERNAL, OurFault
from tashi.files import write_whole

BASES: Final = "bases.json"
"""The images beneath the overlays of a directory."""
AT_REST: Final = "at-rest.json"
"""All images and persistent disks of a suspended domain, as they were when it was."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which file it is, in which version: ``modified`` in nanoseconds since the epoch."""

    inode: int
    size: int
    modified: int


def identity_of(status: os.stat_result) -> Identity:
    """Return the identity of a file that was looked at."""
    return Identity(inode=status.st_ino, size=status.st_size, modified=status.st_mtime_ns)


def keep(record: Path, identities: Mapping[str, Identity]) -> None:
    """Write down which image is which; an empty mapping is not written. OSError."""
    if identities:
        write_whole(record, msgspec.json.encode(identities))


def keep_present(record: Path, images: Path, names: Iterable[str], beneath: Iterable[Path]) -> None:
    """Write down which these files of the image directory are: those that a record ``beneath`` overlays names as it has them, for
    another file in their place is not the guest's; all others, such as persistent disks, as they are now. OSError."""
    known: dict[str, Identity] = {}
    for other in beneath:
        with contextlib.suppress(OurFault):  # whoever resumes the domain is told that it is damaged
            known |= _read(other)
    keep(record, {name: known.get(name) or _present(images / name) for name in sorted(set(names))})


def check(record: Path, images: Path) -> None:
    """Compare the images with what was written down. OurFault names the first that is another one, and what to do; without a
    record, as an older version left it, there is nothing to compare with."""
    for name, identity in _read(record).items():
        try:
            present = _present(images / name)
        except FileNotFoundError:
            raise OurFault(CONFLICT, f"the instance needs {name}, which is missing in {images}; put it back") from None
        if present != identity:
            raise OurFault(
                CONFLICT,
                f"{name} is not the file that the instance had: expected {_in_words(identity)}, got {_in_words(present)}; "
                f"put the former file back, or if the content is the same, remove {record}",
            )


def _read(record: Path) -> dict[str, Identity]:
    """What was written down; nothing where no record is."""
    try:
        return msgspec.json.decode(record.read_bytes(), type=dict[str, Identity])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError:
        raise OurFault(INTERNAL, f"{record} is damaged; remove it to accept the images as they are now") from None


def _present(path: Path) -> Identity:
    """The file as it is now; it is opened so that a client of a file server asks the server."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return identity_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _in_words(identity: Identity) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(identity.modified // 10**9))
    return f"inode {identity.inode}, {identity.size} bytes, {seconds}"
