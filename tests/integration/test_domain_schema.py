"""What libvirt is told of a domain is what its own schema allows, for every hypervisor and for whatever an order may ask."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tashi.model.instance import Disk, Nic
from tashi.model.orders import Start
from tashi.node.domain.xen import xml_for_xen
from tashi.node.domain.xml import AttachedDisk, domain_xml

pytestmark = pytest.mark.integration
CELL = "6f1e2f1c-7b5e-4b57-8a52-0a6b1c8a2a11"
DISKS = (
    AttachedDisk(path="/overlays/0.qcow2", format="qcow2", base="/images/a.img", base_format="raw"),
    AttachedDisk(path="/images/b.img", format="raw"),
)
PLAIN = Start(
    instance_id=7, generation=3, name="tizzy", uuid="0b1f6b0e-6f0e-5d4e-9f43-0b7f4b1d2c3a", cores=2, memory=512,
    disks=(Disk(uri="a.img"), Disk(uri="b.img", persistent=True)),
)  # fmt: skip
TUNED = {"cpu_share": 512, "cpu_speed": 1000, "memory_limit": 256, "net_up": 4000}
EVERYTHING = TUNED | {"disk_weight": 300, "disk_iops": 200, "disk_bytes": 10**6, "net_down": 8000}
OTHER_DEVICES = {"diskInterface": "scsi", "nicModel": "e1000", "noAcpi": "True", "clock": "localtime", "cpumodel": "Nehalem"}
PARAVIRTUAL = [
    {"vmtype": "pygrub"},
    {"vmtype": "kernel", "kernel": "vmlinuz"},
    {"vmtype": "kernel", "kernel": "vmlinuz", "ramdisk": "initrd.gz", "diskInterface": "ide"},
    {"vmtype": "pvgrub", "kernel": "pv-grub.gz"},
]


def validate(text: str, path: Path) -> None:
    """Let libvirt's own program say whether it is a domain."""
    assert shutil.which("xmllint"), "virt-xml-validate needs xmllint; `make deps` installs it"
    path.write_text(text)
    done = subprocess.run(["virt-xml-validate", str(path), "domain"], capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{text}"


def description(kind: str, **changes: object) -> str:
    """What libvirt is told of an order with these fields."""
    fields = {name: getattr(PLAIN, name) for name in PLAIN.__struct_fields__} | {"nics": (Nic(network=10), Nic(network=10))} | changes
    order = Start(**fields)
    cards = {10: "br10"}
    text = domain_xml(order, cell=CELL, kind=kind, disks=DISKS, bridges=cards, console="/console/7.log", secret="s", megahertz=2000)
    return xml_for_xen(text, order, "/images") if kind == "xen" else text


@pytest.mark.parametrize("kind", ["qemu", "kvm", "test", "xen"])
def test_schema(kind: str, tmp_path: Path) -> None:
    """The least, the most, and other devices than the usual ones."""
    most = TUNED if kind == "xen" else EVERYTHING
    for number, changes in enumerate(({}, most, {"hints": OTHER_DEVICES})):
        validate(description(kind, **changes), tmp_path / f"{number}.xml")


@pytest.mark.parametrize("hints", PARAVIRTUAL, ids=lambda hints: " ".join(hints.values()))
def test_paravirtual(hints: dict[str, str], tmp_path: Path) -> None:
    """Paravirtual guests of Xen boot by their disk or by a kernel of the host's."""
    validate(description("xen", hints=hints, **TUNED), tmp_path / "domain.xml")


def test_the_schema_notices(tmp_path: Path) -> None:
    """What is no domain is found out."""
    with pytest.raises(AssertionError, match="fails to validate"):
        validate(description("qemu").replace("<vcpu>", "<vcpus>").replace("</vcpu>", "</vcpus>"), tmp_path / "domain.xml")
