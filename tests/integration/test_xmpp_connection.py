"""The XMPP door on a real server: it logs in safely, survives what servers do, and delivers what it promised."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.names import client as names_client
from twisted.names import dns
from twisted.names.authority import FileAuthority
from twisted.names.common import ResolverBase
from twisted.names.server import DNSServerFactory
from twisted.trial.unittest import TestCase
from twisted.words.protocols.jabber.jid import JID
from twisted.words.xish.domish import Element

from tashi.model.request import Outgoing
from tashi.model.user import Principal
from tashi.sandbox.certificates import write_certificates
from tashi.xmpp import connection
from tashi.xmpp.connection import Connection
from tashi.xmpp.messages import message
from tashi.xmpp.scram import Login
from tashi.xmpp.service import make_service
from tests.integration.prosody_server import AVAILABLE, DOMAIN, Prosody, until

pytestmark = pytest.mark.integration
SINK = f"tashi@{DOMAIN}/sink"
ISM = f"ism@{DOMAIN}"


class MemoryAuthority(FileAuthority):
    """A zone that is given, not read."""

    def __init__(self, soa: Any, records: Any) -> None:
        ResolverBase.__init__(self)
        self.soa, self.records = soa, records


class Settings:
    """The section [XMPP] of a test."""

    enabled = True
    jid = f"tashi@{DOMAIN}"
    pwd = "sink-secret"
    recipient: Sequence[str] = (f"llms@{DOMAIN}",)
    server = ""
    ca_file = ""
    tls = "required"
    resource = "sink"
    trusted: Sequence[str] = (ISM,)
    admins: Sequence[str] = ()
    pubsub_service = ""
    pubsub_node = "tashi/events"
    max_command_age = 300.0
    max_queued_commands = 10_000


class Commands:
    """Keeps what the sink asks for; only the ISM is known."""

    def __init__(self) -> None:
        self.created: list[str] = []
        self.refused: list[str] = []
        self.strangers: list[str] = []

    def identify(self, jid: str) -> Principal | None:
        return Principal(name=jid, trusted=True, jid=jid) if jid == ISM else None

    def create(self, who: Any, origin: Any, specs: Any, content: Any) -> None:
        self.created += [spec.name for spec in specs]

    def refuse(self, who: Any, origin: Any, error: Any, resource_id: Any = None) -> None:
        self.refused.append(error.code)

    def refuse_stranger(self, jid: str, verb: str) -> None:
        self.strangers.append(jid)

    def queued(self, jid: str) -> int:
        return 0


class Outbox:
    """An outbox in a list."""

    def __init__(self, rows: Sequence[Outgoing] = ()) -> None:
        self.rows = list(rows)
        self.listener: Callable[[], None] = lambda: None
        self.aside: list[tuple[int, str, int]] = []

    def pending(self) -> Sequence[Outgoing]:
        return list(self.rows)

    def done(self, ids: Sequence[int]) -> None:
        gone = set(ids)
        self.rows = [row for row in self.rows if row.id not in gone]

    def set_aside(self, row_id: int, why: str, size: int) -> None:
        self.done([row_id])
        self.aside.append((row_id, why, size))

    def subscribe(self, listener: Callable[[], None]) -> None:
        self.listener = listener

    def add(self, *rows: Outgoing) -> None:
        self.rows += rows
        self.listener()


class Peer(Connection):
    """Another program with an account on the same server; keeps every message it gets."""

    def __init__(self, server: Prosody, name: str, password: str, resource: str = "peer") -> None:
        super().__init__(reactor, JID(f"{name}@{DOMAIN}/{resource}"), password, server=("127.0.0.1", server.port), ca_file=server.ca_file)
        self.got: list[Element] = []

    def _authd(self, stream: Any) -> None:
        stream.addObserver("/message", self.got.append)
        super()._authd(stream)

    @property
    def ids(self) -> list[str]:
        return [stanza["id"] for stanza in self.got]


class DoorCase(TestCase):
    """One Prosody each; whatever is started is stopped."""

    timeout = 60
    skip = None if AVAILABLE else "prosody is not installed"
    first_lines = ""
    encrypted = True
    stanza_limit = 262144

    async def setUp(self) -> None:
        self.server = Prosody(reactor, self.first_lines, self.encrypted, self.stanza_limit)
        self.addCleanup(self.server.remove)
        for name in ("tashi", "ism", "llms"):
            self.server.account(name, "sink-secret" if name == "tashi" else name)
        await self.server.start()
        self.settings = Settings()
        self.settings.server = f"127.0.0.1:{self.server.port}"
        self.settings.ca_file = self.server.ca_file
        self.commands = Commands()
        self.outbox = Outbox()

    def start(self, started: Any) -> Any:
        """Start a service now and stop it at the end."""
        started.startService()
        self.addCleanup(started.stopService)
        return started

    def door(self) -> Connection:
        return self.start(make_service(reactor, self.settings, self.commands, self.outbox))

    async def peer(self, name: str = "ism") -> Peer:
        peer = self.start(Peer(self.server, name, name))
        await until(reactor, lambda: peer.connected)
        return peer

    async def mechanism(self) -> str:
        """The SASL mechanism by which a door logs in."""
        chosen: list[str] = []
        choose = Login.setMechanism

        def remember(login: Login) -> None:
            choose(login)
            chosen.append(login.mechanism.name)

        self.patch(Login, "setMechanism", remember)
        door = self.door()
        await until(reactor, lambda: door.connected)
        return chosen[0]


class DoorTests(DoorCase):
    """What the door does on an ordinary server."""

    async def test_login(self) -> None:
        """It logs in with SCRAM over verified TLS, and binds the resource sink with priority 10."""
        door = self.door()
        await until(reactor, lambda: door.connected)
        assert door.jid.full() == SINK
        assert door.health.connected
        assert door.xmlstream.transport.getPeerCertificate() is not None
        peer = await self.peer()
        peer.send(message(f"tashi@{DOMAIN}", "chat", "help"))
        await until(reactor, lambda: peer.got)
        assert json.loads(str(peer.got[0].body))["status"] == "OK"

    async def test_scram_before_plain(self) -> None:
        """SCRAM is used although the server offers PLAIN too."""
        assert await self.mechanism() == "SCRAM-SHA-1"

    async def test_wrong_authority(self) -> None:
        """A certificate that caFile does not vouch for is refused and tried again; mending the file is enough."""
        other = self.server.directory / "other"
        other.mkdir()
        write_certificates(other, [DOMAIN])
        self.settings.ca_file = str(other / "ca.pem")
        door = self.door()
        await until(reactor, lambda: door.health.attempts >= 2)
        assert "verify failed" in door.health.reason, door.health
        (other / "ca.pem").write_bytes((self.server.directory / "ca.pem").read_bytes())
        await until(reactor, lambda: door.connected)

    async def test_wrong_password(self) -> None:
        """A wrong password is survived until the account has the right one."""
        self.server.account("tashi", "another")
        door = self.door()
        await until(reactor, lambda: door.health.attempts >= 2)
        assert "not-authorized" in door.health.reason
        self.server.kill()
        self.server.account("tashi", "sink-secret")
        await self.server.start()
        await until(reactor, lambda: door.connected)

    async def test_resource_conflict(self) -> None:
        """Pushed off its resource it comes back, later each time, instead of fighting."""
        door = self.door()
        await until(reactor, lambda: door.connected)
        rival = self.start(Peer(self.server, "tashi", "sink-secret", "sink"))
        await until(reactor, lambda: not door.connected)
        assert "conflict" in door.health.reason
        await until(reactor, lambda: door.connected)
        await until(reactor, lambda: not rival.connected)
        assert door.factory.delay > door.factory.initialDelay

    async def test_server_dies_with_rows_on_their_way(self) -> None:
        """What the server did not confirm before it died is sent again with the same ids and in order."""
        llms = await self.peer("llms")
        door = self.door()
        await until(reactor, lambda: door.connected)
        self.outbox.add(*(event(number) for number in range(500)))
        await until(reactor, lambda: len(self.outbox.rows) < 500)
        self.server.kill()
        await until(reactor, lambda: not door.connected)  # what had been answered before has been read by now
        left = [row.stanza_id for row in self.outbox.rows]
        self.outbox.add(event(500))
        seen_before = len(llms.got)
        await self.server.start()
        await until(reactor, lambda: not self.outbox.rows)
        await until(reactor, lambda: llms.connected and any(stanza["id"].startswith("e500.") for stanza in llms.got))
        again = [stanza["id"].partition(".")[0] for stanza in llms.got[seen_before:]]
        assert [one for one in again if one in {*left, "e500"}] == [*left, "e500"]

    async def test_server_found_by_dns(self) -> None:
        """Without a configured server the domain's SRV record leads to it."""
        record = dns.Record_SRV(priority=0, weight=0, port=self.server.port, target="localhost", ttl=1)
        zone = {f"_xmpp-client._tcp.{DOMAIN}".encode(): [record]}
        soa = dns.Record_SOA(mname=DOMAIN, rname=DOMAIN)
        authority = MemoryAuthority(soa=(DOMAIN.encode(), soa), records={**zone, DOMAIN.encode(): [soa]})
        port = reactor.listenUDP(0, dns.DNSDatagramProtocol(DNSServerFactory(authorities=[authority])), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.patch(names_client, "theResolver", names_client.Resolver(servers=[("127.0.0.1", port.getHost().port)]))
        self.settings.server = ""
        door = self.door()
        await until(reactor, lambda: door.connected)

    async def test_thousand_messages(self) -> None:
        """A thousand commands sent in one go arrive once each, and strangers' do not."""
        door = self.door()
        await until(reactor, lambda: door.connected)
        ism, llms = await self.peer(), await self.peer("llms")
        compute = {"imageIdentifier": "tashi", "userId": 1000}
        bodies = ["createcompute " + json.dumps({**compute, "hostname": f"vm{number}"}) for number in range(1000)]
        llms.send(message(SINK, "chat", bodies[0]))
        for body in bodies:
            ism.send(message(SINK, "chat", body))
        await until(reactor, lambda: len(self.commands.created) >= 1000)
        assert self.commands.created == [f"vm{number}" for number in range(1000)]
        assert not self.commands.refused
        assert self.commands.strangers == [f"llms@{DOMAIN}"]

    async def test_pubsub(self) -> None:
        """With a pubsub service each event is an item that a late subscriber can fetch."""
        self.settings.pubsub_service = f"pubsub.{DOMAIN}"
        door = self.door()
        self.outbox.add(event(1), event(2))
        await until(reactor, lambda: door.connected and not self.outbox.rows)
        peer = await self.peer()
        found: list[Element] = []
        peer.xmlstream.addObserver("/iq[@id='fetch']", found.append)
        peer.send(
            f"<iq type='get' id='fetch' to='pubsub.{DOMAIN}'><pubsub xmlns='http://jabber.org/protocol/pubsub'>"
            "<items node='tashi/events'/></pubsub></iq>"
        )
        await until(reactor, lambda: found)
        items = {item["id"]: str(item.entry.payload) for item in found[0].pubsub.items.elements()}
        assert items == {"e1": event(1).body, "e2": event(2).body}

    async def test_server_that_falls_silent(self) -> None:
        """A server that takes everything and answers nothing is noticed by a ping that stays unanswered."""
        door = self.door()
        await until(reactor, lambda: door.connected)
        door.timeout = 0.2
        self.server._process.send_signal(19)  # SIGSTOP
        self.outbox.add(event(1))
        await until(reactor, lambda: not door.connected)
        assert "does not answer" in door.health.reason
        assert self.outbox.rows
        self.server._process.send_signal(18)  # SIGCONT
        await until(reactor, lambda: door.connected and not self.outbox.rows)


class StrongerHashTests(DoorCase):
    """The same door on a server that keeps SHA-256 hashes."""

    first_lines = 'password_hash = "SHA-256"\n'

    async def test_scram_before_plain(self) -> None:
        """The stronger hash is used where the server has it."""
        assert await self.mechanism() == "SCRAM-SHA-256"


class SmallStanzaTests(DoorCase):
    """A server that takes only short stanzas."""

    stanza_limit = 65536

    async def test_d3_a_poison_row_does_not_stop_the_door(self) -> None:
        """D3: a row that Prosody refuses is set aside after two streams, what stands around it arrives, and the door goes on answering."""
        rows = [Outgoing(id=number, body="{}", stanza_id=f"r{number}", to=ISM) for number in range(1, 8)]
        rows[3] = Outgoing(id=4, body="x" * 80_000, stanza_id="r4", to=ISM)
        self.outbox.rows = rows
        peer = await self.peer()
        peer.send("<presence/>")
        door = self.door()
        await until(reactor, lambda: not self.outbox.rows, 40)
        assert [(number, size > 80_000) for number, _, size in self.outbox.aside] == [(4, True)]
        await until(reactor, lambda: {"r1", "r2", "r3", "r5", "r6", "r7"} <= set(peer.ids))
        assert "r4" not in peer.ids
        await until(reactor, lambda: door.connected, 40)
        self.outbox.add(Outgoing(id=9, body="x" * 90_000, stanza_id="r9", to=ISM), Outgoing(id=10, body="{}", stanza_id="r10", to=ISM))
        await until(reactor, lambda: "r10" in peer.ids)
        assert door.connected
        assert [number for number, _, _ in self.outbox.aside] == [4, 9]


class UnencryptedTests(DoorCase):
    """A server that asks for no TLS, on loopback."""

    encrypted = False

    async def test_insecure(self) -> None:
        """tls = insecure logs in without TLS, and the password stays unsaid all the same."""
        self.settings.tls = "insecure"
        assert (await self.mechanism()).startswith("SCRAM-")


class StrippedServer(Protocol):
    """Offers a login by PLAIN and no TLS, as a thief in the middle would."""

    def connectionMade(self) -> None:
        self.factory.connections += 1
        self.transport.write(
            b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
            b"<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"
            b"</stream:features>"
        )

    def dataReceived(self, data: bytes) -> None:
        self.factory.received += data


class InjectingServer(Protocol):
    """Puts a stanza behind its consent to TLS, where it would be read as if it came inside."""

    def connectionMade(self) -> None:
        self.factory.connections += 1
        self.transport.write(
            b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
            b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>"
        )

    def dataReceived(self, data: bytes) -> None:
        if b"<starttls" in data:
            self.transport.write(
                b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><message from='ism@door.test'><body>help</body></message>"
            )


class SilentServer(Protocol):
    """Says nothing."""

    def connectionMade(self) -> None:
        self.factory.connections += 1


class HostileServer(Protocol):
    """Speaks the beginning of a stream and then what no server should."""

    def connectionMade(self) -> None:
        self.factory.connections += 1
        self.transport.write(
            b"<?xml version='1.0'?><!DOCTYPE s [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;'>]>"
            b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' id='&b;'>"
        )


class HostileServerTests(TestCase):
    """A server that is not to be trusted."""

    timeout = 30

    def listen(self, protocol: type[Protocol], encrypted: bool = True) -> tuple[Connection, Any]:
        """A door that connects to such a server, and the server's factory."""
        factory = Factory.forProtocol(protocol)
        factory.connections, factory.received = 0, b""
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        door = Connection(reactor, JID(SINK), "secret", server=("127.0.0.1", port.getHost().port), encrypted=encrypted)
        door.startService()
        self.addCleanup(door.stopService)
        return door, factory

    async def test_doctype(self) -> None:
        """A DOCTYPE ends the connection before anything is expanded, and is tried again later."""
        door, factory = self.listen(HostileServer)
        await until(reactor, lambda: factory.connections >= 2)
        assert "DOCTYPE" in door.health.reason, door.health

    async def test_no_tls(self) -> None:
        """Where TLS is required and not offered, nothing is said that could be stolen."""
        door, factory = self.listen(StrippedServer)
        await until(reactor, lambda: factory.connections >= 2)
        assert "STARTTLS" in door.health.reason
        assert b"<auth" not in factory.received

    async def test_plain_without_tls(self) -> None:
        """PLAIN is never used without TLS, not even where TLS is not asked for."""
        door, factory = self.listen(StrippedServer, encrypted=False)
        await until(reactor, lambda: factory.connections >= 2)
        assert "PLAIN" in door.health.reason
        assert b"<auth" not in factory.received

    async def test_injection_before_tls(self) -> None:
        """What stands behind the consent to TLS ends the connection."""
        door, factory = self.listen(InjectingServer)
        await until(reactor, lambda: factory.connections >= 2)
        assert "anew" in door.health.reason

    async def test_silence(self) -> None:
        """A server that accepts and says nothing is given up after a while."""
        self.patch(connection, "LOGIN_WITHIN", 0.1)
        door, factory = self.listen(SilentServer)
        await until(reactor, lambda: factory.connections >= 2)
        assert "login in time" in door.health.reason


def event(number: int) -> Outgoing:
    """An event with an awkward body."""
    return Outgoing(
        id=number, body=json.dumps({"seq": number, "text": "<&>]]>'\"é€"}, ensure_ascii=False), stanza_id=f"e{number}", seq=number
    )
