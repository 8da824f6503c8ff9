"""What only a look at the machine can tell about a configuration: files, hook sections and hosts that are not there."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Iterator

from tashi.config.model import Config
from tashi.config.sections.network import DhcpDns


def resolves(host: str) -> bool:
    """Whether a host has an address at this moment."""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return True


def missing(config: Config, resolves: Callable[[str], bool] = resolves) -> tuple[str, ...]:
    """One sentence for each file, hook section and host that is named and cannot be found: an error only to the part that needs it."""
    return tuple(
        f"{config.source(section, key)}: [{section}] {key}: {what}"
        for section, key, what in (
            *_missing_files(config),
            *_missing_hook_sections(config),
            *_missing_hosts(config, functools.cache(resolves)),
        )
    )


def _missing_files(config: Config) -> Iterator[tuple[str, str, str]]:
    named = (
        ("Vfs", "prefix", config.vfs.prefix),
        ("XMPP", "caFile", config.xmpp.ca_file),
        ("LdapOverride", "ldapCommand", config.ldap_override.ldap_command.password_file),
        ("Power", "passwordFile", config.power.password_file),
        ("DhcpDns", "dnsKeyFile", config.dhcp_dns.dns_key_file),
        ("NodeManagerService", "caFile", config.node_manager_service.ca_file),
        ("NodeManagerService", "joinSecretFile", config.node_manager_service.join_secret_file),
        ("Qemu", "scratchDir", config.qemu.scratch_dir),
        *(("Networks", "ifup", config.networks.ifup.replace("{id}", str(network))) for network in config.networks.bridges),
        ("Client", "caFile", config.client.ca_file),
    )
    for section, key, path in named:
        # A directory closed to this user may hold the file all the same.
        if path and not os.path.exists(path) and os.access(os.path.dirname(path) or ".", os.X_OK):
            yield section, key, f"{path} is not there: create it or correct the path"
        elif path and not os.path.exists(os.path.dirname(path) or "."):
            yield section, key, f"{path} cannot be found: create it or correct the path"


def _missing_hook_sections(config: Config) -> Iterator[tuple[str, str, str]]:
    for suffix, hook in config.scheduler.hooks.items():
        if hook == "DhcpDns" and config.dhcp_dns == DhcpDns():
            yield "Scheduler", f"hook{suffix}", "section [DhcpDns] is not there: add it or remove the hook"


def _missing_hosts(config: Config, resolves: Callable[[str], bool]) -> Iterator[tuple[str, str, str]]:
    ldap = config.ldap_override.ldap_command.host if config.cluster_manager.data == "LdapOverride" else ""
    hooked = "DhcpDns" in config.scheduler.hooks.values()
    named = (
        ("ClusterManagerService", "host", config.cluster_manager_service.host),
        ("LdapOverride", "ldapCommand", ldap),
        ("XMPP", "server", config.xmpp.server.rpartition(":")[0] or config.xmpp.server if config.xmpp.enabled else ""),
        ("DhcpDns", "dnsServer", config.dhcp_dns.dns_server.partition(" ")[0] if hooked else ""),
        ("DhcpDns", "dhcpServer", config.dhcp_dns.dhcp_server if hooked else ""),
        ("NodeManagerService", "clusterManagerHost", config.node_manager_service.cluster_manager_host),
        ("Client", "clusterManagerHost", config.client.cluster_manager_host),
    )
    for section, key, host in named:
        if host and not resolves(host.strip("[]")):
            yield section, key, f"host {host} has no address now: correct the name, or add it to DNS or /etc/hosts"
