"""The contracts between the rooms: what each adapter keeps, and what the doors may ask of the cluster manager."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from tashi.errors import TashiError
from tashi.model.causes import Cause
from tashi.model.host import Host, HostFacts
from tashi.model.host_identity import HostIdentity
from tashi.model.instance import InstanceSpec, InstanceUpdate, Resources
from tashi.model.marks import Mark
from tashi.model.orders import Deed, NodeLogin, NodeWelcome, Observation, Offer, Order, PrepareDisks, Report, Seen, Start
from tashi.model.questions import Answer, DomainDescription, Question
from tashi.model.request import Origin, Outgoing
from tashi.model.statistics import Sample
from tashi.model.store_status import StoreStatus
from tashi.model.user import Principal
from tashi.node.network.cards import Card


class Change(msgspec.Struct, frozen=True):
    """One row to write: ``record`` None removes it. ``table`` is one of the names in `tashi.store.tables`."""

    table: str
    key: int | str
    record: msgspec.Struct | int | str | None


class IStore(Protocol):
    """Where the cluster's records survive. One writer; each commit is one transaction, durable when its awaitable fires."""

    def load(self) -> Awaitable[Mapping[str, Mapping[int | str, Any]]]:
        """All live records by table and key; history is not among them. OurFault when the schema is newer than the program,
        when records are missing, and when a record cannot be decoded."""

    def commit(self, changes: Sequence[Change]) -> Awaitable[None]:
        """Write all the changes or none; several calls are carried out in order."""

    def find_gone(
        self,
        *,
        instance_id: int | None = None,
        key: tuple[str, str] | None = None,
        name: str | None = None,
        user_id: int | None = None,
    ) -> Awaitable[Any]:
        """Return the newest instance in history with this id, this key or this name, or None.

        A ``key`` is a sender's bare JID and that sender's resourceId. ``user_id`` restricts a search by name to this owner.
        """

    def mark(self) -> Mark:
        """Return how far the committed records have come: what others may be told, to show it again when the store is loaded anew."""

    def contains(self, mark: Mark) -> bool:
        """Whether the commit of this mark is among the records; False: records were lost since."""

    def status(self) -> StoreStatus:
        """Return how the store is; it waits for nothing."""

    def close(self) -> Awaitable[None]:
        """Finish what is under way and let go of the database."""


class ICommands(Protocol):
    """What the message sink may ask of the cluster manager (`tashi.manager.commands`).

    The commands that change something take an Origin and return None: their one outcome, good or bad, is written to the outbox
    and told from there. A YourMistake is never raised by them. The reads return plain JSON data or raise YourMistake.
    """

    def identify(self, jid: str) -> Principal | None:
        """Who this bare JID is to us; None: a stranger, who gets no reply."""

    def create(self, who: Principal, origin: Origin, specs: Sequence[InstanceSpec], content: Sequence[str]) -> None:
        """All of these instances or none; ``content``, one a spec, is the digest of what was asked (for idempotency)."""

    def delete(self, who: Principal, origin: Origin, reference: int | str) -> None:
        """Destroy the instance with this id (an integer), or with this resourceId of the sender's or this hostname (a text)."""

    def update(self, who: Principal, origin: Origin, update: InstanceUpdate) -> None:
        """Adapt a running instance; answered when its host has done so or has refused."""

    def refuse(self, who: Principal, origin: Origin, error: TashiError, resource_id: str | None = None) -> None:
        """Answer a command that the door itself found wrong; the refusal is audited."""

    def refuse_stranger(self, jid: str, verb: str) -> None:
        """Note that an unknown sender asked for something: no reply, grouped in the audit trail."""

    def get(self, who: Principal, reference: int | str) -> Awaitable[dict[str, Any]]:
        """The state of one instance; of a gone one what history knows."""

    def list(self, who: Principal, after: int) -> dict[str, Any]:
        """One page of instances with ids above ``after``: ``{"instances": [...], "next": id or None}``, below 100 KiB as JSON."""

    def explain(self, who: Principal, reference: int | str) -> Awaitable[str]:
        """Why the instance is where it is, or why it is nowhere, in words: a line on it, then one a host."""

    def set_host_config(self, who: Principal, origin: Origin, host: int | str, name: str, value: str) -> None:
        """Set one element of a host's configuration, such as its location."""

    def queued(self, jid: str) -> int:
        """How many commands of this bare JID are accepted and not yet answered."""


class IOutbox(Protocol):
    """What leaves: rows written with the change they tell of, kept until somebody has confirmed that they arrived."""

    def pending(self) -> Sequence[Outgoing]:
        """The committed rows that are not done, oldest first."""

    def done(self, ids: Sequence[int]) -> None:
        """These rows have arrived; forget them."""

    def set_aside(self, row_id: int, why: str, size: int) -> None:
        """Keep this row and do not offer it again: the server takes no stanza like it. ``size``: its bytes, when they are too many."""

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call the listener (without arguments, in the reactor) whenever rows were added and committed."""


class INodeLink(Protocol):
    """A logged-in agent, as the cluster manager sees it."""

    def send(self, orders: Sequence[Order]) -> None:
        """Pass these orders on, in this sequence; if the link is lost they are lost, and repeated at the next login."""

    def ask(self, question: Question) -> Awaitable[Answer]:
        """The agent's answer. TashiError in its words when it refuses, OurFault when it does not answer in time."""

    def remember(self, mark: str) -> None:
        """Have the agent keep this signed mark on its disk, in place of the one before, and show it at its next login."""

    def answers(self) -> Awaitable[bool]:
        """Whether the agent at the other end answers now; known within two seconds."""

    def close(self) -> None:
        """Drop the link; the agent will come back."""


class INodeDoor(Protocol):
    """What a logged-in agent may do to the cluster manager (`tashi.manager.hosts`)."""

    def login(self, login: NodeLogin, link: INodeLink) -> Awaitable[NodeWelcome]:
        """Take the agent's host into the cell or back; YourMistake when its secret or machine is not the pinned one, or
        when another agent of the host is logged in and answers."""

    def report(self, host_id: int, link: INodeLink, report: Report) -> None:
        """What this host has to say; a report over a link that is no longer the host's is ignored."""

    def malformed(self, host_id: int, link: INodeLink, why: str) -> None:
        """This host sent a report that could not be read: it takes nothing new, and its notes say why, until it sends a good one."""

    def logout(self, host_id: int, link: INodeLink) -> None:
        """The link is gone; the host's lease runs on."""


class IHypervisor(Protocol):
    """What an agent needs of a machine's virtualisation; every call but `watch` blocks and is made in the agent's own threads.

    ``cell`` is the cell's UUID: domains of another cell, or of nobody, are not seen and not touched. ``incarnation`` is that of the
    instance: a domain of another incarnation is listed, but no order about this one is carried out on it.

    Errors are OurFault with words for the operator; `tashi.node.faults.HypervisorAway` means that the call may have worked or not and is
    to be made again. Calls about one domain are made one after another, those about different domains at once.
    """

    def watch(self, listener: Callable[[str | None, Seen | None, Cause | None], None]) -> None:
        """Call the listener, from any thread, with the UUID of a domain whose life changed, what it seems to be now, and why; with None
        first when anything may have changed unseen. It is a hint: `settle` tells."""

    def facts(self) -> HostFacts:
        """What this machine offers now; the first call may take three seconds."""

    def identity(self) -> HostIdentity:
        """Which machine and which libvirt this is, and which boot of it."""

    def prepare_disks(self, cell: str, order: PrepareDisks) -> None:
        """See to it that the copies are in the image directory, whole; those that are there already are not made again. OurFault when one
        cannot be had, or is given up (`abort`): then none is left."""

    def start(self, cell: str, order: Start) -> Observation:
        """See to it that the domain runs, and say what is seen of it. One that runs already is left as it is but answers to this order
        from now on. A failure leaves nothing behind, nor the copies that were made for it."""

    def destroy(
        self,
        cell: str,
        domain_uuid: str,
        generation: int,
        copies: Sequence[str] = (),
        saved: str = "",
        incarnation: str = "",
    ) -> None:
        """See to it that the domain is neither running nor defined and that its throw-away disks up to this generation are gone, and
        those of the ``copies`` that were made for it and that it has not run with. What belongs to another host stays. ``saved``:
        where its memory may have been kept, which is then gone, too. A domain of another incarnation is left alone: this one is not
        here."""

    def do(self, cell: str, deed: Deed) -> Resources | Offer | Seen | None:
        """Do this to the domain, which answers to this order from now on; nothing when it is not there or has ended, which `settle`
        tells. An Unpause continues a domain that its host has saved, too; one that cannot run is refused. Done again it does no
        harm; a Reset is done once for each generation. Of an Adapt all is done or nothing, and what the hypervisor then has is
        returned; of a Depart or Receive the Offer, of a Suspend SAVED. A Migrate or Suspend returns when it is at its end."""

    def progress(self, cell: str, domain_uuid: str) -> int | None:
        """Percent done of what is under way on this domain and takes long; None: nothing is. What has come to a standstill or takes too
        long is ended, as failed."""

    def abort(self, cell: str, domain_uuid: str, incarnation: str = "") -> None:
        """End soon, as failed, whatever is under way on this domain, which is to be destroyed; a call that waits for a guest whose process
        does not answer ends with the domain."""

    def settle(
        self, cell: str, domain_uuid: str, generation: int, cause: Cause | None = None, incarnation: str = ""
    ) -> Observation | None:
        """What is seen of this domain; one that has ended is told GONE and nothing of it is left. None: there is no such domain of
        this incarnation. One that lives and has lost its mark is told MISSING, with the cause UNMARKED.
        ``cause``: what was last known of why it does not run. Only where that, or what is found, is an end are its disks removed, those up
        to this generation, which is that of the last order about it. One that its host has saved, or that was reverted, has not
        ended; one that was migrated away is told GONE and left alone."""

    def resume_if_room(self, cell: str, domain_uuid: str, incarnation: str = "") -> None:
        """Continue this domain if it is paused because there was no space for its disks, and there is some again."""

    def domains(self, cell: str) -> Sequence[Observation]:
        """One observation for every domain of the cell on this machine, with the size of one that is alive; GONE for one that has ended
        and is not settled yet, with no reason where nothing is known of its ever having run; MISSING, with the cause UNMARKED and
        no incarnation, for one that lives and has lost its mark."""

    def look(self, cell: str, domain_uuid: str) -> Observation | None:
        """What is seen of this domain, of whatever incarnation, which is left as it is. None: the cell has no such domain here."""

    def cards(self, cell: str) -> Mapping[int, tuple[Card, ...]]:
        """The network cards of each instance of the cell that runs here, where they have wires that can be listened to."""

    def statistics(self, cell: str) -> Sample:
        """The counters of all running domains of the cell, and of the machine. A guest whose process hangs may hang this call, but no
        call after it."""

    def close(self) -> None:
        """Let go of the virtualisation; domains run on."""


class IConsole(Protocol):
    """A connection to a guest's serial console; its calls block, one at a time."""

    def write(self, data: bytes) -> None:
        """Type this; OurFault when the guest takes no more."""

    def close(self) -> None:
        """End the connection; no callback comes afterwards. Once more does no harm."""


class IGuestAccess(Protocol):
    """What an agent needs to let somebody at a domain's screen, console and CD-ROM drive; every call blocks, as those of IHypervisor.

    Each is about a domain of the cell that runs and is of this incarnation; of any other it says so (OurFault). No call keeps or logs a
    password.
    """

    def set_vnc_password(self, cell: str, domain_uuid: str, password: str, seconds: float, incarnation: str = "") -> None:
        """Who begins within so many seconds, and knows the password, is let in at the screen; 0 seconds: nobody is."""

    def connect_to_screen(self, cell: str, domain_uuid: str, incarnation: str = "") -> int:
        """A file descriptor, the caller's own, of a connection to the domain's VNC server, which will ask for the password."""

    def change_cdrom(self, cell: str, domain_uuid: str, image: str, incarnation: str = "") -> None:
        """Put the image of this name into the domain's CD-ROM drive, or none; OurFault(unknown-image) when it may not be used."""

    def open_console(
        self,
        cell: str,
        domain_uuid: str,
        force: bool,
        received: Callable[[bytes], None],
        ended: Callable[[], None],
        incarnation: str = "",
    ) -> IConsole:
        """Connect to the serial console; ``force`` turns out who is connected. The callbacks come from a thread that is not to wait."""

    def describe(self, cell: str, domain_uuid: str, incarnation: str = "") -> DomainDescription:
        """What the domain is, so that a record of it can be made; it need not run. OurFault when there is no such domain."""

    def read_log(self, name: str, offset: int) -> bytes:
        """What the console of the domain of this name has said, from this byte on: a page of it, empty where it ends."""


class IPower(Protocol):
    """How hosts are switched on and off (`tashi.power`). What goes wrong is a TashiError whose words name what was tried; each call ends
    in time, and made again it does no harm."""

    def objection(self, host: Host) -> str | None:
        """Why this host could not be switched off and on again, such as an address that is not configured; None: it could."""

    def target(self, host: Host) -> str | None:
        """What is switched in this host's place, such as the address of its BMC, in one spelling: no two hosts may have the same. None: the
        driver knows hosts by their names alone."""

    def switch_on(self, host: Host) -> Awaitable[None]:
        """Have the host switched on; it may not be on yet when this fires. One that is on stays on."""

    def switch_off(self, host: Host) -> Awaitable[None]:
        """Have the host, which is empty, shut down; it may not be off yet when this fires. One that is off stays off."""

    def is_on(self, host: Host) -> Awaitable[bool | None]:
        """Whether the machine has power now; None: there is no way to tell."""
