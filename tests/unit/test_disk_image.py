"""Which files may be a disk: told by their first bytes, never by their names."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tashi.errors import OurFault
from tashi.model.image_header import HEADER_BYTES, MAX_VIRTUAL_BYTES, sniff
from tashi.node.storage.image import read_image

MEGABYTE = 2**20


def qcow2(
    version: int = 3,
    size: int = MEGABYTE,
    backing: int = 0,
    encryption: int = 0,
    features: int = 0,
    extensions: bytes = b"",
) -> bytes:
    """The first bytes of a qcow2 image."""
    head = b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", version, backing, 0, 16, size, encryption, 1, 0x30000, 0x10000, 1, 0, 0)
    if version >= 3:
        head += struct.pack(">QQQII", features, 0, 0, 4, 104)
    return head + extensions + bytes(8)


@pytest.mark.parametrize("version", [2, 3])
def test_qcow2(version: int) -> None:
    """A qcow2 image that stands alone is one, with the size that it says."""
    assert sniff("a", qcow2(version, size=5 * MEGABYTE), 200_000) == ("qcow2", 5 * MEGABYTE)


def test_raw() -> None:
    """What has no mark is raw, as long as its file."""
    assert sniff("a", b"\xeb\x58\x90SYSLINUX", MEGABYTE) == ("raw", MEGABYTE)


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (qcow2(backing=112), "backing file"),
        (qcow2(2, backing=72), "backing file"),
        (qcow2(features=4), "another file"),
        (qcow2(extensions=struct.pack(">II8s", 0x44415441, 8, b"/etc/pas")), "data file"),
        (qcow2(extensions=struct.pack(">II8s", 0xE2792ACA, 3, b"raw") + struct.pack(">II8s", 0x44415441, 8, b"/etc/pas")), "data file"),
        (qcow2(encryption=1), "encrypted"),
        (qcow2(features=2), "corrupt"),
        (qcow2(features=1 << 40), "unknown"),
        (qcow2(1), "version 1"),
        (qcow2(4), "version 4"),
        (qcow2()[:40], "ends"),
        (qcow2()[:80], "ends"),
        (b"QED\0" + bytes(60), "QED"),
        (b"KDMV" + bytes(60), "VMDK"),
        (b"# Disk DescriptorFile\nversion=1\n", "VMDK"),
        (b"  # comment\nversion = 1\nextentdesc", "VMDK"),
        (bytes(64) + b"\x7f\x10\xda\xbe", "VDI"),
        (b"conectix" + bytes(60), "VHD"),
        (b"vhdxfile" + bytes(60), "VHDX"),
        (b"LUKS\xba\xbe" + bytes(60), "LUKS"),
    ],
)
def test_refused(head: bytes, word: str) -> None:
    """An image that names something outside itself, or that qemu reads badly, is refused in words."""
    with pytest.raises(OurFault, match=word):
        sniff("a", head, MEGABYTE)


@pytest.mark.parametrize("size", [0, MAX_VIRTUAL_BYTES + 1, 2**63])
def test_size(size: int) -> None:
    """A disk of no bytes or of absurdly many is refused, whatever its file takes."""
    with pytest.raises(OurFault, match="bytes"):
        sniff("a", qcow2(size=size), 200_000)


@given(st.binary(max_size=HEADER_BYTES), st.booleans())
def test_any_bytes(head: bytes, marked: bool) -> None:
    """Any bytes are an image or refused in words, and nothing else happens."""
    try:
        format_, size = sniff("a", (b"QFI\xfb" if marked else b"") + head, 2 * MEGABYTE)
    except OurFault:
        return
    assert format_ in ("raw", "qcow2") and 0 < size <= MAX_VIRTUAL_BYTES


def test_read(tmp_path: Path) -> None:
    """An image is found by its name in the image directory."""
    (tmp_path / "a.img").write_bytes(b"\xeb" * 1024)
    image = read_image(str(tmp_path), "a.img")
    assert (image.path, image.format, image.virtual_size) == (str(tmp_path / "a.img"), "raw", 1024)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "sub/a.img", "", ".", "..", ".hidden", "a\0b", "json:{}", "nbd:host:1", "a" * 200, "b\u00fcro.img"],
)
def test_names(tmp_path: Path, name: str) -> None:
    """A name that is a path, a protocol or no image name opens nothing."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.img").write_bytes(b"x")
    with pytest.raises(OurFault, match="image"):
        read_image(str(tmp_path), name)


def test_not_a_file(tmp_path: Path) -> None:
    """A symbolic link, a directory, a pipe and a file that is not there are no images."""
    (tmp_path / "real").write_bytes(b"x" * 512)
    os.symlink(tmp_path / "real", tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("link", "pipe", "directory", "missing"):
        with pytest.raises(OurFault, match=name):
            read_image(str(tmp_path), name)
