"""SIGHUP: a program opens its logs anew, as logrotate asks, and goes on; without a handler the signal would end it."""

from __future__ import annotations

import signal
from typing import Any, Final, Protocol

from twisted.logger import FileLogObserver, Logger, globalLogPublisher
from twisted.python.logfile import BaseLogFile

_log: Final = Logger()


class Reopened(Protocol):
    """A log that can be opened anew."""

    def reopen(self) -> None: ...


def reopen_logs_on_hang_up(reactor: Any, audit: Reopened | None = None) -> None:
    """On SIGHUP open the log file of `twistd --logfile` and the audit log anew, and log one line. Call it in the main thread."""

    def hang_up() -> None:
        for file in (*_log_files(), *([audit] if audit is not None else [])):
            file.reopen()
        _log.info("SIGHUP: the logs are opened anew")

    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(hang_up))


def _log_files() -> list[Any]:
    """The files that twistd writes the log to; it tells nobody, and has a signal of its own (SIGUSR1) only for rotating them itself."""
    observers = getattr(globalLogPublisher, "_observers", ())
    files = (getattr(observer, "_outFile", None) for observer in observers if isinstance(observer, FileLogObserver))
    return [file for file in files if isinstance(file, BaseLogFile)]
