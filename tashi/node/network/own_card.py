"""The card of this machine that has an address: the one by which the control plane is reached is the one that a magic packet wakes."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path
from typing import Final

_SIOCGIFADDR: Final = 0x8915  # <linux/sockios.h>
_IFREQ: Final = 40  # bytes of a struct ifreq
_DEVICES: Final = Path("/sys/class/net")


def mac_of(address: str) -> str:
    """The MAC address of the network device that has this IP address, such as 52:54:00:12:34:56; empty where there is none."""
    try:
        wanted = ipaddress.ip_address(address)
    except ValueError:
        return ""
    name = _name_of_six(wanted) if isinstance(wanted, ipaddress.IPv6Address) else _name_of_four(wanted)
    try:
        mac = (_DEVICES / name / "address").read_text().strip() if name else ""
    except OSError:
        return ""
    return "" if not mac.strip("0:") else mac


def _name_of_four(wanted: ipaddress.IPv4Address) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack(f"{_IFREQ}s", name.encode()))
            except OSError:
                continue  # it has no address
            if found[20:24] == wanted.packed:
                return name
    return ""


def _name_of_six(wanted: ipaddress.IPv6Address) -> str:
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return ""
    return next((words[-1] for words in map(str.split, lines) if words[0] == wanted.packed.hex()), "")
