"""What a target takes from the description of a domain that comes to it, and what it does not (A6)."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tashi.errors import OurFault
from tashi.model.instance import Disk, Nic
from tashi.model.orders import Start
from tashi.node.domain.arrival import arrival, cdrom_of
from tashi.node.domain.xml import AttachedDisk, domain_xml

UUID = "d12e7c58-01e7-5f51-9309-d4fa22fbdb8c"
MAC = "52:54:00:00:00:07"
ADDRESS = "<address type='pci' domain='0x0000' bus='0x00' slot='{}' function='0x0'/>"
DESCRIBED = f"""<domain type='qemu'>
  <name>tashi-7-web</name>
  <uuid>{UUID}</uuid>
  <metadata xmlns:tashi="urn:x-tashi:instance:1">
    <tashi:instance cell="theirs" id="7" generation="3" name="web"/>
  </metadata>
  <memory unit='KiB'>131072</memory>
  <currentMemory unit='KiB'>98304</currentMemory>
  <vcpu placement='static'>2</vcpu>
  <resource><partition>/machine</partition></resource>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  <cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>qemu64</model><feature policy='require' name='vme'/>
  </cpu>
  <clock offset='utc'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='writeback'/>
      <source file='/there/scratch/{UUID}/3/0.qcow2'/>
      <backingStore type='file'><format type='raw'/><source file='/there/images/os.img'/><backingStore/></backingStore>
      <target dev='vda' bus='virtio'/>
      {ADDRESS.format("0x04")}
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='/there/images/tools.iso'/>
      <target dev='hdc' bus='ide'/>
      <readonly/>
      <address type='drive' controller='0' bus='1' target='0' unit='0'/>
    </disk>
    <controller type='ide' index='0'>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x1'/>
    </controller>
    <controller type='pci' index='0' model='pci-root'/>
    <interface type='bridge'>
      <mac address='{MAC.upper()}'/>
      <source bridge='theirs'/>
      <model type='virtio'/>
      {ADDRESS.format("0x03")}
    </interface>
    <serial type='pty'><log file='/there/console.log' append='on'/><target type='isa-serial' port='0'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
    <input type='mouse' bus='ps2'/>
    <graphics type='vnc' passwd='x' passwdValidTo='1970-01-01T00:00:01'><listen type='none'/></graphics>
    <audio id='1' type='none'/>
    <video><model type='vga' vram='16384' heads='1' primary='yes'/>{ADDRESS.format("0x02")}</video>
    <memballoon model='virtio'><stats period='5'/>{ADDRESS.format("0x05")}</memballoon>
  </devices>
</domain>"""

ORDER = Start(
    instance_id=7,
    generation=5,
    name="web",
    uuid=UUID,
    cores=2,
    memory=128,
    disks=(Disk(uri="os.img"),),
    nics=(Nic(network=10, mac=MAC),),
    cpu_share=2048,
    net_down=800,
    disk_iops=100,
)
OVERLAY = AttachedDisk(path="/here/0.qcow2", format="qcow2", base="/here/os.img", base_format="raw")


def _own(order: Start = ORDER, *disks: AttachedDisk) -> str:
    """The domain as the record and this host have it."""
    return domain_xml(
        order,
        cell="ours",
        kind="qemu",
        disks=disks or [OVERLAY],
        bridges={10: "br10"},
        console="/here/console.log",
        secret="shut",
        megahertz=2000,
    )


def _arrived(
    described: str = DESCRIBED, own: str = "", cdrom: str = "/here/tools.iso"
) -> ElementTree.Element:
    return ElementTree.fromstring(arrival(described, own or _own(), cdrom))


def _attributes(domain: ElementTree.Element, path: str) -> dict[str, str]:
    found = domain.find(path)
    assert found is not None, path
    return dict(found.attrib)


def _with(place: str, text: str) -> str:
    """The description with this before the end of an element."""
    assert f"</{place}>" in DESCRIBED
    head, _, tail = DESCRIBED.rpartition(f"</{place}>")
    return f"{head}{text}</{place}>{tail}"


def test_what_the_guest_s_memory_depends_on_is_taken() -> None:
    """A6: the type of machine, the CPU, the balloon, the addresses and the controllers are the source's."""
    domain = _arrived()
    assert _attributes(domain, "os/type")["machine"] == "pc-i440fx-7.2"
    assert (domain.findtext("cpu/model"), _attributes(domain, "cpu/feature")) == (
        "qemu64",
        {"policy": "require", "name": "vme"},
    )
    assert (domain.findtext("currentMemory"), domain.findtext("memory")) == ("98304", "128")
    slots = {
        tag: _attributes(domain, f"devices/{tag}/address").get("slot")
        for tag in ("disk", "interface", "video", "memballoon")
    }
    assert slots == {"disk": "0x04", "interface": "0x03", "video": "0x02", "memballoon": "0x05"}
    assert [one.get("type") for one in domain.findall("devices/controller")] == ["ide", "pci"]
    assert _attributes(domain, "devices/disk[2]/address")["bus"] == "1"
    assert _attributes(domain, "devices/video/model")["vram"] == "16384"


def test_what_belongs_to_the_record_and_the_host_is_theirs() -> None:
    """A6: files, formats, bridges, limits, the mark, the console and the screen are what the target has made of the record."""
    domain = _arrived()
    sources = [source.attrib for source in domain.find("devices/disk") or () if source.tag == "source"]  # type: ignore[union-attr]
    assert sources == [{"file": "/here/0.qcow2"}]
    assert _attributes(domain, "devices/disk/backingStore/source") == {"file": "/here/os.img"}
    assert _attributes(domain, "devices/disk[2]/source") == {"file": "/here/tools.iso"}
    assert _attributes(domain, "devices/interface/source") == {"bridge": "br10"}
    assert domain.findtext("cputune/shares") == "2048"
    assert domain.findtext("devices/disk/iotune/total_iops_sec") == "100"
    assert _attributes(domain, "devices/interface/bandwidth/inbound") == {"average": "100"}
    assert _attributes(domain, "devices/serial/log")["file"] == "/here/console.log"
    assert _attributes(domain, "devices/graphics")["passwd"] == "shut"
    assert _attributes(domain, "metadata/{urn:x-tashi:instance:1}instance") == {
        "cell": "ours",
        "id": "7",
        "generation": "5",
        "name": "web",
    }
    assert "there" not in ElementTree.tostring(domain, encoding="unicode")


HOSTILE = {
    "filesystem": _with(
        "devices", "<filesystem type='mount'><source dir='/etc'/><target dir='evil'/></filesystem>"
    ),
    "hostdev": _with(
        "devices",
        "<hostdev mode='subsystem' type='pci'><source><address bus='0x01' evil='1'/></source></hostdev>",
    ),
    "serial to a file": DESCRIBED.replace(
        "<serial type='pty'>", "<serial type='file'><source path='/home/bob/.ssh/evil'/>"
    ),
    "another serial port": _with("devices", "<serial type='dev'><source path='/dev/evil'/></serial>"),
    "qemu:commandline": DESCRIBED.replace(
        "<devices>",
        "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:arg value='-evil'/></qemu:commandline>"
        "<devices>",
    ),
    "VNC for everybody": DESCRIBED.replace(
        "<listen type='none'/>", "<listen type='address' address='0.0.0.0' evil='1'/>"
    ),
    "another screen": _with("devices", "<graphics type='vnc' port='5901' listen='0.0.0.0' keymap='evil'/>"),
    "an emulator": DESCRIBED.replace("/usr/bin/qemu-system-x86_64", "/tmp/evil"),
    "a kernel": DESCRIBED.replace("<boot dev='hd'/>", "<kernel>/etc/evil</kernel>"),
    "a loader": DESCRIBED.replace("<boot dev='hd'/>", "<loader readonly='yes'>/etc/evil</loader>"),
    "a script": DESCRIBED.replace(
        "<model type='virtio'/>", "<script path='/tmp/evil'/><model type='virtio'/>"
    ),
    "another file": DESCRIBED.replace("/there/images/os.img", "/there/images/disk-1-evil-0.img"),
    "another format": DESCRIBED.replace("<format type='raw'/>", "<format type='evil'/>"),
    "a data store": DESCRIBED.replace(
        "<backingStore/>", "<dataStore><source file='/etc/evil'/></dataStore>", 1
    ),
    "a label": _with("domain", "<seclabel type='none' model='evil'/>"),
    "limits": _with("domain", "<cputune><shares>262144</shares><emulatorpin cpuset='evil'/></cputune>"),
    "memory of the host": _with("domain", "<memoryBacking><locked/><evil/></memoryBacking>"),
    "a TPM": _with(
        "devices",
        "<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/evil'/></backend></tpm>",
    ),
    "a source of randomness": _with(
        "devices", "<rng model='virtio'><backend model='random'>/dev/evil</backend></rng>"
    ),
    "a sound file": DESCRIBED.replace(
        "<audio id='1' type='none'/>", "<audio id='1' type='file' path='/tmp/evil'/>"
    ),
    "an address": DESCRIBED.replace("slot='0x04'", "slot='evil'"),
    "a controller": _with("devices", "<controller type='evil' index='7'/>"),
    "a driver": DESCRIBED.replace("cache='writeback'", "cache='writeback' evil='1'"),
    "another mark": DESCRIBED.replace('cell="theirs"', 'cell="evil"'),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_else_is_taken(what: str) -> None:
    """A6: what a hostile host adds to a description does not survive it."""
    assert "evil" in HOSTILE[what]
    domain = _arrived(HOSTILE[what])
    text = ElementTree.tostring(domain, encoding="unicode")
    assert "evil" not in text and "0.0.0.0" not in text
    assert [screen.find("listen").attrib for screen in domain.findall("devices/graphics")] == [
        {"type": "none"}
    ]  # type: ignore[union-attr]
    assert [serial.get("type") for serial in domain.findall("devices/serial")] == ["pty"]
    plain = {child.tag for child in _arrived().find("devices") or ()}
    assert {child.tag for child in domain.find("devices") or ()} <= plain


OTHERS = {
    "uuid": DESCRIBED.replace(UUID, UUID.replace("d", "e")),
    "hypervisor": DESCRIBED.replace("type='qemu'", "type='kvm'", 1),
    "memory": DESCRIBED.replace("131072", "131073"),
    "memory without end": DESCRIBED.replace("131072", "9" * 400),
    "cores": DESCRIBED.replace(">2</vcpu>", ">4</vcpu>"),
    "architecture": DESCRIBED.replace("arch='x86_64'", "arch='s390x'"),
    "a disk more": _with(
        "devices",
        "<disk type='file' device='disk'><source file='/x'/><target dev='vdb' bus='virtio'/></disk>",
    ),
    "a disk of no name": DESCRIBED.replace("dev='vda'", "dev='../vda'"),
    "a card more": _with(
        "devices", "<interface type='bridge'><mac address='52:54:00:00:00:08'/></interface>"
    ),
    "another card": DESCRIBED.replace(MAC.upper(), "52:54:00:00:00:08"),
    "a name": DESCRIBED.replace("tashi-7-web", "mail"),
    "a machine": DESCRIBED.replace("pc-i440fx-7.2", "pc,accel=evil"),
    "no devices": "<domain type='qemu'/>",
    "no XML": "<domain",
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_machine_is_refused(what: str) -> None:
    """A6: a description of something else than what the record has is refused, not made to fit."""
    with pytest.raises(OurFault, match=r"not the one in the record|is damaged"):
        _arrived(OTHERS[what])


def test_a_domain_of_an_older_version() -> None:
    """One that was made without a CD-ROM drive, a balloon and an explicit CPU is not given them on its way."""
    begin, _, rest = DESCRIBED.partition("<disk type='file' device='cdrom'>")
    older = begin + rest.partition("</disk>")[2]
    older = older[: older.index("<memballoon")] + older[older.index("</memballoon>") + len("</memballoon>") :]
    older = older[: older.index("<cpu")] + older[older.index("</cpu>") + len("</cpu>") :]
    domain = _arrived(older)
    assert [disk.get("device") for disk in domain.findall("devices/disk")] == ["disk"]
    assert (domain.find("devices/memballoon"), domain.find("cpu")) == (None, None)


@pytest.mark.parametrize(
    ("described", "name"),
    [
        (DESCRIBED, "tools.iso"),
        (DESCRIBED.replace("<source file='/there/images/tools.iso'/>", ""), ""),
        (DESCRIBED.replace("/there/images/tools.iso", "/etc/shadow"), "shadow"),
        (DESCRIBED.replace("/there/images/tools.iso", "/there/images/disk-1-web-0.img"), "disk-1-web-0.img"),
    ],
)
def test_the_cdrom_is_only_named(described: str, name: str) -> None:
    """A6: of the CD-ROM only the name of its image is taken, which this host looks up among its own."""
    assert cdrom_of(described) == name


def test_an_empty_drive_stays_empty() -> None:
    """Without an image in the drive there is none here."""
    assert _arrived(cdrom="").find("devices/disk[2]/source") is None
