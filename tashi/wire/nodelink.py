"""The link to one agent: orders and questions out, each call with a time budget; a link over which no order is taken is dropped."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as OutOfTime
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb

from tashi.clocks import within
from tashi.errors import CODES, INTERNAL, TIMEOUT, OurFault, TashiError, YourMistake
from tashi.model.orders import Order
from tashi.model.questions import Answer, Question, Refused
from tashi.wire.codec import decode, encode

ORDERS_A_CALL: Final = 200
ACKNOWLEDGE_SECONDS: Final = 30.0
"""An agent only puts an order in its queue before it acknowledges."""
ALIVE_SECONDS: Final = 2.0
"""An agent that lives answers at once, also while libvirt is slow."""
ANSWER_SECONDS: Final = 30.0
"""What is asked is asked of libvirt, which may be slow; whoever waits for it is told so."""


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
            within(call, ACKNOWLEDGE_SECONDS, self._reactor).addErrback(self._not_acknowledged)

    async def answers(self) -> bool:
        """See INodeLink."""
        try:
            call: Deferred[Any] = self._mind.callRemote("orders", encode([]))
            await within(call, ALIVE_SECONDS, self._reactor)
        except (OutOfTime, pb.DeadReferenceError, pb.PBConnectionLost, ConnectionDone, ConnectionLost, pb.RemoteError):
            return False
        return True

    async def ask(self, question: Question) -> Answer:
        """See INodeLink."""
        try:
            call: Deferred[Any] = self._mind.callRemote("ask", encode(question))
            text = await within(call, ANSWER_SECONDS, self._reactor)
        except OutOfTime:
            raise OurFault(TIMEOUT, f"its host has not answered within {ANSWER_SECONDS:g} s; try again later") from None
        except (pb.DeadReferenceError, pb.PBConnectionLost, ConnectionDone, ConnectionLost):
            raise OurFault(TIMEOUT, "its host's agent went away before it answered; try again later") from None
        except pb.RemoteError as error:
            raise OurFault(INTERNAL, f"its host's agent cannot answer ({error}); is it of this version?") from None
        try:
            answer: Answer = decode(text, Answer)
        except YourMistake as error:
            raise OurFault(INTERNAL, f"its host's agent sent a malformed answer: {error.message}") from None
        if isinstance(answer, Refused):
            raise TashiError(answer.code if answer.code in CODES else INTERNAL, answer.message)
        return answer

    def remember(self, mark: str) -> None:
        """See INodeLink."""
        with contextlib.suppress(pb.DeadReferenceError):
            call: Deferred[Any] = self._mind.callRemote("remember", mark.encode())
            call.addErrback(lambda failure: None)  # an older agent does not know marks; a lost link is noticed elsewhere

    def close(self) -> None:
        """See INodeLink."""
        if self._broker.transport is not None:
            self._broker.transport.abortConnection()

    def _not_acknowledged(self, failure: Failure) -> None:
        self.log.warn("an agent did not take its orders: {why}; its link is dropped", why=failure.getErrorMessage())
        self.close()
