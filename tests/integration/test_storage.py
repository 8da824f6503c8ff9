"""Disks on real file systems that are small, full or able to share blocks, on a real volume group, and on real hosts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tashi.errors import OurFault
from tashi.model.disks import DiskCopy
from tashi.model.instance import Disk
from tashi.node.storage import persistent as persistent_disks
from tashi.node.storage.copying import copy_data
from tashi.node.storage.disks import Disks
from tashi.node.storage.image import read_image
from tashi.node.storage.persistent import PersistentDisks
from tashi.node.storage.scratch import Scratch
from tests.integration.cells import RunningCell, until

pytestmark = pytest.mark.integration
UUID = str(uuid.UUID(int=7))
OTHER_CELL = str(uuid.UUID(int=8))
MEGABYTE = 2**20
COPY = DiskCopy(template="a.img", name="disk-1-web-0.img")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@contextlib.contextmanager
def _mounted(directory: Path, *how: str) -> Iterator[Path]:
    """A file system mounted at the directory while the block runs."""
    directory.mkdir()
    _run("mount", *how, str(directory))
    try:
        yield directory
    finally:
        _run("umount", str(directory))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    with _mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "tashi-test") as directory:
        yield directory


def _template(directory: Path, size: int) -> None:
    (directory / "a.img").write_bytes(os.urandom(size))


def _files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def _fill(directory: Path) -> None:
    """Leave no room at all."""
    with (directory / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_no_room_for_a_copy(small: Path) -> None:
    """What cannot fit is not begun, so that a full image directory is not made fuller; the words say how much is missing."""
    _template(small, 700_000)
    with pytest.raises(OurFault, match=r"the copy of a.img needs 68\d\.\d KiB, and .*small has 3\d\d\.\d KiB free") as caught:
        PersistentDisks(small).make(UUID, 2, [COPY])
    assert str(small) in caught.value.message
    assert _files(small) == ["a.img"]


def test_a_copy_that_runs_out_of_room(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When others take the room meanwhile, the copy ends in words and what was made of it is gone."""
    _template(small, 400_000)

    def meanwhile(source: int, target: int, copied: Callable[[int], None]) -> None:
        _fill(small)
        copy_data(source, target, copied)

    monkeypatch.setattr(persistent_disks, "copy_data", meanwhile)
    with pytest.raises(OurFault, match=r"the copy of a.img was not made: .*small is full \(0 bytes free\)"):
        PersistentDisks(small).make(UUID, 2, [COPY])
    assert _files(small) == ["a.img", "filler"]


def test_no_room_for_an_overlay(tmp_path: Path, small: Path) -> None:
    """Neither the first overlay of an image nor a later one leaves anything on a full disk; with room again it is made."""
    (tmp_path / "images").mkdir()
    _template(tmp_path / "images", 4096)
    disks = Disks(tmp_path / "images", small / "scratch")
    _fill(small)
    for left in (["filler", "scratch"], ["filler", "scratch", "scratch/blank"]):
        with pytest.raises(OurFault, match=f"{small / 'scratch'}") as caught:
            disks.prepare(UUID, 3, [Disk(uri="a.img")])
        assert "free" in caught.value.message
        disks.give_up(UUID, 3, [Disk(uri="a.img")])
        assert [name.split("-")[0] for name in _files(small)] == left
        (small / "filler").unlink()
        disks.prepare(UUID, 3, [Disk(uri="a.img")])
        disks.discard(UUID, 3)
        _fill(small)


def test_no_room_for_scratch_space(tmp_path: Path, small: Path) -> None:
    """Scratch space is not promised beyond what there is, and what is promised takes no room before it is used."""
    (tmp_path / "images").mkdir()
    _run("mount", "-o", "remount,size=2m", str(small))
    disks = Disks(tmp_path / "images", small / "scratch")
    with pytest.raises(OurFault, match=r"the scratch space needs 2\.0 MiB, and .* has 2\.0 MiB free"):
        disks.prepare(UUID, 3, [], Scratch(size=2))
    disks.give_up(UUID, 3, [])
    assert _files(small) == ["scratch"]
    (attached,) = disks.prepare(UUID, 3, [], Scratch(size=1))
    status = os.stat(attached.path)
    assert (attached.format, status.st_size, status.st_blocks) == ("raw", MEGABYTE, 0)
    disks.discard(UUID, 3)
    assert _files(small) == ["scratch"]


def test_reflink(tmp_path: Path) -> None:
    """Where a file system can share blocks a copy takes none, however large, and is written to apart from its template."""
    volume = tmp_path / "volume"
    volume.touch()
    os.truncate(volume, 320 * MEGABYTE)
    _run("mkfs.xfs", "-q", str(volume))
    with _mounted(tmp_path / "xfs", "-o", "loop", str(volume)) as images:
        _template(images, 16 * MEGABYTE)
        _run("sync", "-f", str(images))
        before = os.statvfs(images).f_bavail
        disks = PersistentDisks(images)
        disks.make(UUID, 2, [COPY])
        _run("sync", "-f", str(images))
        status = os.statvfs(images)
        assert (before - status.f_bavail) * status.f_frsize < 4 * MEGABYTE
        with (images / COPY.name).open("r+b") as file:
            file.write(b"apart")
        one, other = ((images / name).read_bytes() for name in ("a.img", COPY.name))
        assert one[5:] == other[5:] and one != other


@pytest.fixture
def volume_group(tmp_path: Path) -> Iterator[str]:
    """A real volume group of a gigabyte on a file."""
    file = tmp_path / "volume"
    file.touch()
    os.truncate(file, 1024 * MEGABYTE)
    name = f"tashi-{uuid.uuid4().hex[:8]}"
    device = _run("losetup", "--find", "--show", str(file))
    try:
        _run("vgcreate", name, device)
        yield name
        _run("vgremove", "--force", "--yes", name)
    finally:
        _run("losetup", "--detach", device)


def _volumes(group: str) -> list[str]:
    return _run("lvs", "--noheadings", "--options", "lv_name", group).split()


def test_scratch_space_in_a_volume_group(tmp_path: Path, volume_group: str) -> None:
    """Scratch space is a logical volume that begins empty and goes with its domain; without a device mapper it is refused with LVM's words,
    and nothing of it stays."""
    disks = Disks(tmp_path, tmp_path / "scratch", volume_group)
    scratch = Scratch(size=16)
    if "device-mapper" not in Path("/proc/devices").read_text() + Path("/proc/misc").read_text():
        with pytest.raises(OurFault, match=f"lvcreate failed in {volume_group}: .*device-mapper"):
            disks.prepare(UUID, 3, [], scratch)
        disks.give_up(UUID, 3, [])
    else:
        (attached,) = disks.prepare(UUID, 3, [], scratch)
        assert (attached.path, attached.device) == (f"/dev/{volume_group}/tashi-{UUID}-3", True)
        assert _volumes(volume_group) == [f"tashi-{UUID}-3"]
        Path(attached.path).write_bytes(b"secret")
        disks.discard(UUID, 3)
    assert (_volumes(volume_group), _files(tmp_path / "scratch")) == ([], [])


def test_only_the_domain_s_own_volume_is_removed(tmp_path: Path, volume_group: str) -> None:
    """H7: volumes of another cell, of a later generation and of the same name stay; one of the domain's own goes, even half made."""
    making = ("lvcreate", "--driverloaded", "n", "--yes", "--activate", "n", "--zero", "n", "--wipesignatures", "n", "--size", "16m")
    stay = ["lv1-web", f"tashi-{OTHER_CELL}-3", f"tashi-{UUID}-3", f"tashi-{UUID}-4"]
    for name in stay:
        tags = () if name.endswith(f"{UUID}-3") else ("--addtag", name)
        _run(*making, "--name", name, *tags, volume_group)
    _run(*making, "--name", "ours", "--addtag", f"tashi-{UUID}-3", volume_group)
    disks = Disks(tmp_path, tmp_path / "scratch", volume_group)
    with pytest.raises(OurFault, match="lvcreate failed"):
        disks.prepare(UUID, 3, [], Scratch(size=16))
    disks.give_up(UUID, 3, [])
    assert sorted(_volumes(volume_group)) == sorted(stay)


def test_a_volume_of_an_older_version(tmp_path: Path, volume_group: str) -> None:
    """A volume that was tagged with the domain's UUID alone is found by the note of then, and removed with its domain."""
    making = ("lvcreate", "--driverloaded", "n", "--yes", "--activate", "n", "--zero", "n", "--wipesignatures", "n", "--size", "16m")
    _run(*making, "--name", "lv1-web", "--addtag", f"tashi-{UUID}", volume_group)
    _run(*making, "--name", "lv2-web", "--addtag", f"tashi-{OTHER_CELL}", volume_group)
    directory = tmp_path / "scratch" / UUID
    directory.mkdir(parents=True)
    (directory / "scratch.lvm").write_text(volume_group)
    Disks(tmp_path, tmp_path / "scratch", volume_group).discard(UUID, 3)
    assert (_volumes(volume_group), directory.exists()) == (["lv2-web"], False)


def test_scratch_space_in_no_volume_group(tmp_path: Path) -> None:
    """A volume group that there is not is named in the refusal."""
    disks = Disks(tmp_path, tmp_path / "scratch", "nosuchgroup")
    with pytest.raises(OurFault, match="nosuchgroup"):
        disks.prepare(UUID, 3, [], Scratch(size=16))


# ---- on real hosts


def _images(cell: RunningCell) -> Path:
    return cell.state_dir / "share" / "images"


def _made(cell: RunningCell, name: str, disks: str, *words: str) -> dict[str, Any]:
    """The row of a virtual machine that runs."""
    text = cell.cli("createVm", "--name", name, "--disks", disks, "--memory", "128", "--wait", "-o", "json", *words)
    return dict(json.loads(text)[0])


def _description(cell: RunningCell, row: dict[str, Any]) -> str:
    uri = cell.description["hosts"][0]["uri"]
    return _run("virsh", "-c", uri, "dumpxml", f"tashi-{row['id']}-{row['name']}")


def test_a_persistent_disk_s_life(qemu_cell: RunningCell) -> None:
    """It is copied from its template, attached to one guest at a time, and survives it for the next; the template stays as it was."""
    cell, images = qemu_cell, _images(qemu_cell)
    before, template = _files(images), (images / "tashi.img").read_bytes()
    row = _made(cell, "keeper", "tashi.img:True")
    name = f"disk-{row['id']}-keeper-0.img"
    assert row["disks"] == [{"uri": name, "persistent": True}]
    assert _files(images) == sorted([*before, name])
    assert f"/images/{name}'" in _description(cell, row)
    cell.cli("createVm", "--name", "heir", "--disks", f"{name}:True", "--memory", "128", "--hints", "scratchSpace=0.5")
    waiting = cell.wait_for_instances(lambda rows: any(one["name"] == "heir" and one["reason"] for one in rows))
    assert next(one["reason"] for one in waiting if one["name"] == "heir").endswith(f"{name} is in use by another instance")
    cell.cli("destroyVm", "--instance", "keeper", "--wait")
    rows = cell.wait_for_instances(lambda rows: any(one["name"] == "heir" and one["state"] == "Running" for one in rows))
    heir = next(one for one in rows if one["name"] == "heir")
    described = _description(cell, heir)
    assert f"/images/{name}'" in described
    scratch = next(cell.state_dir.rglob("scratch.raw"))
    assert scratch.name in described and "dev='vdb'" in described
    assert scratch.stat().st_size == 512 * MEGABYTE
    assert name in cell.cli("getImages")
    cell.cli("destroyVm", "--instance", "heir", "--wait")
    assert (_files(images), scratch.exists()) == (sorted([*before, name]), False)
    assert (images / "tashi.img").read_bytes() == template
    (images / name).unlink()


def test_scratch_space_that_no_host_has(qemu_cell: RunningCell) -> None:
    """The instance is held, its reason says what is short where, and neither its copy nor anything else of it is left."""
    before = _files(_images(qemu_cell))
    words = qemu_cell.cli(
        "createVm", "--name", "greedy", "--disks", "tashi.img:True", "--hints", "scratchSpace=16000", "--wait", code=1
    )  # fmt: skip
    assert "the scratch space needs 15.6 TiB" in words and "free" in words
    (row,) = (row for row in qemu_cell.instances() if row["name"] == "greedy")
    assert (row["state"], row["disks"]) == ("Held", [{"uri": "tashi.img", "persistent": True}])
    assert (_files(_images(qemu_cell)), list(qemu_cell.state_dir.rglob("scratch.raw"))) == (before, [])
    qemu_cell.cli("destroyVm", "--instance", "greedy", "--wait")


HOSTILE = {
    "backed": (("-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", "{}"), "names a backing file"),
    "elsewhere": (("-f", "qcow2", "-o", "data_file={}.data,data_file_raw=on", "{}", "1M"), "keeps its data in another file"),
    "flat": (("-f", "vmdk", "-o", "subformat=monolithicFlat", "{}", "1M"), "is a VMDK"),
    "sparse": (("-f", "vmdk", "{}", "1M"), "is a VMDK"),
    "bomb": (("-f", "qcow2", "{}", "3T"), "3298534883328 bytes"),
    "rawbomb": (("-f", "raw", "{}", "3T"), "3298534883328 bytes"),
    "locked": (("-f", "luks", "--object", "secret,id=s,data=x", "-o", "key-secret=s,iter-time=10", "{}", "1M"), "is a LUKS"),
    "vdi": (("-f", "vdi", "{}", "1M"), "is a VDI"),
    "vhdx": (("-f", "vhdx", "{}", "8M"), "is a VHDX"),
    "qed": (("-f", "qed", "{}", "1M"), "is a QED"),
}


def _plant(images: Path, name: str) -> None:
    words, _ = HOSTILE[name]
    _run("qemu-img", "create", "-q", *(word.format(images / f"{name}.img") for word in words))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image(tmp_path: Path, name: str) -> None:
    """As qemu-img itself makes them: what names other files, is made of several, or is absurdly large is refused in words."""
    _plant(tmp_path, name)
    with pytest.raises(OurFault, match=HOSTILE[name][1]):
        read_image(str(tmp_path), f"{name}.img")


def test_hostile_images(simulated_cell: RunningCell) -> None:
    """A virtual machine that asks for such an image is held with the reason, attached or copied; nothing is changed."""
    cell, images = simulated_cell, _images(simulated_cell)
    before = _files(images)
    wanted = ["backed.img", "flat.img", "bomb.img", "elsewhere.img:True", "rawbomb.img:True"]
    try:
        for disk in wanted:
            _plant(images, disk.partition(".")[0])
        planted = _files(images)
        for number, disk in enumerate(wanted):
            cell.cli("createVm", "--name", f"hostile-{number}", "--disks", disk)

        def rows() -> list[dict[str, Any]]:
            return [row for row in cell.instances() if row["name"].startswith("hostile-")]

        held = until(rows, lambda rows: all(row["state"] == "Held" for row in rows), 60)
        for row, disk in zip(held, wanted, strict=True):
            assert HOSTILE[disk.partition(".")[0]][1] in row["reason"], row
        assert _files(images) == planted
        for number in range(len(wanted)):
            cell.cli("destroyVm", "--instance", f"hostile-{number}")
        until(rows, lambda rows: not rows, 20)
    finally:
        for name in set(_files(images)) - set(before):
            (images / name).unlink()
