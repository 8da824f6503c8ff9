"""The journal between memory and disk: commits of one reactor turn are written together, one batch at a time, in order.

Nobody is told of a change before its batch is on the disk. A batch that cannot be written (disk full, database away) is tried
again until it can, and until then nobody is told anything: what is in memory is never taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tashi.interfaces import Change, IStore

RETRY_SECONDS = 1.0
SOON_SECONDS = 0.2


class Journal:
    """Writes changes to the store, and tells who waits for it when they have arrived there."""

    log = Logger()

    def __init__(self, reactor: Any, store: IStore) -> None:
        self._reactor = reactor
        self._store = store
        self._changes: list[Change] = []
        self._then: list[Callable[[], None]] = []
        self.after_batch: list[Callable[[], None]] = []
        """Called once after each batch, when all who waited for it have been told."""
        self._writing = False
        self._scheduled = False
        self._soon: DelayedCall | None = None

    def write(self, changes: Sequence[Change], then: Sequence[Callable[[], None]] = ()) -> None:
        """Queue the changes; when they are durable, call each of ``then`` in the reactor."""
        self._changes.extend(changes)
        self._then.extend(then)
        if not self._writing and not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._flush)

    def write_soon(self, changes: Sequence[Change]) -> None:
        """Queue changes that a crash may take back and nobody waits for: they go with the next batch, or by themselves before long."""
        self._changes.extend(changes)
        if self._changes and self._soon is None:
            self._soon = self._reactor.callLater(SOON_SECONDS, self._write_now)

    def _write_now(self) -> None:
        self._soon = None
        if self._changes:
            self.write(())

    def when_written(self, call: Callable[[], None]) -> None:
        """Call this when all that was queued until now is durable: at once when it is already."""
        if self._writing or self._changes or self._then:
            self.write((), [call])
        else:
            call()

    def written(self) -> Deferred[None]:
        """Fires when all that was queued until now is durable."""
        waiter: Deferred[None] = Deferred()
        self.when_written(lambda: waiter.callback(None))
        return waiter

    def _flush(self) -> None:
        self._scheduled = False
        self._writing = True
        changes, self._changes = self._changes, []
        then, self._then = self._then, []
        Deferred.fromCoroutine(self._commit(changes, then)).addErrback(self._broken)

    async def _commit(self, changes: list[Change], then: list[Callable[[], None]]) -> None:
        try:
            if changes:
                await self._store.commit(changes)
        except Exception:
            self.log.failure(
                "cannot write {count} changes to the store; nothing is answered until they are written, next try in {seconds} s",
                count=len(changes),
                seconds=RETRY_SECONDS,
            )
            self._reactor.callLater(RETRY_SECONDS, lambda: Deferred.fromCoroutine(self._commit(changes, then)).addErrback(self._broken))
            return
        self._writing = False
        if self._changes or self._then:
            self._scheduled = True
            self._reactor.callLater(0, self._flush)
        for call in (*then, *self.after_batch):
            try:
                call()
            except Exception:
                self.log.failure("a follower of a commit failed")

    def _broken(self, failure: Any) -> None:
        self.log.failure("the journal itself failed", failure=failure)
