"""What becomes of the disks of an instance. A template that is named as persistent is copied, and the instance gets the copy.

A copy lies beside the images, called ``disk-<id>-<name>-<place>`` with the template's ending. It is its instance's alone while that
lives, and survives it: another instance of its owner may have it afterwards by that name. Until its instance has run it remembers its
template, for a copy that nobody has used goes with the failed creation that it was made for.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tashi.model.bounds import Text
from tashi.model.instance import Disk, Instance
from tashi.model.states import Happening

OWN: Final = "disk-"
"""How the names of persistent disks begin: an image that is called so is attached itself, to one instance at a time."""
_ENDING: Final = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")


class DiskCopy(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A copy to be made in the image directory: both are file names."""

    template: Text
    name: Text


class DiskRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A persistent disk and its owner; the record is what counts, whatever the file is called. ``user_id`` None: it belongs to nobody.

    ``instance_id``: the instance that it was made for. ``created_at``: seconds since the epoch.
    """

    name: str
    user_id: int | None
    instance_id: int
    created_at: float = 0.0


def is_own(uri: str) -> bool:
    """Whether the image is somebody's persistent disk rather than a template, in any case: some file systems do not tell cases apart."""
    return uri[: len(OWN)].lower() == OWN


def is_made_for(uri: str, instance_id: int) -> bool:
    """Whether the name is that of a copy which was made for this instance."""
    return uri.startswith(f"{OWN}{instance_id}-")


def copies_needed(instance: Instance) -> tuple[DiskCopy, ...]:
    """The copies that are to be made before the instance can start."""
    return tuple(DiskCopy(template=disk.uri, name=_copy_name(instance, place)) for place, disk in _templates(instance))


def unused_copies(instance: Instance) -> tuple[str, ...]:
    """The names of the copies that were made for the instance, or are being made, and that it has never run with."""
    made = tuple(disk.uri for disk in instance.disks if disk.template)
    return made + tuple(copy.name for copy in copies_needed(instance))


def disks_after(instance: Instance, happening: Happening) -> tuple[Disk, ...]:
    """The instance's disks after this: copies take their templates' places, are given up for another try, or have come into use."""
    match happening:
        case Happening.DISK_READY:
            names = {place: _copy_name(instance, place) for place, _ in _templates(instance)}
            return tuple(
                msgspec.structs.replace(disk, uri=names[place], template=disk.uri) if place in names else disk
                for place, disk in enumerate(instance.disks)
            )
        case Happening.RETRIED:
            return tuple(Disk(uri=disk.template, persistent=True) if disk.template else disk for disk in instance.disks)
        case Happening.SEEN_RUNNING | Happening.SEEN_GONE:
            return tuple(msgspec.structs.replace(disk, template="") if disk.template else disk for disk in instance.disks)
        case _:
            return instance.disks


def _templates(instance: Instance) -> list[tuple[int, Disk]]:
    return [(place, disk) for place, disk in enumerate(instance.disks) if disk.persistent and not is_own(disk.uri)]


def _copy_name(instance: Instance, place: int) -> str:
    ending = _ENDING.search(instance.disks[place].uri)
    name = re.sub(r"\.{2,}", ".", instance.name)  # an image's name has no two dots in a row, a host name may
    return f"{OWN}{instance.id}-{name}-{place}{ending[0] if ending else ''}"
