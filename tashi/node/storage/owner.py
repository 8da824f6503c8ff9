"""Whose the overlays of a domain are, where hosts share the directory that they lie in.

A host removes only what it owns: it would take away the disks of a domain that has moved to a neighbour. The owner's name stands in a file
beside the overlays. While a domain moves they are nobody's to remove; whoever has it in the end takes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tashi.files import write_whole

_OWNER: Final = "owner"
_MOVING: Final = "(moving)"
_SIGN: Final = "departing-{}"


class OverlayOwner:
    """What one host, by a name that no other host has, may do with the directories of domains in ``overlays``."""

    def __init__(self, overlays: Path, name: str) -> None:
        self._overlays = overlays
        self._name = name

    def owns(self, uuid: str) -> bool:
        """Whether the domain's overlays are this host's, or nobody's."""
        return self._owner(uuid) in (self._name, "")

    def claim(self, uuid: str) -> None:
        """They are this host's, which has just made them: what a crash leaves of this is nobody's."""
        if (self._overlays / uuid).is_dir():
            (self._overlays / uuid / _OWNER).write_text(self._name)

    def take(self, uuid: str) -> None:
        """They are this host's from now on; nothing when there are none."""
        self._write(uuid, self._name)

    def let_go(self, uuid: str) -> None:
        """No host may remove them until one has taken them; nothing when there are none."""
        self._write(uuid, _MOVING)

    def leave_sign(self, uuid: str, generation: int) -> None:
        """Leave a sign that a host which sees the same directory finds; the overlays are surely this host's from now on."""
        directory = self._overlays / uuid
        directory.mkdir(parents=True, exist_ok=True)
        self.take(uuid)
        for old in directory.glob(_SIGN.format("*")):
            old.unlink(missing_ok=True)
        (directory / _SIGN.format(generation)).touch()

    def finds_sign(self, uuid: str, generation: int) -> bool:
        """Whether this host sees the directory in which the sign was left."""
        return (self._overlays / uuid / _SIGN.format(generation)).exists()

    def _write(self, uuid: str, owner: str) -> None:
        if self._owner(uuid) != owner and (self._overlays / uuid).is_dir():
            write_whole(self._overlays / uuid / _OWNER, owner)

    def _owner(self, uuid: str) -> str:
        try:
            return (self._overlays / uuid / _OWNER).read_text()
        except FileNotFoundError:
            return ""
