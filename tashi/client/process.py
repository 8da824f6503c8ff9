"""One piece of asynchronous work as a whole process: the reactor runs while it lasts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any


def run_to_end(work: Callable[[Any], Coroutine[Any, Any, int]]) -> int | None:
    """Run the process's reactor for as long as the work takes, only once in a process.

    Returns its exit code; None when it was interrupted.
    """
    reactor = _reactor()
    from twisted.internet.defer import CancelledError, Deferred
    from twisted.python.failure import Failure

    from tashi.clocks import use_monotonic_time

    use_monotonic_time(reactor)

    outcome: list[int | Failure] = []

    def start() -> None:
        deferred = Deferred.fromCoroutine(work(reactor))
        interrupted = False

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            deferred.cancel()

        interruption = reactor.addSystemEventTrigger("before", "shutdown", interrupt)

        def end(result: int | Failure) -> None:
            outcome.append(result)
            if not interrupted:  # otherwise the reactor is at its end already
                reactor.removeSystemEventTrigger(interruption)
                reactor.stop()

        deferred.addBoth(end)

    reactor.callWhenRunning(start)
    reactor.run()
    result = outcome[0]
    if not isinstance(result, Failure):
        return result
    if result.check(CancelledError):
        return None
    result.raiseException()


def _reactor() -> Any:
    # A unix socket needs no TLS, and loading OpenSSL would be a third of the time until the first answer.
    unwanted = "OpenSSL" not in sys.modules and "twisted.internet.reactor" not in sys.modules
    if unwanted:
        sys.modules["OpenSSL"] = None  # type: ignore[assignment]
    try:
        from twisted.internet import reactor
    finally:
        if unwanted:
            del sys.modules["OpenSSL"]
    return reactor
