"""A host is unregistered: it has to be down, and what it alone could have told is settled."""

from __future__ import annotations

import pytest

from tashi.errors import YourMistake
from tashi.manager.operations import unregister_host
from tashi.model.host import Host
from tashi.model.states import InstanceState
from tashi.model.user import Principal
from tests.builders import a_login, a_spec
from tests.fake_agent import FakeAgent, result_of
from tests.small_cell import SmallCell

ROOT = Principal(name="root", user_id=0, admin=True)


def unregister(cell: SmallCell, host: str, who: Principal = ROOT) -> tuple[Host, int]:
    """What unregisterHost does."""
    with cell.manager.cluster.transaction("unregister_host") as tx:
        outcome = unregister_host(tx, who, host)
    cell.settle()
    return outcome


def a_silent_host() -> tuple[SmallCell, FakeAgent]:
    """A cell whose one host runs one instance and has not been heard of for longer than its lease."""
    cell = SmallCell()
    agent = cell.join(FakeAgent("h1"))
    cell.create(a_spec("vm"))
    cell.work()
    agent.lose_link()
    for _ in range(9):  # a longer leap is a clock that jumped
        cell.settle(5)
    return cell, agent


def test_a_host_that_is_up_stays() -> None:
    """A host that is heard of cannot be forgotten, nor can anybody but an admin forget one."""
    cell = SmallCell()
    cell.join(FakeAgent("h1"))
    with pytest.raises(YourMistake, match="h1 is up; stop its agent first"):
        unregister(cell, "h1")
    with pytest.raises(YourMistake, match="is for admins"):
        unregister(cell, "h1", Principal(name="alice", user_id=1000))
    assert list(cell.manager.cluster.hosts) == [1]


def test_an_agent_that_is_installed_anew_joins_its_host() -> None:
    """Only after its host was unregistered does an agent with another secret join, and then it has the same id and instances."""
    cell, agent = a_silent_host()
    anew = a_login("h1")
    other = type(anew)(name="h1", secret="another secret that is long enough for anybody", join=anew.join, identity=anew.identity)
    with pytest.raises(YourMistake, match="pinned to another secret"):
        agent.login(cell, other)
    assert unregister(cell, "h1")[1] == 1
    assert agent.login(cell, other).host_id == 1
    cell.settle()
    (instance,) = cell.manager.cluster.instances.values()
    assert (instance.state, instance.host_id) == (InstanceState.Running, 1)


def test_what_a_dead_host_was_to_destroy_is_gone_with_it() -> None:
    """A delete that waits for a host which never comes back is answered when the host is unregistered, and the host is gone."""
    cell, _ = a_silent_host()
    cell.delete("vm")
    cell.settle()
    assert [instance.state for instance in cell.manager.cluster.instances.values()] == [InstanceState.Destroying]
    assert unregister(cell, "h1")[1] == 0
    assert (cell.manager.cluster.instances, cell.manager.cluster.hosts) == ({}, {})
    result_of(cell.manager.journal.written())
