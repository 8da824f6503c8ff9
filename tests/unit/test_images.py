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
    assert images.resolve(name) == file


@pytest.mark.parametrize("name", ["nope", "folder", "folder.img", "link", "link.img", "secret"])
def test_what_is_no_plain_file_there_is_unknown(images: ImageDirectory, name: str) -> None:
    """A directory, a link and what is not in the directory is no image."""
    with pytest.raises(YourMistake, match="see `tashi getImages`") as caught:
        images.resolve(name)
    assert caught.value.code == UNKNOWN_IMAGE


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "json:{}", "", "a/../tashi"])
def test_what_cannot_be_a_name_is_refused(images: ImageDirectory, name: str) -> None:
    """Paths and protocols never reach the file system."""
    with pytest.raises(YourMistake) as caught:
        images.resolve(name)
    assert caught.value.code == BAD_ARGUMENT


def test_the_list_names_plain_files_with_their_sizes(images: ImageDirectory) -> None:
    """Sorted by name, numbered from 0, sizes in words; a directory that is not there is empty."""
    assert [(image.id, image.image_name, image.image_size) for image in images.list()] == [
        (0, "debian.qcow2", "5.0B"), (1, "raw", "3.00M"), (2, "tashi.img", "2.00K"),
    ]  # fmt: skip
    assert ImageDirectory("/nonexistent").list() == []
