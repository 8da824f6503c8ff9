"""The file in which libvirt's QEMU driver keeps a suspended domain's memory. Pure: its first bytes in, the domain's XML out.

It begins with a header of 92 bytes, whose second number is the length of the XML that follows.
"""

from __future__ import annotations

import struct
from typing import Final

HEAD_BYTES: Final = 1024 * 1024
"""How much of a file is to be read for its XML, which is far smaller."""
_HEADER_BYTES: Final = 92
_MAGICS: Final = (b"LibvirtQemudSave", b"LibvirtQemudPart")  # whole, and still being written


def xml_of_saved(head: bytes) -> str:
    """Return the XML of the domain whose memory the file keeps; '' when this is the beginning of another file."""
    if len(head) < _HEADER_BYTES or not head.startswith(_MAGICS):
        return ""
    _, length = struct.unpack_from("=II", head, len(_MAGICS[0]))
    xml, _, _ = head[_HEADER_BYTES : _HEADER_BYTES + min(length, HEAD_BYTES)].partition(b"\0")  # a cookie may follow
    return xml.decode(errors="replace")
