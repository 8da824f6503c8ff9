"""The agent's own threads: blocking calls are made in them, each with a time within which it should return.

A call that overstays keeps its thread, for nothing can end it from outside, but not its place: the pool grows by one until it returns, so
that a machine's one hung guest takes no thread from the others. Its outcome is still waited for, never guessed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

Result = TypeVar("Result")
MOST_OVERDUE: Final = 64
STOP_SECONDS: Final = 5.0


class Threads:
    """A pool of ``size`` threads; ``seconds`` is what a call may take before it is called overdue."""

    log = Logger()

    def __init__(self, reactor: Any, size: int, seconds: float) -> None:
        self._reactor = reactor
        self._size = size
        self._seconds = seconds
        self._pool = ThreadPool(0, size, "tashi-node")
        self._pool.threadFactory = _daemon_thread  # type: ignore[assignment]  # a hung call must not keep the process alive
        self._begun: dict[object, float] = {}
        self._overdue: set[object] = set()
        self._watch = task.LoopingCall(self._look)
        self._watch.clock = reactor

    def start(self) -> None:
        """Take calls."""
        self._pool.start()
        self._watch.start(min(1.0, self._seconds / 2), now=False)

    def stop(self) -> Deferred[None]:
        """Take no more calls; fires when those under way have returned, or after a few seconds."""
        self._watch.stop()
        stopped: Deferred[None] = Deferred()

        def stop() -> None:
            self._pool.stop()
            self._reactor.callFromThread(returned)

        def returned() -> None:
            if not stopped.called:
                stopped.callback(None)

        _daemon_thread(target=stop).start()
        return stopped.addTimeout(STOP_SECONDS, self._reactor, lambda *ignored: None)

    def run(self, function: Callable[..., Result], *arguments: Any) -> Deferred[Result]:
        """What the function returns or raises, called in one of the threads."""
        return deferToThreadPool(self._reactor, self._pool, self._call, function, arguments)

    def _call(self, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
        call = object()
        self._begun[call] = self._reactor.seconds()
        try:
            return function(*arguments)
        finally:
            del self._begun[call]
            if call in self._overdue:
                self._reactor.callFromThread(self._returned, call)

    def _look(self) -> None:
        now = self._reactor.seconds()
        late = {call for call, begun in list(self._begun.items()) if now - begun > self._seconds} - self._overdue
        if late:
            self._overdue |= late
            self.log.warn("{count} calls to libvirt have not returned for {seconds} s", count=len(self._overdue), seconds=self._seconds)
            self._resize()

    def _returned(self, call: object) -> None:
        self._overdue.discard(call)
        self._resize()

    def _resize(self) -> None:
        size = self._size + min(len(self._overdue), MOST_OVERDUE)
        self._pool.adjustPoolsize(size if self._overdue else 0, size)  # a higher least size puts calls that wait to work at once


def _daemon_thread(*arguments: Any, **keywords: Any) -> threading.Thread:
    thread = threading.Thread(*arguments, **keywords)
    thread.daemon = True
    return thread
