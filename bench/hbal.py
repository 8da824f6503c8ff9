"""Ganeti's hbal, run on a snapshot: what it moves, when, and its score of any layout. It is in Debian's package ganeti-htools."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.text.ganeti import write

_INITIAL: Final = re.compile(r"Initial score: ([0-9.]+)")
_MOVE: Final = re.compile(r"\s*\d+\. tashi-(\d+)-\S+\s+\S+\s+=> (\S+)\s+([0-9.]+) ")


class Run(NamedTuple):
    """What hbal did: the score before its first move and after each, the seconds until each was printed, and until it ended."""

    scores: list[float]
    moves: list[tuple[int, str]]
    seconds: list[float]
    whole: float
    ended: bool


def balance(snapshot: Snapshot, options: Sequence[str] = (), limit: float = 120.0) -> Run:
    """Let hbal balance; after ``limit`` seconds it is stopped."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        file = Path(directory, "cluster.data")
        file.write_text(write(snapshot))
        return _run(["hbal", "-t", str(file), *options], limit)


def score(snapshot: Snapshot, options: Sequence[str] = ()) -> float:
    """Hbal's score of the layout as it is."""
    return balance(snapshot, [*options, "-l", "0"]).scores[0]


def _run(command: Sequence[str], limit: float) -> Run:
    """Read what it prints as it prints it, which takes a terminal."""
    ours, its = pty.openpty()
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    os.set_blocking(ours, False)
    run = Run([], [], [], 0.0, True)
    rest = b""
    ended = True
    while True:
        try:
            chunk = os.read(ours, 65536)
        except BlockingIOError:
            if time.perf_counter() - begun > limit:
                os.killpg(process.pid, signal.SIGKILL)
                ended = False
                break
            time.sleep(0.001)
            continue
        except OSError:  # the terminal is closed: it has ended
            break
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            _note(run, line.decode(), time.perf_counter() - begun)
    whole = time.perf_counter() - begun
    os.close(ours)
    if process.wait() != 0 and ended:
        raise RuntimeError(f"{' '.join(command)} failed")
    if not run.scores:
        raise RuntimeError(f"{' '.join(command)} named no score")
    return run._replace(whole=whole, ended=ended)


def _note(run: Run, line: str, seconds: float) -> None:
    if found := _INITIAL.search(line):
        run.scores.append(float(found[1]))
    elif found := _MOVE.match(line):
        run.moves.append((int(found[1]), found[2]))
        run.scores.append(float(found[3]))
        run.seconds.append(seconds)
