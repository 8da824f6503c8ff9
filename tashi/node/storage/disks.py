"""The disks of an instance on this host: persistent ones are images of their own, the others throw-away overlays, and scratch space.

An overlay is an empty qcow2 file over the image. `qemu-img` makes it once per image and size, without opening the image (whose header
`disk_image` has read already); each instance gets a copy of that small file. All of this blocks and belongs into a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from tashi.errors import CONFLICT, INTERNAL, UNKNOWN_IMAGE, OurFault
from tashi.model.disks import is_own
from tashi.model.instance import Disk
from tashi.node.domain.xml import AttachedDisk
from tashi.node.storage import bases
from tashi.node.storage.generations import Generations, is_throw_away
from tashi.node.storage.image import DiskImage, read_image
from tashi.node.storage.persistent import PersistentDisks
from tashi.node.storage.scratch import SCRATCH_FILE, Scratch, ScratchSpace
from tashi.node.storage.space import fault, free_bytes, in_words

QEMU_IMG_SECONDS: Final = 20
QEMU_IMG_BYTES: Final = 2**30


class Disks:
    """The image directory, the overlays and the scratch space of one host."""

    def __init__(
        self, images: Path, overlays: Path, volume_group: str = "", host: str = "", former_names: Iterable[str] = ()
    ) -> None:
        """``images``: where images lie, by name; ``overlays``: a directory of ours, made when it is needed; ``volume_group``: LVM's for
        scratch space, empty where that is a file beside the overlays; ``host``: a name that no other host has, ``former_names``:
        what it was called in an older version."""
        self.share = images.parent
        self.images = images
        self.generations = Generations(overlays, host or "this host", former_names)
        self._overlays = overlays
        self._scratch = ScratchSpace(volume_group)
        self.copies = PersistentDisks(images)
        self._making = threading.Lock()

    def check(self, disks: Sequence[Disk]) -> list[AttachedDisk]:
        """The images themselves, each looked at; OurFault(unknown-image) names the one that may not be used."""
        images = [read_image(str(self.images), disk.uri) for disk in disks]
        return [AttachedDisk(path=image.path, format=image.format) for image in images]

    def cdrom(self, name: str) -> str:
        """The path of the image of this name, which a guest may have as a CD-ROM; OurFault(unknown-image) when it may not."""
        image = read_image(str(self.images), name)
        if is_own(name):
            raise OurFault(UNKNOWN_IMAGE, f"{name} is a persistent disk and cannot be a CD-ROM; it is attached as a disk")
        if image.format != "raw":
            raise OurFault(UNKNOWN_IMAGE, f"the image {name} is {image.format}; a CD-ROM is made of an ISO 9660 or another raw file")
        return image.path

    def prepare(
        self, uuid: str, generation: int, disks: Sequence[Disk], scratch: Scratch | None = None
    ) -> list[AttachedDisk]:
        """Return the files to attach, overlays and scratch space made for this generation; OurFault when one cannot be had, and then
        `give_up` is to follow."""
        images = [read_image(str(self.images), disk.uri) for disk in disks]
        self.discard(uuid, generation)
        attached = []
        beneath: dict[str, bases.Identity] = {}
        directory = self.generations.path(uuid, generation)
        try:
            if scratch is not None or not all(disk.persistent for disk in disks):
                self.generations.claim(uuid, generation)
            for place, (disk, image) in enumerate(zip(disks, images, strict=True)):
                if disk.persistent:
                    attached.append(AttachedDisk(path=image.path, format=image.format))
                else:
                    attached.append(self._overlay(image, directory / f"{place}.qcow2"))
                    beneath[disk.uri] = image.identity
            bases.keep(directory / bases.BASES, beneath)
            if scratch is not None:
                attached.append(self._scratch.make(directory, uuid, scratch))
        except OSError as error:
            raise fault(error, self._overlays, "an overlay") from error
        return attached

    def existing(
        self, directory: Path, disks: Sequence[Disk], scratch: Scratch | None = None
    ) -> list[AttachedDisk]:
        """Return the same files as `prepare`, which are in this directory already; OurFault names one that is not."""
        bases.check(directory / bases.BASES, self.images)
        attached = []
        for place, disk in enumerate(disks):
            image = read_image(str(self.images), disk.uri)
            if disk.persistent:
                attached.append(AttachedDisk(path=image.path, format=image.format))
            else:
                attached.append(_over(image, directory / f"{place}.qcow2"))
        if scratch is not None:
            attached.append(AttachedDisk(path=str(directory / SCRATCH_FILE), format="raw"))
        for one in attached:
            if not Path(one.path).is_file():
                raise OurFault(CONFLICT, f"the domain needs {one.path}, which this host does not have; it has to stay where it is")
        return attached

    def directory_of(self, uuid: str, files: Iterable[str]) -> Path:
        """Return the directory on this host for a domain whose files another host describes, where both see the same."""
        for file in map(Path, files):
            if is_throw_away(uuid, file):
                return self._overlays / uuid if file.parent.name == uuid else self._overlays / uuid / file.parent.name
        return self._overlays / uuid

    def directories(self, uuid: str, files: Iterable[str]) -> list[Path]:
        """Return the directories on this host in which these files of the domain lie, however often one does."""
        parents = dict.fromkeys(Path(file).parent for file in files if is_throw_away(uuid, Path(file)))
        return [parent for parent in parents if parent.is_relative_to(self._overlays) and parent.is_dir()]

    def take(self, uuid: str, files: Callable[[], Iterable[str]]) -> None:
        """Let the directories of a domain that runs here be this host's; ``files`` are asked for only if some are not."""
        if not all(self.generations.belongs_here(directory) for _, directory in self.generations.all(uuid)):
            for directory in self.directories(uuid, files()):
                self.generations.take(directory)

    def take_all(self, uuid: str, generation: int) -> None:
        """Let all that there is of the domain up to this generation be this host's: no other host has it any more."""
        for number, directory in self.generations.all(uuid):
            if number <= generation:
                self.generations.take(directory)

    def let_go(self, uuid: str, files: Iterable[str]) -> None:
        """Let no host remove what the domain uses while it moves."""
        for directory in self.directories(uuid, files):
            self.generations.let_go(directory)

    def check_bases(self, uuid: str, files: Iterable[str]) -> None:
        """OurFault when an image beneath the domain's overlays is not the one that they were made over."""
        for directory in self.directories(uuid, files):
            bases.check(directory / bases.BASES, self.images)

    def images_among(self, uuid: str, files: Iterable[str]) -> list[str]:
        """Return the names of those files of the domain that lie in the image directory."""
        return [Path(file).name for file in files if not is_throw_away(uuid, Path(file)) and self.place_of(uuid, file)]

    def place_of(self, uuid: str, path: str) -> str | None:
        """Return where the file of this domain that another host has at ``path`` is on this one; None: it is not here."""
        there = Path(path)
        directory = self.directory_of(uuid, [path]) if is_throw_away(uuid, there) else self.images
        return str(directory / there.name) if (directory / there.name).is_file() else None

    def keep(self, uuid: str, generation: int, disks: Sequence[Disk]) -> None:
        """The domain has run with these disks: its copies among them stay."""
        self.copies.keep(uuid, generation, _copies(disks))

    def discard(self, uuid: str, generation: int, copies: Sequence[str] = ()) -> None:
        """Remove the overlays and the scratch space of this domain up to this generation if they are this host's, and those of the
        copies that it has not run with."""
        for number, directory in self.generations.all(uuid):
            if number <= generation and self.generations.owns(directory):
                self._scratch.discard(directory)
        self.generations.remove(uuid, generation)
        self.copies.discard(uuid, generation, copies)

    def give_up(self, uuid: str, generation: int, disks: Sequence[Disk]) -> None:
        """The same after a start that failed, whose own words matter more than what stands in the way of this."""
        with contextlib.suppress(OSError, OurFault):
            self.discard(uuid, generation, _copies(disks))

    def _overlay(self, image: DiskImage, path: Path) -> AttachedDisk:
        path.touch(0o600)  # what the guest writes is for nobody else on this machine
        shutil.copyfile(self._blank(image), path)
        return _over(image, path)

    def _blank(self, image: DiskImage) -> Path:
        """An overlay nobody has written to: it depends on nothing but the path, format and size, which are its key."""
        identity = f"{image.path}\0{image.format}\0{image.virtual_size}"
        blank = self._overlays / f"blank-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.qcow2"
        with self._making:
            if not blank.exists():
                self._overlays.mkdir(parents=True, exist_ok=True)
                unfinished = blank.with_suffix(f".{os.uname().nodename}.part")  # other hosts may be at it in the same directory
                try:
                    _create_overlay(image, unfinished)
                    os.replace(unfinished, blank)
                except BaseException:
                    unfinished.unlink(missing_ok=True)
                    raise
        return blank


def _over(image: DiskImage, path: Path) -> AttachedDisk:
    return AttachedDisk(path=str(path), format="qcow2", base=image.path, base_format=image.format)


def _copies(disks: Sequence[Disk]) -> list[str]:
    """Those of the disks that are copies made for an instance that has not been seen to run."""
    return [disk.uri for disk in disks if disk.template]


def _create_overlay(image: DiskImage, path: Path) -> None:
    # -u: qemu-img does not open the image; prlimit: and could not grow or spin if it did
    command = [
        "prlimit", f"--as={QEMU_IMG_BYTES}", f"--cpu={QEMU_IMG_SECONDS}", "--",
        "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", image.format, "-b", image.path, str(path), str(image.virtual_size),
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, timeout=QEMU_IMG_SECONDS, stdin=subprocess.DEVNULL, capture_output=True)
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip()
        free = in_words(free_bytes(path.parent))
        raise OurFault(INTERNAL, f"qemu-img made no overlay in {path.parent}, which has {free} free: {words}") from error
    except subprocess.TimeoutExpired as error:
        raise OurFault(INTERNAL, f"qemu-img made no overlay within {QEMU_IMG_SECONDS} s") from error
