"""The verb `snapshot`: the cluster as text."""

from __future__ import annotations

import pytest

from tashi.errors import YourMistake
from tashi.scheduling.text.reading import read
from tests.builders import ADMIN, ALICE
from tests.small_cell import FakeAgent, SmallCell


def test_an_admin_sees_the_cluster_as_the_scheduler_does() -> None:
    """What the verb gives can be read again: hosts, what is on them, what waits; and no host's secret is in it."""
    cell = SmallCell(hosts=[FakeAgent("h1")])
    cell.call(ALICE, "createVm", name="db", disks=[{"uri": "tashi"}])
    cell.work()
    whole = cell.manager.cluster.hosts[1].facts
    assert whole is not None
    cell.call(ALICE, "createVm", name="web", disks=[{"uri": "tashi"}], memory=whole.memory, hints={"isolation": "True", "x y": "1"})
    cell.settle()
    text = cell.call(ADMIN, "snapshot")["text"]
    assert text.startswith("# tashi snapshot 1\n")
    assert "user 1000 alice priority=0\n" in text
    snapshot = read(text)
    assert [host.name for host in snapshot.hosts.values()] == ["h1"]
    assert [(one.name, one.state.name) for one in snapshot.placed[1]] == [("db", "Running")]
    assert [(one.name, one.memory, one.hints) for one in snapshot.pending] == [("web", whole.memory, {"isolation": "True", "x y": "1"})]
    assert cell.manager.cluster.hosts[1].secret_hash
    assert cell.manager.cluster.hosts[1].secret_hash not in text


def test_a_snapshot_is_for_admins() -> None:
    """It shows what everybody asked for, so a user is refused."""
    cell = SmallCell()
    with pytest.raises(YourMistake) as refused:
        cell.call(ALICE, "snapshot")
    assert refused.value.code == "forbidden"
