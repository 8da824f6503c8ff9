"""The door for Perspective Broker peers: who they are is settled here, and what each may then call stands in `avatars`.

-> login_node [NodeLogin as JSON, the agent's own object]     <- [its perspective, NodeWelcome]  or  [None, {"error": ...}]
-> login_user []                                              <- [its perspective, {"user": ...}]  or  [None, {"error": ...}]
A user is who the kernel says is at the other end of the unix socket: uid 0 is the admin, a registered uid is that user.
Nobody else can call anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.spread import pb
from zope.interface import implementer

from tashi.errors import FORBIDDEN, INTERNAL, OurFault, RefusedAgent, TashiError, YourMistake
from tashi.interfaces import INodeDoor
from tashi.model.orders import NodeLogin
from tashi.model.user import Principal, User
from tashi.wire.answers import error_answer
from tashi.wire.avatars import NodeAvatar, UserAvatar, VerbTable
from tashi.wire.broker import BoundedBroker
from tashi.wire.codec import decode, encode
from tashi.wire.nodelink import NodeLink


@implementer(pb.IPBRoot)
class Door:
    """The root object of the listeners: one fresh `Threshold` for each connection."""

    def __init__(self, reactor: Any, hosts: INodeDoor, verbs: VerbTable, users: Mapping[int, User]) -> None:
        self.reactor = reactor
        self.hosts = hosts
        self.verbs = verbs
        self.users = users

    def rootObject(self, broker: Any) -> pb.Referenceable:
        """Called by PB for each new connection."""
        broker.notifyOnConnect(lambda: _send_at_once(broker.transport))  # it has none yet
        return Threshold(self, broker)


class Threshold(pb.Referenceable):
    """What a peer sees that has not logged in; one login a connection."""

    def __init__(self, door: Door, broker: BoundedBroker) -> None:
        self._door = door
        self._broker = broker
        self._inside = False

    def remote_login_node(self, login: bytes, mind: Any) -> Deferred[tuple[Any, bytes]]:
        """An agent says which host it speaks for."""
        return Deferred.fromCoroutine(self._login_node(login, mind))

    def remote_login_user(self) -> tuple[Any, bytes]:
        """Somebody on this machine."""
        try:
            self._refuse_second_login()
            who = self._peer()
            self._enter(as_user=True)
        except TashiError as error:
            self._note(error)
            return None, error_answer(error)
        account = self._broker.gate.account if self._broker.gate is not None else None
        avatar = UserAvatar(self._door.verbs, who, self._broker.factory.limited, account)
        self._broker.notifyOnDisconnect(avatar.logout)
        return avatar, encode({"user": {"userId": who.user_id, "name": who.name, "admin": who.admin}})

    async def _login_node(self, text: bytes, mind: Any) -> tuple[Any, bytes]:
        try:
            self._refuse_second_login()
            if not isinstance(mind, pb.RemoteReference):
                raise YourMistake(FORBIDDEN, "an agent logs in with an object that takes its orders")
            login: NodeLogin = decode(text, NodeLogin)
            link = NodeLink(self._door.reactor, mind, self._broker)
            welcome = await self._door.hosts.login(login, link)
            self._enter(as_user=False)
        except TashiError as error:
            if not isinstance(error, RefusedAgent):
                self._note(error)
            return None, error_answer(error)
        except Exception:
            self._broker.factory.limited.failure(self._broker.source, "failed logins", "a login failed")
            return None, error_answer(OurFault(INTERNAL, "the control plane failed at this login; its log says why"))
        avatar = NodeAvatar(self._door.hosts, welcome.host_id, link, self._broker.factory.limited)
        if self._broker.disconnected:  # while another agent of the host was asked whether it lives
            avatar.logout()
            return None, b""
        self._broker.notifyOnDisconnect(avatar.logout)
        return avatar, encode(welcome)

    def _note(self, error: TashiError) -> None:
        source = self._broker.source
        self._broker.factory.limited.warn(source, "refused logins", "refused a login from {source}: {error}", error=error.message)

    def _refuse_second_login(self) -> None:
        if self._inside:
            raise YourMistake(FORBIDDEN, "this connection is logged in already; open another one for another login")

    def _enter(self, *, as_user: bool) -> None:
        if self._broker.gate is not None:
            self._broker.gate.logged_in(as_user=as_user)
        self._broker.logged_in()
        self._inside = True

    def _peer(self) -> Principal:
        uid = self._broker.gate.uid if self._broker.gate is not None else None
        if uid is None:
            raise YourMistake(FORBIDDEN, "users log in over the unix socket of the control plane's own machine; set [Client] socket")
        return principal_of(uid, self._door.users)


def principal_of(uid: int, users: Mapping[int, User]) -> Principal:
    """Return who a process of this uid on the control plane's machine is to the cell."""
    user = users.get(uid)
    if user is None or not user.uid_login:  # a number that was drawn for somebody is nobody's uid
        return Principal(name="root" if uid == 0 else f"uid {uid}", uid=uid, admin=uid == 0)
    return Principal(name=user.name, user_id=uid, uid=uid, admin=uid == 0)


def _send_at_once(transport: Any) -> None:
    """Orders are short and follow each other: on TCP none shall wait for some 40 ms until another is acknowledged."""
    if isinstance(transport.getHost(), IPv4Address | IPv6Address):  # within TLS a transport's interfaces are not to be relied on
        transport.setTcpNoDelay(True)
