"""Wrong adaptations, by verb and by message: each is refused with the name of what is wrong, and nothing changes anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any, Final

import pytest

from occi.categories import Vocabulary
from occi.sink import Sink
from tashi.errors import YourMistake
from tashi.model.states import InstanceState
from tashi.model.user import Principal
from tashi.xmpp.grammar import IncomingMessage
from tests.builders import ISM, a_spec
from tests.small_cell import FakeAgent, SmallCell

ALICE: Final = Principal(name="alice", user_id=1000, jid="alice@example.org")
BOB: Final = Principal(name="bob", user_id=1001, jid="bob@example.org")

WRONG_ARGUMENTS: Final[dict[tuple[str, str], tuple[Any, ...]]] = {
    ("adaptCpuShare", "share"): (1, 0, -5, 262_145, 2.5, "512", True, [512]),
    ("adaptMemoryLimit", "limit"): (0, -1, 2**31 + 1, 64.0, "64", False, {}),
    ("adaptDiskBandwidth", "weight"): (99, 0, 1001, "500", True),
    ("adaptDiskBandwidth", "iops"): (-1, 10**9 + 1, "none", 1.5, True),
    ("adaptDiskBandwidth", "bytes"): (-1, 10**15 + 1, "1M", 1e6, True),
    ("adaptNetworkBandwidth", "downspeed"): (-1, 2**31, "fast", 0.5),
    ("adaptNetworkBandwidth", "upspeed"): (-1, 2**31, [], True),
}
WRONG_FIELDS: Final[dict[str, tuple[Any, ...]]] = {
    "cpu_share": (1, 0, -5, 262_145, 2.5, "512", True),
    "cpu_speed": (-1, "fast", True, 1e9, 0.0001, [1]),
    "memory_size": (0, -1, 2**31 + 1, "64", True),
    "disk_weight": (99, 1001, "500"),
    "disk_iops": (-1, 10**9 + 1, "none", True),
    "disk_bytes": (-1, 10**15 + 1, 1.5),
    "net_down": (-1, 2**31, "8000"),
    "net_up": (-1, 2**31, {}),
    "cpu_cores": (0, -1, "2", True),
    "imageIdentifier": ("../x", "/dev/sda", "json:{}", 7),
    "hostname": ("", "a b", 7),
    "restart": (1, "true", []),
}
RIGHT: Final = {
    "adaptCpuShare": {"share": 512},
    "adaptMemoryLimit": {"limit": 64},
    "adaptDiskBandwidth": {"iops": 100},
    "adaptNetworkBandwidth": {"upspeed": 8},
}


class Tried:
    """A cell with one instance, web; what is refused must leave everything as it was."""

    def __init__(self, hosts: int = 1) -> None:
        self.agents = [FakeAgent(f"h{number + 1}") for number in range(hosts)]
        self.cell = SmallCell(hosts=self.agents, provision_timeout=1e6)
        vocabulary, settings = Vocabulary(), {"max_command_age": 300, "max_queued": 10, "notifiable": ()}
        self.sink = Sink(self.cell.clock, self.cell.manager.commands, vocabulary=vocabulary, **settings)
        self._numbers = count()
        self.cell.create(a_spec("web", resource_id="key"))
        self.cell.work()

    def say(self, verb: str, argument: object, who: str | None = ISM.jid) -> None:
        """Send a message, as the XMPP door hands it on."""
        body = f"{verb} {json.dumps(argument)}"
        jid = str(who)
        self.sink.received(
            IncomingMessage(sender=jid, sender_full=f"{jid}/x", type="chat", body=body, id=f"m{next(self._numbers)}", thread="t")
        )

    def refused(self, what: Callable[[], object]) -> tuple[str, str]:
        """The code and the words with which this is refused, by exception or by message."""
        for agent in self.agents:
            agent.tell()  # time passes, and hosts that live say so
        before = self._all()
        told = len(self.cell.replies)
        code, words = "", ""
        try:
            what()
        except YourMistake as mistake:
            code, words = mistake.code, mistake.message
        self.cell.settle()
        for reply in self.cell.replies[told:]:
            code, words = reply["code"], reply["message"]
        assert self._all() == before
        return code, words

    def _all(self) -> object:
        cluster = self.cell.manager.cluster
        return dict(cluster.instances), dict(cluster.loads), [list(agent.orders) for agent in self.agents]


@pytest.fixture(scope="module")
def tried() -> Tried:
    """A cell that every refusal leaves as it was."""
    return Tried()


@pytest.mark.parametrize(
    ("verb", "name", "value"), [(verb, name, value) for (verb, name), values in WRONG_ARGUMENTS.items() for value in values]
)
def test_wrong_arguments(tried: Tried, verb: str, name: str, value: object) -> None:
    """An argument out of its range, or of another kind, is named."""
    code, words = tried.refused(lambda: tried.cell.call(ALICE, verb, instance="web", **{name: value}))
    assert (code, f"{name} is " in words) == ("bad-argument", True), words


@pytest.mark.parametrize("verb", RIGHT)
def test_missing_arguments(tried: Tried, verb: str) -> None:
    """A verb without a value, or without an instance, says what is missing."""
    names = [name for each, name in WRONG_ARGUMENTS if each == verb]
    code, words = tried.refused(lambda: tried.cell.call(ALICE, verb, instance="web"))
    assert (code, [name for name in names if name not in words]) == ("bad-argument", [])
    for wrong in (None, "", True, 1.5, ["web"]):
        code, words = tried.refused(lambda wrong=wrong: tried.cell.call(ALICE, verb, instance=wrong, **RIGHT[verb]))  # type: ignore[misc]
        assert (code, "instance" in words) == ("bad-argument", True)


@pytest.mark.parametrize("verb", ["updatecompute", "reprovisioncompute"])
@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG_FIELDS.items() for value in values])
def test_wrong_fields(tried: Tried, verb: str, field: str, value: object) -> None:
    """A field out of its range, or of another kind, is named, whatever else is right."""
    code, words = tried.refused(lambda: tried.say(verb, [{"resourceId": "key", "cpu_share": 512} | {field: value}]))
    assert (code, field in words) == ("bad-argument", True), words


@pytest.mark.parametrize("verb", RIGHT)
@pytest.mark.parametrize(
    ("instance", "who", "code"), [("nobody", ALICE, "unknown-id"), (99, ALICE, "unknown-id"), ("web", BOB, "forbidden")]
)
def test_whose(tried: Tried, verb: str, instance: object, who: Principal, code: str) -> None:
    """What there is not, or is somebody else's, is refused by verb and by message."""
    assert tried.refused(lambda: tried.cell.call(who, verb, instance=instance, **RIGHT[verb]))[0] == code
    if code == "unknown-id":
        assert tried.refused(lambda: tried.say("updatecompute", {"resourceId": str(instance), "cpu_share": 512}))[0] == code


def _pending(tried: Tried) -> None:
    tried.cell.delete("key")
    tried.cell.work()
    for agent in tried.agents:
        agent.lose_link()
    tried.cell.create(a_spec("web", resource_id="key"), stanza="s2")
    tried.cell.settle()


def _activating(tried: Tried) -> None:
    tried.cell.delete("key")
    tried.cell.work()
    tried.cell.create(a_spec("web", resource_id="key"), stanza="s2")
    tried.cell.settle()


def _held(tried: Tried) -> None:
    for agent in tried.agents:
        agent.breaks = lambda order: "no such machine"
    tried.cell.update("key", "h", cores=2, restart=True)
    tried.cell.work()
    tried.cell.live(5)


def _orphaned(tried: Tried) -> None:
    tried.agents[0].lose_link()
    tried.cell.live(40)


def _asked(verb: str, *, done: bool, **arguments: Any) -> Callable[[Tried], None]:
    def ask(tried: Tried) -> None:
        tried.cell.call(ALICE if verb != "migrateVm" else Principal(name="root", user_id=0, admin=True), verb, instance="web", **arguments)
        if done:
            tried.cell.work()

    return ask


STATES: Final[dict[InstanceState, Callable[[Tried], None]]] = {
    InstanceState.Pending: _pending,
    InstanceState.Activating: _activating,
    InstanceState.Pausing: _asked("pauseVm", done=False),
    InstanceState.Paused: _asked("pauseVm", done=True),
    InstanceState.Suspending: _asked("suspendVm", done=False),
    InstanceState.MigratePrep: _asked("migrateVm", done=False, dst=2),
    InstanceState.ShuttingDown: _asked("shutdownVm", done=False),
    InstanceState.Destroying: _asked("destroyVm", done=False),
    InstanceState.Restarting: lambda tried: tried.cell.update("key", "r", cores=2, restart=True),
    InstanceState.Held: _held,
    InstanceState.Orphaned: _orphaned,
}


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_wrong_states(state: InstanceState) -> None:
    """Only what runs is adapted; what it is instead is said."""
    tried = Tried(hosts=2)
    STATES[state](tried)
    tried.cell.settle()
    assert tried.cell.state("web") == state.name
    for verb, arguments in RIGHT.items():
        code, words = tried.refused(lambda verb=verb, arguments=arguments: tried.cell.call(ALICE, verb, instance="web", **arguments))  # type: ignore[misc]
        assert (code, words) == ("conflict", f"VmState is not Running - it is {state.name}")
    for update in ({"cpu_share": 512}, {"cpu_cores": 3, "restart": True}):
        code, words = tried.refused(lambda update=update: tried.say("updatecompute", {"resourceId": "key"} | update))  # type: ignore[misc]
        assert (code, state.name in words) == ("conflict", True), words


@pytest.mark.parametrize(("verb", "arguments"), RIGHT.items())
def test_host_without_the_means(verb: str, arguments: dict[str, Any]) -> None:
    """A host that lacks the controller says so; beside that reason the record is as it was."""
    tried = Tried()
    tried.agents[0].refuses = lambda deed: "cgroup controller is not mounted"
    (before,) = tried.cell.call(ALICE, "getInstances")
    tried.cell.call(ALICE, verb, instance="web", **arguments)
    tried.cell.work()
    assert tried.cell.call(ALICE, "getInstances") == [before | {"reason": "cgroup controller is not mounted"}]
