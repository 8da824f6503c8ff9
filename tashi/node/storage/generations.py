"""The directories of what domains write to and then lose: one for each generation, each with the host that it belongs to.

    overlays/UUID/GENERATION/           made for the Start or Receive of this generation
    overlays/UUID/GENERATION/owner      the host that may remove the directory, or that the domain is moving
    overlays/UUID/departing-GENERATION  a sign for a target that sees the same directory
    overlays/UUID/*                     made by an older version; counts as generation 0

Hosts may share ``overlays``. A host removes a directory only when it belongs to that host, or to nobody, and when its
generation is not above that of the order: what a later order has made, here or on another host, stays.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tashi.errors import CONFLICT, OurFault
from tashi.files import write_whole

OWNER: Final = "owner"
SIGN: Final = "departing-"
_MOVING: Final = "(moving)"


class Generations:
    """What one host, by a name that no other host has, may do with the directories of domains in ``overlays``."""

    def __init__(self, overlays: Path, name: str, former_names: Iterable[str] = ()) -> None:
        """``former_names``: what the host was called in directories that an older version made."""
        self._overlays = overlays
        self._name = name
        self._ours = {name, "", *former_names}

    def path(self, uuid: str, generation: int) -> Path:
        """Return the directory of this generation of the domain, which need not exist."""
        return self._overlays / uuid / str(generation)

    def all(self, uuid: str) -> list[tuple[int, Path]]:
        """Return the generations of the domain that there are, lowest first, each with its directory."""
        found = []
        former = False
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in (self._overlays / uuid).iterdir():
                if entry.name.isascii() and entry.name.isdigit() and entry.is_dir():
                    found.append((int(entry.name), entry))
                elif not entry.name.startswith((SIGN, ".")):
                    former = True
        if former:
            found.append((0, self._overlays / uuid))
        return sorted(found)

    def owns(self, directory: Path) -> bool:
        """Whether the directory is this host's, or nobody's."""
        return self._owner(directory) in self._ours

    def belongs_here(self, directory: Path) -> bool:
        """Whether the directory is this host's by its present name."""
        return self._owner(directory) == self._name

    def claim(self, uuid: str, generation: int) -> Path:
        """Make the directory of this generation and let it be this host's. OurFault when another host has it; OSError."""
        directory = self.path(uuid, generation)
        directory.mkdir(parents=True, exist_ok=True)
        if not self.owns(directory):
            raise OurFault(
                CONFLICT,
                f"{directory} belongs to {self._owner(directory)}, and this host is {self._name}; "
                "give each host a name of its own in [NodeManagerService] name",
            )
        self.take(directory)
        return directory

    def take(self, directory: Path) -> None:
        """Let the directory be this host's from now on; nothing when there is none."""
        self._write(directory, self._name)

    def let_go(self, directory: Path) -> None:
        """Let no host remove the directory until one has taken it; nothing when there is none."""
        self._write(directory, _MOVING)

    def remove(self, uuid: str, generation: int) -> None:
        """Remove this host's directories of the domain up to this generation."""
        for number, directory in self.all(uuid):
            if number <= generation and self.owns(directory):
                _remove(directory)
        with contextlib.suppress(OSError):  # it is not empty, or not there
            for sign in (self._overlays / uuid).glob(f"{SIGN}*"):
                number_text = sign.name[len(SIGN) :]
                if number_text.isdigit() and int(number_text) <= generation:
                    sign.unlink(missing_ok=True)
            (self._overlays / uuid).rmdir()

    def leave_sign(self, uuid: str, generation: int) -> None:
        """Leave a sign that a host which sees the same directory finds, in place of any older one."""
        directory = self._overlays / uuid
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob(f"{SIGN}*"):
            old.unlink(missing_ok=True)
        (directory / f"{SIGN}{generation}").touch()

    def finds_sign(self, uuid: str, generation: int) -> bool:
        """Whether this host sees the directory in which the sign was left."""
        return (self._overlays / uuid / f"{SIGN}{generation}").exists()

    def _write(self, directory: Path, owner: str) -> None:
        if directory.is_dir() and self._owner(directory) != owner:
            write_whole(directory / OWNER, owner)

    def _owner(self, directory: Path) -> str:
        try:
            return (directory / OWNER).read_text()
        except FileNotFoundError:
            return ""


def is_throw_away(uuid: str, path: Path) -> bool:
    """Whether the file of a domain lies in one of its directories, on whatever host, and not among the images."""
    parent = path.parent
    return parent.name == uuid or (parent.parent.name == uuid and parent.name.isdigit())


def _remove(directory: Path) -> None:
    """Remove the directory; of one that an older version made only its own files, and the generations in it stay."""
    if directory.name.isdigit():
        shutil.rmtree(directory, ignore_errors=True)
        return
    for entry in directory.iterdir():
        if not entry.is_dir() and not entry.name.startswith(SIGN):
            with contextlib.suppress(OSError):
                entry.unlink()
