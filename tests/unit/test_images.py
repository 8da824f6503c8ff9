"""The image directory as the cluster manager sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tashi.errors import BAD_ARGUMENT, UNKNOWN_IMAGE, YourMistake
from tashi.images.directory import ImageDirectory


@pytest.fixture
def images(tmp_path: Path) -> ImageDirectory:
    """Some images, and some things that are none."""
    directory = tmp_path / "images"
    directory.mkdir()
    for name, size in (("tashi.img", 2048), ("debian.qcow2", 5), ("raw", 3 * 1024**2)):
        (directory / name).write_bytes(b"x" * size)
    (directory / ".disk-1-web-0.img.part").write_bytes(b"half a copy")
    (directory / "folder.img").mkdir()
    (directory / "link.img").symlink_to("/etc/passwd")
    (tmp_path / "secret.img").write_text("not yours")
    return ImageDirectory(str(directory))


@pytest.mark.parametrize(("name", "file"), [("tashi", "tashi.img"), ("tashi.img", "tashi.img"), ("debian", "debian.qcow2"), ("raw", "raw")])
def test_an_image_is_named_with_or_without_its_ending(images: ImageDirectory, name: str, file: str) -> None:
    """What resolves is a file's own name."""
    assert images.resolve(name, lambda name: True) == file


@pytest.mark.parametrize("name", ["nope", "folder", "folder.img", "link", "link.img", "secret"])
def test_what_is_no_plain_file_there_is_unknown(images: ImageDirectory, name: str) -> None:
    """A directory, a link and what is not in the directory is no image."""
    with pytest.raises(YourMistake, match="see `tashi getImages`") as caught:
        images.resolve(name, lambda name: True)
    assert caught.value.code == UNKNOWN_IMAGE


def test_what_may_be_saved(images: ImageDirectory, tmp_path: Path) -> None:
    """A memory is kept when it is there, whole or not, and may be when the share is not there to be looked at."""
    share = Path(images.path).parent
    assert not images.may_be_saved("suspend/1_vm1")
    (share / "suspend").mkdir()
    for name in ("1_vm1", "2_vm2.part"):
        (share / "suspend" / name).touch()
    assert images.may_be_saved("suspend/1_vm1") and images.may_be_saved("suspend/2_vm2")
    assert not images.may_be_saved("suspend/3_vm3")
    assert ImageDirectory(str(tmp_path / "away" / "images")).may_be_saved("suspend/3_vm3")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "json:{}", "", "a/../tashi"])
def test_what_cannot_be_a_name_is_refused(images: ImageDirectory, name: str) -> None:
    """Paths and protocols never reach the file system."""
    with pytest.raises(YourMistake) as caught:
        images.resolve(name, lambda name: True)
    assert caught.value.code == BAD_ARGUMENT


def test_the_list_names_plain_files_with_their_sizes(images: ImageDirectory) -> None:
    """Files are sorted by name, with sizes in words; a directory that is not there is empty."""
    assert [(image.name, image.size, image.refused) for image in images.list()] == [
        ("debian.qcow2", "5.0B", ""), ("raw", "3.00M", ""), ("tashi.img", "2.00K", ""),
    ]  # fmt: skip
    assert ImageDirectory("/nonexistent").list() == []


def test_what_may_not_be_used_is_unknown(images: ImageDirectory) -> None:
    """A1: a file that may not be used is refused in the words for one that does not exist."""
    words = []
    for name, may_use in (("tashi", lambda name: False), ("tashi", lambda name: name != "tashi.img")):
        with pytest.raises(YourMistake) as caught:
            images.resolve(name, may_use)
        words.append((caught.value.code, caught.value.message))
    Path(images.path, "tashi.img").unlink()
    with pytest.raises(YourMistake) as caught:
        images.resolve("tashi", lambda name: True)
    assert words == [(caught.value.code, caught.value.message)] * 2


def test_what_no_instance_can_have_is_listed_with_the_reason(images: ImageDirectory) -> None:
    """O14: VMDK and empty files and names that createVm refuses carry the reason, also when a file changes."""
    directory = Path(images.path)
    (directory / "disk.vmdk").write_bytes(b"KDMV" + bytes(508))
    (directory / "two words.img").write_bytes(b"x" * 512)
    (directory / "empty.img").touch()
    refused = {image.name: image.refused for image in images.list() if image.refused}
    assert sorted(refused) == ["disk.vmdk", "empty.img", "two words.img"]
    assert "is a VMDK image" in refused["disk.vmdk"] and "no image name" in refused["two words.img"]
    (directory / "disk.vmdk").write_bytes(b"raw, and longer" * 100)
    (directory / "empty.img").write_bytes(b"x")
    assert [image.name for image in images.list() if image.refused] == ["two words.img"]
