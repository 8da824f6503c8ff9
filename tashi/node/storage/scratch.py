"""Scratch space for one instance: a disk of its own that begins empty and goes with it.

Where the host has an LVM volume group for that it is a logical volume there, else a sparse file beside the instance's overlays. A
logical volume is named and tagged by the domain's UUID, which no other cell has, and the generation. A note beside the overlays
says that there is one, or may be.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import msgspec

from tashi.errors import INTERNAL, OurFault, YourMistake
from tashi.files import write_whole
from tashi.model.names import check_scratch_space
from tashi.model.orders import Receive, Start
from tashi.node.domain.xml import AttachedDisk
from tashi.node.storage.space import fault, require

HINT: Final = "scratchSpace"
SCRATCH_FILE: Final = "scratch.raw"
LVM_SECONDS: Final = 60.0
ZERO_SECONDS: Final = 4 * 3600.0
"""What a large volume on a slow disk may take to be overwritten."""
_NOTE: Final = "scratch.lvm"


class Scratch(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance asks for: ``size`` in MiB."""

    size: int


def scratch_of(order: Start | Receive) -> Scratch | None:
    """The scratch space that an order asks for by its hint; OurFault when the hint makes no sense."""
    if HINT not in order.hints:
        return None
    try:
        size = check_scratch_space(f"hints.{HINT}", order.hints[HINT])
    except YourMistake as error:
        raise OurFault(error.code, error.message) from None
    return Scratch(size=size)


class ScratchSpace:
    """The scratch space of one host; ``volume_group`` is empty where there is none."""

    def __init__(self, volume_group: str) -> None:
        self._volume_group = volume_group

    def make(self, directory: Path, uuid: str, scratch: Scratch) -> AttachedDisk:
        """Make the empty disk of the generation whose directory this is. OurFault when there is no room; `discard` then removes what
        there may be of it."""
        return self._make_volume(directory, uuid, scratch) if self._volume_group else _make_file(directory, scratch)

    def discard(self, directory: Path) -> None:
        """Remove the logical volume that the directory's note names, and overwrite it first: who gets its blocks next does not get
        its data."""
        note = directory / _NOTE
        try:
            group, *tags = note.read_text().splitlines()
        except FileNotFoundError:
            return
        selected = f"lv_tags={tags[0] if tags else _former_tag(directory.name)}"
        listed = _run("lvs", "--noheadings", "--options", "lv_path", "--select", selected, group)
        for path in listed.split():
            if os.path.exists(path):
                _run("blkdiscard", "--force", "--zeroout", path, seconds=ZERO_SECONDS)
        _run("lvremove", "--yes", "--select", selected, group)
        note.unlink()

    def _make_volume(self, directory: Path, uuid: str, scratch: Scratch) -> AttachedDisk:
        group, name = self._volume_group, f"tashi-{uuid}-{directory.name}"
        try:
            write_whole(directory / _NOTE, f"{group}\n{name}")  # first: a volume without it would stay for ever
        except OSError as error:
            raise fault(error, directory, "the scratch space") from error
        how = ("--yes", "--wipesignatures", "y", "--addtag", name, "--size", f"{scratch.size}m")
        _run("lvcreate", *how, "--name", name, group)
        return AttachedDisk(path=f"/dev/{group}/{name}", format="raw", device=True)


def _make_file(directory: Path, scratch: Scratch) -> AttachedDisk:
    path = directory / SCRATCH_FILE
    require(directory, scratch.size * 2**20, "the scratch space")
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.truncate(scratch.size * 2**20)
    except OSError as error:
        raise fault(error, directory, "the scratch space") from error
    return AttachedDisk(path=str(path), format="raw")


def _former_tag(uuid: str) -> str:
    """The tag of a volume that an older version made, whose note names only the volume group."""
    return f"tashi-{uuid}"


def _run(*command: str, seconds: float = LVM_SECONDS) -> str:
    """What the command prints; OurFault with its own words when it fails."""
    try:
        done = subprocess.run(
            command, check=True, timeout=seconds, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError as error:
        raise OurFault(INTERNAL, f"{command[0]} is not installed on this host, and [Qemu] scratchVg needs it (package lvm2)") from error
    except subprocess.CalledProcessError as error:
        raise OurFault(INTERNAL, f"{command[0]} failed in {command[-1]}: {'; '.join(error.stderr.split(chr(10))).strip('; ')}") from error
    except subprocess.TimeoutExpired as error:
        raise OurFault(INTERNAL, f"{command[0]} did not end within {seconds:g} s") from error
    return done.stdout
