"""Small clusters in words, and the plans that are expected for them: NAME.txt is a snapshot, NAME.plan what comes of it, line by line.

`python -m tests.clusters` makes the expected plans anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tashi.scheduling.check import check
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.text.reading import read
from tashi.scheduling.text.words import plan_in_words

CLUSTERS: Final = Path(__file__).parent


def planned(cluster: Path) -> str:
    """The plan for the cluster in this file, in words; AssertionError when it breaks a rule."""
    snapshot = read(cluster.read_text())
    plan = POLICIES[snapshot.settings.policy](snapshot)
    problems = check(plan, snapshot)
    assert problems == (), problems
    return "".join(f"{line}\n" for line in plan_in_words(plan, snapshot))
