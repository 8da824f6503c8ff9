"""Overlays by generation, and whose they are where hosts share the directory; the image beneath them is the one that it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tashi.errors import CONFLICT, UNKNOWN_IMAGE, OurFault
from tashi.model.instance import Disk
from tashi.node.storage import disks as disks_module
from tashi.node.storage.disks import Disks
from tashi.node.storage.image import DiskImage
from tashi.node.storage.scratch import Scratch

UUID = "6f1e2f1c-7b5e-4b57-8a52-0a6b1c8a2a11"
OTHER = "0c9a0f0e-1111-4222-8333-444455556666"
DISKS = (Disk(uri="os.img"),)


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What two hosts share: an image, and a directory for overlays, which are made without qemu-img."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "os.img").write_bytes(b"\xeb" * 4096)

    def create(image: DiskImage, path: Path) -> None:
        path.write_text(f"over {image.path}, {image.virtual_size} bytes")

    monkeypatch.setattr(disks_module, "_create_overlay", create)
    return tmp_path


def _host(share: Path, name: str) -> Disks:
    return Disks(share / "images", share / "scratch", host=name)


def _overlays(share: Path, uuid: str = UUID) -> list[str]:
    return sorted(
        str(path.relative_to(share / "scratch" / uuid))
        for path in (share / "scratch").glob(f"{uuid}/**/*.qcow2")
    )


def _files(share: Path, generation: int) -> list[str]:
    """The files of the domain that this generation's start has made, as its description has them."""
    return [str(share / "scratch" / UUID / str(generation) / "0.qcow2"), str(share / "images" / "os.img")]


@pytest.mark.parametrize("name", ["disk-1-web-0.img", "Disk-1-web-0.img"])
def test_a_host_puts_no_disk_into_a_cdrom_drive(tmp_path: Path, name: str) -> None:
    """A1: a host that is told to do so all the same refuses a persistent disk as a CD-ROM."""
    (tmp_path / name).write_bytes(bytes(4096))
    (tmp_path / "tools.iso").write_bytes(bytes(4096))
    disks = Disks(tmp_path, tmp_path / "scratch")
    assert disks.cdrom("tools.iso") == str(tmp_path / "tools.iso")
    with pytest.raises(OurFault, match="is a persistent disk") as caught:
        disks.cdrom(name)
    assert caught.value.code == UNKNOWN_IMAGE


# ---- generations


def test_a_host_that_comes_back_removes_only_its_own(share: Path) -> None:
    """A host was lost and its instance started elsewhere: what it is told to clear away is not the overlay that is in use."""
    lost, other = _host(share, "node1"), _host(share, "node2")
    lost.prepare(UUID, 3, DISKS)
    (attached,) = other.prepare(UUID, 7, DISKS)
    assert _overlays(share) == ["3/0.qcow2", "7/0.qcow2"]
    Path(attached.path).write_text("what the guest has written")
    lost.discard(UUID, 5)
    assert _overlays(share) == ["7/0.qcow2"]
    lost.discard(UUID, 99)
    assert Path(attached.path).read_text() == "what the guest has written"
    other.discard(UUID, 9)
    assert not (share / "scratch" / UUID).exists()


def test_a_host_whose_domain_still_runs_takes_only_what_that_uses(share: Path) -> None:
    """Destroying a domain that runs takes the directory that it uses and no other: the later one stays another host's."""
    lost, other = _host(share, "node1"), _host(share, "node2")
    lost.prepare(UUID, 3, DISKS)
    other.prepare(UUID, 7, DISKS)
    lost.take(UUID, lambda: _files(share, 3))
    lost.discard(UUID, 99)
    assert _overlays(share) == ["7/0.qcow2"]


@pytest.mark.parametrize("generation", [-1, 0, 2])
def test_an_older_order_removes_nothing_newer(share: Path, generation: int) -> None:
    """What a later order has made on the same host stays, too."""
    host = _host(share, "node1")
    host.prepare(UUID, 3, DISKS)
    host.discard(UUID, generation)
    assert _overlays(share) == ["3/0.qcow2"]


def test_a_start_begins_with_a_clean_directory(share: Path) -> None:
    """A start that is repeated, and one that follows a failed one, find nothing of what went before."""
    host = _host(share, "node1")
    for generation in (3, 3, 5):
        (attached,) = host.prepare(UUID, generation, DISKS)
        assert "4096 bytes" in Path(attached.path).read_text()
        Path(attached.path).write_text("written")
    assert _overlays(share) == ["5/0.qcow2"]


def test_what_a_guest_writes_is_read_by_nobody_else(share: Path) -> None:
    """A1: other users of the machine may not open throw-away disks and scratch space."""
    attached = _host(share, "node1").prepare(UUID, 3, DISKS, Scratch(size=1))
    assert [Path(one.path).stat().st_mode & 0o777 for one in attached] == [0o600, 0o600]


def test_nothing_is_made_in_another_host_s_directory(share: Path) -> None:
    """Two hosts that were told the same generation do not write to one overlay: the second refuses, and says whose it is."""
    _host(share, "node1").prepare(UUID, 3, DISKS)
    with pytest.raises(OurFault, match=r"/3 belongs to node1, and this host is node2") as caught:
        _host(share, "node2").prepare(UUID, 3, DISKS)
    assert caught.value.code == CONFLICT


def test_a_move_over_a_shared_directory(share: Path) -> None:
    """While a domain moves its directory is nobody's to remove; the target has it in the end, and removes it by a later order."""
    source, target = _host(share, "node1"), _host(share, "node2")
    source.prepare(UUID, 3, DISKS)
    source.generations.leave_sign(UUID, 4)
    assert target.generations.finds_sign(UUID, 4) and not target.generations.finds_sign(UUID, 3)
    assert target.place_of(UUID, _files(share, 3)[0]) == _files(share, 3)[0]
    source.let_go(UUID, _files(share, 3))
    for host in (source, target):
        host.discard(UUID, 99)
    assert _overlays(share) == ["3/0.qcow2"]
    target.take(UUID, lambda: _files(share, 3))
    source.discard(UUID, 99)
    assert _overlays(share) == ["3/0.qcow2"]
    target.discard(UUID, 6)
    assert not (share / "scratch" / UUID).exists()


def test_a_move_with_copied_disks(share: Path) -> None:
    """A target that has its own directory makes the overlay in the generation of its order, and finds the source's there."""
    source, target = _host(share, "node1"), Disks(share / "images", share / "elsewhere", host="node2")
    source.prepare(UUID, 3, DISKS)
    source.generations.leave_sign(UUID, 4)
    assert not target.generations.finds_sign(UUID, 4)
    (attached,) = target.prepare(UUID, 5, DISKS)
    overlay, image = _files(share, 3)
    assert attached.path == str(share / "elsewhere" / UUID / "5" / "0.qcow2")
    assert (target.place_of(UUID, overlay), target.place_of(UUID, image)) == (None, image)
    assert target.existing(share / "elsewhere" / UUID / "5", DISKS) == [attached]
    with pytest.raises(OurFault, match=r"needs .*/3/0\.qcow2, which this host does not have"):
        target.existing(target.directory_of(UUID, [overlay]), DISKS)


def test_what_is_left_when_both_have_let_go(share: Path) -> None:
    """A host that is told that no other has the domain any more takes what there is, up to that order, and removes it."""
    source, target = _host(share, "node1"), _host(share, "node2")
    source.prepare(UUID, 3, DISKS)
    source.let_go(UUID, _files(share, 3))
    target.take_all(UUID, 2)
    target.discard(UUID, 6)
    assert _overlays(share) == ["3/0.qcow2"]
    target.take_all(UUID, 6)
    target.discard(UUID, 6)
    assert _overlays(share) == []


def test_another_domain_s_directory(share: Path) -> None:
    """H7: what another instance, or another cell, has in the same directory is not touched."""
    host = _host(share, "node1")
    host.prepare(OTHER, 3, DISKS)
    host.prepare(UUID, 3, DISKS)
    host.discard(UUID, 99)
    assert _overlays(share, OTHER) == ["3/0.qcow2"]


# ---- what an older version has left


def _former(share: Path, owner: str) -> Path:
    directory = share / "scratch" / UUID
    directory.mkdir(parents=True)
    for name in ("0.qcow2", "scratch.raw", "departing-2"):
        (directory / name).write_text("former")
    if owner:
        (directory / "owner").write_text(owner)
    return directory


@pytest.mark.parametrize("owner", ["qemu+tls://node1/system", "node1", ""])
def test_an_overlay_of_an_older_version_is_found_and_removed(share: Path, owner: str) -> None:
    """A directory without generations is the host's that is called so, or was; it goes by the first order."""
    directory = _former(share, owner)
    host = Disks(share / "images", share / "scratch", "", "node1", ["qemu+tls://node1/system"])
    files = [str(directory / "0.qcow2")]
    assert host.place_of(UUID, files[0]) == files[0]
    assert host.directories(UUID, files) == [directory]
    host.check_bases(UUID, files)
    host.discard(UUID, 2)
    assert not directory.exists()


def test_an_overlay_of_an_older_version_that_is_another_host_s(share: Path) -> None:
    """What belonged to a neighbour, or was moving, stays; and a new generation beside it stays when the former one is removed."""
    directory = _former(share, "qemu+tls://node2/system")
    host = Disks(share / "images", share / "scratch", "", "node1", ["qemu+tls://node1/system"])
    host.discard(UUID, 99)
    assert _overlays(share) == ["0.qcow2"]
    host.take(UUID, lambda: [str(directory / "0.qcow2")])
    (directory / "7").mkdir()
    (directory / "7" / "0.qcow2").touch()
    host.discard(UUID, 5)
    assert _overlays(share) == ["7/0.qcow2"]


# ---- the image beneath


def _moves_another(image: Path) -> None:
    other = image.with_name("new")
    other.write_bytes(b"\xeb" * 4096)
    status = image.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a reproducible build is made
    other.rename(image)


def _writes_over(image: Path) -> None:
    image.write_bytes(b"\xec" * 4096)


CHANGES: dict[str, Callable[[Path], object]] = {
    "moved": _moves_another,
    "written over": _writes_over,
    "grown": lambda image: os.truncate(image, 8192),
    "touched": lambda image: os.utime(image),
    "a link": lambda image: (image.rename(image.with_name("x")), image.symlink_to(image.with_name("x"))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_image_beneath_an_overlay_is_noticed(share: Path, change: str) -> None:
    """H4: however the image was replaced, the overlay is not used over it, and the words say what to do."""
    host, image = _host(share, "node1"), share / "images" / "os.img"
    os.utime(image, ns=(1, 1_000_000_000))
    host.prepare(UUID, 3, DISKS)
    host.check_bases(UUID, _files(share, 3))
    CHANGES[change](image)
    if change == "a link":
        with pytest.raises(OSError):
            host.check_bases(UUID, _files(share, 3))
        return
    with pytest.raises(
        OurFault, match=r"os\.img is not the file that the instance had: .*put the former file back"
    ) as caught:
        host.check_bases(UUID, _files(share, 3))
    record = share / "scratch" / UUID / "3" / "bases.json"
    assert str(record) in caught.value.message
    record.unlink()  # as the words say
    host.check_bases(UUID, _files(share, 3))


def test_a_missing_image_beneath_an_overlay(share: Path) -> None:
    """H4: an image that was removed is missed by name."""
    host = _host(share, "node1")
    host.prepare(UUID, 3, DISKS)
    (share / "images" / "os.img").unlink()
    with pytest.raises(OurFault, match=r"needs os\.img, which is missing in .*images; put it back"):
        host.check_bases(UUID, _files(share, 3))


def test_what_leaves_an_image_as_it_is(share: Path) -> None:
    """H4: a hard link, another mode, a read and a rename there and back change nothing."""
    host, image = _host(share, "node1"), share / "images" / "os.img"
    host.prepare(UUID, 3, DISKS)
    os.link(image, image.with_name("link"))
    image.chmod(0o644)
    shutil.copyfile(image, image.with_name("copy"))
    image.rename(image.with_name("away")).rename(image)
    host.check_bases(UUID, _files(share, 3))
    _host(share, "node2").check_bases(UUID, _files(share, 3))


def test_a_new_overlay_over_a_replaced_image(share: Path) -> None:
    """H4: an instance that is started anew has the new image, in its present size."""
    host = _host(share, "node1")
    host.prepare(UUID, 3, DISKS)
    (share / "images" / "os.img").write_bytes(b"\xeb" * 8192)
    (attached,) = host.prepare(UUID, 5, DISKS)
    assert "8192 bytes" in Path(attached.path).read_text()
    host.check_bases(UUID, _files(share, 5))


def test_scratch_space_lies_in_the_generation(share: Path) -> None:
    """Scratch space is made, found and removed with its generation."""
    host = _host(share, "node1")
    _, scratch = host.prepare(UUID, 3, DISKS, Scratch(size=1))
    assert scratch.path == str(share / "scratch" / UUID / "3" / "scratch.raw")
    host.discard(UUID, 3)
    assert not (share / "scratch" / UUID).exists()
