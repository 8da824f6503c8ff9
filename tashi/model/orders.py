"""What a cluster manager and a node agent say to each other: orders down, observations up, each one JSON record.

-> PrepareDisks, Start, Destroy, a Deed       the acknowledgement means only "I have it"
<- Report                      the facts of the host and what is seen of its instances; `full` lists all there are
Every order carries the generation of its instance, every observation the generation it answers to: the older is void.
Both name the incarnation of the instance. A host never carries out an order on a domain of another incarnation.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec

from tashi.model.bounds import Amount, Id, Items, Moment, Name, Page, Percent, Text, Xml
from tashi.model.causes import Cause
from tashi.model.disks import DiskCopy
from tashi.model.host import HostFacts
from tashi.model.host_identity import HostIdentity
from tashi.model.instance import Disk, Nic, Resources
from tashi.model.statistics import Statistics
from tashi.model.stray import DomainSummary


class Start(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="start"):
    """Start this domain, or say that it runs. Units are those of InstanceSpec; its guest may use ``memory_limit`` of its memory."""

    instance_id: Id
    generation: Id
    incarnation: Name = ""
    name: Text
    user_id: Id | None = None  # the owner, for the domain's metadata
    uuid: Text
    cores: Amount
    memory: Amount
    disks: Annotated[tuple[Disk, ...], Items]
    nics: Annotated[tuple[Nic, ...], Items] = ()
    cpu_share: Amount = 1024
    cpu_speed: Amount | None = None
    memory_limit: Amount | None = None
    disk_weight: Amount | None = None
    disk_iops: Amount | None = None
    disk_bytes: Amount | None = None
    net_down: Amount | None = None
    net_up: Amount | None = None
    hints: Annotated[dict[Text, Text], Items] = {}
    saved: Text = ""  # let it go on from the memory kept there, below the shared directory


class PrepareDisks(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="prepareDisks"):
    """Make these copies for the domain, all or none, or say that they are made."""

    instance_id: Id
    generation: Id
    incarnation: Name = ""
    uuid: Text
    copies: Annotated[tuple[DiskCopy, ...], Items]


class Destroy(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="destroy"):
    """See to it that this domain is gone, with its throw-away disks and with those of its ``copies`` that it has not run with."""

    instance_id: Id
    generation: Id
    incarnation: Name = ""
    uuid: Text
    copies: Annotated[tuple[Text, ...], Items] = ()
    saved: Text = ""  # where its memory may have been kept
    unused_below: Id = 0  # up to this generation no other host uses its throw-away disks, whoever they belong to


class Deed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something to be done to a domain that runs; one that has ended is only told so. Its outcome is an observation that is `done`."""

    instance_id: Id
    generation: Id
    incarnation: Name = ""
    uuid: Text


class Pause(Deed, frozen=True, kw_only=True, rename="camel", tag="pause"):
    """Let the domain stand still."""


class Unpause(Deed, frozen=True, kw_only=True, rename="camel", tag="unpause"):
    """Let the domain go on."""


class Shutdown(Deed, frozen=True, kw_only=True, rename="camel", tag="shutdown"):
    """Press the domain's power button; whether it ends is the guest's business."""


class Reset(Deed, frozen=True, kw_only=True, rename="camel", tag="reset"):
    """Press the domain's reset button, once for each generation."""


class Depart(Deed, frozen=True, kw_only=True, rename="camel", tag="depart"):
    """Describe the domain to a host that is to receive it; its outcome is an Offer without an address."""


class Receive(Deed, frozen=True, kw_only=True, rename="camel", tag="receive"):
    """Make everything ready for this domain to arrive, or refuse it with the reason; its outcome is an Offer. The domain is
    that of the record, in the units of a Start; ``described`` is how its source has it."""

    name: Text
    user_id: Id | None = None
    described: Xml
    cores: Amount
    memory: Amount
    disks: Annotated[tuple[Disk, ...], Items]
    nics: Annotated[tuple[Nic, ...], Items] = ()
    cpu_share: Amount = 1024
    cpu_speed: Amount | None = None
    memory_limit: Amount | None = None
    disk_weight: Amount | None = None
    disk_iops: Amount | None = None
    disk_bytes: Amount | None = None
    net_down: Amount | None = None
    net_up: Amount | None = None
    hints: Annotated[dict[Text, Text], Items] = {}


class Migrate(Deed, frozen=True, kw_only=True, rename="camel", tag="migrate"):
    """Move the domain to the host that has offered to receive it; it ends here, or stays as it is and the deed is refused."""

    landing: Xml
    address: Text
    shared: bool


class Look(Deed, frozen=True, kw_only=True, rename="camel", tag="look"):
    """Say what is seen of the domain. ``yours``: no other host has it any more, so that what is left of it is this host's."""

    yours: bool = False


class Suspend(Deed, frozen=True, kw_only=True, rename="camel", tag="suspend"):
    """Keep the domain's memory and throw-away disks below the shared directory, and end it."""

    saved: Text


class Adapt(Deed, frozen=True, kw_only=True, rename="camel", tag="adapt"):
    """Give the domain these resources, all of them or none."""

    wished: Resources


Order = PrepareDisks | Start | Destroy | Pause | Unpause | Shutdown | Reset | Depart | Receive | Migrate | Look | Suspend | Adapt


class Offer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, tag="offer"):
    """What one host says for the next one about a domain that moves: its description, and where a target is reached."""

    domain: Xml
    address: Text = ""
    shared: bool = False  # the target sees the same throw-away disks


class Seen(enum.StrEnum):
    """What an agent can say of a domain."""

    RUNNING = "running"
    PAUSED = "paused"  # it stands still, or is off and has not ended: the cause says which
    SAVED = "saved"
    EXPECTED = "expected"  # it is not here, but may arrive
    GONE = "gone"  # it has ended, which was seen, or was ordered
    MISSING = "missing"  # it is not here, and nobody saw it end
    READY = "ready"  # there is no domain yet, but its disks are there: the outcome of PrepareDisks
    FAILED = "failed"  # the PrepareDisks, Start or Destroy of this generation could not be carried out


class Observation(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One sighting of one instance on the reporting host. ``at``: seconds of the agent's monotonic clock.

    ``done``: the Deed of this generation has had its outcome; ``refused`` is why it could not be carried out, if it could not.
    ``cause``: why the domain is paused or gone, where the host knows; ``reason`` has the words for it.
    """

    instance_id: Id
    generation: Id
    incarnation: Name = ""
    domain: DomainSummary | None = None  # of one that is alive, where the host has just looked at it
    seen: Seen
    reason: Text = ""
    cause: Cause | None = None
    at: Moment = 0.0
    nics: Annotated[tuple[Nic, ...], Items] = ()
    done: bool = False
    refused: Text = ""
    adapted: Resources | None = None  # what the hypervisor has, read back after an Adapt
    offer: Offer | None = None  # the outcome of a Depart or a Receive
    progress: Percent | None = None  # percent of a deed that takes long
    stuck: bool = False  # a deed waits for the guest's process, which does not answer


def answer(order: Order | Deed, seen: Seen, reason: str = "", **fields: Any) -> Observation:
    """Return what is seen of an order's instance in answer to it."""
    return Observation(
        instance_id=order.instance_id,
        generation=order.generation,
        incarnation=order.incarnation,
        seen=seen,
        reason=reason,
        **fields,
    )


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A page of what a host has to say. ``full``: with its other pages it lists every domain of this cell on the host."""

    facts: HostFacts
    observations: Annotated[tuple[Observation, ...], Items] = ()
    full: bool = False
    page: Page = 1
    pages: Page = 1
    statistics: Statistics | None = None  # a page of them


class NodeLogin(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How an agent names itself: its own secret, the cell's join secret while the host is new, and the machine that it runs on.

    ``mark`` is the last one that the agent was told, as it was told (`tashi.model.marks`).
    """

    name: Text
    secret: Text
    join: Text = ""
    version: Text = ""
    mark: Text = ""
    identity: HostIdentity | None = None


class NodeWelcome(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a cell tells an agent that has logged in: the id of its host, the UUID of the cell, the lease in seconds, and the mark
    that the agent keeps on its disk."""

    host_id: Id
    cell: Text
    lease: float
    mark: Text = ""
