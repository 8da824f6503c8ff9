"""`tashi config --check`: every effective setting and where it comes from, with secrets masked, on stdout; what is odd on stderr.

It needs no control plane. The exit code is 1 when a program would refuse to start, and 0 when there are warnings only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tashi.config import PROGRAMS, ConfigError, load, missing

USAGE = "tashi config --check: print every effective setting and where it comes from"


def main(argv: Sequence[str]) -> int:
    """Check the configuration of all programs as the caller may read it; the exit code."""
    if list(argv) != ["--check"]:
        print(USAGE, file=sys.stdout if list(argv) in (["--help"], ["-h"]) else sys.stderr)
        return 0 if list(argv) in (["--help"], ["-h"]) else 2
    try:
        config = load(PROGRAMS)
    except ConfigError as error:
        print(error.message, file=sys.stderr)
        return 1
    section = None
    for name, key, value, source in config.settings():
        if name != section:
            print(f"{'' if section is None else chr(10)}[{name}]")
            section = name
        print(f"{key} = {value}".ljust(60) + f"  # {source}")
    for words in config.skipped:
        print(words, file=sys.stderr)
    for words in (*config.warnings, *missing(config)):
        print(f"warning: {words}", file=sys.stderr)
    return 0
