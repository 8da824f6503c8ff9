"""`tashi status`: how the cell is. The exit code is 0 when it is healthy, 1 when it is degraded, 5 when the control plane is away."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tashi.client import table
from tashi.client.cell import Row, connect
from tashi.client.process import run_to_end
from tashi.client.snapshot import told

HEALTHY = 0
DEGRADED = 1


def main(argv: Sequence[str]) -> int:
    """Print the status; the exit code."""
    asked = _parser().parse_args(argv)
    return told(lambda: run_to_end(lambda reactor: ask(asked.output, reactor)), verb="status")


async def ask(output: str, reactor: Any, socket: str | None = None) -> int:
    """Print the status of the cell behind this socket or the configured one; the exit code."""
    async with connect(reactor, socket=socket) as cell:
        status = await cell.status()
    sys.stdout.write(table.as_json([status]) if output == "json" else _text(status))
    return HEALTHY if status["healthy"] else DEGRADED


def _text(status: Row) -> str:
    lines = [*status["lines"]]
    lines += [f"warning: {warning}" for warning in status["warnings"]]
    lines += [f"note: {note}" for note in status["notes"]]
    lines.append(
        "healthy" if status["healthy"] else f"degraded: {len(status['warnings'])} warning{'s' if len(status['warnings']) > 1 else ''}"
    )
    return "".join(f"{table.visible(line)}\n" for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tashi status",
        description="Show how the cell is: version, hosts, instances, queues, outbox, XMPP, store and warnings.",
        epilog="exit codes: 0 healthy, 1 degraded, 5 the control plane cannot be reached",
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="lines of text, or JSON")
    return parser
