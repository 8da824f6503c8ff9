"""An instance: a virtual machine as it is wished and as it was last seen, and the specification it is asked for by.

gc=False: there are many of them and no cycles in them, so the garbage collector need not search them.
"""

from __future__ import annotations

import uuid

import msgspec

from tashi.model.bounds import Amount, Text
from tashi.model.causes import Cause
from tashi.model.states import InstanceState

DEFAULT_CPU_SHARE = 1024
LIMITS = frozenset({"cpu_speed", "disk_iops", "disk_bytes", "net_down", "net_up"})
"""The resources that an instance may have without a limit: to have one taken away 0 is asked for, and None is recorded."""


class Disk(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One disk: ``uri`` is a file name inside the image directory; a disk that is not persistent forgets its changes.

    ``template``: what the persistent disk is a copy of, until its instance has run (`tashi.model.disks`).
    """

    uri: Text
    persistent: bool = False
    template: Text = ""


class Nic(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One network card on the network with this id (a VLAN id where networks are VLANs). ``ip`` is the address it is to have, and in what
    a host has seen the one it has; the record keeps that beside the other."""

    network: Amount = 0
    mac: Text = ""
    ip: Text | None = None
    learnt: Text | None = None


class Resources(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """What can change while an instance runs, in the units of InstanceSpec; None: not said. ``memory`` is what its guest may use.

    0 is the end of a limit, of those that are in `LIMITS`; the instance's record then holds None.
    """

    cpu_share: Amount | None = None
    cpu_speed: Amount | None = None
    memory: Amount | None = None
    disk_weight: Amount | None = None
    disk_iops: Amount | None = None
    disk_bytes: Amount | None = None
    net_down: Amount | None = None
    net_up: Amount | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """Something to be done to an instance while it runs: an adaptation, or without one a reset. Those of one instance are done one after
    another. ``who`` asked by which ``verb``; ``request`` is the command that is owed the outcome."""

    adapt: Resources | None = None
    who: str = ""
    verb: str = ""
    request: int | None = None


class Migration(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """A move to another host that is wished or under way; ``who`` asked for it by which ``verb``."""

    target: int  # the id of the host
    begun: bool = False  # it waits no longer for others to have moved
    described: str = ""  # the domain as its host describes it
    received: int = 0  # the generation by which the target was asked to receive it; 0: not yet
    landing: str = ""  # the domain as the target will have it
    address: str = ""  # where the target's hypervisor is reached
    shared: bool = False  # whether the target sees the same disks
    doubt: str = ""  # why its host says that it failed, though the domain stands still there: only the target can tell
    who: str = ""
    verb: str = ""
    why: str = ""  # what a scheduler expects of it


class Becoming(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """What an instance is to be when its domain has ended and begins again."""

    cores: int
    memory: int
    memory_limit: int | None = None
    disks: tuple[Disk, ...]
    resources: Resources = Resources()  # of these all but the memory


class Residue(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A host on which something of an instance may be left, and the generation of the order that clears it away."""

    host_id: int
    generation: int


class InstanceSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What somebody asks for, checked at the door: memory in MB, cpu_speed in MHz per core, net_* in kbit/s; disk_iops and disk_bytes are
    what each disk may read and write together in a second. None: no limit."""

    name: str
    user_id: int
    disks: tuple[Disk, ...]
    cores: int = 1
    memory: int = 128
    cpu_share: int = DEFAULT_CPU_SHARE
    cpu_speed: int | None = None
    disk_weight: int | None = None
    disk_iops: int | None = None
    disk_bytes: int | None = None
    net_down: int | None = None
    net_up: int | None = None
    nics: tuple[Nic, ...] = ()
    hints: dict[str, str] = {}
    sla: str | None = None
    resource_id: str | None = None
    notification_uri: str | None = None


class InstanceUpdate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What somebody asks a running instance to become; None: as it is. Beside its resources nothing can change while it runs; ``restart``
    allows that it ends and begins again where that is needed."""

    resource_id: str
    resources: Resources = Resources()
    name: str | None = None
    cores: int | None = None
    image: str | None = None
    sla: str | None = None
    restart: bool = False


class Instance(InstanceSpec, frozen=True, kw_only=True, rename="camel", tag=False, gc=False):
    """One virtual machine of the cell. ``generation`` counts the orders given about it: an older order or sighting is void.

    ``incarnation`` is random and never repeats, even after a restore of the records: it tells the instance's domain and files from
    those of another instance that had the same id. It is '' for a record made before there were incarnations, until its next start.
    """

    id: int
    incarnation: str = ""
    state: InstanceState = InstanceState.Pending
    host_id: int | None = None
    generation: int = 0
    started: int = 0  # the generation of the Start that its domain is made by: no older sighting is of this domain
    boot: str = ""  # machine and boot that it was last seen on since it was placed (`HostIdentity.boot`)
    decayed: bool = False
    reason: str = ""
    cause: Cause | None = None  # why it is Paused, or Orphaned although its host answers; Orphaned, what it was Paused for
    owner_jid: str | None = None  # bare JID of the requester; with resource_id the key of idempotency
    key_is_free: bool = False  # its creation was answered as failed, so that the same key may name another instance
    content: str = ""  # digest of what was asked under that key
    created_at: float = 0.0
    placed_why: str = ""  # policy and score as recorded at placement
    refused_by: tuple[int, ...] = ()  # hosts that failed to start it
    group_name: str | None = None
    tasks: tuple[Task, ...] = ()  # the first one is with its host while the instance runs
    memory_limit: int | None = None  # MB of its memory that its guest may use; None: all
    migration: Migration | None = None
    becoming: Becoming | None = None
    residue: tuple[Residue, ...] = ()
    unused_below: int = 0  # no host has a domain that uses its throw-away disks of these generations, whoever they belong to
    saved: str = ""  # where in the shared directory its memory is kept while it is suspended
    grace_until: float | None = None  # the time of day by which a guest that was asked to shut down should have done so
    shrunk_from: int | None = None  # MB its guest had before it was shrunk to make room; while it has less, only that takes room
    shrunk_why: str = ""  # in words, as long as it is shrunk
    resize_failed_at: float = 0.0  # monotonic: when its host last could not shrink it, or give it back what it had
    moved_at: float = 0.0  # monotonic: when it last came to another host, or was to by the scheduler's will and did not
    broken_terms: tuple[str, ...] = ()  # those of its terms that are not kept where it is, and that somebody has been told of

    @property
    def resources(self) -> Resources:
        """What it has now of what can change."""
        return Resources(
            cpu_share=self.cpu_share,
            cpu_speed=self.cpu_speed,
            memory=self.memory_limit or self.memory,
            disk_weight=self.disk_weight,
            disk_iops=self.disk_iops,
            disk_bytes=self.disk_bytes,
            net_down=self.net_down,
            net_up=self.net_up,
        )

    @property
    def taken_memory(self) -> int:
        """MB that it takes on its host: all of its memory, or what it has been shrunk to."""
        return self.taking(self.memory_limit or self.memory)

    def taking(self, limit: int) -> int:
        """MB that it takes while its guest may use so many: a limit frees room only when it is below what it was shrunk from."""
        return self.memory if self.shrunk_from is None or limit >= self.shrunk_from else limit

    @property
    def rooms(self) -> tuple[int, ...]:
        """The hosts on which it takes room, and that may have orders about it: one that moves does so at both ends, and wherever it has
        been or was expected until that host has cleared it away."""
        here = () if self.host_id is None else (self.host_id,)
        there = () if self.migration is None else (self.migration.target,)
        return tuple(dict.fromkeys((*here, *there, *(one.host_id for one in self.residue))))


def domain_uuid(cell: uuid.UUID, instance_id: int) -> uuid.UUID:
    """The libvirt UUID of an instance: derived from the cell and the id, so that every part of the cell agrees on it."""
    return uuid.uuid5(cell, f"instance/{instance_id}")


def saved_name(cell: uuid.UUID, instance_id: int, incarnation: str) -> str:
    """Where the memory of a suspended instance is kept, below the shared directory: hosts of several cells may share that."""
    return f"suspend/{domain_uuid(cell, instance_id)}" + (f".{incarnation}" if incarnation else "")


def former_saved_name(instance_id: int, name: str) -> str:
    """Where versions before incarnations kept it. Another cell may have such a file, too: its content tells whose it is."""
    return f"suspend/{instance_id}_{name}"


def is_former_name(saved: str) -> bool:
    """Return whether this is the name of a saved memory that does not say whose it is."""
    return "_" in saved


def console_name(cell: uuid.UUID, instance_id: int, incarnation: str, name: str) -> str:
    """The name of an instance's console log: a later instance of the same id and name has another one."""
    return f"{domain_uuid(cell, instance_id)}.{incarnation}" if incarnation else domain_name(instance_id, name)


def domain_name(instance_id: int, name: str) -> str:
    """The libvirt name of an instance: ``tashi-<id>-<name>``."""
    return f"tashi-{instance_id}-{name}"
