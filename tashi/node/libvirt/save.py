"""Suspended domains: their memory in a file below the shared directory, their throw-away disks beside it, nothing left on this host.

-> suspend/UUID.INCARNATION.part     libvirt writes it, and marks it whole when it is
   suspend/UUID.INCARNATION.disks/   then the disks are moved there, with a note which images they need
   suspend/UUID.INCARNATION          and the file gets its name: any host that shares the directory can now let the domain go on
Each step is done when its outcome is there, so whoever dies in the middle is followed by somebody who goes on from there. Resuming goes
the same way back; the file is removed when the domain runs.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import libvirt

from tashi.errors import INTERNAL, OurFault
from tashi.model.instance import former_saved_name, is_former_name, saved_name
from tashi.model.orders import Suspend
from tashi.model.saved import HEAD_BYTES
from tashi.node.domain.landing import files_of, mark_of_described
from tashi.node.domain.saved import mark_of_saved
from tashi.node.domain.xml import Mark
from tashi.node.libvirt.deeds import do_while_off
from tashi.node.libvirt.domain import ENDED, canonical, renewed
from tashi.node.libvirt.jobs import Jobs
from tashi.node.libvirt.migrate import check_movable
from tashi.node.storage import bases
from tashi.node.storage.copying import copy_data
from tashi.node.storage.disks import Disks
from tashi.node.storage.generations import OWNER, SIGN, is_throw_away

_WHOLE: Final = b"LibvirtQemudSave"
_NOT_DISKS: Final = (OWNER, SIGN, bases.AT_REST)


class SavedDomains:
    """The suspended domains below the shared directory, as this host makes them and takes them back."""

    def __init__(self, disks: Disks, jobs: Jobs) -> None:
        self._share = disks.share
        self._disks = disks
        self._jobs = jobs

    def is_saved(self, saved: str) -> bool:
        """Whether all of the domain is kept under this name."""
        return _is_whole(self._share / saved)

    def is_memory_saved(self, saved: str) -> bool:
        """Whether at least its memory is, so that the domain here is one that is being suspended."""
        return _is_whole(self._share / saved) or _is_whole(_part(self._share / saved))

    def is_memory_of(self, mark: Mark) -> bool:
        """The same for the domain of this mark, whose order is not known."""
        return any(map(self.is_memory_saved, self._names(mark)))

    def forget_all(self, mark: Mark) -> None:
        """Remove what is kept of the domain of this mark."""
        for saved in self._names(mark):
            self.forget(saved, mark.cell)

    def _names(self, mark: Mark) -> tuple[str, ...]:
        """Under which names this domain may be kept. One without an incarnation may have been suspended by an older version."""
        names = (saved_name(UUID(mark.cell), mark.instance_id, mark.incarnation),)
        former = former_saved_name(mark.instance_id, mark.name)
        if mark.incarnation or not self._is_of(former, mark.cell):
            return names
        return (*names, former)

    def _is_of(self, saved: str, cell: str) -> bool:
        """Whether what is kept under this name is of this cell, by its name or by its content."""
        path = self._share / saved
        return not is_former_name(saved) or any(_cell_of(file) == cell for file in (path, _part(path)))

    def suspend(self, domain: Any, mark: Mark, deed: Suspend) -> bool:
        """Keep all of the domain under the deed's name; return False when it is off and none of its memory is there to keep."""
        domain_uuid = canonical(deed.uuid)
        if domain.state()[0] not in ENDED:
            check_movable(domain, domain_uuid, self._disks)
            renewed(domain, mark, deed.generation)
            self.save(domain, domain_uuid, deed.saved, mark.cell)
        elif not self.is_memory_saved(deed.saved):
            do_while_off(domain, mark, deed)
            return False
        self.finish(domain_uuid, list(files_of(domain.XMLDesc())), deed.saved)
        return True

    def save(self, domain: Any, domain_uuid: str, saved: str, cell: str) -> None:
        """Keep the memory of a domain that runs; it ends with that. OurFault when it could not be kept: then it runs on."""
        self.forget(saved, cell)
        path = _part(self._share / saved)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._jobs.under_way(domain_uuid) as job:
            try:
                domain.saveFlags(str(path), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
            except libvirt.libvirtError as error:
                path.unlink(missing_ok=True)
                raise OurFault(INTERNAL, job.why_ended or error.get_error_message() or str(error)) from error

    def finish(self, domain_uuid: str, files: Sequence[str], saved: str) -> None:
        """Move the disks among the ``files`` of a domain whose memory is kept, note which images it needs, and give the file
        its name."""
        path = self._share / saved
        if not _is_whole(path):
            with _in_words(path):
                _disks_of(path).mkdir(exist_ok=True)
                images = self._disks.images_among(domain_uuid, files)
                directories = self._disks.directories(domain_uuid, files)
                records = [directory / bases.BASES for directory in (*directories, _disks_of(path))]
                bases.keep_present(_disks_of(path) / bases.AT_REST, self._disks.images, images, records)
                for directory in directories:
                    _move_all(directory, _disks_of(path))
                _part(path).rename(path)

    def resume(
        self, connection: Any, domain_uuid: str, generation: int, saved: str, land: Callable[[str, Path], str]
    ) -> None:
        """Let the domain go on here with its disks in the directory of this generation; ``land`` makes what it was into what it is
        on this host. OurFault when it cannot, or when an image that it needs is not the one that it had: then it stays saved."""
        path = self._share / saved
        if not _is_whole(path):
            raise OurFault(INTERNAL, f"its memory is not in {path}; it cannot go on")
        described = connection.saveImageGetXMLDesc(str(path), 0)
        bases.check(_disks_of(path) / bases.AT_REST, self._disks.images)
        with _in_words(path):
            directory = self._take_back(domain_uuid, generation, path, files_of(described))
        domain = None
        try:
            xml = land(described, directory)
            domain = connection.defineXML(xml)
            connection.restoreFlags(str(path), xml, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        except (libvirt.libvirtError, OurFault):
            with contextlib.suppress(libvirt.libvirtError, OSError):  # the first failure is the one to tell of
                if domain is not None and not domain.isActive():
                    domain.undefine()
                if domain is None or not domain.isActive():
                    _move_all(directory, _disks_of(path))
                    self._disks.discard(domain_uuid, generation)
            raise
        self.forget(saved, mark_of_described(described).cell)

    def _take_back(self, domain_uuid: str, generation: int, path: Path, files: Iterable[str]) -> Path:
        """Move the disks into the directory of this generation, those that an earlier try on this host has moved among them."""
        needed = [Path(file).name for file in files if is_throw_away(domain_uuid, Path(file))]
        generations = self._disks.generations
        if not needed:
            return generations.path(domain_uuid, generation)
        directory = generations.claim(domain_uuid, generation)
        _move_all(_disks_of(path), directory)
        for number, earlier in reversed(generations.all(domain_uuid)):
            if number < generation and generations.owns(earlier):
                for name in (*needed, bases.BASES):
                    if (earlier / name).exists() and not (directory / name).exists():
                        _move(earlier / name, directory / name)
        return directory

    def forget(self, saved: str, cell: str) -> None:
        """Remove what is kept under this name, if it is of this cell."""
        path = self._share / saved
        if not self._is_of(saved, cell):
            return
        for file in (path, _part(path)):
            file.unlink(missing_ok=True)
        shutil.rmtree(_disks_of(path), ignore_errors=True)


def _cell_of(path: Path) -> str:
    """The cell of the domain whose memory is in this file; '' where there is none."""
    try:
        with path.open("rb") as file:
            mark = mark_of_saved(file.read(HEAD_BYTES))
    except OSError:
        return ""
    return "" if mark is None else mark.cell


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _disks_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.disks")


def _is_whole(path: Path) -> bool:
    """Whether libvirt has finished writing this file: until then its first bytes say that it is partial."""
    try:
        with path.open("rb") as file:
            return file.read(len(_WHOLE)) == _WHOLE
    except FileNotFoundError:
        return False


def _move_all(source: Path, target: Path) -> None:
    """Move the disks of one directory into another, each whole or not at all."""
    if not source.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.startswith(_NOT_DISKS):
            _move(file, target / file.name)


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        unfinished = target.with_name(f".{target.name}.part")
        with source.open("rb") as old, unfinished.open("wb") as new:
            copy_data(old.fileno(), new.fileno(), lambda size: None)
        unfinished.rename(target)
        source.unlink()


@contextlib.contextmanager
def _in_words(path: Path) -> Any:
    try:
        yield
    except OSError as error:
        raise OurFault(INTERNAL, f"the disks of {path.name} could not be moved: {error.strerror or error}") from error
