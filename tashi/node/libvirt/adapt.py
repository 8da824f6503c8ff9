"""What can be changed of a domain that runs, by libvirt: read, written live and then into its definition, and read back.

Either all of what is wished is applied or nothing: what was written before a failure is written back, and what failed, too, since libvirt
takes a network card's limits away before it sets others. 0 is the end of a limit. One flag at a time, because libvirt's Python binding
refuses LIVE and CONFIG together. On the test driver, which has no CPU scheduler and takes no limit of a disk without one of its bursts,
these are as good as applied.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any, Final
from xml.etree import ElementTree

import libvirt
import msgspec

from tashi.errors import NOT_SUPPORTED_LIVE, OurFault
from tashi.model.instance import DEFAULT_CPU_SHARE, Resources
from tashi.model.orders import Start
from tashi.node.domain.xen import share_of, weight_of
from tashi.node.domain.xml import PERIOD, kilobytes, quota

BALLOON_SECONDS: Final = 10.0
"""How long a guest may take to give back memory, or take it."""
_BALLOON_STEP: Final = 0.01
_SLACK_KB: Final = 1024  # balloons move in whole pages
_ENDLESS: Final = 10**12  # a quota of a kernel that writes no -1 for none

Raw = dict[str, Any]


class _Knob(msgspec.Struct, frozen=True):
    """One thing libvirt can change: what it is now, in libvirt's words and units, and how it is written."""

    field: str
    read: Callable[[Any], Raw]
    write: Callable[[Any, Raw, int], None]
    raw_of: Callable[[int], Raw]
    value_of: Callable[[Raw], int]


def adapt(domain: Any, wished: Resources, *, kind: str, megahertz: int) -> Resources:
    """Apply what is wished, and say what the hypervisor then has of it; OurFault or libvirt's error when nothing was changed.

    ``kind``: libvirt's type of the domain; ``megahertz``: of the machine's cores, where a speed is wished.
    """
    make = {"test": _simulated, "xen": _on_xen}.get(kind, _on_qemu)
    knobs = [knob for knob in make(_Devices(domain), megahertz) if getattr(wished, knob.field) is not None]
    places = _places(domain, kind)
    before = [knob.read(domain) for knob in knobs]
    for place, knob in enumerate(knobs):
        try:
            raw = knob.raw_of(getattr(wished, knob.field))
            for where in places:
                knob.write(domain, raw, where)
        except (libvirt.libvirtError, OurFault):
            for done, old in zip(knobs[: place + 1], before, strict=False):
                for where in places:
                    with contextlib.suppress(libvirt.libvirtError, OurFault):  # the first failure is the one to tell of
                        done.write(domain, old, where)
            raise
    return Resources(**{knob.field: knob.value_of(knob.read(domain)) for knob in knobs})


def tell_scheduler(domain: Any, order: Start, kind: str, megahertz: int) -> None:
    """Give a domain that has just begun what its description could not: on Xen its share and speed. One that cannot have them ends."""
    if kind != "xen":
        return
    share = order.cpu_share if order.cpu_share != DEFAULT_CPU_SHARE else None
    try:
        adapt(domain, Resources(cpu_share=share, cpu_speed=order.cpu_speed), kind="xen", megahertz=megahertz)
    except BaseException:
        domain.destroy()
        raise


class _Devices:
    """The names of the domain's devices, looked up when they are needed."""

    def __init__(self, domain: Any) -> None:
        self._domain = domain

    @property
    def cores(self) -> int:
        """How many cores it has."""
        return int(self._domain.info()[3])

    @functools.cached_property
    def cards(self) -> list[str]:
        """The MAC addresses of its network cards."""
        found = [card.attrib["address"] for card in self._description.iterfind("devices/interface/mac")]
        if not found:
            raise OurFault(NOT_SUPPORTED_LIVE, "it has no network card whose bandwidth could be limited")
        return found

    @functools.cached_property
    def disks(self) -> list[str]:
        """The targets of its disks."""
        found = [target.attrib["dev"] for target in self._description.iterfind("devices/disk[@device='disk']/target")]
        if not found:
            raise OurFault(NOT_SUPPORTED_LIVE, "it has no disk whose traffic could be limited")
        return found

    @functools.cached_property
    def _description(self) -> ElementTree.Element:
        return ElementTree.fromstring(self._domain.XMLDesc())


def _on_qemu(devices: _Devices, megahertz: int) -> list[_Knob]:
    return [
        _share(),
        _speed(megahertz),
        _traffic("disk_iops", "total_iops_sec", devices),
        _traffic("disk_bytes", "total_bytes_sec", devices),
        *_anywhere(devices),
    ]


def _simulated(devices: _Devices, megahertz: int) -> list[_Knob]:
    return [*map(_pretended, ("cpu_share", "cpu_speed", "disk_iops", "disk_bytes")), *_anywhere(devices)]


def _anywhere(devices: _Devices) -> list[_Knob]:
    return [
        _Knob("disk_weight", _read_weight, _write_weight, lambda value: {"weight": value}, _only),
        _bandwidth("net_down", "inbound.average", devices),
        _bandwidth("net_up", "outbound.average", devices),
        _memory(),
    ]


def _on_xen(devices: _Devices, megahertz: int) -> list[_Knob]:
    """Xen's scheduler has weights and a cap, in percent of one core; its disks and network cards cannot be limited while they are used."""
    refused = ("disk_weight", "disk_iops", "disk_bytes", "net_down", "net_up")
    cores = devices.cores

    def cap(speed: int) -> Raw:
        return {"cap": max(1, round(100 * cores * min(speed, megahertz) / megahertz)) if speed else 0}

    return [
        _Knob(
            "cpu_share",
            _scheduler("weight"),
            _write_scheduler,
            lambda value: {"weight": weight_of(value)},
            lambda raw: share_of(_only(raw)),
        ),
        _Knob("cpu_speed", _scheduler("cap"), _write_scheduler, cap, lambda raw: round(_only(raw) * megahertz / (100 * cores))),
        _memory(),
        *(_Knob(field, _not_on_xen(field), _write_scheduler, lambda value: {}, _only) for field in refused),
    ]


def _not_on_xen(field: str) -> Callable[[Any], Raw]:
    def read(domain: Any) -> Raw:
        raise OurFault(NOT_SUPPORTED_LIVE, f"this host runs Xen, which does not change {field} while an instance runs")

    return read


def _memory() -> _Knob:
    return _Knob("memory", _read_memory, _write_memory, lambda value: {"kb": value * 1024}, lambda raw: -(-raw["kb"] // 1024))


def _pretended(field: str) -> _Knob:
    kept: Raw = {}
    return _Knob(field, lambda domain: kept, lambda domain, raw, where: kept.update(raw), lambda value: {field: value}, _only)


def _share() -> _Knob:
    return _Knob("cpu_share", _scheduler("cpu_shares"), _write_scheduler, lambda value: {"cpu_shares": value}, _only)


def _only(raw: Raw) -> int:
    (value,) = raw.values()
    return int(value)


def _speed(megahertz: int) -> _Knob:
    return _Knob(
        "cpu_speed",
        _scheduler("vcpu_period", "vcpu_quota"),
        _write_scheduler,
        lambda value: {"vcpu_period": PERIOD, "vcpu_quota": quota(value, megahertz) if value else -1},
        lambda raw: round(raw["vcpu_quota"] * megahertz / raw["vcpu_period"]) if 0 < raw["vcpu_quota"] < _ENDLESS else 0,
    )


def _places(domain: Any, kind: str) -> tuple[int, ...]:
    if kind in ("test", "xen") or not domain.isPersistent():
        return (0,)
    return libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG


def _scheduler(*names: str) -> Callable[[Any], Raw]:
    def read(domain: Any) -> Raw:
        found = domain.schedulerParameters()
        missing = [name for name in names if name not in found]
        if missing:
            raise OurFault(NOT_SUPPORTED_LIVE, f"the host does not control the CPU time of its guests: it knows no {missing[0]}")
        return {name: found[name] for name in names}

    return read


def _write_scheduler(domain: Any, raw: Raw, where: int) -> None:
    domain.setSchedulerParametersFlags(raw, where)


def _read_weight(domain: Any) -> Raw:
    return {"weight": domain.blkioParameters(libvirt.VIR_DOMAIN_AFFECT_LIVE)["weight"]}


def _write_weight(domain: Any, raw: Raw, where: int) -> None:
    domain.setBlkioParameters(raw, where)


def _traffic(field: str, name: str, devices: _Devices) -> _Knob:
    """What each disk may read and write together in a second."""

    def read(domain: Any) -> Raw:
        return {name: max(domain.blockIoTune(disk, 0)[name] for disk in devices.disks)}

    def write(domain: Any, raw: Raw, where: int) -> None:
        for disk in devices.disks:
            domain.setBlockIoTune(disk, raw, where)

    return _Knob(field, read, write, lambda value: {name: value}, _only)


def _bandwidth(field: str, name: str, devices: _Devices) -> _Knob:
    """One direction of all the network cards; libvirt counts in kilobytes a second."""

    def read(domain: Any) -> Raw:
        return {name: max(domain.interfaceParameters(card, 0)[name] for card in devices.cards)}

    def write(domain: Any, raw: Raw, where: int) -> None:
        for card in devices.cards:
            domain.setInterfaceParameters(card, raw, where)

    return _Knob(field, read, write, lambda value: {name: kilobytes(value)}, lambda raw: raw[name] * 8)


def _read_memory(domain: Any) -> Raw:
    return {"kb": domain.info()[2]}


def _write_memory(domain: Any, raw: Raw, where: int) -> None:
    """Set the balloon; a running guest is waited for, since only its own driver gives memory back."""
    domain.setMemoryFlags(raw["kb"], where)
    if where == libvirt.VIR_DOMAIN_AFFECT_CONFIG:
        return
    deadline = time.monotonic() + BALLOON_SECONDS
    while abs((now := domain.info()[2]) - raw["kb"]) > _SLACK_KB:
        if time.monotonic() > deadline:
            raise OurFault(
                NOT_SUPPORTED_LIVE,
                f"the guest's balloon stands at {now // 1024} MB {BALLOON_SECONDS:g} s after it was set to {raw['kb'] // 1024} MB; "
                "a guest needs a virtio balloon driver for this, and memory to spare",
            )
        time.sleep(_BALLOON_STEP)
