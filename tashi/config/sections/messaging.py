"""Sections of the messages: the XMPP account, and the words by which requests are understood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from tashi.config.options import Key, Keys, Section
from tashi.config.sla import SlaClass, usual_classes
from tashi.config.values import BareJid, BareJidOrDomain, FilePath, Period, PositiveCount, Seconds, Secret


class XMPP(Section, frozen=True, kw_only=True):
    """The account that takes commands and publishes events."""

    enabled: Annotated[bool, Key("Whether to connect at all")] = False
    jid: Annotated[str, Key("Bare JID of the account, such as tashi@example.org")] = ""
    pwd: Annotated[Secret, Key("Its password; the file that holds it must be readable by its owner only")] = Secret()
    recipient: Annotated[tuple[BareJid, ...], Key("Bare JIDs, separated by commas, that get every event")] = ()
    server: Annotated[str, Key("host:port of the XMPP server; empty: found by the domain's SRV record")] = ""
    ca_file: Annotated[FilePath, Key("Certificates that the server is verified with; empty: those of the system")] = ""
    tls: Annotated[Literal["required", "insecure"], Key("required, or insecure, which is for a server on loopback only")] = "required"
    resource: Annotated[str, Key("Resource of the connection")] = "sink"
    trusted: Annotated[
        tuple[BareJidOrDomain, ...], Key("Bare JIDs, or domains with closed registration, that may act for any user")
    ] = ()
    admins: Annotated[tuple[BareJid, ...], Key("Bare JIDs that may do everything")] = ()
    pubsub_service: Annotated[str, Key("JID of a publish-subscribe service that gets every event too; empty: none")] = ""
    pubsub_node: Annotated[str, Key("Node of that service to publish on")] = "tashi/events"
    layout_interval: Annotated[Period, Key("A vmLayout event is sent at least this often")] = 60.0
    max_command_age: Annotated[Seconds, Key("A delayed command older than this is answered expired and never executed")] = 300.0
    provision_timeout: Annotated[Period, Key("A VM that does not run within this time is destroyed, and its sender told")] = 45.0
    max_queued_commands: Annotated[PositiveCount, Key("Commands of one JID that may wait at once; beyond it the answer is busy")] = 10000


class Occi(Section, frozen=True, kw_only=True):
    """Schemes by which the categories of a request are known."""

    kind_schemes: Annotated[tuple[str, ...], Key("Schemes of the kind compute")] = (
        "http://purl.org/occi/kind#",
        "http://schemas.ogf.org/occi/infrastructure#",
    )
    category_prefixes: Annotated[
        tuple[str, ...], Key("What the schemes of templates, sla, locations, auditability and isolation begin with")
    ] = ("http://provider.com/category#",)


class Templates(Section, frozen=True, kw_only=True):
    """Which image a template stands for."""

    images: Annotated[Mapping[str, str], Keys("Image file for each template term", example="ubuntu-9.10 = ubuntu-9.10.img")] = (
        msgspec.field(default_factory=dict)
    )


class SlaClasses(Section, frozen=True, kw_only=True):
    """What each SLA class grants; an empty value takes a class away."""

    classes: Annotated[
        Mapping[str, SlaClass],
        Keys(
            "Words of a class: priority+N, cpuShare=N, cpuSpeed=MHz per core, memory=MB never taken away, diskWeight=N, netDown=kbit/s,"
            " netUp=kbit/s, location=NAME, auditability=True, isolation=True"
        ),
    ] = msgspec.field(default_factory=usual_classes)
