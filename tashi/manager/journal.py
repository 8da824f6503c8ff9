"""The journal between memory and disk: commits of one reactor turn are written together, one batch at a time, in order.

Nobody is told of a change before its batch is on the disk. A batch that cannot be written (disk full, database away) is tried
again until it can, and until then nobody is told anything: what is in memory is never taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tashi.errors import BUSY, OurFault, TashiError
from tashi.interfaces import Change, IStore
from tashi.model.store_status import StoreStatus

RETRY_SECONDS = 1.0
SOON_SECONDS = 0.2
PATIENCE_SECONDS = 5.0
"""How long a caller waits for a store that takes no changes before it is told so."""
LOG_SECONDS = 60.0
"""How often a commit that goes on failing for one reason is logged."""


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
        self.when_back: list[Callable[[str, float], None]] = []
        """Called when commits that had failed for PATIENCE_SECONDS are made again: with the reason, and the seconds."""
        self._impatient: set[Deferred[None]] = set()
        self._failing_since: float | None = None
        self._why = ""
        self._log_again_at = 0.0

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

    def told_by(self, status: StoreStatus) -> StoreStatus:
        """Return the status with what this journal knows: whether commits fail, since when and why."""
        if self._failing_since is None:
            return status
        warning = f"the store takes no changes, and nothing is answered until it does: {self._why}"
        away = self._reactor.seconds() - self._failing_since
        return msgspec.structs.replace(
            status, state="away", away_seconds=away, reason=self._why, warnings=(*status.warnings, warning)
        )

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

    @property
    def away(self) -> str:
        """Why commits have failed for PATIENCE_SECONDS; empty while they do not, or only just do."""
        long = self._failing_since is not None and self._reactor.seconds() - self._failing_since >= PATIENCE_SECONDS
        return self._why if long else ""

    def written_in_time(self) -> Deferred[None]:
        """As `written`, but fails with OurFault(busy) when the store has taken no changes for PATIENCE_SECONDS."""
        waiter = self.written()
        told: Deferred[None] = Deferred()
        self._impatient.add(told)
        waiter.addCallback(lambda _: self._tell(told))
        return told

    def _tell(self, waiter: Deferred[None]) -> None:
        if waiter in self._impatient:
            self._impatient.discard(waiter)
            waiter.callback(None)

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
        except Exception as error:
            self._note_failure(error, len(changes))
            self._reactor.callLater(RETRY_SECONDS, lambda: Deferred.fromCoroutine(self._commit(changes, then)).addErrback(self._broken))
            return
        back = self._note_success()
        self._writing = False
        if self._changes or self._then:
            self._scheduled = True
            self._reactor.callLater(0, self._flush)
        for call in (*then, *back, *self.after_batch):
            try:
                call()
            except Exception:
                self.log.failure("a follower of a commit failed")

    def _note_failure(self, error: Exception, count: int) -> None:
        """Log a failed commit: each new reason, and the same one once a minute."""
        now, why = self._reactor.seconds(), str(error) or type(error).__name__
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= PATIENCE_SECONDS:
            impatient, self._impatient = self._impatient, set()
            remedy = "the request is kept in memory and carried out when it can be stored"
            words = f"the store takes no changes: {why}; {remedy}"
            for waiter in impatient:
                waiter.errback(OurFault(BUSY, words))
        if why == self._why and now < self._log_again_at:
            return
        self._why, self._log_again_at = why, now + LOG_SECONDS
        words = "cannot write {count} changes to the store: {why}; nothing is answered until they are written, tried again each second"
        if isinstance(error, TashiError):
            self.log.error(words, count=count, why=why)
        else:
            self.log.failure(words, count=count, why=why)

    def _note_success(self) -> list[Callable[[], None]]:
        """Return what is to be called because commits are made again."""
        if self._failing_since is None:
            return []
        seconds, why = self._reactor.seconds() - self._failing_since, self._why
        self.log.warn("the store takes changes again after {seconds:.0f} s", seconds=seconds)
        self._failing_since, self._why = None, ""
        return [partial(call, why, seconds) for call in self.when_back if seconds >= PATIENCE_SECONDS]

    def _broken(self, failure: Any) -> None:
        self.log.failure("the journal itself failed", failure=failure)
