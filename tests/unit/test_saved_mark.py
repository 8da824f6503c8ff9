"""Whose the memory of a suspended domain is: by the name of its file, or by what is in it."""

from __future__ import annotations

import struct
import threading
import uuid
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tashi.images.directory import ImageDirectory
from tashi.model.instance import console_name, former_saved_name, is_former_name, saved_name
from tashi.node.domain.saved import mark_of_saved
from tashi.node.libvirt.jobs import Jobs
from tashi.node.libvirt.save import SavedDomains
from tashi.node.storage.disks import Disks
from tests.unit.test_domain_xml import CELL, a_domain, an_order

OTHER = "0c9a0f0e-1111-4222-8333-444455556666"


def a_file(cell: str, magic: bytes = b"LibvirtQemudSave", incarnation: str = "") -> bytes:
    """The memory of instance 7 of this cell as libvirt keeps it."""
    domain = a_domain(an_order(incarnation=incarnation))
    mark = domain.find("metadata/*")
    assert mark is not None
    mark.set("cell", cell)
    text = ElementTree.tostring(domain) + b"\0"
    return magic + struct.pack("=II", 2, len(text)) + bytes(92 - len(magic) - 8) + text + b"memory"


def test_the_mark_in_a_file() -> None:
    """A file of libvirt's is known by the mark in its XML, also while it is being written; anything else is nobody's."""
    for magic in (b"LibvirtQemudSave", b"LibvirtQemudPart"):
        mark = mark_of_saved(a_file(CELL, magic, "a" * 32))
        assert mark is not None and (mark.cell, mark.instance_id, mark.incarnation) == (CELL, 7, "a" * 32)
    for other in (b"", b"LibvirtQemudSave", b"\x7fELF" + bytes(200), a_file(CELL)[:200], a_file(CELL).replace(b"<", b"(")):
        assert mark_of_saved(other) is None


def test_names_tell_cells_and_incarnations_apart() -> None:
    """H7: two cells, and two incarnations of one id, never have the same file or log."""
    cells = [uuid.UUID(CELL), uuid.UUID(OTHER)]
    names = {saved_name(cell, 12, mark * 32) for cell in cells for mark in ("a", "b", "")}
    logs = {console_name(cell, 12, mark * 32, "shop") for cell in cells for mark in ("a", "b")}
    assert (len(names), len(logs), any(map(is_former_name, names))) == (6, 4, False)
    assert is_former_name(former_saved_name(12, "shop")) and console_name(cells[0], 12, "", "shop") == "tashi-12-shop"


@pytest.mark.parametrize(("cell", "stays"), [(OTHER, True), (CELL, False)])
def test_h7_a_host_removes_only_the_memory_of_its_cell(tmp_path: Path, cell: str, stays: bool) -> None:
    """H7: a file of another cell under the name that an older version used is not removed, nor taken for ours; our own is."""
    (tmp_path / "images").mkdir()
    (tmp_path / "suspend").mkdir()
    former = former_saved_name(7, an_order().name)
    (tmp_path / former).write_bytes(a_file(cell))
    saved = SavedDomains(Disks(tmp_path / "images", tmp_path / "overlays"), Jobs(1.0))
    mark = mark_of_saved(a_file(CELL))
    assert mark is not None and saved.is_memory_of(mark) is not stays
    saved.forget_all(mark)
    saved.forget(former, CELL)
    assert (tmp_path / former).exists() is stays


@pytest.mark.parametrize(("cell", "stays"), [(OTHER, True), (CELL, False)])
def test_h7_a_control_plane_removes_only_the_memory_of_its_cell(tmp_path: Path, cell: str, stays: bool) -> None:
    """H7: so does the control plane when a suspended instance is destroyed."""
    (tmp_path / "suspend").mkdir()
    former = former_saved_name(7, "tizzy")
    (tmp_path / former).write_bytes(a_file(cell))
    before = set(threading.enumerate())
    ImageDirectory(str(tmp_path / "images")).forget_saved(former, CELL)
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert (tmp_path / former).exists() is stays
