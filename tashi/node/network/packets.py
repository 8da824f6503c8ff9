"""What a frame on a guest's wire says of an address: bytes in, a claim or nothing out. Pure, and never surprised by what comes.

ARP: whoever speaks says its own address, but for a probe (0.0.0.0). DHCP: the server's acknowledgement says the client's. IPv4 only.
"""

from __future__ import annotations

import ipaddress
from typing import Final

import msgspec

_ETHERNET: Final = 14
_ARP: Final = b"\x08\x06"
_IPV4: Final = b"\x08\x00"
_ARP_OF_IPV4: Final = b"\x00\x01\x08\x00\x06\x04"  # Ethernet, IPv4, and the lengths of their addresses
_UDP: Final = 17
_SERVER_TO_CLIENT: Final = b"\x00\x43\x00\x44"
_BOOTREPLY: Final = b"\x02\x01\x06"  # a reply, Ethernet, and the length of its addresses
_COOKIE: Final = b"\x63\x82\x53\x63"
_OPTIONS: Final = 236 + len(_COOKIE)
_MESSAGE_TYPE, _PAD, _END, _ACK = 53, 0, 255, b"\x05"


class Claim(msgspec.Struct, frozen=True):
    """That the card with this MAC address has this IP address; ``leased``: a DHCP server says so, else the sender of the frame itself."""

    mac: str
    ip: str
    leased: bool = False


def claim_in(frame: bytes) -> Claim | None:
    """What an Ethernet frame claims; None when it claims nothing, or is not whole."""
    kind, body = frame[12:_ETHERNET], frame[_ETHERNET:]
    if kind == _ARP:
        return _arp(frame[6:12], body)
    return _dhcp(body) if kind == _IPV4 else None


def _arp(sender: bytes, packet: bytes) -> Claim | None:
    if len(packet) < 28 or packet[:6] != _ARP_OF_IPV4 or packet[8:14] != sender:
        return None  # who says it of another than itself is not believed
    return _claim(sender, packet[14:18], leased=False)


def _dhcp(packet: bytes) -> Claim | None:
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != _UDP or int.from_bytes(packet[6:8]) & 0x3FFF:
        return None  # no UDP, or a fragment
    datagram = packet[4 * (packet[0] & 15) :]
    message = datagram[8:]
    if datagram[:4] != _SERVER_TO_CLIENT or message[:3] != _BOOTREPLY or message[_OPTIONS - 4 : _OPTIONS] != _COOKIE:
        return None
    return _claim(message[28:34], message[16:20], leased=True) if _message_type(message[_OPTIONS:]) == _ACK else None


def _message_type(options: bytes) -> bytes | None:
    place = 0
    while place < len(options) and options[place] != _END:
        if options[place] == _PAD:
            place += 1
            continue
        value = options[place + 2 : place + 2 + options[place + 1]] if place + 1 < len(options) else b""
        if options[place] == _MESSAGE_TYPE:
            return value
        place += 2 + len(value)
    return None


def _claim(mac: bytes, address: bytes, leased: bool) -> Claim | None:
    ip = ipaddress.IPv4Address(address)
    if ip.is_unspecified or ip.is_multicast or ip.is_loopback or ip.is_reserved:  # a probe, or no address of a host
        return None
    return Claim(mac=mac.hex(":"), ip=str(ip), leased=leased)
