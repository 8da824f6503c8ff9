"""Secrets in files, and the lock that keeps an agent or a control plane from running twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tashi.errors import OurFault
from tashi.files import hold
from tashi.node import credentials
from tashi.wire import certificates

GOOD = "s" * 32


def _write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


READERS: dict[str, Callable[[Path], str]] = {
    "join.secret": certificates.join_secret,
    "node.secret": credentials.own_secret,
    "copy": lambda directory: credentials.join_secret(directory / "copy"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [b"", b"\n", b" \t\n" * 40, b"short\n", b"s" * 31, b"\xff" * 40])
def test_a7_an_unusable_secret_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """A7: an empty, blank, short or binary secret is refused in words that name the file, by whoever reads it."""
    path = _write(tmp_path / name, content)
    with pytest.raises(OurFault, match="expected a secret of") as caught:
        READERS[name](tmp_path)
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", READERS)
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, name: str) -> None:
    """A secret that its group or everybody may read is refused, with the command that mends it."""
    for mode in (0o644, 0o640, 0o602):
        path = _write(tmp_path / name, GOOD.encode(), mode)
        with pytest.raises(OurFault, match=f"chmod 600 {path}"):
            READERS[name](tmp_path)
    path.chmod(0o600)
    assert READERS[name](tmp_path) == GOOD


@pytest.mark.parametrize("name", ["join.secret", "node.secret"])
def test_a_secret_is_no_link(tmp_path: Path, name: str) -> None:
    """A secret of the own state directory is a file of its own: a link, also a broken one, is refused and not followed."""
    elsewhere = _write(tmp_path / "elsewhere", GOOD.encode())
    (tmp_path / name).symlink_to(elsewhere)
    for _ in range(2):
        with pytest.raises(OurFault, match="symbolic link"):
            READERS[name](tmp_path)
        elsewhere.unlink(missing_ok=True)
    assert not elsewhere.exists()


def test_a_secret_is_a_file(tmp_path: Path) -> None:
    """A directory or a pipe in place of a secret is refused, and nobody waits for it."""
    (tmp_path / "join.secret").mkdir()
    os.mkfifo(tmp_path / "node.secret", 0o600)
    for name in ("join.secret", "node.secret"):
        with pytest.raises(OurFault, match="expected a regular file"):
            READERS[name](tmp_path)


@pytest.mark.parametrize("name", ["join.secret", "node.secret"])
def test_a_missing_secret_is_made_once(tmp_path: Path, name: str) -> None:
    """The first start makes a secret that only its owner can read; the next start finds it."""
    made = READERS[name](tmp_path)
    assert (len(made), READERS[name](tmp_path)) == (64, made)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_a_missing_join_secret_is_none(tmp_path: Path) -> None:
    """An agent that has joined needs no join secret."""
    assert READERS["copy"](tmp_path) == ""


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    """A file is held by one process at a time; a holder that is killed leaves nothing that keeps the next one out."""
    path = tmp_path / "lock"
    held = hold(path)
    assert held is not None
    assert hold(path) is None
    held.close()
    program = "import sys, pathlib; from tashi.files import hold; f = hold(pathlib.Path(sys.argv[1])); print(f, flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() != b"None\n"
    assert hold(path) is None
    other.kill()
    other.communicate()
    again = hold(path)
    assert again is not None
    again.close()


def test_a_lock_is_for_its_owner(tmp_path: Path) -> None:
    """Nobody else opens the file, since whoever does could lock it and keep the program from starting; an older file is mended."""
    path = tmp_path / "lock"
    path.touch(0o644)
    held = hold(path)
    assert held is not None
    assert path.stat().st_mode & 0o777 == 0o600
    held.close()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        hold(path)
    assert not (tmp_path / "elsewhere").exists()
