"""A socket at the host's end of a guest's wire, which hears only what may tell an address: ARP, and what a DHCP server says."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

_ETH_P_ALL: Final = 3  # what goes to the guest is heard, too
_SO_ATTACH_FILTER: Final = 26
_BUFFER_BYTES: Final = 32 * 1024  # what a guest sends faster than it is read is lost, and no loss
LONGEST_FRAME: Final = 2048

_LOAD_16, _LOAD_8, _LOAD_16_AT_X, _LENGTH_TO_X = 0x28, 0x30, 0x48, 0xB1
_IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x15, 0x45, 0x06
_FILTER: Final = (  # operation, steps to skip if it holds, and if not, operand
    (_LOAD_16, 0, 0, 12),
    (_IF_EQUAL, 8, 0, 0x0806),  # ARP
    (_IF_EQUAL, 0, 8, 0x0800),
    (_LOAD_8, 0, 0, 23),
    (_IF_EQUAL, 0, 6, 17),  # UDP
    (_LOAD_16, 0, 0, 20),
    (_IF_ANY_BIT, 4, 0, 0x1FFF),  # not the first fragment
    (_LENGTH_TO_X, 0, 0, 14),
    (_LOAD_16_AT_X, 0, 0, 14),
    (_IF_EQUAL, 0, 1, 67),  # from a DHCP server
    (_RETURN, 0, 0, LONGEST_FRAME),
    (_RETURN, 0, 0, 0),
)
"""In the words of the kernel's packet filter."""


def listen(tap: str) -> socket.socket:
    """A socket that hears the tap device, and never blocks; OSError when there is none or we may not."""
    heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)  # protocol 0: nothing, until it is bound
    try:
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _FILTER))
        heard.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(_FILTER), ctypes.addressof(program)))
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        heard.bind((tap, _ETH_P_ALL))
    except BaseException:
        heard.close()
        raise
    return heard
