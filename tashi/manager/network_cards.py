"""Whose a MAC address or an IP address is, among the instances of the cell: an index beside the records."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import msgspec

from tashi.errors import CONFLICT, YourMistake
from tashi.manager.cluster import Cluster
from tashi.model.host import Host
from tashi.model.instance import Instance, Nic
from tashi.model.states import InstanceState

PREFIX: Final = "52:54:00:"
"""The range that QEMU and KVM use."""

_Address = str | tuple[int, str]
"""A MAC address, or an IP address with the network it is used on."""


class NetworkCards:
    """Keeps itself up to date with the records."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._nics: dict[int, tuple[Nic, ...]] = {}
        self._users: dict[_Address, set[int]] = defaultdict(set)
        for instance in cluster.instances.values():
            self._changed(instance)
        cluster.watchers.append(self._changed)

    def claim(self, instance_id: int, network: int, ip: str) -> bool:
        """Whether no other instance has this address; from now on it is this one's."""
        users = self._users[network, ip]
        if users - {instance_id}:
            return False
        users.add(instance_id)
        return True

    def with_macs(self, nics: tuple[Nic, ...], taken: set[str]) -> tuple[Nic, ...]:
        """The cards, each with a MAC address of its own; ``taken`` are those of the same command, and get these, too.

        YourMistake(conflict) when one that was asked for is in use.
        """
        found = []
        for nic in nics:
            mac = nic.mac or self._free_mac(taken)
            if mac in taken or self._is_used(mac):
                raise YourMistake(CONFLICT, f"nics: the MAC address {mac} is already in use in this cell; choose another, or leave it out")
            taken.add(mac)
            found.append(msgspec.structs.replace(nic, mac=mac))
        return tuple(found)

    def _free_mac(self, taken: set[str]) -> str:
        while True:
            mac = PREFIX + secrets.token_bytes(3).hex(":")
            if mac not in taken and mac not in self._users:
                return mac

    def _is_used(self, mac: str) -> bool:
        """What is being destroyed has no claim to its address any more, as to its name."""
        users = (self._cluster.instances[number] for number in self._users.get(mac, ()))
        return any(user.state is not InstanceState.Destroying for user in users)

    def _changed(self, record: Instance | Host) -> None:
        if isinstance(record, Host):
            return
        nics = record.nics if record.id in self._cluster.instances else ()
        before = self._nics.get(record.id, ())
        if nics is before:
            return
        for address in _addresses(before):
            users = self._users.get(address)
            if users is not None:
                users.discard(record.id)
                if not users:
                    del self._users[address]
        self._nics[record.id] = nics
        if not nics:
            del self._nics[record.id]
        for address in _addresses(nics):
            self._users[address].add(record.id)


def _addresses(nics: tuple[Nic, ...]) -> Iterator[_Address]:
    for nic in nics:
        yield nic.mac
        for ip in {nic.ip, nic.learnt} - {None}:
            yield nic.network, str(ip)
