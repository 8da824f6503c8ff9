"""The configuration as the rest of Tashi sees it: one typed section beside the other, and where each value comes from."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_type_hints

import msgspec

from tashi.config.options import Keys, Section, options_of
from tashi.config.sections.audit import Audit
from tashi.config.sections.client import Client
from tashi.config.sections.control_plane import SQL, ClusterManager, ClusterManagerService, LdapOverride, Vfs
from tashi.config.sections.messaging import XMPP, Occi, SlaClasses, Templates
from tashi.config.sections.network import DhcpDns, Networks
from tashi.config.sections.node import Libvirt, NodeManager, NodeManagerService, Qemu
from tashi.config.sections.power import Power
from tashi.config.sections.scheduling import Scheduler, Servers
from tashi.config.values import text_of
from tashi.errors import BAD_ARGUMENT, YourMistake


class ConfigError(YourMistake):
    """The configuration cannot be used as it is; each line of the message names file, line, key and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(BAD_ARGUMENT, message)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All sections; one that no file mentions holds its defaults."""

    cluster_manager: ClusterManager = ClusterManager()
    cluster_manager_service: ClusterManagerService = ClusterManagerService()
    audit: Audit = Audit()
    sql: SQL = SQL()
    ldap_override: LdapOverride = LdapOverride()
    vfs: Vfs = Vfs()
    xmpp: XMPP = XMPP()
    occi: Occi = Occi()
    templates: Templates = msgspec.field(default_factory=Templates)
    sla_classes: SlaClasses = msgspec.field(default_factory=SlaClasses)
    scheduler: Scheduler = msgspec.field(default_factory=Scheduler)
    servers: Servers = msgspec.field(default_factory=Servers)
    power: Power = msgspec.field(default_factory=Power)
    networks: Networks = msgspec.field(default_factory=Networks)
    dhcp_dns: DhcpDns = msgspec.field(default_factory=DhcpDns)
    node_manager: NodeManager = NodeManager()
    node_manager_service: NodeManagerService = NodeManagerService()
    libvirt: Libvirt = Libvirt()
    qemu: Qemu = Qemu()
    client: Client = Client()

    programs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    sources: Mapping[tuple[str, str], str] = msgspec.field(default_factory=dict)
    usual_state_dir: Path = Path("/var/lib/tashi")

    @property
    def primitive(self) -> Scheduler:
        """Section [Primitive], which is read as [Scheduler]."""
        return self.scheduler

    @property
    def state_dir(self) -> Path:
        """Directory of the control plane's database, socket and generated secrets."""
        return Path(self.cluster_manager_service.state_dir or self.usual_state_dir).absolute()

    @property
    def database(self) -> Path:
        """The SQLite file of the control plane; ConfigError when [SQL] uri names another kind of database."""
        uri = str(self.sql.uri)
        if uri.startswith("mysql:"):
            raise ConfigError("[SQL] uri names MySQL, which this version does not keep; use sqlite:///path or leave it empty")
        return Path(uri.removeprefix("sqlite://") or self.state_dir / "tashi.sqlite").absolute()

    @property
    def marker(self) -> Path:
        """The file beside the secrets that says how far the database had come."""
        return self.state_dir / "tashi.mark"

    @property
    def node_state_dir(self) -> Path:
        """Directory of the node's own key and files."""
        return Path(self.node_manager_service.state_dir or self.usual_state_dir / "node").absolute()

    @property
    def share_dir(self) -> Path:
        """The directory that all hosts share, which holds images/ and suspend/."""
        return Path(self.vfs.prefix or self.state_dir / "share").absolute()

    @property
    def manager_socket(self) -> Path:
        """The unix socket at which the control plane serves the users of its machine."""
        return Path(self.cluster_manager_service.socket or self.state_dir / "tashi.sock")

    @property
    def client_sockets(self) -> tuple[Path, ...]:
        """Where the client looks for a control plane of this machine: the caller's own first, then the system's, if none is named."""
        if self.client.socket:
            return (Path(self.client.socket),)
        return tuple(dict.fromkeys((self.manager_socket, Path("/var/lib/tashi/tashi.sock"))))

    def source(self, section: str, key: str) -> str:
        """Where a value comes from: ``file:line``, ``$VARIABLE`` or ``default``."""
        return self.sources.get((section, key.lower()), "default")

    def settings(self) -> Iterator[tuple[str, str, str, str]]:
        """Every setting in effect: section, key, value with its secrets masked, and where it comes from."""
        for name, kind in section_types().items():
            section = getattr(self, name)
            for option in options_of(kind):
                value = getattr(section, option.attribute)
                family = isinstance(option.key, Keys)
                for suffix, one in value.items() if family else [("", value)]:
                    key = f"{option.name}{suffix}"
                    yield option.section, key, text_of(one), self.source(option.section, key)


@functools.cache
def section_types() -> dict[str, type[Section]]:
    """The attributes of ``Config`` that are sections, and their types, in their order."""
    hints = get_type_hints(Config)
    return {name: kind for name, kind in hints.items() if isinstance(kind, type) and issubclass(kind, Section)}
