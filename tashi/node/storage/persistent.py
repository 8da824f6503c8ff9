"""The persistent disks of instances: copies of templates in the image directory, each made once and whole or not at all.

A copy grows under a hidden name of its domain's own (``.NAME.UUID.GENERATION.part``), is whole under another (``.NAME.UUID.GENERATION``,
the claim) and gets its own name as a second link to the claim. So whoever died in the middle is followed by somebody who knows where to
go on, and a file that is not this domain's is neither overwritten nor taken for its copy. The claim stays until the domain has run: what
is given up unused is removed by it, and what has been used is not. No order touches what one of a higher generation has begun.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from tashi.errors import INTERNAL, OurFault
from tashi.model.disks import DiskCopy
from tashi.node.storage.copying import copy_data, data_bytes, reflink
from tashi.node.storage.image import open_image
from tashi.node.storage.space import fault, require


class _Work:
    """Copies under way for one domain, as other threads see them."""

    def __init__(self) -> None:
        self.total = 0
        self.copied = 0
        self.given_up = False

    def count(self, size: int) -> None:
        """So many more bytes are copied; OurFault when they are no longer wanted."""
        self.copied += size
        if self.given_up:
            raise OurFault(INTERNAL, "the copy was given up")


class PersistentDisks:
    """The copies in one image directory."""

    def __init__(self, images: Path) -> None:
        self._images = images
        self._works: dict[str, _Work] = {}

    def make(self, uuid: str, generation: int, copies: Sequence[DiskCopy]) -> None:
        """See to it that these copies are there. OurFault when one cannot be had, and then none is left."""
        work = self._works[uuid] = _Work()
        names = [copy.name for copy in copies]
        try:
            self.discard(uuid, generation - 1, names)
            wanted = [copy for copy in copies if not self._claim(copy.name, uuid, generation).exists()]
            work.total = sum(map(self._size, wanted))
            for copy in copies:
                if copy in wanted:
                    self._make_claim(uuid, generation, copy, work)
                self._link(self._claim(copy.name, uuid, generation), copy.name)
            self._sync()
        except BaseException as error:
            with contextlib.suppress(OSError):  # the first failure is the one to tell of
                self.discard(uuid, generation, names)
            if isinstance(error, OSError):
                raise fault(error, self._images, f"the copy of {copies[0].template}") from error
            raise
        finally:
            del self._works[uuid]

    def progress(self, uuid: str) -> int | None:
        """How many percent of the copies under way for the domain are done; None: there are none."""
        work = self._works.get(uuid)
        if work is None:
            return None
        return min(99, 100 * work.copied // work.total) if work.total else 0

    def abort(self, uuid: str) -> None:
        """Let the copies under way for the domain, if there are any, come to nothing soon."""
        work = self._works.get(uuid)
        if work is not None:
            work.given_up = True

    def keep(self, uuid: str, generation: int, names: Sequence[str]) -> None:
        """The domain has run with these copies: they are not given up any more."""
        for name in names:
            with contextlib.suppress(OSError):  # a claim alone gives up nothing: whoever does must be told that the domain never ran
                for claim in self._up_to(generation, name, uuid):
                    claim.unlink(missing_ok=True)

    def discard(self, uuid: str, generation: int, names: Sequence[str]) -> None:
        """Remove those of these copies that were made for the domain up to this generation and that it has not run with."""
        for name in names:
            copy = self._images / name
            for claim in self._up_to(generation, name, uuid):
                if _same_file(claim, copy):
                    copy.unlink()
                claim.unlink(missing_ok=True)

    def _up_to(self, generation: int, name: str, uuid: str) -> list[Path]:
        """The claims and unfinished copies of the domain up to this generation; an older version's, without one, are of 0."""
        begin = f".{name}.{uuid}"
        found = []
        for path in self._images.glob(f"{begin}*"):
            number = path.name[len(begin) :].removesuffix(".part").removeprefix(".") or "0"
            if number.isdigit() and int(number) <= generation:
                found.append(path)
        return found

    def _size(self, copy: DiskCopy) -> int:
        source, _ = open_image(str(self._images), copy.template)
        try:
            return data_bytes(source)
        finally:
            os.close(source)

    def _make_claim(self, uuid: str, generation: int, copy: DiskCopy, work: _Work) -> None:
        claim = self._claim(copy.name, uuid, generation)
        part = claim.with_name(f"{claim.name}.part")
        source, _ = open_image(str(self._images), copy.template)
        try:
            part.unlink(missing_ok=True)
            target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(target, _mode_of_copy(os.fstat(source).st_mode))
                if reflink(source, target):
                    os.fsync(target)
                else:
                    require(self._images, data_bytes(source), f"the copy of {copy.template}")
                    copy_data(source, target, work.count)
            finally:
                os.close(target)
            part.rename(claim)
        finally:
            os.close(source)

    def _link(self, claim: Path, name: str) -> None:
        copy = self._images / name
        try:
            os.link(claim, copy, follow_symlinks=False)
        except FileExistsError:
            if not _same_file(claim, copy):
                raise OurFault(
                    INTERNAL, f"there is a file {name} in {self._images} already, which was not made for this instance; move it away"
                ) from None

    def _sync(self) -> None:
        descriptor = os.open(self._images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _claim(self, name: str, uuid: str, generation: int) -> Path:
        return self._images / f".{name}.{uuid}.{generation}"


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(one.lstat(), other.lstat())
    except FileNotFoundError:
        return False


def _mode_of_copy(template: int) -> int:
    """The permissions of a user's disk: everybody reads a template, but a copy only who may also write the template.

    Where libvirt cannot change the owner of files, QEMU writes a disk by these permissions.
    """
    mode = 0o600
    for both in (0o060, 0o006):
        if template & both == both:
            mode |= both
    return mode
