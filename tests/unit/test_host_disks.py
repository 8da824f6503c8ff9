"""The disks of one host that need no hypervisor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tashi.errors import UNKNOWN_IMAGE, OurFault
from tashi.node.storage.disks import Disks


@pytest.mark.parametrize("name", ["disk-1-web-0.img", "Disk-1-web-0.img"])
def test_a_host_puts_no_disk_into_a_cdrom_drive(tmp_path: Path, name: str) -> None:
    """A1: a host that is told to do so all the same refuses a persistent disk as a CD-ROM."""
    (tmp_path / name).write_bytes(bytes(4096))
    (tmp_path / "tools.iso").write_bytes(bytes(4096))
    disks = Disks(tmp_path, tmp_path / "scratch")
    assert disks.cdrom("tools.iso") == str(tmp_path / "tools.iso")
    with pytest.raises(OurFault, match="is a persistent disk") as caught:
        disks.cdrom(name)
    assert caught.value.code == UNKNOWN_IMAGE
