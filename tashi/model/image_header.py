"""What an image file is, read from its first bytes. Pure: bytes in, format and size out.

An image names nothing outside itself: one with a backing file, an external data file or encryption is refused, as are the formats that
are made of several files or that qemu reads badly. What carries no known mark is raw.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from tashi.errors import UNKNOWN_IMAGE, OurFault

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
