"""`tashi snapshot`: the cluster as a scheduler sees it, as text on stdout; with --from the cluster in a file, in either format."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from tashi.client.cell import connect
from tashi.client.clusters import as_text, read_file
from tashi.client.process import run_to_end
from tashi.client.table import visible
from tashi.client.unreachable import CannotReach
from tashi.errors import TashiError
from tashi.scheduling.snapshot import Snapshot

FORMATS: Final = ("tashi", "ganeti")


def main(argv: Sequence[str]) -> int:
    """Print the snapshot that these words ask for; the exit code."""
    asked = _parser().parse_args(argv)
    if asked.file is not None:
        return told(lambda: _convert(asked.file, asked.format))
    return told(lambda: run_to_end(lambda reactor: ask(asked.format, reactor)), verb="snapshot")


def told(work: Callable[[], int | None], verb: str = "") -> int:
    """Do this work of a program; what goes wrong is told on stderr, with the verb that the control plane was called by. The exit code."""
    from tashi.client.command import CANNOT_REACH, INTERRUPTED, exit_code

    try:
        code = work()
    except CannotReach as error:
        complain(str(error))
        return CANNOT_REACH
    except TashiError as error:
        complain(f"Failed in calling {verb}: {error.message}" if verb else error.message)
        return exit_code(error)
    return INTERRUPTED if code is None else code


def complain(words: str) -> None:
    """Say this to the person, not to the pipe."""
    print("\n".join(map(visible, words.splitlines())), file=sys.stderr)


def _convert(path: str, format: str) -> int:
    _put(read_file(path), format)
    return 0


async def ask(format: str, reactor: Any, socket: str | None = None) -> int:
    """Print the snapshot that the control plane behind this socket gives, or the configured one; the exit code."""
    async with connect(reactor, socket=socket) as cell:
        text = await cell.snapshot()
    if format == "tashi":
        sys.stdout.write(text)
    else:
        from tashi.scheduling.text.reading import read

        _put(read(text), format)
    return 0


def _put(snapshot: Snapshot, format: str) -> None:
    if format == "ganeti" and snapshot.pending:
        complain(f"{len(snapshot.pending)} that wait for a place are left out: the format has no word for them")
    sys.stdout.write(as_text(snapshot, format))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tashi snapshot",
        description="Prints the cluster as the scheduler sees it now, hosts and instances one a line (administrators); "
        "`tashi plan --from` plans on it.",
        epilog="examples: `tashi snapshot > cluster.txt`, `tashi snapshot --from cluster.txt --to ganeti > cluster.data`",
    )
    parser.add_argument(
        "--from", dest="file", metavar="FILE", help="take the cluster from this file (-: stdin) in either format; asks nobody"
    )
    parser.add_argument("--to", dest="format", choices=FORMATS, default="tashi", help="the format to print (default: %(default)s)")
    return parser
