"""What an image file is, read from its first bytes by ourselves before any program of the host touches it.

An image names nothing outside itself: one with a backing file, an external data file or encryption is refused, as are the formats that
are made of several files or that qemu reads badly. What carries no known mark is raw, and is always handed on as raw: never guessed again.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from typing import Final

import msgspec

from tashi.errors import UNKNOWN_IMAGE, OurFault, YourMistake
from tashi.model.names import check_image

HEADER_BYTES: Final = 4096
MAX_VIRTUAL_BYTES: Final = 2 * 2**40
_QCOW2: Final = b"QFI\xfb"
_REFUSED: Final = (  # (offset, mark, name)
    (0, b"QED\0", "QED"),
    (0, b"KDMV", "VMDK"),
    (0, b"COWD", "VMDK"),
    (0, b"# Disk DescriptorFile", "VMDK"),
    (0x40, b"\x7f\x10\xda\xbe", "VDI"),
    (0, b"conectix", "VHD"),
    (0, b"vhdxfile", "VHDX"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (0, b"LUKS\xba\xbe", "LUKS"),
)
_VMDK_DESCRIPTOR: Final = re.compile(rb"\s*(#[^\n]*\n\s*)*version\s*=\s*\d", re.ASCII)
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = 1, 2, 4, 8, 16
_KNOWN_BITS: Final = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _EXTENDED_L2
_DATA_FILE_EXTENSION: Final = 0x44415441


class DiskImage(msgspec.Struct, frozen=True, kw_only=True):
    """A file that may be used as a disk: ``format`` is raw or qcow2, ``virtual_size`` the bytes a guest sees."""

    path: str
    format: str
    virtual_size: int


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
    return descriptor, DiskImage(path=path, format=format_, virtual_size=virtual_size)


def sniff(name: str, head: bytes, size: int) -> tuple[str, int]:
    """Format and virtual size in bytes from the first bytes of a file of ``size`` bytes; ``name`` is for the words of a refusal."""
    for offset, mark, kind in _REFUSED:
        if head[offset : offset + len(mark)] == mark:
            raise _refusal(name, f"is a {kind} image; convert it with `qemu-img convert -O qcow2`")
    if _VMDK_DESCRIPTOR.match(head[:4096]):
        raise _refusal(name, "is a VMDK descriptor, which names other files; convert it with `qemu-img convert -O qcow2`")
    if head.startswith(_QCOW2):
        format_, virtual_size = "qcow2", _check_qcow2(name, head)
    else:
        format_, virtual_size = "raw", size
    if not 0 < virtual_size <= MAX_VIRTUAL_BYTES:
        raise _refusal(name, f"has {virtual_size} bytes as a disk; between 1 and {MAX_VIRTUAL_BYTES} are allowed")
    return format_, virtual_size


def _check_qcow2(name: str, head: bytes) -> int:
    """The virtual size of a qcow2 image that stands alone."""
    if len(head) < 72:
        raise _refusal(name, "ends inside its qcow2 header")
    version, backing_offset, _, _, virtual_size, encryption = struct.unpack_from(">IQIIQI", head, 4)
    if version not in (2, 3):
        raise _refusal(name, f"is qcow version {version}; versions 2 and 3 are supported")
    if backing_offset:
        raise _refusal(name, "names a backing file; make it stand alone with `qemu-img rebase -b ''` or `qemu-img convert`")
    if encryption:
        raise _refusal(name, "is encrypted")
    header_length = 72
    if version == 3:
        if len(head) < 104:
            raise _refusal(name, "ends inside its qcow2 header")
        (features,) = struct.unpack_from(">Q", head, 72)
        (header_length,) = struct.unpack_from(">I", head, 100)
        if features & _DATA_FILE:
            raise _refusal(name, "keeps its data in another file; convert it with `qemu-img convert -O qcow2`")
        if features & _CORRUPT:
            raise _refusal(name, "is marked corrupt; look at it with `qemu-img check`")
        if features & ~_KNOWN_BITS:
            raise _refusal(name, f"uses unknown qcow2 features ({features & ~_KNOWN_BITS:#x})")
    _check_extensions(name, head, header_length)
    return int(virtual_size)


def _check_extensions(name: str, head: bytes, offset: int) -> None:
    """No header extension may name a data file, whatever the feature bits claim."""
    while offset + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, offset)
        if kind == 0:
            return
        if kind == _DATA_FILE_EXTENSION:
            raise _refusal(name, "names an external data file; convert it with `qemu-img convert -O qcow2`")
        offset += 8 + (length + 7) // 8 * 8


def _refusal(name: str, why: str) -> OurFault:
    return OurFault(UNKNOWN_IMAGE, f"the image {name} {why}")
