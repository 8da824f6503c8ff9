"""Sections of the network: the bridges of the hosts, and the addresses and names that VMs get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from tashi.config.options import Key, Keys, Section
from tashi.config.values import ENDLESS, AddressRange, BridgeName, FilePath, Form, Secret


class Networks(Section, frozen=True, kw_only=True):
    """The networks of the cell. What differs on one host stands in its own NodeManager.cfg; an empty value there takes one away."""

    bridges: Annotated[Mapping[int, str], Keys("Bridge of each network by its id, the same on every host", example="0 = vmbr")] = (
        msgspec.field(default_factory=dict)
    )
    vlan_device: Annotated[
        str,
        Key(
            "Network device whose VLANs are networks, too: each id of 1 to 4094 that has no bridge above gets VLAN and bridge on a host "
            "when a VM there first needs them, and they stay; empty: none"
        ),
    ] = ""
    vlan_bridge: Annotated[BridgeName, Key("Name of such a bridge, with the id for {id}, at most 15 characters")] = BridgeName("vmbr.{id}")
    ifup: Annotated[
        str,
        Key(
            "Program that is run with the name of a VM's tap device, after libvirt has put that into its bridge and before the VM counts "
            "as running, with the network's id for {id}, such as /etc/qemu-ifup.{id}; it ends with 0, within 10 s, and may be run twice; "
            "empty: none"
        ),
    ] = ""


class DhcpDns(Section, frozen=True, kw_only=True):
    """Addresses by DHCP and names in DNS, where a hook of the scheduler is DhcpDns."""

    dns_enabled: Annotated[bool, Key("Whether names are written to DNS")] = True
    dns_server: Annotated[str, Key("Address of the DNS server, and its port when it is not 53, separated by a space")] = ""
    dns_domain: Annotated[str, Key("Domain of the names")] = ""
    dns_expire: Annotated[int, Form(unit="s", minimum=0, maximum=ENDLESS), Key("Time to live of the records")] = 300
    dns_key_file: Annotated[FilePath, Key("Key for updates, a .private file as dnssec-keygen or tsig-keygen writes it")] = ""
    dns_key_name: Annotated[str, Key("Name of the key where it is given here, not in dnsKeyFile")] = ""
    dns_secret_key: Annotated[Secret, Key("That key in base64; the file that holds it must be readable by its owner only")] = Secret()
    reverse_dns: Annotated[bool, Key("Whether the names of addresses are written too")] = True
    dhcp_enabled: Annotated[bool, Key("Whether addresses are written to DHCP")] = True
    dhcp_server: Annotated[str, Key("Address of the DHCP server")] = ""
    dhcp_key_name: Annotated[str, Key("Name of its OMAPI key")] = ""
    dhcp_secret_key: Annotated[Secret, Key("That key in base64; the file that holds it must be readable by its owner only")] = Secret()
    ip_ranges: Annotated[
        Mapping[int, AddressRange],
        Keys("First and last address for VMs of each network", prefix="ipRange", example="ipRange1 = 172.16.1.10-172.16.1.19"),
    ] = msgspec.field(default_factory=dict)
