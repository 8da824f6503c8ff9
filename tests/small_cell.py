"""A cell in memory, on a clock that only the test moves: a real cluster manager, a store, and hosts that do as the test says."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tashi.errors import UNKNOWN_IMAGE, TashiError, YourMistake
from tashi.images.directory import Image
from tashi.interfaces import IStore
from tashi.manager.service import ClusterManager
from tashi.manager.settings import ManagerSettings
from tashi.model.host import HostFacts
from tashi.model.instance import Instance, InstanceSpec, InstanceUpdate, Resources
from tashi.model.orders import (
    Adapt,
    Deed,
    Destroy,
    NodeLogin,
    NodeWelcome,
    Observation,
    Order,
    Pause,
    PrepareDisks,
    Seen,
    Shutdown,
    Start,
    Unpause,
)
from tashi.model.questions import Answer, Done, Question, Refused
from tashi.model.request import Origin, Outgoing
from tashi.model.user import Principal
from tashi.store.memory import MemoryStore
from tests.builders import ISM, USERS, a_login, a_report, a_spec, an_origin, some_facts

Result = TypeVar("Result")


def result_of(work: Awaitable[Result] | Coroutine[Any, Any, Result]) -> Result:
    """What the work comes to; it must be at its end already. Its exception is raised here."""
    outcome: list[Any] = []
    Deferred.fromCoroutine(_awaited(work)).addBoth(outcome.append)
    assert outcome, "it is not finished yet"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


async def _awaited(work: Awaitable[Result]) -> Result:
    return await work


class Process:
    """The part of a clock that belongs to one process: killed, none of its calls happens any more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.alive = True

    def seconds(self) -> float:
        return self._clock.seconds()

    def callLater(self, delay: float, call: Callable[..., object], *arguments: Any, **named: Any) -> Any:
        return self._clock.callLater(delay, lambda: call(*arguments, **named) if self.alive else None)

    def kill(self) -> None:
        self.alive = False


class Images:
    """Two images, called tashi and other, and whatever persistent disk is named."""

    path = "/images"

    def resolve(self, identifier: str) -> str:
        if identifier.startswith("disk-"):
            return identifier
        name = identifier.removesuffix(".img")
        if name not in ("tashi", "other"):
            raise YourMistake(UNKNOWN_IMAGE, f"there is no image {identifier}")
        return f"{name}.img"

    def forget_saved(self, saved: str) -> None:
        self.forgotten = saved

    def list(self) -> list[Image]:
        return [Image(id=0, image_name="tashi.img", image_size="1.00G")]


class FakeAgent:
    """The agent of one host: `link` is an INodeLink. It keeps its orders, and carries them out when told to (`work`)."""

    def __init__(self, name: str, facts: HostFacts | None = None) -> None:
        self.name = name
        self.facts = facts or some_facts()
        self.host_id = 0
        self.orders: list[Order] = []
        self.domains: dict[int, int] = {}
        """The generation of each instance that runs here."""
        self.breaks: Callable[[Start | PrepareDisks], str | None] = lambda order: None
        """Why a start, or a copy, fails; None: it does not."""
        self.refuses: Callable[[Deed], str] = lambda deed: ""
        """Why a deed is refused; empty: it is not."""
        self.gives: Callable[[Resources], Resources] = lambda wished: wished
        """What the hypervisor has after an adaptation."""
        self.questions: list[Question] = []
        self.answers: Callable[[Question], Answer | Deferred[Answer]] = lambda question: Done()
        """What is said to a question."""
        self.paused: set[int] = set()
        self.deaf = False
        """Whether the guests here do not heed their power button."""
        self.closed = 0
        self._cell: SmallCell | None = None
        self._link: _Link | None = None

    def login(self, cell: SmallCell, login: NodeLogin | None = None, *, tell_all: bool = True) -> NodeWelcome:
        """Log in and say what runs here."""
        link = _Link(self)
        welcome = result_of(cell.manager.hosts.login(login or a_login(self.name), link))
        self.host_id, self._link, self._cell = welcome.host_id, link, cell
        if tell_all:
            self.tell(*self.all(), full=True)
        return welcome

    def all(self) -> list[Observation]:
        """One sighting for each domain."""
        return [Observation(instance_id=number, generation=age, seen=self._seen(number)) for number, age in self.domains.items()]

    def tell(self, *observations: Observation, **fields: Any) -> None:
        """Report this; without observations it only says that the host lives."""
        if self._cell is not None and self._link is not None:
            report = msgspec.structs.replace(a_report(*observations, **fields), facts=self.facts)
            self._cell.manager.hosts.report(self.host_id, self._link, report)

    def lose_link(self) -> None:
        """The connection breaks; the host lives on."""
        link, self._link = self._link, None
        self.orders.clear()
        if self._cell is not None and link is not None:
            self._cell.manager.hosts.logout(self.host_id, link)

    def work(self) -> int:
        """Carry out the orders that have come, and say what became of them; how many there were."""
        orders, self.orders = self.orders, []
        told: list[Observation] = []
        for order in orders:
            about = {"instance_id": order.instance_id, "generation": order.generation}
            if isinstance(order, Destroy):
                self.domains.pop(order.instance_id, None)
                told.append(Observation(**about, seen=Seen.GONE, reason="destroyed"))
            elif isinstance(order, Deed):
                refused = self.refuses(order)
                adapted = self.gives(order.wished) if isinstance(order, Adapt) and not refused else None
                told.append(Observation(**about, seen=self._do(order, refused), done=True, refused=refused, adapted=adapted))
            elif (why := self.breaks(order)) is not None:
                told.append(Observation(**about, seen=Seen.FAILED, reason=why))
            elif isinstance(order, PrepareDisks):
                told.append(Observation(**about, seen=Seen.READY))
            else:
                self.domains[order.instance_id] = order.generation
                told.append(Observation(**about, seen=Seen.RUNNING))
        if told:
            self.tell(*told)
        return len(orders)

    def _do(self, deed: Deed, refused: str) -> Seen:
        number = deed.instance_id
        self.domains[number] = deed.generation
        match deed:
            case Pause() if not refused:
                self.paused.add(number)
            case Unpause() if not refused:
                self.paused.discard(number)
            case Shutdown() if not refused and not self.deaf:
                del self.domains[number]
                return Seen.GONE
        return self._seen(number)

    def _seen(self, number: int) -> Seen:
        return Seen.PAUSED if number in self.paused else Seen.RUNNING


class _Link:
    def __init__(self, agent: FakeAgent) -> None:
        self._agent = agent

    def send(self, orders: Sequence[Order]) -> None:
        if self._agent._link is self:
            self._agent.orders.extend(orders)

    async def ask(self, question: Question) -> Answer:
        self._agent.questions.append(question)
        found = self._agent.answers(question)
        answer = await found if isinstance(found, Deferred) else found
        if isinstance(answer, Refused):
            raise TashiError(answer.code, answer.message)
        return answer

    def close(self) -> None:
        self._agent.closed += 1
        if self._agent._link is self:
            self._agent.lose_link()


class SmallCell:
    """One cell; `restart` ends its manager as a power cut would and starts the next on the same rows."""

    def __init__(self, store: IStore | None = None, *, hosts: Sequence[FakeAgent] = (), publishing: bool = True, **settings: Any) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.store = store or MemoryStore()
        self.settings = ManagerSettings(**{"trusted": frozenset({ISM.jid}), **settings})
        self.publishing = publishing
        self.agents = list(hosts)
        self._told: dict[int, Outgoing] = {}
        self._start()
        with self.manager.cluster.transaction("register_users") as tx:
            for user in USERS:
                tx.put_user(user)
        self.settle()

    def _start(self) -> None:
        self.process = Process(self.clock)
        self.manager = ClusterManager(
            self.process, self.store, Images(), self.settings, join_secret="join", version="1", publishing=self.publishing
        )  # type: ignore[arg-type]
        result_of(self.manager.open())
        self.manager.startService()
        self.manager.outbox.subscribe(self._collect)
        self._collect()
        for agent in self.agents:
            agent.login(self)

    def restart(self) -> None:
        """Everything that is not on the disk yet is lost; the hosts live on and come back."""
        self.process.kill()
        for agent in self.agents:
            agent.orders.clear()
        self._start()
        self.settle()

    def join(self, agent: FakeAgent) -> FakeAgent:
        """One more host."""
        self.agents.append(agent)
        agent.login(self)
        self.settle()
        return agent

    def settle(self, seconds: float = 0.2) -> None:
        """Let this much time pass, in which hosts do what they are told."""
        for _ in range(max(1, round(seconds / 0.02))):
            self.clock.advance(0.02)

    def work(self) -> None:
        """Let every host carry out its orders, and what follows from them, until nothing more does."""
        self.settle()
        while sum(agent.work() for agent in self.agents):
            self.settle()

    def deliver(self) -> None:
        """All that is outgoing arrives."""
        self.manager.outbox.done([row.id for row in self.manager.outbox.pending()])

    def live(self, seconds: float) -> None:
        """Let time pass in which the hosts that have a link say that they live."""
        for _ in range(max(1, round(seconds))):
            self.clock.advance(1.0)
            for agent in self.agents:
                agent.tell()
        self.settle()

    def create(self, *specs: InstanceSpec, stanza: str = "s1", who: Principal = ISM, origin: Origin | None = None) -> None:
        """The ISM's createcompute, or createmanycompute of several."""
        wanted = specs or (a_spec(),)
        verb = "createcompute" if len(wanted) == 1 else "createmanycompute"
        self.manager.commands.create(who, origin or an_origin(stanza, verb), wanted, [str(spec) for spec in wanted])

    def delete(self, reference: int | str, stanza: str = "d1", who: Principal = ISM) -> None:
        """The ISM's deletecompute."""
        self.manager.commands.delete(who, an_origin(stanza, "deletecompute"), reference)

    def update(self, resource_id: str, stanza: str = "u1", who: Principal = ISM, **fields: Any) -> None:
        """The ISM's updatecompute; the fields are those of Resources, and beside them those of InstanceUpdate."""
        resources = Resources(**{name: fields.pop(name) for name in list(fields) if name in Resources.__struct_fields__})
        update = InstanceUpdate(resource_id=resource_id, resources=resources, **fields)
        self.manager.commands.update(who, an_origin(stanza, "updatecompute"), update)

    def call(self, who: Principal, verb: str, **arguments: Any) -> Any:
        """A verb over Perspective Broker, and the moment that its answer takes."""
        call = Deferred.fromCoroutine(self.manager.verbs.call(who, verb, arguments))
        self.settle()
        return result_of(call)

    def instance(self, name: str = "vm1") -> Instance:
        """The newest living instance of this name."""
        return max((one for one in self.manager.cluster.instances.values() if one.name == name), key=lambda one: one.id)

    def state(self, name: str = "vm1") -> str:
        """Its state's name; "none" when no such instance lives."""
        found = [one for one in self.manager.cluster.instances.values() if one.name == name]
        return found[-1].state.name if found else "none"

    @property
    def replies(self) -> list[dict[str, Any]]:
        """The bodies of all that was ever told to somebody, oldest first, the same stanza id only once."""
        rows = {row.stanza_id: row for row in self._told.values() if row.to}
        return [json.loads(row.body) for row in rows.values()]

    @property
    def outgoing(self) -> list[Outgoing]:
        """All rows that ever left."""
        return list(self._told.values())

    @property
    def all_events(self) -> list[dict[str, Any]]:
        """All events that ever left, oldest first."""
        return [json.loads(row.body) for row in self._told.values() if not row.to]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The same without layouts."""
        return [event for event in self.all_events if event["type"] != "vmLayout"]

    def actions(self) -> list[str]:
        """What happened to instances, in their events' words."""
        return [event["action"] for event in self.events if event["type"] == "vmAction"]

    def _collect(self) -> None:
        self._told.update({row.id: row for row in self.manager.outbox.pending()})
