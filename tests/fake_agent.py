"""The agent of one host in memory: it does what it is told when the test says so, well or badly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tashi.errors import TashiError
from tashi.model.causes import Cause, in_words
from tashi.model.host import HostFacts
from tashi.model.instance import Resources
from tashi.model.orders import (
    Adapt,
    Deed,
    Depart,
    Destroy,
    Migrate,
    NodeLogin,
    NodeWelcome,
    Observation,
    Offer,
    Order,
    Pause,
    PrepareDisks,
    Receive,
    Seen,
    Shutdown,
    Start,
    Suspend,
    Unpause,
)
from tashi.model.questions import Answer, Done, Question, Refused
from tests.builders import a_login, a_report, an_identity, some_facts

if TYPE_CHECKING:
    from tests.small_cell import SmallCell

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


class FakeAgent:
    """The agent of one host: `link` is an INodeLink. It keeps its orders, and carries them out when told to (`work`)."""

    def __init__(self, name: str, facts: HostFacts | None = None) -> None:
        self.name = name
        self.facts = facts or some_facts()
        self.boots = 1
        """Which boot of the machine it is on."""
        self.hangs = False
        """Whether it has stopped to answer, while its link still stands."""
        self.host_id = 0
        self.orders: list[Order] = []
        self.domains: dict[int, int] = {}
        """The generation of each instance that runs here."""
        self.incarnations: dict[int, str] = {}
        """The incarnation of each instance that this host has had an order about."""
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
        self.causes: dict[int, Cause] = {}
        """Why each instance that is paused here is."""
        self.deaf = False
        """Whether the guests here do not heed their power button."""
        self.expected: dict[int, int] = {}
        """What may arrive, and the generation by which it was announced."""
        self.tells_arrivals = True
        """Whether it says by itself that an instance has arrived, or is to be asked."""
        self.closed = 0
        self.mark = ""
        """The last mark that the control plane told."""
        self._cell: SmallCell | None = None
        self._link: _Link | None = None

    def login(self, cell: SmallCell, login: NodeLogin | None = None, *, tell_all: bool = True) -> NodeWelcome:
        """Log in and say what runs here."""
        link, self._link = _Link(self), None
        login = login or a_login(self.name, mark=self.mark, identity=an_identity(self.name, self.boots))
        welcome = result_of(cell.manager.node_door.login(login, link))
        self.mark = welcome.mark
        self.host_id, self._link, self._cell = welcome.host_id, link, cell
        if tell_all:
            self.tell(*self.all(), full=True)
        return welcome

    def all(self) -> list[Observation]:
        """One sighting for each domain."""
        return [self.sight(number) for number in self.domains]

    def sight(self, number: int) -> Observation:
        """What is seen of an instance that is here."""
        cause = self.causes.get(number) if number in self.paused else None
        words = "" if cause is None else in_words(cause)
        seen = self._seen(number)
        return Observation(
            instance_id=number,
            generation=self.domains[number],
            incarnation=self.incarnations.get(number, ""),
            seen=seen,
            cause=cause,
            reason=words,
        )

    def pause(self, number: int, cause: Cause) -> None:
        """The host pauses this instance by itself, or somebody does it there, and it says so."""
        self.paused.add(number)
        self.causes[number] = cause
        self.tell(self.sight(number))

    def go_on(self, number: int) -> None:
        """The instance continues, by nobody's order, and the host says so."""
        self.paused.discard(number)
        self.tell(self.sight(number))

    def tell(self, *observations: Observation, **fields: Any) -> None:
        """Report this; without observations it only says that the host lives. An observation that names no incarnation is of the one
        that this host knows."""
        observations = tuple(
            one if one.incarnation else msgspec.structs.replace(one, incarnation=self.incarnations.get(one.instance_id, ""))
            for one in observations
        )
        if self._cell is not None and self._link is not None:
            report = msgspec.structs.replace(a_report(*observations, **fields), facts=self.facts)
            self._cell.manager.hosts.report(self.host_id, self._link, report)

    def lose_link(self) -> None:
        """The connection breaks; the host lives on."""
        link, self._link = self._link, None
        self.orders.clear()
        if self._cell is not None and link is not None:
            self._cell.manager.hosts.logout(self.host_id, link)

    def restart(self) -> None:
        """The agent's process ends and begins again: what it was told is forgotten, what runs here runs on."""
        self.lose_link()
        if self._cell is not None:
            self.login(self._cell)

    def power_cut(self) -> None:
        """The machine stops: nothing that runs here survives, and it says nothing until it logs in again."""
        self.lose_link()
        self.domains.clear()
        self.expected.clear()
        self.boots += 1

    def work(self, most: int | None = None) -> int:
        """Carry out the orders that have come, or the first ``most`` of them, and say what became of them; how many there were."""
        orders, self.orders = self.orders[:most], self.orders[len(self.orders) if most is None else most :]
        told = [self._carry_out(order) for order in orders]
        if told:
            self.tell(*told)
        return len(orders)

    def _carry_out(self, order: Order) -> Observation:
        number, seen, fields = order.instance_id, Seen.RUNNING, {}
        about: dict[str, Any] = {
            "instance_id": number, "generation": order.generation, "incarnation": order.incarnation
        }  # fmt: skip
        if number in self.domains and self.incarnations.get(number, "") != order.incarnation:
            seen = Seen.FAILED if isinstance(order, Start) else Seen.GONE
            return Observation(**about, seen=seen, reason="the domain belongs to another instance; it was left alone")
        self.incarnations[number] = order.incarnation
        if isinstance(order, Destroy):
            self.domains.pop(number, None)
            self.expected.pop(number, None)
            self._saved().discard(order.saved)
            seen, fields = Seen.GONE, {"reason": "destroyed"}
        elif isinstance(order, Deed):
            seen, fields = self._do(order, self.refuses(order))
        elif (why := self.breaks(order)) is not None:
            seen, fields = Seen.FAILED, {"reason": why}
        elif isinstance(order, PrepareDisks):
            seen = Seen.READY
        elif order.saved and number not in self.domains and order.saved not in self._saved():
            seen, fields = Seen.FAILED, {"reason": "nothing is saved"}
        else:
            self._saved().discard(order.saved)
            self.domains[number] = order.generation
        return Observation(**about, seen=seen, **fields)

    def _do(self, deed: Deed, refused: str) -> tuple[Seen, dict[str, Any]]:
        """What is then seen, and what else is told."""
        number = deed.instance_id
        outcome: dict[str, Any] = {"done": True, "refused": refused}
        if isinstance(deed, Receive):
            if refused:
                return Seen.EXPECTED, outcome
            self.expected[number] = deed.generation
            return Seen.EXPECTED, outcome | {"offer": Offer(domain="as it will be", address=self.name, shared=True)}
        if isinstance(deed, Suspend) and number not in self.domains and deed.saved in self._saved():
            return Seen.SAVED, outcome
        if number not in self.domains:
            return Seen.MISSING, {"done": True}
        self.domains[number] = deed.generation
        match deed:
            case _ if refused:
                pass
            case Pause():
                self.paused.add(number)
                self.causes[number] = Cause.ADMINISTRATOR
            case Unpause():
                self.paused.discard(number)
            case Adapt():
                outcome["adapted"] = self.gives(deed.wished)
            case Depart():
                outcome["offer"] = Offer(domain="as it is")
            case Shutdown() if not self.deaf:
                del self.domains[number]
                return Seen.GONE, {}
            case Suspend():
                self._saved().add(deed.saved)
                del self.domains[number]
                return Seen.SAVED, outcome
            case Migrate():
                return self._migrate(deed)
        return self._seen(number), outcome | self._why(number)

    def _why(self, number: int) -> dict[str, Any]:
        seen = self.sight(number)
        return {"cause": seen.cause, "reason": seen.reason}

    def _migrate(self, deed: Migrate) -> tuple[Seen, dict[str, Any]]:
        number = deed.instance_id
        assert self._cell is not None
        target = next(agent for agent in self._cell.agents if agent.name == deed.address)
        if number not in target.expected:
            return Seen.RUNNING, {"done": True, "refused": f"{target.name} does not expect it"}
        del self.domains[number]
        target.domains[number] = target.expected.pop(number)
        target.incarnations[number] = deed.incarnation
        if target.tells_arrivals:
            target.tell(Observation(instance_id=number, generation=target.domains[number], seen=Seen.RUNNING))
        return Seen.GONE, {"reason": "migrated away", "cause": Cause.MIGRATED_AWAY}

    def _saved(self) -> set[str]:
        assert self._cell is not None
        return self._cell.saved

    def _seen(self, number: int) -> Seen:
        return Seen.PAUSED if number in self.paused else Seen.RUNNING


class _Link:
    def __init__(self, agent: FakeAgent) -> None:
        self._agent = agent

    def send(self, orders: Sequence[Order]) -> None:
        if self._agent._link is self:
            self._agent.orders.extend(orders)
            for order in orders:
                if order.instance_id not in self._agent.domains:
                    self._agent.incarnations[order.instance_id] = order.incarnation

    async def ask(self, question: Question) -> Answer:
        self._agent.questions.append(question)
        found = self._agent.answers(question)
        answer = await found if isinstance(found, Deferred) else found
        if isinstance(answer, Refused):
            raise TashiError(answer.code, answer.message)
        return answer

    def remember(self, mark: str) -> None:
        self._agent.mark = mark

    async def answers(self) -> bool:
        return self._agent._link is self and not self._agent.hangs

    def close(self) -> None:
        self._agent.closed += 1
        if self._agent._link is self:
            self._agent.lose_link()
