"""A host: a physical machine whose agent has joined the cell, and what it was last known to offer."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Final

import msgspec

from tashi.model.bounds import Cores, Items, Megahertz, Memory, Name, Network, Text
from tashi.model.host_identity import HostIdentity
from tashi.model.states import HostState
from tashi.model.stray import Stray

ADDRESS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,252}")
"""A name or an address as a power command may have it: never an option, a user or a path."""
MAC: Final = re.compile(r"[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2}){5}")


class HostFacts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an agent says of its machine: memory in MB that instances may use, core count, MHz per core."""

    memory: Memory
    cores: Cores
    cpu_speed: Megahertz
    version: Name
    fqdn: Text = ""
    hypervisor: Name = ""  # e.g. "qemu (tcg)", "test"
    networks: Annotated[tuple[Network, ...], Items] = (0,)
    vlans: bool = False  # any VLAN id of 1 to 4094 is a network here, too
    mac: Name = ""  # of the card that its agent reaches the control plane by

    def has_network(self, network: int) -> bool:
        """Whether an instance can be on this network here."""
        return network in self.networks or (self.vlans and 1 <= network <= 4094)


class Reach(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a machine is reached, as its agent said when it joined with the join secret. Later only an administrator changes it."""

    fqdn: Text = ""
    mac: Name = ""


class Host(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A host of the cell. ``up``: heard from within its lease; ``decayed``: what is known of its instances may be stale."""

    id: int
    name: str
    up: bool = False
    decayed: bool = True
    state: HostState = HostState.Normal
    state_when_on: HostState = HostState.Normal  # what it will be when it is on again, or of our version again
    facts: HostFacts | None = None
    draining: bool = False  # its instances are to be moved elsewhere
    notes: str = ""
    reserved: tuple[int, ...] = ()  # user ids; empty: for everybody
    config: dict[str, str] = {}  # location, auditability, ...: set by setHostConfig
    strays: tuple[Stray, ...] = ()  # domains of this cell there that no record accounts for; they take room
    secret_hash: str = ""  # of the secret pinned at the agent's first login
    identity: HostIdentity | None = None  # of the machine that is pinned with it, and the boot that logged in last
    reach: Reach | None = None  # None: its agent has joined and not said yet

    @property
    def address(self) -> str:
        """The name or address that a power command may use: an administrator's, the one confirmed by the join, or the host's name."""
        return self.config.get("address") or (self.reach.fqdn if self.reach else "") or self.name

    @property
    def mac(self) -> str:
        """The MAC address that a magic packet may go to; empty where none is confirmed."""
        return self.config.get("mac") or (self.reach.mac if self.reach else "")

    @property
    def unconfirmed(self) -> str:
        """In words, what its agent says of its addresses that nobody has confirmed; empty: nothing."""
        if self.facts is None or self.reach is None:
            return ""
        said = (("address", self.facts.fqdn, self.address), ("mac", self.facts.mac, self.mac))
        return "; ".join(
            f"its agent says {name} {new!a}, and {old or 'none'} is confirmed: setHostConfig --elemName {name} confirms another one"
            for name, new, old in said
            if new and new.lower() not in (old.lower(), self.name.lower())
        )

    @property
    def stray_memory(self) -> int:
        """MB that strays take."""
        return sum(stray.memory for stray in self.strays)

    @property
    def stray_cores(self) -> int:
        """Cores that strays take."""
        return sum(stray.cores for stray in self.strays)



def reach_of(facts: HostFacts, name: str, others: Collection[Host]) -> Reach:
    """What the join of the host of this name confirms: of what its agent says, that which is well formed and no other host's."""
    addresses = {word.lower() for other in others for word in (other.name, other.address)}
    macs = {other.mac.lower() for other in others}
    fqdn = facts.fqdn if ADDRESS.fullmatch(facts.fqdn) and facts.fqdn.lower() not in addresses else ""
    mac = facts.mac if MAC.fullmatch(facts.mac) and facts.mac.lower() not in macs else ""
    return Reach(fqdn=fqdn, mac=mac)
