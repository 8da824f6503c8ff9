"""The agent's connections to the control plane: each one is told of, and each failure with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.spread import pb
from zope.interface import implementer


class LinkBroker(pb.Broker):
    """Says why a connection ended before it was one, as when the other side is not who it should be."""

    factory: Any

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See Broker."""
        if not reason.check(ConnectionDone, ConnectionLost, ConnectionAborted):
            self.factory.failed(reason)
        super().connectionLost(reason)


class LinkFactory(pb.PBClientFactory):
    """Tells the agent of every connection."""

    noisy = False
    protocol = LinkBroker

    def __init__(self, connected: Callable[[pb.Broker], None], failed: Callable[[Failure], Failure]) -> None:
        super().__init__()
        self._connected = connected
        self.failed = failed

    def clientConnectionMade(self, broker: pb.Broker) -> None:
        """See PBClientFactory."""
        super().clientConnectionMade(broker)
        self._connected(broker)


@implementer(IStreamClientEndpoint)
class Way:
    """The endpoint, with a word on each failure."""

    def __init__(self, endpoint: Any, failed: Callable[[Failure], Failure]) -> None:
        self._endpoint = endpoint
        self._failed = failed

    def connect(self, factory: Any) -> Any:
        """See IStreamClientEndpoint."""
        return self._endpoint.connect(factory).addErrback(self._failed)
