"""Commands of one sender are carried out in the order in which they came, also when one of them has to wait
for the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

Work = Callable[[], Coroutine[Any, Any, None]]
Failed = Callable[[Failure], None]


class Turns:
    """One queue for each sender whose command is under way; a sender without one is served at once."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[tuple[Work, Failed]]] = {}

    def waiting(self, sender: str) -> int:
        """How many commands of this sender are under way or wait for those that are."""
        return len(self._queues[sender]) + 1 if sender in self._queues else 0

    def take(self, sender: str, work: Work, failed: Failed) -> None:
        """Carry out the work when all earlier work of this sender is done.

        An exception is raised here when the work is done at once; later it goes to ``failed``.
        """
        queue = self._queues.get(sender)
        if queue is not None:
            queue.append((work, failed))
            return
        failures: list[Failure] = []
        self._queues[sender] = deque()
        if self._begin(sender, work, failures.append, failed):
            self._go_on(sender)
        if failures:
            failures[0].raiseException()

    def _begin(self, sender: str, work: Work, failed_at_once: Failed, failed_later: Failed) -> bool:
        """Whether the work is done already; if not, the queue goes on when it is."""
        outcome = Deferred.fromCoroutine(work())
        if outcome.called:
            outcome.addErrback(failed_at_once)
            return True
        outcome.addErrback(failed_later).addBoth(lambda _: self._go_on(sender))
        return False

    def _go_on(self, sender: str) -> None:
        queue = self._queues[sender]
        while queue:
            work, failed = queue.popleft()
            if not self._begin(sender, work, failed, failed):
                return
        del self._queues[sender]
