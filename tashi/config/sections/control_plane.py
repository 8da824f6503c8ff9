"""Sections of the control plane itself: what it keeps, whom it knows, where it listens, where the images are."""

from __future__ import annotations

from typing import Annotated

from tashi.config.ldap import LdapSearch
from tashi.config.options import Key, Section
from tashi.config.values import Count, DatabaseUri, FilePath, Megabytes, Part, Period, Port, PositiveCount, Seconds, Secret


class ClusterManager(Section, frozen=True, kw_only=True):
    """The parts that the control plane is made of."""

    data: Annotated[Part, Key("What keeps the state: SQL, or LdapOverride to take the users from a directory")] = "SQL"
    dfs: Annotated[Part, Key("What keeps the images: Vfs, a directory that all hosts share")] = "Vfs"


class ClusterManagerService(Section, frozen=True, kw_only=True):
    """How the control plane serves its nodes and its users."""

    state_dir: Annotated[
        FilePath,
        Key("Directory of database, socket and generated secrets; empty: /var/lib/tashi for root, else tashi in the user's data directory"),
    ] = ""
    host: Annotated[str, Key("Address to listen on for nodes and clients of other machines")] = "127.0.0.1"
    port: Annotated[Port, Key("Port to listen on")] = 9882
    tls: Annotated[bool, Key("Whether that port is encrypted; False only where host is a loopback address")] = True
    socket: Annotated[FilePath, Key("Unix socket for the users of this machine; empty: tashi.sock in stateDir")] = ""
    cell_name: Annotated[str, Key("Name of this cell, of which the UUIDs of its VMs derive; empty: one is made at the first start")] = ""
    expire_host_time: Annotated[Period, Key("A host not heard of for so long is down, and its VMs are Orphaned")] = 30.0
    allow_decayed: Annotated[Period, Key("What was seen of a host or VM so long ago is marked decayed")] = 30.0
    shutdown_grace: Annotated[Period, Key("How long a guest has to shut down after shutdownVm before it is reported to run on")] = 60.0
    max_migrations: Annotated[PositiveCount, Key("Migrations within the cell at once; more wait for their turn")] = 20
    max_host_migrations: Annotated[PositiveCount, Key("Migrations of one host at once, to it and from it together")] = 4
    allow_mismatched_versions: Annotated[bool, Key("Whether a node of another version gets new VMs")] = False
    max_memory: Annotated[Megabytes, Key("Most memory of one VM; 0: no limit")] = 0
    max_cores: Annotated[Count, Key("Most cores of one VM; 0: no limit")] = 0
    allow_duplicate_names: Annotated[bool, Key("Whether two VMs may have the same name")] = False
    default_network: Annotated[Count, Key("Id of the network of a VM that names none")] = 0


class SQL(Section, frozen=True, kw_only=True):
    """The database."""

    uri: Annotated[
        DatabaseUri, Key("sqlite:///path, or mysql://user@host/database; empty: a SQLite file in [ClusterManagerService] stateDir")
    ] = DatabaseUri()
    password: Annotated[Secret, Key("Password for MySQL; the file that holds it must be readable by its owner only")] = Secret()


class LdapOverride(Section, frozen=True, kw_only=True):
    """Users from an LDAP directory, where [ClusterManager] data = LdapOverride."""

    base_data: Annotated[Part, Key("What keeps all but the users")] = "SQL"
    fetch_threshold: Annotated[Seconds, Key("Users are fetched again when they are older than this")] = 3600.0
    name_key: Annotated[str, Key("Attribute that holds a user's name")] = "sAMAccountName"
    id_key: Annotated[str, Key("Attribute that holds a user's number")] = "msSFU30UidNumber"
    priority_key: Annotated[str, Key("Attribute that holds a user's priority, a number; empty: priority 0 for all")] = ""
    ldap_command: Annotated[
        LdapSearch,
        Key("An ldapsearch command line, read for -h, -p or -H, -Z, -b, -s, -D, -w or -y and the filter; it is never run"),
    ] = LdapSearch()


class Vfs(Section, frozen=True, kw_only=True):
    """The shared directory of images, at the same path on every host."""

    prefix: Annotated[FilePath, Key("Directory that holds images/ and suspend/; empty: share in [ClusterManagerService] stateDir")] = ""
