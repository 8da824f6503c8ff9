"""The audit log's file: appended, rotated, found again when it was moved away, and never in the way."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from tashi import audit_log
from tashi.audit_log import AuditLog


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.fixture
def logged() -> list[LogEvent]:
    """What is logged during the test."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events  # type: ignore[misc]
    globalLogPublisher.removeObserver(events.append)


def test_o6_lines_are_appended_to_a_file_for_owner_and_group(tmp_path: Path) -> None:
    """O6: the file has mode 640 whatever the umask, and a second program run goes on after the first."""
    path = tmp_path / "audit.log"
    before = os.umask(0o077)
    try:
        AuditLog(path, 0, 0).write('{"a":1}')
    finally:
        os.umask(before)
    AuditLog(path, 0, 0).write('{"a":2}')
    assert _lines(path) == ['{"a":1}', '{"a":2}']
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_full_file_is_renamed_and_the_oldest_is_dropped(tmp_path: Path) -> None:
    """maxSize and keep have effect: no file passes the size, and only so many renamed ones stay."""
    path = tmp_path / "audit.log"
    log = AuditLog(path, 20, 2)
    for number in range(9):
        log.write(f"line {number}")  # 7 bytes with its end
    assert sorted(file.name for file in tmp_path.iterdir()) == ["audit.log", "audit.log.1", "audit.log.2"]
    assert [_lines(tmp_path / name) for name in ("audit.log.2", "audit.log.1", "audit.log")] == [
        ["line 4", "line 5"], ["line 6", "line 7"], ["line 8"],
    ]  # fmt: skip


def test_without_renamed_files_a_full_one_begins_anew(tmp_path: Path) -> None:
    """keep = 0 keeps only what fits into one file."""
    log = AuditLog(tmp_path / "audit.log", 10, 0)
    log.write("line 1")
    log.write("line 2")
    assert [(file.name, _lines(file)) for file in tmp_path.iterdir()] == [("audit.log", ["line 2"])]


def test_a_file_that_logrotate_moved_is_made_anew(tmp_path: Path) -> None:
    """With and without a signal the next line goes to the file that has the name, and none is lost."""
    path, moved = tmp_path / "audit.log", tmp_path / "moved"
    log = AuditLog(path, 0, 0)
    log.write("1")
    path.rename(moved)
    log.write("2")
    log.reopen()
    log.write("3")
    assert (_lines(moved), _lines(path)) == (["1"], ["2", "3"])


def test_a_link_is_not_followed(tmp_path: Path, logged: list[LogEvent]) -> None:
    """Whoever can write to the directory cannot have another file written."""
    (tmp_path / "victim").write_text("")
    (tmp_path / "audit.log").symlink_to("victim")
    AuditLog(tmp_path / "audit.log", 0, 0).write("line")
    assert (tmp_path / "victim").read_text() == ""
    assert [event["log_level"].name for event in logged] == ["error"]


def test_a_pipe_that_nobody_reads_stops_nothing(tmp_path: Path, logged: list[LogEvent]) -> None:
    """A named pipe without a reader, or with one that sleeps, costs records and no time."""
    os.mkfifo(tmp_path / "audit.log")
    log = AuditLog(tmp_path / "audit.log", 0, 0)
    log.write("line")
    assert log.missing == 1
    reader = os.open(tmp_path / "audit.log", os.O_RDONLY | os.O_NONBLOCK)
    log.write("line")
    assert log.missing == 0
    for _ in range(100):
        log.write("x" * 4095)
    assert log.missing > 0
    os.close(reader)


def test_o6_a_full_disk_is_one_line_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[LogEvent]) -> None:
    """O6: records that cannot be written are counted and told when there is room again; a torn line does not spoil the next."""
    path, full, write = tmp_path / "audit.log", [False], os.write

    def writing(file: int, data: bytes) -> int:
        if not full[0]:
            return write(file, data)
        if len(data) > 3:
            return write(file, data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(audit_log.os, "write", writing)
    log = AuditLog(path, 0, 0)
    log.write("first")
    full[0] = True
    for _ in range(100):
        log.write("lost")
    full[0] = False
    log.write("second")
    log.write("third")
    assert _lines(path)[0] == "first"
    assert _lines(path)[-2:] == ["second", "third"]
    told = [(event["log_level"].name, event.get("count")) for event in logged]
    assert told == [("error", None), ("warn", 100)]
    assert "No space left on device" in logged[0]["why"]
