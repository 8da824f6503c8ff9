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
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tashi.errors import INTERNAL, UNKNOWN_IMAGE, OurFault
from tashi.model.disks import is_own
from tashi.model.instance import Disk
from tashi.node.domain.xml import AttachedDisk
from tashi.node.storage.image import DiskImage, read_image
from tashi.node.storage.owner import OverlayOwner
from tashi.node.storage.persistent import PersistentDisks
from tashi.node.storage.scratch import Scratch, ScratchSpace
from tashi.node.storage.space import fault, free_bytes, in_words

QEMU_IMG_SECONDS: Final = 20
QEMU_IMG_BYTES: Final = 2**30


class Disks:
    """The image directory, the overlays and the scratch space of one host."""

    def __init__(self, images: Path, overlays: Path, volume_group: str = "", host: str = "") -> None:
        """``images``: where images lie, by name; ``overlays``: a directory of ours, made when it is needed; ``volume_group``: LVM's for
        scratch space, empty where that is a file beside the overlays; ``host``: a name that no other host has."""
        self.share = images.parent
        self._images = images
        self.owner = OverlayOwner(overlays, host or "this host")
        self._overlays = overlays
        self._scratch = ScratchSpace(overlays, volume_group)
        self.copies = PersistentDisks(images)
        self._making = threading.Lock()

    def check(self, disks: Sequence[Disk]) -> list[AttachedDisk]:
        """The images themselves, each looked at; OurFault(unknown-image) names the one that may not be used."""
        images = [read_image(str(self._images), disk.uri) for disk in disks]
        return [AttachedDisk(path=image.path, format=image.format) for image in images]

    def cdrom(self, name: str) -> str:
        """The path of the image of this name, which a guest may have as a CD-ROM; OurFault(unknown-image) when it may not."""
        image = read_image(str(self._images), name)
        if is_own(name):
            raise OurFault(UNKNOWN_IMAGE, f"{name} is a persistent disk and cannot be a CD-ROM; it is attached as a disk")
        if image.format != "raw":
            raise OurFault(UNKNOWN_IMAGE, f"the image {name} is {image.format}; a CD-ROM is made of an ISO 9660 or another raw file")
        return image.path

    def prepare(self, uuid: str, disks: Sequence[Disk], scratch: Scratch | None = None) -> list[AttachedDisk]:
        """The files to attach, overlays and scratch space made; OurFault when one cannot be had, and then `give_up` is to follow."""
        images = [read_image(str(self._images), disk.uri) for disk in disks]
        self.discard(uuid)
        attached = []
        try:
            for place, (disk, image) in enumerate(zip(disks, images, strict=True)):
                attached.append(
                    AttachedDisk(path=image.path, format=image.format)
                    if disk.persistent
                    else self._overlay(image, self._overlays / uuid / f"{place}.qcow2")
                )
            if scratch is not None:
                attached.append(self._scratch.make(uuid, scratch))
            self.owner.claim(uuid)
        except OSError as error:
            raise fault(error, self._overlays, "an overlay") from error
        return attached

    def of(self, uuid: str) -> Path:
        """The directory of the domain's overlays and scratch space."""
        return self._overlays / uuid

    def place_of(self, uuid: str, path: str) -> str | None:
        """Where the file of this domain that another host has at ``path`` is on this one; None: it is not."""
        there = Path(path)
        here = self._overlays / uuid / there.name if there.parent.name == uuid else self._images / there.name
        return str(here) if here.is_file() else None

    def keep(self, uuid: str, disks: Sequence[Disk]) -> None:
        """The domain has run with these disks: its copies among them stay."""
        self.copies.keep(uuid, _copies(disks))

    def discard(self, uuid: str, copies: Sequence[str] = ()) -> None:
        """Remove the overlays and the scratch space of this domain if they are this host's, and those of the copies that it has not run
        with."""
        if self.owner.owns(uuid):
            self._scratch.discard(uuid)
            shutil.rmtree(self._overlays / uuid, ignore_errors=True)
        self.copies.discard(uuid, copies)

    def give_up(self, uuid: str, disks: Sequence[Disk]) -> None:
        """The same after a start that failed, whose own words matter more than what stands in the way of this."""
        with contextlib.suppress(OSError, OurFault):
            self.discard(uuid, _copies(disks))

    def _overlay(self, image: DiskImage, path: Path) -> AttachedDisk:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._blank(image), path)
        return AttachedDisk(path=str(path), format="qcow2", base=image.path, base_format=image.format)

    def _blank(self, image: DiskImage) -> Path:
        """An overlay nobody has written to."""
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
