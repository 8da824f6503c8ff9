"""Figures: what was measured, how often, against which goal and floor; as a table for people and as JSON for comparisons."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

RESULTS: Final = Path(__file__).parent / "results"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One thing measured: the value of each run, in ``unit``. ``floor`` is what the same run gives without us, in the same unit."""

    name: str
    unit: str
    runs: Sequence[float]
    goal: float | None = None
    more_is_better: bool = False
    floor: str = ""
    floor_runs: Sequence[float] = ()

    @property
    def median(self) -> float:
        """The value to go by."""
        return statistics.median(self.runs)

    @property
    def ratio(self) -> float | None:
        """The median, divided by the floor's."""
        return self.median / statistics.median(self.floor_runs) if self.floor_runs else None

    @property
    def verdict(self) -> str:
        """The goal, and whether it was reached."""
        if self.goal is None:
            return ""
        reached = self.median >= self.goal if self.more_is_better else self.median <= self.goal
        return f"{'>=' if self.more_is_better else '<='} {_number(self.goal)} {'reached' if reached else 'MISSED'}"


def share(values: Sequence[float], part: float) -> float:
    """The value that this part of the values (0 to 1) does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def table(figures: Sequence[Figure]) -> str:
    """The figures, one a line."""
    rows = [("figure", "unit", "median", "min", "max", "runs", "goal", "floor", "its median", "ratio")]
    for figure in figures:
        rows.append(
            (
                figure.name,
                figure.unit,
                _number(figure.median),
                _number(min(figure.runs)),
                _number(max(figure.runs)),
                str(len(figure.runs)),
                figure.verdict,
                figure.floor,
                _number(statistics.median(figure.floor_runs)) if figure.floor_runs else "",
                f"{figure.ratio:.2f}" if figure.ratio is not None else "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def write(benchmark: str, figures: Sequence[Figure]) -> Path:
    """Keep the figures of one benchmark in bench/results; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    content = {
        "benchmark": benchmark,
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg(), "python": platform.python_version(), "kernel": platform.release()},
        "figures": [
            msgspec.to_builtins(figure) | {"median": figure.median, "ratio": figure.ratio, "verdict": figure.verdict} for figure in figures
        ],
    }
    path = RESULTS / f"{benchmark}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
