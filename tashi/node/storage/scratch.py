"""Scratch space for one instance: a disk of its own that begins empty and goes with it.

Where the host has an LVM volume group for that it is a logical volume there, else a sparse file beside the instance's overlays. A
logical volume is tagged with the domain's UUID, and a note beside the overlays says that there is one, or may be.
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
LVM_SECONDS: Final = 60.0
ZERO_SECONDS: Final = 4 * 3600.0
"""What a large volume on a slow disk may take to be overwritten."""
_NOTE: Final = "scratch.lvm"


class Scratch(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance asks for: ``name`` is the logical volume's, ``size`` in MiB."""

    name: str
    size: int


def scratch_of(order: Start | Receive) -> Scratch | None:
    """The scratch space that an order asks for by its hint; OurFault when the hint makes no sense."""
    if HINT not in order.hints:
        return None
    try:
        size = check_scratch_space(f"hints.{HINT}", order.hints[HINT])
    except YourMistake as error:
        raise OurFault(error.code, error.message) from None
    return Scratch(name=f"lv{order.instance_id}-{order.name}", size=size)


class ScratchSpace:
    """The scratch space of one host: ``directory`` has one directory for each domain, ``volume_group`` is empty where there is none."""

    def __init__(self, directory: Path, volume_group: str) -> None:
        self._directory = directory
        self._volume_group = volume_group

    def make(self, uuid: str, scratch: Scratch) -> AttachedDisk:
        """The empty disk. OurFault when there is no room; `discard` then removes what there may be of it."""
        return self._make_volume(uuid, scratch) if self._volume_group else self._make_file(uuid, scratch)

    def discard(self, uuid: str) -> None:
        """Remove the domain's logical volume, if it has one, and overwrite it first: who gets its blocks next does not get its data."""
        note = self._directory / uuid / _NOTE
        try:
            group = note.read_text()
        except FileNotFoundError:
            return
        listed = _run("lvs", "--noheadings", "--options", "lv_path", "--select", f"lv_tags={_tag(uuid)}", group)
        for path in listed.split():
            if os.path.exists(path):
                _run("blkdiscard", "--force", "--zeroout", path, seconds=ZERO_SECONDS)
        _run("lvremove", "--yes", "--select", f"lv_tags={_tag(uuid)}", group)
        note.unlink()

    def _make_file(self, uuid: str, scratch: Scratch) -> AttachedDisk:
        path = self._directory / uuid / "scratch.raw"
        require(self._directory, scratch.size * 2**20, "the scratch space")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.truncate(scratch.size * 2**20)
        except OSError as error:
            raise fault(error, self._directory, "the scratch space") from error
        return AttachedDisk(path=str(path), format="raw")

    def _make_volume(self, uuid: str, scratch: Scratch) -> AttachedDisk:
        group = self._volume_group
        try:
            (self._directory / uuid).mkdir(parents=True, exist_ok=True)
            write_whole(self._directory / uuid / _NOTE, group)  # first: a volume without it would stay for ever
        except OSError as error:
            raise fault(error, self._directory, "the scratch space") from error
        how = ("--yes", "--wipesignatures", "y", "--addtag", _tag(uuid), "--size", f"{scratch.size}m")
        _run("lvcreate", *how, "--name", scratch.name, group)
        return AttachedDisk(path=f"/dev/{group}/{scratch.name}", format="raw", device=True)


def _tag(uuid: str) -> str:
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
