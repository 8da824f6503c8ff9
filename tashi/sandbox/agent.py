"""A node agent that waits for its turn: `python -m tashi.sandbox.agent FILE`.

It is `twistd -n tashi-node`, but connects nowhere until FILE exists. Loading the programs takes most of the time of a start; so all hosts
load theirs side by side, and still join one after the other.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from twisted.scripts import twistd

from tashi.node import service  # noqa: F401 - loaded now, needed then

STEP = 0.01  # seconds between two looks


def main() -> None:
    """Wait as long as it takes: whoever goes on with an unfinished cell makes the file."""
    may_join = Path(sys.argv[1])
    while not may_join.exists():
        time.sleep(STEP)
    sys.argv = ["twistd", "-n", "--pidfile=", "tashi-node"]
    twistd.run()


if __name__ == "__main__":
    main()
