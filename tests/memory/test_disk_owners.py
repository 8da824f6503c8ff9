"""Persistent disks have owners: nobody else lists or attaches one, or learns that it exists (A1, O14)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tashi.errors import YourMistake
from tashi.images.directory import ImageFile
from tashi.model.instance import Disk
from tashi.model.orders import Start
from tashi.model.user import Principal
from tests.builders import ADMIN, ISM, a_spec
from tests.small_cell import FakeAgent, SmallCell

ALICE = Principal(name="alice", user_id=1000, jid="alice@example.org")
BOB = Principal(name="bob", user_id=1001)
BOTH = Principal(name="chief", user_id=1001, admin=True, trusted=True)
PERSISTENT = [{"uri": "tashi", "persistent": True}]
DISK = "disk-1-bobvm-0.img"


def _bobs(*, keep: bool = False) -> SmallCell:
    """A cell in which bob has written to a persistent disk; its instance is destroyed unless it is kept."""
    cell = SmallCell(hosts=[FakeAgent("h1"), FakeAgent("h2")])
    cell.call(BOB, "createVm", name="bobvm", disks=PERSISTENT)
    cell.work()
    assert cell.state("bobvm") == "Running"
    if not keep:
        cell.call(BOB, "destroyVm", instance="bobvm")
        cell.work()
    return cell


def _refusal(cell: SmallCell, who: Principal, name: str, **fields: Any) -> tuple[str, str]:
    with pytest.raises(YourMistake) as caught:
        cell.call(who, "createVm", name="thief", disks=[{"uri": name, **fields}])
    return caught.value.code, caught.value.message


def _listed(cell: SmallCell, who: Principal) -> list[dict[str, Any]]:
    cell.images.files = [ImageFile(name=name, size="1.00G") for name in (DISK, "other.img", "tashi.img")]
    cell.images.files.append(ImageFile(name="old.vmdk", size="1.00G", refused="is a VMDK image"))
    return [dict(row) for row in cell.call(who, "getImages")]


@pytest.mark.parametrize("keep", [True, False], ids=["its instance runs", "its instance is gone"])
@pytest.mark.parametrize("persistent", [True, False])
def test_another_user_s_disk_does_not_exist(keep: bool, persistent: bool) -> None:
    """A1: alice is refused bob's disk, however attached, in the words for a disk that does not exist."""
    cell = _bobs(keep=keep)
    code, words = _refusal(cell, ALICE, DISK, persistent=persistent)
    missing = _refusal(cell, ALICE, "disk-1-bobvm-9.img", persistent=persistent)
    assert (code, words.replace(DISK, "disk-1-bobvm-9.img")) == missing
    assert code == "unknown-image"


@pytest.mark.parametrize("who", [BOB, ADMIN], ids=["the owner", "an administrator"])
def test_the_owner_has_the_disk_again(who: Principal) -> None:
    """A1: the owner and an administrator attach the disk when its instance is gone, and after a restart."""
    cell = _bobs()
    cell.restart()
    cell.call(who, "createVm", name="heir", disks=[{"uri": DISK, "persistent": True}], userId=1001)
    cell.work()
    assert (cell.state("heir"), cell.instance("heir").disks) == (
        "Running",
        (Disk(uri=DISK, persistent=True),),
    )


def test_a_trusted_sender_has_the_disks_of_the_user_it_acts_for() -> None:
    """A1: the ISM attaches bob's disk to an instance of bob's and to nobody else's."""
    cell = _bobs()
    disks = (Disk(uri=DISK, persistent=True),)
    cell.create(a_spec("thief", user_id=1000, disks=disks), stanza="s1")
    cell.create(a_spec("heir", user_id=1001, disks=disks), stanza="s2")
    cell.work()
    assert [(reply["status"], reply.get("code")) for reply in cell.replies] == [
        ("ERROR", "unknown-image"),
        ("OK", None),
    ]


def test_nobody_acts_for_another_to_reach_a_disk() -> None:
    """A1: bob's disk cannot be had by naming bob's number as the owner of the instance."""
    cell = _bobs()
    with pytest.raises(YourMistake) as caught:
        cell.call(ALICE, "createVm", name="thief", disks=[{"uri": DISK}], userId=1001)
    assert caught.value.code == "forbidden"


@pytest.mark.parametrize(
    "name", [DISK, "Disk-1-bobvm-0.img", "DISK-1-BOBVM-0.IMG", "disk-put-here.img", "disk-"]
)
def test_a_file_without_a_record_is_for_administrators(name: str) -> None:
    """A1: what is called disk-... in any case and has no record belongs to nobody, however it came there."""
    cell = SmallCell()
    assert _refusal(cell, ALICE, name)[0] == _refusal(cell, BOB, name)[0] == "unknown-image"
    assert cell.call(ADMIN, "createVm", name="rescue", disks=[{"uri": name}])["name"] == "rescue"


def test_one_among_many() -> None:
    """A1: createMany is all or nothing, and one disk of another user is the end of all."""
    cell = _bobs()
    wanted = [
        {"name": f"web-{number}", "disks": [{"uri": uri}]} for number, uri in enumerate(("tashi", DISK))
    ]
    with pytest.raises(YourMistake) as caught:
        cell.call(ALICE, "createMany", instances=wanted)
    assert caught.value.code == "unknown-image"
    assert cell.manager.cluster.instances == {}


def test_another_image_after_a_restart() -> None:
    """A1: an update cannot exchange an image for another user's disk, nor tell whether that exists."""
    cell = _bobs()
    cell.create(a_spec("vm1", resource_id="r", user_id=1000), a_spec("vm2", resource_id="r2", user_id=1001))
    cell.work()
    for number, (key, name) in enumerate((("r", DISK), ("r", "disk-1-bobvm-9.img"), ("r2", DISK))):
        cell.update(key, stanza=f"u{number}", image=name, restart=True)
        cell.work()
    assert [reply["code"] for reply in cell.replies[1:]] == [
        "unknown-image",
        "unknown-image",
        "not-supported-live",
    ]
    theirs, missing = (reply["message"] for reply in cell.replies[1:3])
    assert theirs.replace(DISK, "disk-1-bobvm-9.img") == missing


@pytest.mark.parametrize(
    ("who", "code"), [(ALICE, "unknown-image"), (BOB, "bad-argument"), (ADMIN, "bad-argument")]
)
def test_a_disk_is_no_cdrom(who: Principal, code: str) -> None:
    """A1: nobody puts a persistent disk into a CD-ROM drive; to others than its owner it does not exist."""
    cell = _bobs()
    cell.call(who, "createVm", name="vm", disks=[{"uri": "tashi"}], userId=1000 if who is ALICE else 1001)
    cell.work()
    with pytest.raises(YourMistake) as caught:
        cell.call(who, "vmmSpecificCall", instance="vm", arg=f"changeCdrom:{DISK}")
    assert caught.value.code == code


def test_the_list() -> None:
    """A1, O14: images are for all, a disk for its owner and administrators, the rest for administrators."""
    cell = _bobs()
    images = [
        {"id": number, "imageName": f"{name}.img", "imageSize": "1.00G"}
        for number, name in enumerate(("other", "tashi"))
    ]
    disk = {
        "id": 2,
        "imageName": DISK,
        "imageSize": "1.00G",
        "persistent": True,
        "userId": 1001,
        "owner": "bob",
    }
    refused = {"id": 3, "imageName": "old.vmdk", "imageSize": "1.00G", "refused": "is a VMDK image"}
    assert (
        _listed(cell, ALICE)
        == _listed(cell, Principal(name="nobody", user_id=4711))
        == _listed(cell, ISM)
        == images
    )
    assert _listed(cell, BOB) == [*images, disk]
    assert _listed(cell, ADMIN) == [*images, disk, refused]


def test_the_disks_of_a_user_who_is_gone() -> None:
    """A1: an unregistered user's disks belong to nobody, even when the number is registered again."""
    cell = _bobs()
    cell.call(ADMIN, "unregisterUser", userId=1001)
    cell.call(ADMIN, "registerUser", name="mallory", userId=1001)
    mallory = Principal(name="mallory", user_id=1001)
    assert _refusal(cell, mallory, DISK)[0] == "unknown-image"
    assert [row["imageName"] for row in _listed(cell, mallory)] == ["other.img", "tashi.img"]
    assert [(row["owner"], "userId" in row) for row in _listed(cell, ADMIN) if row.get("persistent")] == [
        ("nobody", False)
    ]


def test_a_disk_that_an_older_version_made() -> None:
    """A1: at the start, a copy whose instance is still there gets its owner; an attached one does not."""
    cell = _bobs(keep=True)
    cell.call(ADMIN, "createVm", name="other", disks=[{"uri": "disk-77-old-0.img"}], userId=1000)
    cell.work()
    cell.store.rows["disks"].clear()  # type: ignore[attr-defined]
    cell.restart()
    assert {name: record.user_id for name, record in cell.manager.cluster.disks.items()} == {DISK: 1001}
    assert cell.call(BOB, "getInstances")


def test_the_record_is_made_with_the_copy() -> None:
    """A1: a disk gets its owner when its host has made the copy: a file of that name may be another's."""
    agent = FakeAgent("h1")
    agent.breaks = lambda order: None if isinstance(order, Start) else "there is a file of this name already"
    cell = SmallCell(hosts=[agent])
    cell.call(BOB, "createVm", name="bobvm", disks=PERSISTENT)
    cell.work()
    assert (cell.state("bobvm"), cell.manager.cluster.disks) == ("Held", {})


@pytest.mark.parametrize("do", [
    lambda cell: cell.call(ALICE, "suspendVm", instance="mine"),
    lambda cell: cell.call(ALICE, "migrateVm", instance="mine", dst="h2"),
], ids=["suspended", "moved"])  # fmt: skip
def test_it_stays_its_owner_s(do: Callable[[SmallCell], Any]) -> None:
    """A1: whatever its instance goes through, the disk is the owner's and nobody else's."""
    cell = SmallCell(hosts=[FakeAgent("h1"), FakeAgent("h2")])
    cell.call(ALICE, "createVm", name="mine", disks=PERSISTENT)
    cell.work()
    do(cell)
    cell.work()
    assert _refusal(cell, BOB, "disk-1-mine-0.img")[0] == "unknown-image"
    cell.call(ADMIN, "destroyVm", instance="mine")
    cell.work()
    assert _refusal(cell, BOB, "disk-1-mine-0.img")[0] == "unknown-image"
    record = cell.manager.cluster.disks["disk-1-mine-0.img"]
    assert (record.user_id, record.instance_id) == (1000, 1)
    assert msgspec.structs.replace(record, created_at=0.0) != record


def test_an_administrator_who_acts_for_others() -> None:
    """A1: an administrator may attach any disk to any user's instance; the disk stays its owner's."""
    cell = _bobs()
    cell.call(BOTH, "createVm", name="rescue", disks=[{"uri": DISK, "persistent": True}], userId=1000)
    cell.work()
    assert cell.state("rescue") == "Running"
    assert cell.manager.cluster.disks[DISK].user_id == 1001
