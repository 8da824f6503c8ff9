"""Log lines that outsiders can cause."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent

from tashi.limited_log import MOST_WINDOWS, LimitedLog


def a_log() -> tuple[Clock, LimitedLog, list[str]]:
    """A limited log on a clock of its own, and what it writes."""
    clock, lines = Clock(), []

    def observe(event: Any) -> None:
        lines.append(formatEvent(event))

    return clock, LimitedLog(clock, Logger(observer=observe)), lines


def test_ten_lines_a_minute_then_the_count() -> None:
    """A12: ten lines of one kind about one source, and after a minute one line with the count of the rest."""
    clock, log, lines = a_log()
    for number in range(10_000):
        log.warn("uid 1000", "refused logins", "refused {number} from {source}", number=number)
    assert lines == [f"refused {number} from uid 1000" for number in range(10)]
    clock.advance(60)
    assert lines[10:] == ["uid 1000: 9990 more lines about refused logins were left out"]
    log.warn("uid 1000", "refused logins", "again")
    assert lines[11:] == ["again"]
    clock.advance(120)
    assert lines[12:] == []
    assert clock.getDelayedCalls() == []


def test_sources_and_kinds_are_counted_apart() -> None:
    """One source that floods the log hides nobody else."""
    _, log, lines = a_log()
    for source in ("a", "b"):
        for kind in ("x", "y"):
            for _ in range(12):
                log.warn(source, kind, "{source} {kind}", kind=kind)
    assert [lines.count(line) for line in ("a x", "a y", "b x", "b y")] == [10] * 4


def test_a_million_sources_are_bounded() -> None:
    """Sources beyond a hundred share one count, so that neither the log nor the table grows."""
    clock, log, lines = a_log()
    for number in range(20_000):
        log.warn(f"address {number}", "protocol", "closed")
    assert len(lines) == MOST_WINDOWS + 10
    clock.advance(61)
    assert lines[-1] == f"other sources: {20_000 - MOST_WINDOWS - 10} more lines about any kind were left out"
    assert log._windows == {}


def test_the_end_tells_what_was_left_out() -> None:
    """A program that stops logs the counts that are open, and leaves no timer."""
    clock, log, lines = a_log()
    for _ in range(15):
        log.warn("a", "x", "line")
    log.close()
    assert lines[-1] == "a: 5 more lines about x were left out"
    assert clock.getDelayedCalls() == []
