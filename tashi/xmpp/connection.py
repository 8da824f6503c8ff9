"""The connection of one client account: it logs in over verified TLS, stays, and comes back for ever.

Nothing ends it but ``stopService``: a wrong password, a certificate that is not trusted, a resource taken by another program, a
stream error or a server that is away are logged, shown in ``health`` and tried again, at most 30 s apart. Nothing is queued while
there is no stream: what must arrive waits in the outbox. A server that falls silent is noticed by a ping and dropped.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1
from twisted.application.service import Service
from twisted.internet import ssl
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.words.protocols.jabber import client, error, sasl, xmlstream
from twisted.words.protocols.jabber.jid import JID
from twisted.words.xish.domish import Element
from twisted.words.xish.xmlstream import XmlStreamFactoryMixin

from tashi.xmpp import wokkel_compat  # noqa: F401 - must come before wokkel

# isort: split
from wokkel import generic, subprotocols

from tashi.limited_log import LimitedLog
from tashi.xmpp.guard import GuardedXmlStream
from tashi.xmpp.scram import Login

PRIORITY = 10
NS_PING = "urn:xmpp:ping"
LOGIN_WITHIN = 30.0  # s, from the first byte to being online
ANSWER_WITHIN = 60.0  # s for the answer to a ping
PING_EVERY = 60.0  # s
STABLE_AFTER = 60.0  # s that a session must stand before the next reconnect is quick again, so that a fight for a resource slows down
STOP_WITHIN = 2.0  # s for the server to close its side

_log = Logger()


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How the connection is: ``since`` in seconds of the reactor's clock; ``attempts`` failed in a row, the last for ``reason``."""

    connected: bool = False
    jid: str = ""
    since: float = 0.0
    attempts: int = 0
    reason: str = ""


class NotConnected(Exception):
    """There is no stream to send this over."""


class NotLoopback(Exception):
    """An unencrypted connection leads to another machine."""


def trust(ca_file: str, host: str) -> Any:
    """How to verify the server ``host``: against the certificates in a PEM file, or the system's when ``ca_file`` is empty.

    OSError or ValueError when the file cannot be used.
    """
    if not ca_file:
        return ssl.optionsForClientTLS(host)
    authorities = [
        ssl.Certificate.load(authority.public_bytes(Encoding.DER), FILETYPE_ASN1)
        for authority in x509.load_pem_x509_certificates(Path(ca_file).read_bytes())
    ]
    return ssl.optionsForClientTLS(host, trustRoot=ssl.trustRootFromCertificates(authorities))


class _StartTls(xmlstream.TLSInitiatingInitializer):
    """Asks for TLS; the trust root is read at each attempt, so that mending a file is enough."""

    def __init__(self, stream: GuardedXmlStream, ca_file: str) -> None:
        super().__init__(stream, required=True)
        self._ca_file = ca_file

    def start(self) -> Any:
        self._configurationForTLS = trust(self._ca_file, self.xmlstream.authenticator.jid.host)
        return super().start()


class _Loopback(xmlstream.BaseFeatureInitiatingInitializer):
    """Takes the place of TLS where none is wanted: the peer must be this machine."""

    def initialize(self) -> None:
        peer = self.xmlstream.transport.getPeer().host
        if not ipaddress.ip_address(peer).is_loopback:
            raise NotLoopback(f"{peer} is not this machine, and tls = insecure is for loopback only")


class _Authenticator(xmlstream.ConnectAuthenticator):
    namespace = "jabber:client"

    def __init__(self, jid: JID, password: str, *, ca_file: str, encrypted: bool) -> None:
        super().__init__(jid.host)
        self._asked = jid
        self.jid = jid
        self.password = password
        self._ca_file = ca_file
        self._encrypted = encrypted

    def associateWithStream(self, stream: GuardedXmlStream) -> None:
        super().associateWithStream(stream)
        self.jid = self._asked  # the server may have given us another resource last time
        login = Login(stream, required=True)
        login.encrypted = self._encrypted
        stream.initializers = [
            client.CheckVersionInitializer(stream),
            _StartTls(stream, self._ca_file) if self._encrypted else _Loopback(stream),
            login,
            client.BindInitializer(stream, required=True),
            client.SessionInitializer(stream, required=False),
        ]


class _Factory(xmlstream.XmlStreamFactory):
    """Reconnects with growing delays; only a session that stood makes the next delay short again."""

    protocol = GuardedXmlStream
    noisy = False
    initialDelay = 0.5
    factor = 2.0
    maxDelay = 30
    jitter = 0.0

    def __init__(self, authenticator: _Authenticator, failed: Callable[[Failure], None], limited: LimitedLog) -> None:
        super().__init__(authenticator)
        self._failed = failed
        self.limited = limited

    def buildProtocol(self, address: Any) -> GuardedXmlStream:
        # not super(): a TCP connection alone is no reason to come back quickly
        stream: GuardedXmlStream = XmlStreamFactoryMixin.buildProtocol(self, address)
        stream.limited = self.limited
        return stream

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._failed(reason)
        super().clientConnectionFailed(connector, reason)


class PingRequest(generic.Request):
    """An XEP-0199 ping, with an id that nobody can guess."""

    def __init__(self, recipient: JID, timeout: float) -> None:
        super().__init__(recipient=recipient, stanzaType="get")
        self.stanzaID = token_hex(8)
        self.timeout = timeout  # wokkel would wait for ever: it asks its manager's only when the request has no such attribute

    def toElement(self) -> Element:
        """The ping as a stanza."""
        element = super().toElement()
        element.addElement((NS_PING, "ping"))
        return element


class Connection(subprotocols.StreamManager, Service):
    """A service that keeps one account online; add wokkel handlers with ``setHandlerParent`` before it starts.

    ``server`` is a (host, port) or None for the SRV records of the account's domain. ``encrypted=False`` is for loopback only.
    """

    timeout = ANSWER_WITHIN

    def __init__(
        self, reactor: Any, jid: JID, password: str, *, server: tuple[str, int] | None = None, ca_file: str = "", encrypted: bool = True
    ) -> None:
        self.jid = jid
        self.health = Health(jid=jid.full(), since=reactor.seconds())
        self._server = server
        self._connector: Any = None
        self._calls: dict[str, Any] = {}
        self._stopped: Deferred[None] | None = None
        self._failure: Failure | None = None
        self._limited = LimitedLog(reactor, _log)
        authenticator = _Authenticator(jid, password, ca_file=ca_file, encrypted=encrypted)
        factory = _Factory(authenticator, self._attempt_failed, self._limited)
        factory.clock = reactor
        super().__init__(factory, reactor)

    # ---- the service

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()
        self.factory.continueTrying = 1
        self.factory.resetDelay()
        if self._server is not None:
            self._connector = self._reactor.connectTCP(*self._server, self.factory, timeout=LOGIN_WITHIN)
        else:
            from twisted.names.srvconnect import SRVConnector  # loads the resolver, which is rarely needed

            self._connector = SRVConnector(self._reactor, "xmpp-client", self.jid.host, self.factory, defaultPort=5222)
            self._connector.connect()

    def stopService(self) -> Deferred[None] | None:
        """Say goodbye; fires when the connection is closed."""
        super().stopService()
        self._limited.close()
        self.factory.stopTrying()
        if self.xmlstream is None:
            self._connector.disconnect()
            return None
        self._stopped = Deferred()
        if self._initialized:
            farewell = Element((None, "presence"))
            farewell["type"] = "unavailable"
            self.xmlstream.send(farewell)
            self.xmlstream.sendFooter()
        self.xmlstream.transport.loseConnection()
        self._later("give up", STOP_WITHIN, self._abort)
        return self._stopped

    # ---- sending

    @property
    def connected(self) -> bool:
        """Whether there is a stream that is logged in."""
        return self._initialized

    def send(self, stanza: Element | str) -> None:
        """Send over the stream; dropped while there is none."""
        if self._initialized:
            self.xmlstream.send(stanza)

    def request(self, request: generic.Request) -> Deferred[Element]:
        """Send an IQ request; fires with the answer, or fails with NotConnected, a StanzaError or TimeoutError."""
        return super().request(request) if self._initialized else fail(NotConnected())

    async def ping(self) -> None:
        """Return when the server has answered a ping, in whatever way, and so has taken all that was sent before.

        NotConnected when the stream ended first; a server that does not answer in time is dropped.
        """
        stream = self.xmlstream
        try:
            await self.request(PingRequest(JID(self.jid.host), self.timeout))
        except error.StanzaError:
            return
        except xmlstream.TimeoutError:
            if stream is self.xmlstream:
                self._failure = Failure(TimeoutError("the server does not answer"))
                self._abort()
            raise NotConnected from None
        except Exception:  # whatever ended the stream has been told where it ended
            raise NotConnected from None

    # ---- what happens to the stream

    def _connected(self, stream: GuardedXmlStream) -> None:
        stream.addObserver(xmlstream.STREAM_ERROR_EVENT, self._remember)
        if ITCPTransport.providedBy(stream.transport):
            stream.transport.setTcpNoDelay(True)  # a reply shall not wait for the ACK of the event before it
        self._later("login", LOGIN_WITHIN, self._login_is_late)
        super()._connected(stream)

    def _authd(self, stream: GuardedXmlStream) -> None:
        self.jid = self.factory.authenticator.jid
        self._cancel("login")
        self._later("stable", STABLE_AFTER, self.factory.resetDelay)
        self.health = Health(connected=True, jid=self.jid.full(), since=self._reactor.seconds())
        _log.info("XMPP: online as {jid}", jid=self.jid.full())
        super()._authd(stream)
        presence = Element((None, "presence"))
        presence.addElement("priority", content=str(PRIORITY))
        self.send(presence)
        self._later("keep alive", PING_EVERY, self._keep_alive)

    def initializationFailed(self, reason: Failure) -> None:
        """A step of the login failed: remember why, and try again later."""
        self._remember(reason)
        self._abort()

    def _disconnected(self, reason: Failure) -> None:
        for name in list(self._calls):
            self._cancel(name)
        why, self._failure = self._failure or reason, None
        super()._disconnected(why)
        if self._stopped is not None:
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)
        else:
            self._attempt_failed(why)

    def _attempt_failed(self, reason: Failure) -> None:
        if not self.running:
            return
        words = explain(reason)
        before = self.health
        attempts = 1 if before.connected else before.attempts + 1
        since = self._reactor.seconds() if before.connected else before.since
        self.health = Health(jid=self.jid.full(), since=since, attempts=attempts, reason=words)
        if before.connected or words != before.reason:
            _log.warn("XMPP: {jid} is offline, trying again: {reason}", jid=self.jid.full(), reason=words)

    def _remember(self, reason: Failure) -> None:
        """The first reason is the cause; what follows from it is not."""
        self._failure = self._failure or reason

    def _login_is_late(self) -> None:
        self._remember(Failure(TimeoutError("the server did not finish the login in time")))
        self._abort()

    def _keep_alive(self) -> None:
        async def ping() -> None:
            try:
                await self.ping()
            except NotConnected:
                return
            self._later("keep alive", PING_EVERY, self._keep_alive)

        Deferred.fromCoroutine(ping()).addErrback(lambda failure: _log.failure("keep-alive", failure))

    def _abort(self) -> None:
        if self.xmlstream is not None:
            self.xmlstream.transport.abortConnection()

    def _later(self, name: str, seconds: float, function: Callable[[], None]) -> None:
        self._cancel(name)
        self._calls[name] = self._reactor.callLater(seconds, function)

    def _cancel(self, name: str) -> None:
        call = self._calls.pop(name, None)
        if call is not None and call.active():
            call.cancel()


def explain(reason: Failure) -> str:
    """Why a connection failed, in words for an operator."""
    what = reason.value
    if isinstance(what, sasl.SASLAuthError):
        return f"the server refuses the login ({what.condition}); check jid and pwd"
    if isinstance(what, sasl.SASLNoAcceptableMechanism):
        return f"no way to log in that may be used: {what}"
    if isinstance(what, xmlstream.FeatureNotAdvertized):
        return "the server does not offer what is required; does it have a certificate for STARTTLS?"
    if isinstance(what, error.StreamError):
        return f"the server ended the stream: {what.condition}"
    if isinstance(what, SSL.Error):
        return f"TLS failed, is the server's certificate signed by caFile's? {what}"
    if isinstance(what, ConnectionDone | ConnectionLost):
        return "the server closed the connection"
    return f"{type(what).__name__}: {what}"
