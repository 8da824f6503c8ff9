"""``python -m tests.clusters [NAME...]``: make the expected plans anew (all of them by default), and say which of them have changed.

Look at what has changed before you commit it: the files are what the scheduler promises.
"""

from __future__ import annotations

import sys

from tests.clusters import CLUSTERS, planned


def main(names: list[str]) -> int:
    """Write the plans of these clusters; the exit code is 2 when there is no such cluster."""
    clusters = {path.stem: path for path in sorted(CLUSTERS.glob("*.txt"))}
    unknown = [name for name in names if name not in clusters]
    if unknown:
        print(f"there is no cluster {unknown[0]}; there are {', '.join(clusters)}", file=sys.stderr)
        return 2
    for name in names or clusters:
        expected, plan = clusters[name].with_suffix(".plan"), planned(clusters[name])
        if not expected.exists() or expected.read_text() != plan:
            expected.write_text(plan)
            print(f"{name}: changed\n{plan}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
