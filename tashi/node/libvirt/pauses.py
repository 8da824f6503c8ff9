"""Domains that stand still, continued: what is paused, asleep, saved by the host or reverted to a snapshot without memory."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import libvirt

from tashi.errors import CONFLICT, INTERNAL, OurFault
from tashi.model.causes import OFF, Cause
from tashi.model.orders import Observation, Seen
from tashi.node.domain.landing import files_of
from tashi.node.domain.xml import Mark
from tashi.node.libvirt.connection import gone_meanwhile
from tashi.node.libvirt.domain import seen_of
from tashi.node.storage.space import in_words

STEADY_SECONDS: Final = 1.0
"""How long a guest that had an I/O error has to run before it is taken to have got over it: it first repeats what failed."""
_STEP: Final = 0.05
ENOUGH_BYTES: Final = 64 * 2**20
ENOUGH_SHARE: Final = 0.05
"""A file system has room again with so many bytes free, or such a share of a smaller one."""


def go_on(domain: Any, mark: Mark) -> None:
    """Let the domain run again. OurFault with the reason when it cannot, or pauses again at once; then it stays as it is."""
    observation = seen_of(domain, mark)
    match observation.cause:
        case _ if observation.seen is not Seen.PAUSED:
            return
        case Cause.SAVED_TO_FILE:
            raise OurFault(CONFLICT, observation.reason)
        case cause if cause in OFF:
            domain.create()
            if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:  # as it was when it was saved
                domain.resume()
        case Cause.ASLEEP:
            domain.pMWakeup(0)
        case Cause.NO_SPACE | Cause.IO_ERROR:
            _require_room(domain)
            domain.resume()
            _await_steady(domain, mark)
        case _:
            domain.resume()


def pause(domain: Any, mark: Mark) -> None:
    """Pause the domain. OurFault when its host has done so for want of space: it would continue by itself, whatever its owner wants."""
    observation = seen_of(domain, mark)
    if observation.cause is Cause.NO_SPACE:
        raise OurFault(CONFLICT, observation.reason)
    if observation.seen is Seen.RUNNING:
        domain.suspend()


def refuse_move(domain: Any, mark: Mark) -> None:
    """OurFault when an I/O error has paused the domain: what may be left of it here after a move must never be continued by itself."""
    observation = seen_of(domain, mark)
    if observation.cause in (Cause.NO_SPACE, Cause.IO_ERROR):
        raise OurFault(CONFLICT, observation.reason)


def go_on_if_room(domain: Any, mark: Mark) -> None:
    """Let a domain that its host has paused for want of space run again, when there is some."""
    if seen_of(domain, mark).cause is Cause.NO_SPACE and not _full_places(domain):
        domain.resume()


def _require_room(domain: Any) -> None:
    full = _full_places(domain)
    if full:
        raise OurFault(INTERNAL, f"there is still no space for its disks: {'; '.join(full)}; free some, then it continues by itself")


def _full_places(domain: Any) -> list[str]:
    """The directories without room for those disks of the domain that had no space, with what they have, in words. A block device
    tells nothing of the room below it: it counts as one that has some."""
    return [
        f"{path.parent} has {in_words(free)} free"
        for path in _paths(domain, domain.diskErrors())
        if path.is_file() and (free := _free_bytes(path)) is not None
    ]


def _paths(domain: Any, errors: Mapping[str, int]) -> list[Path]:
    full = {disk for disk, error in errors.items() if error == libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE}
    return sorted(Path(path) for path, disk in files_of(domain.XMLDesc()).items() if disk in full)


def _free_bytes(path: Path) -> int | None:
    """The bytes that are free where this file lies; None when they are enough."""
    status = os.statvfs(path)
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    return None if free >= min(ENOUGH_BYTES, size * ENOUGH_SHARE) else free


def _await_steady(domain: Any, mark: Mark) -> None:
    """Return when the domain has run for a while, or has ended; OurFault when it is paused again."""
    deadline = time.monotonic() + STEADY_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_STEP)
        observation: Observation | None = None
        with gone_meanwhile():
            observation = seen_of(domain, mark)
        if observation is None or observation.seen is Seen.GONE:
            return
        if observation.seen is Seen.PAUSED:
            raise OurFault(INTERNAL, f"it has paused again at once: {observation.reason}")
