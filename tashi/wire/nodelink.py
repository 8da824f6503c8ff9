"""The link to one agent: orders out, each call with a time budget; a link that does not answer is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb

from tashi.model.orders import Order
from tashi.wire.codec import encode

ORDERS_A_CALL: Final = 200
ACKNOWLEDGE_SECONDS: Final = 30.0
"""An agent only puts an order in its queue before it acknowledges."""


class NodeLink:
    """`tashi.interfaces.INodeLink` over Perspective Broker."""

    log = Logger()

    def __init__(self, reactor: Any, mind: pb.RemoteReference, broker: Any) -> None:
        self._reactor = reactor
        self._mind = mind
        self._broker = broker

    def send(self, orders: Sequence[Order]) -> None:
        """See INodeLink."""
        for start in range(0, len(orders), ORDERS_A_CALL):
            try:
                call: Deferred[Any] = self._mind.callRemote("orders", encode(orders[start : start + ORDERS_A_CALL]))
            except pb.DeadReferenceError:
                return
            call.addTimeout(ACKNOWLEDGE_SECONDS, self._reactor)
            call.addErrback(self._not_acknowledged)

    def close(self) -> None:
        """See INodeLink."""
        if self._broker.transport is not None:
            self._broker.transport.abortConnection()

    def _not_acknowledged(self, failure: Failure) -> None:
        self.log.warn("an agent did not take its orders: {why}; its link is dropped", why=failure.getErrorMessage())
        self.close()
