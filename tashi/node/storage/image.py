"""Image files as a host uses them: each looked at by ourselves before any program of the host touches it, then never guessed again."""

from __future__ import annotations

import os
import stat

import msgspec

from tashi.errors import UNKNOWN_IMAGE, OurFault, YourMistake
from tashi.model.image_header import HEADER_BYTES, sniff
from tashi.model.names import check_image
from tashi.node.storage.bases import Identity, identity_of


class DiskImage(msgspec.Struct, frozen=True, kw_only=True):
    """A file that may be used as a disk: ``format`` is raw or qcow2, ``virtual_size`` the bytes a guest sees."""

    path: str
    format: str
    virtual_size: int
    identity: Identity


def read_image(directory: str, name: str) -> DiskImage:
    """The image of this name in the directory; OurFault(unknown-image) when there is none or it may not be used."""
    descriptor, image = open_image(directory, name)
    os.close(descriptor)
    return image


def open_image(directory: str, name: str) -> tuple[int, DiskImage]:
    """The same with the image open for reading, which the caller closes: so that what was looked at is what is read."""
    try:
        check_image("uri", name)
    except YourMistake as error:
        raise OurFault(UNKNOWN_IMAGE, error.message) from None
    path = os.path.join(directory, name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise OurFault(UNKNOWN_IMAGE, f"the image {name} cannot be opened in {directory}: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OurFault(UNKNOWN_IMAGE, f"the image {name} in {directory} is not a regular file; put the image itself there")
        format_, virtual_size = sniff(name, os.pread(descriptor, HEADER_BYTES, 0), status.st_size)
    except BaseException:
        os.close(descriptor)
        raise
    identity = identity_of(status)
    return descriptor, DiskImage(path=path, format=format_, virtual_size=virtual_size, identity=identity)
