"""``python -m bench.ask SOCKET TIMES``: getInstances over one link, so often; prints the seconds of each as JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from tashi.client import connect
from tashi.client.command import run_to_end


async def _ask(reactor: Any, path: str, times: int) -> int:
    spent = []
    async with connect(reactor, socket=path, seconds=10) as cell:
        for _ in range(times):
            begun = time.perf_counter()
            await cell.getInstances()
            spent.append(time.perf_counter() - begun)
    print(json.dumps(spent))
    return 0


if __name__ == "__main__":
    sys.exit(run_to_end(lambda reactor: _ask(reactor, sys.argv[1], int(sys.argv[2]))))
