"""A store that is killed at any moment, on a real disk: never refused by mistake, never believed when what was told is missing (A9)."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tashi.store.marker import Marker
from tashi.store.sqlite_file import State, examine, log_of, reading
from tests.integration.cells import ROOT

KILLS = 25


def _last(database: Path) -> int:
    """The number of the newest instance in the file."""
    return reading(
        database,
        lambda connection: connection.execute("SELECT coalesce(max(id), 0) FROM instances").fetchone()[0],
    )


def _run_and_kill(directory: Path, seconds: float) -> int:
    """Let the process commit for a while after its first commit, kill it, and return the last number it told."""
    command = [sys.executable, "-m", "tests.integration.killed_store", str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline()]
        time.sleep(seconds)
        process.kill()
        told += process.stdout.read().splitlines()
    whole = [line.strip() for line in told if line.strip()]
    assert whole, "the store did not open"
    return int(whole[-1])


def test_a_store_that_is_killed_at_any_moment_is_whole(tmp_path: Path) -> None:
    """Amid commits, checkpoints and seals: the next start finds every commit that was told, and is not refused."""
    chance = random.Random(8)
    here = tmp_path / "state"
    here.mkdir()
    for turn in range(KILLS):
        told = _run_and_kill(here, chance.random() * 0.15)
        finding = examine(here / "tashi.sqlite", Marker(here / "tashi.mark"))
        assert finding.state is State.WHOLE, (turn, finding.problem)
        assert _last(here / "tashi.sqlite") >= told
        assert finding.mark.numbers["instance"] >= told, "what was given out is reserved"
        for damage in ("delete the log", "damage a byte", "cut the log", "empty the file"):
            copy = tmp_path / "copy"
            shutil.copytree(here, copy)
            database, log = copy / "tashi.sqlite", log_of(copy / "tashi.sqlite")
            if not log.exists() or not log.stat().st_size:
                shutil.rmtree(copy)
                continue
            size = log.stat().st_size
            match damage:
                case "delete the log":
                    log.unlink()
                case "damage a byte":
                    with log.open("r+b") as file:
                        file.seek(position := chance.randrange(size))
                        byte = file.read(1)
                        file.seek(position)
                        file.write(bytes([byte[0] ^ 1]))
                case "cut the log":
                    os.truncate(log, chance.randrange(size))
                case _:
                    database.write_bytes(b"")
            finding = examine(database, Marker(copy / "tashi.mark"))
            if finding.state is State.WHOLE:
                assert _last(database) >= told, (turn, damage)
            shutil.rmtree(copy)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def test_h12_a_full_disk_is_said_in_words(small_disk: Path) -> None:
    """H12: with no room a commit fails with what to do; when there is room the same commit is made."""
    program = f"""
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from tashi.errors import OurFault
from tashi.interfaces import Change
from tashi.store.sqlite import SQLiteStore
from tests.builders import an_instance
disk = Path({str(small_disk)!r})

async def refused(store, changes, words):
    try:
        await store.commit(changes)
    except OurFault as fault:
        assert words in fault.message, fault.message
        print(fault.message)
    else:
        raise AssertionError("it was committed")

async def main():
    store = SQLiteStore(reactor, str(disk / "tashi.sqlite"), disk / "tashi.mark")
    await store.load()
    changes = [Change("instances", n, an_instance(n)) for n in range(1, 501)]
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    await refused(store, changes, "the disk is full; free some space")
    filler.unlink()
    await store.commit(changes)
    await store.close()
    again = SQLiteStore(reactor, str(disk / "tashi.sqlite"), disk / "tashi.mark")
    assert len((await again.load())["instances"]) == 500
    await again.close()
    print("done")

def failed(failure):
    failure.printTraceback(sys.stdout)

Deferred.fromCoroutine(main()).addErrback(failed).addBoth(lambda _: reactor.callWhenRunning(reactor.stop))
reactor.run()
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.splitlines()[-1:] == ["done"], run.stdout + run.stderr
