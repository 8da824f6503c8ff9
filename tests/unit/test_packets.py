"""What frames say of addresses, and that whatever else comes says nothing."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tashi.node.network.packets import Claim, claim_in

GUEST = bytes.fromhex("525400123456")
OTHER = bytes.fromhex("525400abcdef")
BROADCAST = b"\xff" * 6


def arp(ip: str, sender: bytes = GUEST, source: bytes = GUEST, operation: int = 1) -> bytes:
    """An ARP request or reply."""
    packed = ipaddress.IPv4Address(ip).packed
    return BROADCAST + source + bytes.fromhex("0806000108000604") + operation.to_bytes(2) + sender + packed + bytes(6) + packed


def dhcp(ip: str, kind: int = 5, client: bytes = GUEST, before: bytes = b"", ports: str = "00430044", **header: Any) -> bytes:
    """A DHCP server's message; ``before`` are options that precede its type."""
    message = bytes.fromhex("02010600") + bytes(12) + ipaddress.IPv4Address(ip).packed + bytes(8) + client + bytes(10) + bytes(192)
    message += bytes.fromhex("63825363") + before + bytes([53, 1, kind, 255])
    udp = bytes.fromhex(ports) + (8 + len(message)).to_bytes(2) + bytes(2) + message
    options = header.get("options", b"")
    first = 0x45 + len(options) // 4
    packet = bytes([first, 0]) + bytes(4) + header.get("fragment", b"\0\0") + bytes([64, header.get("protocol", 17)]) + bytes(10)
    return client + OTHER + bytes.fromhex("0800") + packet + options + udp


@pytest.mark.parametrize("operation", [1, 2])
def test_arp(operation: int) -> None:
    """Who asks or answers says its own address; what pads the frame is no matter."""
    claim = Claim(mac="52:54:00:12:34:56", ip="10.0.0.7")
    assert claim_in(arp("10.0.0.7", operation=operation)) == claim == claim_in(arp("10.0.0.7") + bytes(18))


@pytest.mark.parametrize("ip", ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1"])
def test_no_address(ip: str) -> None:
    """A probe, and what no host can have, is no address."""
    assert claim_in(arp(ip)) is None
    assert claim_in(dhcp(ip)) is None


def test_speaking_for_another() -> None:
    """An ARP packet that names another card than the one that sent it is not believed."""
    assert claim_in(arp("10.0.0.7", sender=OTHER)) is None


@pytest.mark.parametrize("before", [b"", b"\0\0", bytes([54, 4, 10, 0, 0, 1, 0]), bytes([12, 0])])
def test_dhcp(before: bytes) -> None:
    """A server's acknowledgement says what the client got, wherever its type stands."""
    assert claim_in(dhcp("10.0.0.9", before=before)) == Claim(mac="52:54:00:12:34:56", ip="10.0.0.9", leased=True)
    assert claim_in(dhcp("10.0.0.9", before=before, options=bytes(8))) is not None


@pytest.mark.parametrize(
    "frame",
    [
        dhcp("10.0.0.9", kind=2),
        dhcp("10.0.0.9", ports="00440043"),
        dhcp("10.0.0.9", protocol=6),
        dhcp("10.0.0.9", fragment=b"\x20\0"),
        dhcp("10.0.0.9", before=b"\xff"),
        dhcp("10.0.0.9")[:-2],
    ],
    ids=["offer", "to the server", "tcp", "fragment", "type behind the end", "cut off"],
)
def test_no_lease(frame: bytes) -> None:
    """Only a whole acknowledgement is one."""
    assert claim_in(frame) is None


@given(st.binary(max_size=600))
def test_garbage(frame: bytes) -> None:
    """Whatever a guest sends is a claim or nothing."""
    assert claim_in(frame) is None or isinstance(claim_in(frame), Claim)


@given(st.sampled_from([arp("10.0.0.7"), dhcp("10.0.0.9"), dhcp("10.0.0.9", before=bytes([12, 200]))]), st.data())
def test_damaged(frame: bytes, data: st.DataObject) -> None:
    """A frame that is cut, or has a byte changed, is a claim of some address or nothing."""
    place = data.draw(st.integers(0, len(frame) - 1))
    byte = data.draw(st.binary(min_size=1, max_size=1))
    for damaged in (frame[:place], frame[:place] + byte + frame[place + 1 :]):
        claim = claim_in(damaged)
        assert claim is None or ipaddress.IPv4Address(claim.ip)
