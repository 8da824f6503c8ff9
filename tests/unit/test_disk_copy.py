"""Copies of images: whole or not there, made once, and nobody else's file taken for one."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tashi.errors import INTERNAL, UNKNOWN_IMAGE, OurFault
from tashi.model.disks import DiskCopy
from tashi.node.storage import copying as disk_copy
from tashi.node.storage import persistent as persistent_disks
from tashi.node.storage.copying import copy_data
from tashi.node.storage.persistent import PersistentDisks

UUID = "6f1e2f1c-7b5e-4b57-8a52-0a6b1c8a2a11"
COPY = DiskCopy(template="a.img", name="disk-1-web-0.img")
MEGABYTE = 2**20
CONTENT = os.urandom(MEGABYTE) + bytes(8 * MEGABYTE) + os.urandom(MEGABYTE) + bytes(3 * MEGABYTE)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """An image directory with one template, most of which is holes."""
    with (tmp_path / "a.img").open("wb") as file:
        file.write(CONTENT[:MEGABYTE])
        file.seek(9 * MEGABYTE)
        file.write(CONTENT[9 * MEGABYTE : 10 * MEGABYTE])
        file.truncate(len(CONTENT))
    return tmp_path


def _names(images: Path) -> list[str]:
    return sorted(path.name for path in images.iterdir())


def _made(images: Path) -> list[str]:
    return sorted(path.name for path in images.iterdir() if path.name != "a.img")


def _copied(source: Path, target: Path) -> list[int]:
    pieces: list[int] = []
    with source.open("rb") as reading, target.open("wb") as writing:
        copy_data(reading.fileno(), writing.fileno(), pieces.append)
    return pieces


def _fails_with(number: int) -> Callable[..., Any]:
    def fail(*ignored: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("lack", ["nothing", "copy_file_range", "holes", "both"])
def test_content(images: Path, monkeypatch: pytest.MonkeyPatch, lack: str) -> None:
    """A copy has the same bytes and the same holes, whatever of this the file system can do itself; every piece is told."""
    if lack in ("copy_file_range", "both"):
        monkeypatch.setattr(os, "copy_file_range", _fails_with(errno.EXDEV))
    if lack in ("holes", "both"):
        monkeypatch.setattr(os, "lseek", _fails_with(errno.EINVAL))
    pieces = _copied(images / "a.img", images / "b")
    assert (images / "b").read_bytes() == CONTENT
    assert (images / "b").stat().st_blocks * 512 <= 3 * MEGABYTE
    assert sum(pieces) == (len(CONTENT) if lack in ("holes", "both") else 2 * MEGABYTE)


@pytest.mark.parametrize("size", [0, 1, 4096, 3 * MEGABYTE])
def test_holes_only(tmp_path: Path, size: int) -> None:
    """A file without data is copied, too."""
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", size)
    assert _copied(tmp_path / "a", tmp_path / "b") == []
    assert (tmp_path / "b").stat().st_size == size


def test_a_source_that_shrinks(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was cut off meanwhile is missed, not made up."""
    monkeypatch.setattr(disk_copy, "PIECE_BYTES", 4096)
    with (images / "a.img").open("rb") as reading, (images / "b").open("wb") as writing, pytest.raises(OSError, match="shorter"):
        copy_data(reading.fileno(), writing.fileno(), lambda done: os.truncate(images / "a.img", 8192))


def test_a_copy_is_made_once(images: Path) -> None:
    """Asked again for what is there, nothing is copied; the template can be read and written as before."""
    disks = PersistentDisks(images)
    disks.make(UUID, 2, [COPY])
    first = (images / COPY.name).stat()
    (images / COPY.name).write_bytes(b"used")
    disks.make(UUID, 2, [COPY])
    assert (images / COPY.name).read_bytes() == b"used"
    assert (images / COPY.name).stat().st_ino == first.st_ino
    assert (images / "a.img").read_bytes() == CONTENT


@pytest.mark.parametrize(("template", "copy"), [(0o644, 0o600), (0o400, 0o600), (0o664, 0o660), (0o640, 0o600), (0o666, 0o666)])
def test_a_copy_is_its_owner_s(images: Path, template: int, copy: int) -> None:
    """A1: who may only read a template does not read a user's disk; whoever QEMU writes it as still does."""
    (images / "a.img").chmod(template)
    PersistentDisks(images).make(UUID, 2, [COPY])
    assert (images / COPY.name).stat().st_mode & 0o777 == copy


def test_what_was_never_used_is_given_up(images: Path) -> None:
    """With its claim goes the copy, and giving it up again does no harm."""
    disks = PersistentDisks(images)
    disks.make(UUID, 2, [COPY])
    for _ in range(2):
        disks.discard(UUID, 3, [COPY.name])
        assert _names(images) == ["a.img"]


def test_what_was_used_is_kept(images: Path) -> None:
    """Once its domain has run nothing of a copy but the copy itself is there, and nobody gives it up."""
    disks = PersistentDisks(images)
    disks.make(UUID, 2, [COPY])
    disks.keep(UUID, 3, [COPY.name])
    disks.discard(UUID, 3, [COPY.name])
    assert _made(images) == [COPY.name]


def test_somebody_else_s_file(images: Path) -> None:
    """A file that has the name already is neither overwritten, nor taken for the copy, nor removed."""
    (images / COPY.name).write_bytes(b"precious")
    disks = PersistentDisks(images)
    with pytest.raises(OurFault, match="not made for this instance"):
        disks.make(UUID, 2, [COPY])
    disks.discard(UUID, 3, [COPY.name])
    assert (_made(images), (images / COPY.name).read_bytes()) == ([COPY.name], b"precious")


def test_all_or_none(images: Path) -> None:
    """When one of several copies cannot be had, none is left."""
    hostile = b"QFI\xfb" + struct.pack(">IQ", 3, 112) + bytes(500)
    (images / "bad.img").write_bytes(hostile)
    for template, words in (("gone.img", "gone.img cannot be opened"), ("bad.img", "names a backing file")):
        with pytest.raises(OurFault, match=words) as caught:
            PersistentDisks(images).make(UUID, 2, [COPY, DiskCopy(template=template, name="disk-1-web-1.img")])
        assert caught.value.code == UNKNOWN_IMAGE
        assert _names(images) == ["a.img", "bad.img"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_copy_that_cannot_be_written(images: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The words name the directory, and whether it is full; nothing is left."""
    monkeypatch.setattr(os, "copy_file_range", _fails_with(number))
    with pytest.raises(OurFault, match="full" if number != errno.EIO else os.strerror(number)) as caught:
        PersistentDisks(images).make(UUID, 2, [COPY])
    assert str(images) in caught.value.message and caught.value.code == INTERNAL
    assert _names(images) == ["a.img"]


def test_progress_and_abort(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is copied it is told how far it is, and it can be given up: then nothing is left, and it may be asked for again."""
    disks = PersistentDisks(images)
    seen: list[int | None] = []

    def watched(source: int, target: int, copied: Callable[[int], None]) -> None:
        def counted(done: int) -> None:
            copied(done)
            seen.append(disks.progress(UUID))
            if len(seen) == 2:
                disks.abort(UUID)

        copy_data(source, target, counted)

    monkeypatch.setattr(disk_copy, "PIECE_BYTES", MEGABYTE // 2)
    monkeypatch.setattr(persistent_disks, "copy_data", watched)
    with pytest.raises(OurFault, match="given up"):
        disks.make(UUID, 2, [COPY])
    assert seen == [25, 50]
    assert _names(images) == ["a.img"]
    assert disks.progress(UUID) is None
    disks.abort(UUID)  # there is nothing to end
    disks.make(UUID, 2, [COPY])
    assert (images / COPY.name).read_bytes() == CONTENT


STEPS: tuple[tuple[Any, str], ...] = ((persistent_disks, "copy_data"), (os, "fsync"), (os, "rename"), (os, "link"), (Path, "rename"))


def _dies(images: Path, step: tuple[Any, str], before: bool) -> None:
    """A process that makes the copy and dies at this step."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    where, name = step
    works = getattr(where, name)

    def last(*arguments: Any, **keywords: Any) -> None:
        if not before:
            works(*arguments, **keywords)
        os._exit(9)

    setattr(where, name, last)
    PersistentDisks(images).make(UUID, 2, [COPY])
    os._exit(0)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", STEPS, ids=[f"{name}" for _, name in STEPS])
@pytest.mark.parametrize("wanted", [True, False])
def test_whoever_dies_is_followed(images: Path, step: tuple[Any, str], before: bool, wanted: bool) -> None:
    """Killed anywhere, what is under the copy's name is whole; the next one goes on from there, or clears it all away."""
    _dies(images, step, before)
    if (images / COPY.name).exists():
        assert (images / COPY.name).read_bytes() == CONTENT
    disks = PersistentDisks(images)
    if wanted:
        disks.make(UUID, 2, [COPY])
        assert (images / COPY.name).read_bytes() == CONTENT
        disks.keep(UUID, 3, [COPY.name])
        assert _made(images) == [COPY.name]
    else:
        disks.discard(UUID, 3, [COPY.name])
        assert _names(images) == ["a.img"]


def test_a_half_copy_starts_over(images: Path) -> None:
    """What is left of a copy that was not finished is not built upon."""
    (images / f".{COPY.name}.{UUID}.2.part").write_bytes(b"half of something else, and longer than the template" * 10**6)
    PersistentDisks(images).make(UUID, 2, [COPY])
    assert (images / COPY.name).read_bytes() == CONTENT


def test_a_later_order_s_copy_is_not_touched(images: Path) -> None:
    """A host that is behind gives up only what it has made: the copy of a later order stays, with its claim."""
    behind, ahead = PersistentDisks(images), PersistentDisks(images)
    behind.make(UUID, 2, [COPY])
    ahead.make(UUID, 4, [COPY])
    behind.discard(UUID, 3, [COPY.name])
    assert _made(images) == [f".{COPY.name}.{UUID}.4", COPY.name]
    with pytest.raises(OurFault, match="not made for this instance"):
        behind.make(UUID, 2, [COPY])
    behind.keep(UUID, 3, [COPY.name])
    assert _made(images) == [f".{COPY.name}.{UUID}.4", COPY.name]
    ahead.discard(UUID, 5, [COPY.name])
    assert _names(images) == ["a.img"]


def test_another_domain_s_claim_is_not_touched(images: Path) -> None:
    """H7: the claims and unfinished copies of another domain, or of another disk, stay."""
    others = [f".{COPY.name}.{UUID[:-1]}2.2", f".{COPY.name}.{UUID}.x", f".x{COPY.name}.{UUID}.2.part"]
    for name in others:
        (images / name).touch()
    disks = PersistentDisks(images)
    disks.make(UUID, 2, [COPY])
    disks.discard(UUID, 3, [COPY.name])
    assert _made(images) == sorted(others)


@pytest.mark.parametrize("half", [True, False])
def test_a_copy_that_an_older_version_began(images: Path, half: bool) -> None:
    """What an older version has copied, which had no generations, is made anew, or given up with the rest."""
    for wanted in (True, False):
        claim = images / f".{COPY.name}.{UUID}{'.part' if half else ''}"
        claim.write_bytes(b"former")
        if not half:
            os.link(claim, images / COPY.name)
        disks = PersistentDisks(images)
        if wanted:
            disks.make(UUID, 2, [COPY])
            assert (images / COPY.name).read_bytes() == CONTENT
        disks.discard(UUID, 3, [COPY.name])
        assert _names(images) == ["a.img"]
