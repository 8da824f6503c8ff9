"""The whole XMPP door as one service: connection, message sink and publisher on one account."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv6Address
from typing import Any, Protocol

from twisted.application.service import MultiService, Service
from twisted.logger import Logger
from twisted.words.protocols.jabber.jid import JID, InvalidFormat
from twisted.words.xish.domish import Element

from tashi.xmpp import wokkel_compat  # noqa: F401 - must come before wokkel

# isort: split
from wokkel.disco import DiscoHandler
from wokkel.generic import FallbackHandler
from wokkel.ping import PingHandler
from wokkel.pubsub import PubSubClient

from occi.categories import Vocabulary
from occi.sink import Sink
from tashi.clocks import Clock, WallClock
from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.interfaces import ICommands, IOutbox
from tashi.model.status import StatusPart
from tashi.xmpp.bounces import Bounces
from tashi.xmpp.connection import Connection
from tashi.xmpp.messages import MessageHandler
from tashi.xmpp.publisher import Publisher
from tashi.xmpp.status import connection_part

_log = Logger()
AddStatus = Callable[[str, Callable[[], StatusPart]], None]


class XmppSettings(Protocol):
    """The section ``[XMPP]`` as this door needs it; the keys' meanings stand in conf/TashiDefaults.cfg."""

    @property
    def enabled(self) -> bool: ...
    @property
    def jid(self) -> str: ...
    @property
    def pwd(self) -> str: ...
    @property
    def recipient(self) -> Sequence[str]: ...
    @property
    def server(self) -> str: ...
    @property
    def ca_file(self) -> str: ...
    @property
    def tls(self) -> str: ...
    @property
    def resource(self) -> str: ...
    @property
    def trusted(self) -> Sequence[str]: ...
    @property
    def pubsub_service(self) -> str: ...
    @property
    def pubsub_node(self) -> str: ...
    @property
    def max_command_age(self) -> float: ...
    @property
    def max_queued_commands(self) -> int: ...


def make_service(
    reactor: Any,
    settings: XmppSettings,
    commands: ICommands,
    outbox: IOutbox,
    vocabulary: Vocabulary | None = None,
    wall: Clock | None = None,
    add_status: AddStatus = lambda name, part: None,
) -> Service:
    """A service that serves the account of the settings; one that does nothing when XMPP is off.

    ``add_status`` takes what the door tells of itself. YourMistake(bad-argument) when jid or server is none.
    """
    if not settings.enabled or not settings.jid:
        return MultiService()
    connection = make_connection(reactor, settings)
    pubsub = (settings.pubsub_service, settings.pubsub_node) if settings.pubsub_service else None
    sink = Sink(
        wall or WallClock(),
        commands,
        max_command_age=settings.max_command_age,
        max_queued=settings.max_queued_commands,
        notifiable=(*settings.recipient, *settings.trusted),
        vocabulary=vocabulary or Vocabulary(),
    )
    messages = MessageHandler(sink.received)
    sink.reply = messages.reply
    bounces = Bounces(reactor)
    add_status("xmpp", lambda: connection_part(connection.health, bounces, reactor.seconds()))
    handlers = [bounces, messages, Publisher(outbox, settings.recipient, pubsub), PingHandler(), DiscoHandler(), FallbackHandler()]
    if pubsub is not None:
        handlers.insert(0, EventNode(*pubsub))  # before the publisher: the node must be there for the first event
    for handler in handlers:
        handler.setHandlerParent(connection)
    return connection


def make_connection(reactor: Any, settings: XmppSettings) -> Connection:
    """The connection of the settings' account, without anything on it; YourMistake(bad-argument) when jid or server is none."""
    try:
        jid = JID(settings.jid)
    except InvalidFormat as error:
        raise YourMistake(BAD_ARGUMENT, f"[XMPP] jid = {settings.jid} is no JID ({error}); use user@domain") from None
    if not jid.user:
        raise YourMistake(BAD_ARGUMENT, f"[XMPP] jid = {settings.jid} names no user; use user@domain")
    return Connection(
        reactor,
        JID(tuple=(jid.user, jid.host, settings.resource or jid.resource)),
        str(settings.pwd),
        server=parse_server(settings.server),
        ca_file=settings.ca_file,
        encrypted=settings.tls != "insecure",
    )


def parse_server(text: str) -> tuple[str, int] | None:
    """``host``, ``host:port`` or ``[address]:port``; None for nothing. YourMistake(bad-argument) for what is none of them."""
    text = text.strip()
    if not text:
        return None
    host, separator, port = text.rpartition(":")
    if not separator or _is_ipv6(text):
        host, port = text, "5222"
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise YourMistake(BAD_ARGUMENT, f"[XMPP] server = {text}: use host, host:port, or nothing to ask the DNS")
    return host.strip("[]"), int(port)


def _is_ipv6(text: str) -> bool:
    try:
        return bool(IPv6Address(text.strip("[]")))
    except ValueError:
        return False


class EventNode(PubSubClient):
    """Makes the pubsub node for events when a stream begins: only publishers may publish, and late subscribers can catch up."""

    options = {"pubsub#publish_model": "publishers", "pubsub#persist_items": True, "pubsub#max_items": "256"}

    def __init__(self, service: str, node: str) -> None:
        super().__init__()
        self._service = JID(service)
        self._node = node
        self._complained = False

    def connectionInitialized(self) -> None:
        """Ask for the node; that it is there already is the usual answer."""
        super().connectionInitialized()
        self.xmlstream.addObserver("/iq[@type='error']", self._on_error)
        created = self.createNode(self._service, self._node, options=self.options)
        created.addErrback(lambda failure: _log.debug("pubsub node {node}: {why}", node=self._node, why=failure.getErrorMessage()))

    def _on_error(self, iq: Element) -> None:
        if (iq.getAttribute("id") or "").endswith(".pubsub") and not self._complained:
            self._complained = True
            _log.warn("{service} refuses events on {node}: {iq}", service=self._service.full(), node=self._node, iq=iq.toXml())
