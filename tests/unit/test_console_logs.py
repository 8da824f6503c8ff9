"""What guests said: read in pages across the parts of a log, and not kept for ever."""

import os
import time
from pathlib import Path

import pytest

from tashi.errors import YourMistake
from tashi.model.questions import LOG_PAGE_BYTES
from tashi.node.access import logs as console_logs
from tashi.node.access.logs import ConsoleLogs


@pytest.fixture
def logs(tmp_path: Path) -> ConsoleLogs:
    return ConsoleLogs(tmp_path)


def write(logs: ConsoleLogs, name: str, days: float = 0.0, data: bytes = b"x", part: str = "") -> Path:
    """A log that was written last so many days ago."""
    path = logs.path(name)
    path = path.with_name(path.name + part)
    path.write_bytes(data)
    moment = time.time() - days * 24 * 3600
    os.utime(path, (moment, moment))
    return path


def test_pages(logs: ConsoleLogs) -> None:
    """The parts of a log, oldest first, are one text, which is read a page at a time and byte by byte as it is."""
    write(logs, "a", data=b"old\r\n", part=".1")
    write(logs, "a", data=b"\xff" * LOG_PAGE_BYTES, part=".0")
    write(logs, "a", data=b"new\r\n")
    whole = b""
    while page := logs.read("a", len(whole)):
        assert len(page) <= LOG_PAGE_BYTES
        whole += page
    assert whole == b"old\r\n" + b"\xff" * LOG_PAGE_BYTES + b"new\r\n"


def test_no_log(logs: ConsoleLogs) -> None:
    """Where nothing was said there is nothing to read."""
    assert logs.read("a", 0) == b""


@pytest.mark.parametrize(("name", "offset"), [("../a", 0), ("/etc/passwd", 0), ("a", -1)])
def test_only_logs(logs: ConsoleLogs, name: str, offset: int) -> None:
    """Nothing outside the directory can be read."""
    with pytest.raises(YourMistake):
        logs.read(name, offset)


def test_forget(logs: ConsoleLogs, tmp_path: Path) -> None:
    """A log goes with all its parts, and another of a longer name stays."""
    for name, part in (("a", ""), ("a", ".0"), ("a", ".3"), ("ab", ""), ("a.log", "")):
        write(logs, name, part=part)
    logs.forget("a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log.log", "ab.log"]


def test_prune(logs: ConsoleLogs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ended guests' logs the old ones go, then the oldest beyond the limits; those of guests that are there stay."""
    monkeypatch.setattr(console_logs, "MOST_LOGS", 3)
    monkeypatch.setattr(console_logs, "MOST_BYTES", 100)
    write(logs, "living", days=30, data=b"x" * 200)
    write(logs, "living", days=40, part=".0")
    write(logs, "old", days=8)
    for days in range(1, 5):
        write(logs, f"ended-{days}", days=days)
    logs.prune({"living"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended-1.log", "ended-2.log", "ended-3.log", "living.log", "living.log.0"]
    write(logs, "long", data=b"x" * 100)
    again = ConsoleLogs(tmp_path)
    again.prune({"living"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["living.log", "living.log.0", "long.log"]


def test_prune_nothing(tmp_path: Path) -> None:
    """Before the first guest there is nothing to prune."""
    ConsoleLogs(tmp_path / "none").prune(set())
