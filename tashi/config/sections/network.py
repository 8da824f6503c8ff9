"""Sections of the network: the bridges of the hosts, and the addresses and names that VMs get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from tashi.config.options import Key, Keys, Section
from tashi.config.values import ENDLESS, AddressRange, FilePath, Form, Secret


class Networks(Section, frozen=True, kw_only=True):
    """The networks of the cell."""

    bridges: Annotated[Mapping[int, str], Keys("Bridge of each network by its id, the same on every host", example="0 = vmbr")] = (
        msgspec.field(default_factory=dict)
    )


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
