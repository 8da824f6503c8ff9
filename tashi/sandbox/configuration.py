"""The configuration files of a cell: written once and kept, so that what its owner edits stays; `--set` changes single values."""

from __future__ import annotations

import configparser
import io
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tashi.files import write_whole
from tashi.sandbox import xmpp_server
from tashi.sandbox.layout import DOMAIN, Layout
from tashi.sandbox.problem import SandboxProblem
from tashi.sandbox.qemu_host import GUEST_BRIDGE, migration_uri

Setting = tuple[str, str, str]  # section, key, value
Sections = Mapping[str, Mapping[str, object]]

SINGLE_CORE_GUESTS = 10  # so many one-core VMs shall fit on a host, however few cores the machine has


def parse_setting(text: str) -> Setting:
    """`Section.key=value` in its three parts; raises ValueError."""
    name, equals, value = text.partition("=")
    section, dot, key = name.partition(".")
    if not (equals and dot and section.strip() and key.strip()) or "\n" in text:
        raise ValueError(f"{text!r} is not Section.key=value")
    return section.strip(), key.strip(), value.strip()


def write_manager_files(layout: Layout, cores: int, settings: Sequence[Setting]) -> None:
    """The control plane's and the client's files, in the directory that $TASHI_CONF names; `cores` is what one host offers."""
    layout.conf.mkdir(exist_ok=True)
    account = f"tashi@{DOMAIN}"
    scheduler = {"cpuCoresOverRate": max(1, -(-SINGLE_CORE_GUESTS // cores))} if layout.identity.hypervisor == "qemu" else {}
    sections: Sections = {
        "ClusterManagerService": {
            "stateDir": layout.manager_state,
            "host": layout.manager_address,
            "port": layout.identity.manager_port,
            "tls": True,
            "socket": layout.manager_socket,
        },
        "XMPP": {
            "enabled": True,
            "jid": account,
            "pwd": xmpp_server.passwords(layout)["tashi"],
            "server": f"127.0.0.1:{layout.identity.xmpp_port}",
            "caFile": layout.xmpp / "ca.pem",
            "recipient": f"llms@{DOMAIN}",
            "trusted": f"ism@{DOMAIN}",
            "admins": f"admin@{DOMAIN}",
        },
        "Scheduler": scheduler,
        "Power": power(layout),
        "Networks": {"0": GUEST_BRIDGE},
        "Vfs": {"prefix": layout.share},
        "Templates": {"ubuntu-9.10": "tashi.img"},
        "SlaClasses": {"gold": "priority+100 cpuShare=2048", "silver": "priority+50 cpuShare=1024", "bronze": "cpuShare=512"},
    }
    _write(layout.conf / "Tashi.cfg", sections, settings)
    # apart and readable by all: other users of the machine may use the client, but not see the password above
    client = {"Client": {"socket": layout.manager_socket}}
    _write(layout.conf / "Client.cfg", client, (), mode=0o644)


def power(layout: Layout) -> Mapping[str, object]:
    """How the control plane switches the cell's hosts: as `tashi sandbox` does, run beside it."""
    command = [sys.executable, "-m", "tashi.sandbox.command"]
    about = ["--host", "{name}", "--state-dir", str(layout.directory)]
    deeds = {"on": "boot", "off": "kill", "status": "power"}
    return {"driver": "command", "wakeTimeout": 60, **{key: shlex.join([*command, deed, *about]) for key, deed in deeds.items()}}


def write_node_files(layout: Layout, name: str, cores: int, memory: int, settings: Sequence[Setting]) -> None:
    """The node agent's file; `cores` and `memory` (MB) are what it offers, 0 for all the host has."""
    simulated = layout.identity.hypervisor == "test"
    directory = layout.node(name) / "conf"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    sections: Sections = {
        "NodeManagerService": {
            "name": name,
            "clusterManagerHost": layout.manager_address,
            "clusterManagerPort": layout.identity.manager_port,
            "caFile": layout.authority,
            "joinSecretFile": layout.join_secret,
            "stateDir": layout.node(name) / "state",
            "offerCores": cores,
            "offerMemory": memory,
        },
        "Libvirt": {"uri": layout.host_uri(name)} | ({} if simulated else {"migrationUri": migration_uri(layout, name)}),
        "Qemu": {} if simulated else {"scratchDir": layout.share / "scratch"},
        "Networks": {"0": GUEST_BRIDGE},
        "Vfs": {"prefix": layout.share},
    }
    _write(directory / "Tashi.cfg", sections, settings)


def uses_xmpp(layout: Layout) -> bool:
    """Whether the control plane is to connect to the XMPP server; `--set XMPP.enabled=False` says no."""
    parser = _parser()
    parser.read(layout.conf / "Tashi.cfg")
    return parser.getboolean("XMPP", "enabled", fallback=False)


def _write(path: Path, sections: Sections, settings: Sequence[Setting], mode: int = 0o600) -> None:
    """Write the file when it is not there, then apply the settings to it."""
    parser = _parser()
    if not path.exists():
        parser.read_dict({section: {key: str(value) for key, value in keys.items()} for section, keys in sections.items() if keys})
    elif settings:
        parser.read(path)
    else:
        return
    for section, key, value in settings:
        _set(parser, section, key, value)
    text = io.StringIO()
    text.write("# A sandbox cell's configuration: written once, then kept.\n")
    parser.write(text)
    write_whole(path, text.getvalue(), mode)


def _parser() -> configparser.RawConfigParser:
    """A parser that leaves names and values as they are written."""
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    return parser


def _set(parser: configparser.RawConfigParser, section: str, key: str, value: str) -> None:
    """Set one value, in place of one whose name differs in capitals only."""
    if not parser.has_section(section):
        parser.add_section(section)
    for same in [name for name in parser.options(section) if name.lower() == key.lower()]:
        parser.remove_option(section, same)
    parser.set(section, key, value)


def check_path(directory: Path) -> None:
    """Refuse a state directory whose path could not stand in every file it must stand in."""
    strange = sorted({character for character in str(directory) if not (character.isalnum() or character in "/._-+@,")})
    if strange:
        raise SandboxProblem(f"the path {directory} holds {' '.join(map(repr, strange))}; choose a --state-dir without such characters")
    if not os.access(directory.parent, os.W_OK):
        raise SandboxProblem(f"{directory.parent} is not a directory one can write to; choose another --state-dir")
