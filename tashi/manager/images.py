"""Who may use which file of the image directory: the one check for every verb that takes or lists images.

An image is for everybody. A persistent disk is for its owner and for administrators; to anybody else it does
not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.images.directory import ImageFile
from tashi.manager.cluster import Cluster
from tashi.model.disks import DiskRecord, is_made_for, is_own
from tashi.model.user import Principal

NOBODY = "nobody"
"""Shown as the owner of a disk without one."""


class Directory(Protocol):
    """The image directory, as `tashi.images.directory` has it."""

    path: str

    def resolve(self, identifier: str, may_use: Callable[[str], bool]) -> str:
        """The file name of the image; YourMistake(unknown-image) when there is none that may be used."""

    def list(self) -> list[ImageFile]:
        """All files that are not hidden, by name."""

    def may_be_saved(self, saved: str) -> bool:
        """Return whether a suspended instance's memory is kept beside the images, or may be."""

    def is_saved(self, saved: str) -> bool:
        """Return whether a suspended instance's memory is kept beside the images, all of it."""

    def forget_saved(self, saved: str, cell: str) -> None:
        """Remove what a suspended instance has left beside the images."""


class Image(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One row of getImages: ``image_size`` in words, as in 1.76G. Only a persistent disk has an owner. What no
    instance can have is listed to administrators, with the reason in ``refused``."""

    id: int
    image_name: str
    image_size: str
    persistent: bool = False
    user_id: int | None = None
    owner: str = ""
    refused: str = ""


class Images:
    """The images and persistent disks of a cell, as each principal may see and use them."""

    def __init__(self, cluster: Cluster, directory: Directory) -> None:
        self._cluster = cluster
        self._directory = directory

    def resolve(self, who: Principal, identifier: str, user_id: int) -> str:
        """Return the file name of an image or disk that ``who`` may attach to an instance of this user.

        Raises YourMistake: unknown-image when there is no such file, and in the same words when it is the disk
        of another user.
        """
        return self._directory.resolve(identifier, lambda name: self._may_attach(who, name, user_id))

    def resolve_cdrom(self, who: Principal, identifier: str, user_id: int) -> str:
        """Return the same for a CD-ROM, which no persistent disk can be: two instances could have it at a time."""
        name = self.resolve(who, identifier, user_id)
        if is_own(name):
            raise YourMistake(
                BAD_ARGUMENT,
                f"{name} is a persistent disk and cannot be a CD-ROM; attach it with --disks {name}:True",
            )
        return name

    def list(self, who: Principal) -> list[Image]:
        """Return the images, then the disks that ``who`` may use, and to an administrator what is refused."""
        files = [one for one in self._directory.list() if self._is_listed(who, one)]
        files.sort(key=lambda one: (bool(one.refused), is_own(one.name)))
        return [self._row(number, one) for number, one in enumerate(files)]

    def adopt_copies(self) -> None:
        """Record the owners of disks that an older version made for instances that are still there."""
        with self._cluster.transaction("adopt_copies") as tx:
            for instance in self._cluster.instances.values():
                for disk in instance.disks:
                    if is_made_for(disk.uri, instance.id) and disk.uri not in self._cluster.disks:
                        tx.put_disk(
                            DiskRecord(
                                name=disk.uri,
                                user_id=instance.user_id,
                                instance_id=instance.id,
                                created_at=tx.now,
                            )
                        )

    def _may_attach(self, who: Principal, name: str, user_id: int) -> bool:
        """A sender who may act for many users still attaches only the disks of the instance's owner."""
        if not is_own(name) or who.admin:
            return True
        owner = self._owner(name)
        return owner is not None and owner == user_id and who.may_act_for(owner)

    def _is_listed(self, who: Principal, file: ImageFile) -> bool:
        if who.admin:
            return True
        if is_own(file.name) and (who.user_id is None or self._owner(file.name) != who.user_id):
            return False
        return not file.refused

    def _row(self, number: int, file: ImageFile) -> Image:
        row = Image(id=number, image_name=file.name, image_size=file.size, refused=file.refused)
        if not is_own(file.name):
            return row
        user_id = self._owner(file.name)
        user = self._cluster.users.get(user_id) if user_id is not None else None
        return msgspec.structs.replace(
            row, persistent=True, user_id=user_id, owner=user.name if user is not None else NOBODY
        )

    def _owner(self, name: str) -> int | None:
        """The user whose disk it is; None for a file without a record."""
        record = self._cluster.disks.get(name)
        return None if record is None else record.user_id
