"""The door for Perspective Broker peers: who they are is settled here, and what each may then call stands in `avatars`.

-> login_node [NodeLogin as JSON, the agent's own object]     <- [its perspective, NodeWelcome]  or  [None, {"error": ...}]
-> login_user []                                              <- [its perspective, {"user": ...}]  or  [None, {"error": ...}]
A user is who the kernel says is at the other end of the unix socket: uid 0 is the admin, a registered uid is that user.
Nobody else can call anything.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.spread import pb
from zope.interface import implementer

from tashi.errors import FORBIDDEN, TashiError, YourMistake
from tashi.interfaces import INodeDoor
from tashi.model.orders import NodeLogin
from tashi.model.user import Principal, User
from tashi.wire.answers import error_answer
from tashi.wire.avatars import NodeAvatar, UserAvatar, VerbTable
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
    """What a peer sees that has not logged in."""

    log = Logger()

    def __init__(self, door: Door, broker: Any) -> None:
        self._door = door
        self._broker = broker

    def remote_login_node(self, login: bytes, mind: Any) -> Deferred[tuple[Any, bytes]]:
        """An agent says which host it speaks for."""
        return Deferred.fromCoroutine(self._login_node(login, mind))

    def remote_login_user(self) -> tuple[Any, bytes]:
        """Somebody on this machine."""
        try:
            who = self._peer()
        except TashiError as error:
            return None, error_answer(error)
        avatar = UserAvatar(self._door.verbs, who)
        self._broker.notifyOnDisconnect(avatar.logout)
        return avatar, encode({"user": {"userId": who.user_id, "name": who.name, "admin": who.admin}})

    async def _login_node(self, text: bytes, mind: Any) -> tuple[Any, bytes]:
        try:
            if not isinstance(mind, pb.RemoteReference):
                raise YourMistake(FORBIDDEN, "an agent logs in with an object that takes its orders")
            login: NodeLogin = decode(text, NodeLogin)
            link = NodeLink(self._door.reactor, mind, self._broker)
            welcome = await self._door.hosts.login(login, link)
        except TashiError as error:
            self.log.warn("an agent at {peer} may not log in: {error}", peer=_peer_name(self._broker), error=error.message)
            return None, error_answer(error)
        except Exception:
            self.log.failure("a login failed")
            raise UnauthorizedLogin() from None
        avatar = NodeAvatar(self._door.hosts, welcome.host_id, link)
        self._broker.notifyOnDisconnect(avatar.logout)
        return avatar, encode(welcome)

    def _peer(self) -> Principal:
        handle = getattr(self._broker.transport, "socket", None)
        if handle is None or handle.family != socket.AF_UNIX:
            raise YourMistake(FORBIDDEN, "users log in over the unix socket of the control plane's own machine; set [Client] socket")
        _, uid, _ = struct.unpack("3i", handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        user = self._door.users.get(uid)
        name = user.name if user else "root" if uid == 0 else f"uid {uid}"
        return Principal(name=name, user_id=uid, admin=uid == 0)


def _send_at_once(transport: Any) -> None:
    """Orders are short and follow each other: on TCP none shall wait for some 40 ms until another is acknowledged."""
    if isinstance(transport.getHost(), IPv4Address | IPv6Address):  # within TLS a transport's interfaces are not to be relied on
        transport.setTcpNoDelay(True)


def _peer_name(broker: Any) -> str:
    peer = broker.transport.getPeer() if broker.transport is not None else None
    return str(getattr(peer, "host", peer))
