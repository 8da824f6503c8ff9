"""Names of the original Tashi and of its SLA extension: today's name for each, or what to do instead.

Parts were once named by dotted class names; ``part_named`` turns both those and today's short names into today's.
Sections and keys that no longer have an effect stay known, so that an old file loads, with one warning for each.
"""

from __future__ import annotations

import difflib

import msgspec


class Successor(msgspec.Struct, frozen=True):
    """Today's part, or none; ``advice`` is what a person should know or do, empty when nothing changes."""

    name: str | None
    advice: str = ""


EVENTS = "events now leave by XMPP: set [XMPP] enabled, jid, pwd and recipient, and remove this line"
LOGGING = "the log is chosen when a program is started (`twistd --logfile FILE` or `--syslog`); remove the logging sections"
ALWAYS = Successor("")

# dotted name without the leading "tashi.", in lower case -> today's part
CLASSES = {
    "clustermanager.data.sql": Successor("SQL"),
    "clustermanager.data.pickled": Successor("SQL"),
    "clustermanager.data.ldapoverride": Successor("LdapOverride"),
    "clustermanager.data.getentoverride": Successor(
        "SQL", "users of the operating system are not read; register them with `tashi registerUser`, or set data = LdapOverride"
    ),
    "clustermanager.data.fromconfig": Successor(
        "SQL", "hosts register themselves; add users with `tashi registerUser` and networks in section [Networks]"
    ),
    "clustermanager.clustermanagerservice": ALWAYS,
    "nodemanager.nodemanagerservice": ALWAYS,
    "nodemanager.vmcontrol.qemu": Successor("Libvirt"),
    "nodemanager.vmcontrol.qemu.qemu": Successor("Libvirt"),
    "nodemanager.vmcontrol.xenpv": Successor("Libvirt", "Xen is reached through libvirt: set [Libvirt] uri = xen:///system"),
    "dfs.vfs": Successor("Vfs"),
    "scheduler.primitivescheduler": Successor("Primitive"),
    "scheduler.priorityscheduler": Successor("Balanced"),
    "scheduler.balancedscheduler": Successor("Balanced"),
    "scheduler.consolidatedscheduler": Successor("Consolidated"),
    "agents.primitive": Successor("Primitive"),
    "agents.dhcpdns": Successor("DhcpDns"),
    "agents.dhcpdns.dhcpdns": Successor("DhcpDns"),
    "agents.mauiwiki": Successor(None, "the Maui interface is gone; leave this out, the scheduler is part of the control plane"),
    "messaging.gangliapublisher": Successor(None, EVENTS),
    "messaging.gangliapublisher.gangliapublisher": Successor(None, EVENTS),
    "accounting.accountingservice": Successor(None, "`tashi usage` and `tashi history` tell what was used; leave this out"),
}

PARTS = ("SQL", "LdapOverride", "Libvirt", "Vfs", "Primitive", "Balanced", "Consolidated", "DhcpDns")


def part_named(name: str) -> Successor:
    """Today's part for an old dotted or a new short name; any other name is a plug-in's and stays. ``ValueError``: no such part."""
    lowered = name.lower()
    for part in PARTS:
        if part.lower() == lowered:
            return Successor(part)
    if not lowered.startswith("tashi."):
        return Successor(name)
    known = CLASSES.get(lowered.removeprefix("tashi."))
    if known is None:
        near = difflib.get_close_matches(lowered.removeprefix("tashi."), CLASSES, 1)
        hint = f"; the nearest known is {CLASSES[near[0]].name or near[0]}" if near else ""
        raise ValueError(f"expected the name of a part: {name} is none{hint}")
    return known


NODES_LOG_IN = "nodes log in with [NodeManagerService] joinSecretFile and users by the manager's socket; remove this section"
USERS_HERE = "users are registered with `tashi registerUser` or come from LDAP; hosts register themselves; remove this section"

# a section that has no effect -> what to do
SECTIONS = {
    "Security": "connections are authenticated always, and encrypted by [ClusterManagerService] tls; remove this section",
    "AccessClusterManager": NODES_LOG_IN,
    "AccessNodeManager": NODES_LOG_IN,
    "AllowedUsers": NODES_LOG_IN,
    "GetentOverride": USERS_HERE,
    "FromConfig": f"networks are named in section [Networks]; {USERS_HERE}",
    "Pickled": "the state is a database in [ClusterManagerService] stateDir, and a pickled file is not read; remove this section",
    "XenPV": "Xen is reached through libvirt: set [Libvirt] uri = xen:///system, and remove this section",
    "Agent": "the scheduler is part of the control plane; remove this section",
    "MauiWiki": "the Maui interface is gone; remove this section",
    "GangliaPublisher": EVENTS.replace("this line", "this section"),
    "Accounting": "`tashi usage` and `tashi history` tell what was used; remove this section",
    "AccountingService": "`tashi usage` and `tashi history` tell what was used; remove this section",
    "LocalityService": "location is a host's config: `tashi setHostConfig --elemName location`; remove this section",
    "MessageBroker": EVENTS.replace("this line", "this section"),
    "AWS": "the EC2 interface is gone; remove this section",
}

ACCOUNTING = "`tashi usage` and `tashi history` tell what was used; remove this line"
ONE_PORT = "nodes connect to the manager's one port, and listen on none; remove this line"

# section -> key in lower case -> what to do; empty: only the part that the value names may call for advice
KEYS: dict[str, dict[str, str]] = {
    "ClusterManager": {"service": "", "publisher": "", "nodemanagerport": ONE_PORT},
    "ClusterManagerService": {
        "convertexceptions": "errors are always told in words; remove this line",
        "bind": "the address to listen on is host; remove this line",
        "accountinghost": ACCOUNTING,
        "accountingport": ACCOUNTING,
    },
    "NodeManager": {"service": "", "publisher": ""},
    "NodeManagerService": {
        "convertexceptions": "errors are always told in words; remove this line",
        "bind": ONE_PORT,
        "port": ONE_PORT,
        "registerhost": "every host is registered when its node first logs in; remove this line",
        "infofile": "the node asks libvirt which VMs it has; remove this line",
        "accountinghost": ACCOUNTING,
        "accountingport": ACCOUNTING,
    },
    "Qemu": {
        "qemubin": "libvirt chooses the emulator; remove this line",
        "infodir": "the node asks libvirt which VMs it has; remove this line",
        "polldelay": "libvirt tells when a VM changes; remove this line",
        "migrationretries": "the scheduler tries again; remove this line",
        "usemigrateargument": "migration always copies what it must; remove this line",
        "suspendhandler": "libvirt compresses what it saves; remove this line",
        "resumehandler": "libvirt compresses what it saves; remove this line",
    },
    "DhcpDns": {
        "clustermanagerhost": "the hook runs inside the control plane; remove this line",
        "clustermanagerport": "the hook runs inside the control plane; remove this line",
    },
}


def is_logging(section: str) -> bool:
    """Whether a section belongs to Python's logging configuration."""
    return section in {"loggers", "handlers", "formatters"} or section.startswith(("logger_", "handler_", "formatter_"))
