"""What an agent keeps beside its secret: the mark of the control plane's records."""

from pathlib import Path

from tashi.model.marks import MOST_TEXT
from tashi.node.credentials import keep_mark, kept_mark


def test_a_mark_is_kept_until_the_next(tmp_path: Path) -> None:
    """The last mark is shown at the next login; only the owner can read the file."""
    assert kept_mark(tmp_path) == ""
    keep_mark(tmp_path, "first")
    keep_mark(tmp_path, "second")
    assert kept_mark(tmp_path) == "second"
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]


def test_what_is_no_mark_is_not_kept_and_not_shown(tmp_path: Path) -> None:
    """A control plane cannot fill the disk of its agents, and a damaged file stops no login."""
    keep_mark(tmp_path, "x" * (MOST_TEXT + 1))
    keep_mark(tmp_path, "é")
    assert kept_mark(tmp_path) == ""
    (tmp_path / "cell.mark").write_bytes(b"\xff" * 10)
    assert kept_mark(tmp_path) == ""
