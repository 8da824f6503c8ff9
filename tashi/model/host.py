"""A host: a physical machine whose agent has joined the cell, and what it was last known to offer."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tashi.model.bounds import Cores, Items, Megahertz, Memory, Name, Network, Text
from tashi.model.states import HostState


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
    secret_hash: str = ""  # of the secret pinned at the agent's first login
