"""Clusters that a person wrote, and what is planned for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tashi.scheduling.text.reading import read
from tashi.scheduling.text.writing import write
from tests.clusters import CLUSTERS, planned

FILES = sorted(CLUSTERS.glob("*.txt"))


@pytest.mark.parametrize("cluster", FILES, ids=lambda path: path.stem)
def test_the_plan_is_the_expected_one(cluster: Path) -> None:
    """What is planned for the cluster stands beside it, word for word, and is sound."""
    assert planned(cluster) == cluster.with_suffix(".plan").read_text()


@pytest.mark.parametrize("cluster", FILES, ids=lambda path: path.stem)
def test_every_cluster_can_be_written_again(cluster: Path) -> None:
    """A cluster that a person wrote is the same when a program has written it."""
    snapshot = read(cluster.read_text())
    assert read(write(snapshot)) == snapshot


def test_no_plan_is_without_its_cluster() -> None:
    """Each expected plan stands beside a cluster."""
    assert {path.stem for path in CLUSTERS.glob("*.plan")} == {path.stem for path in FILES}
