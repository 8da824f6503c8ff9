"""The agent's side of the link to the control plane: log in, list everything, then tell every change and that we live.

-> login_node [NodeLogin, an object that takes orders]     <- [a perspective, NodeWelcome]
-> report [Report]                                         <- ok; one at a time, what happens meanwhile goes into the next
<- orders [list of orders]                                 -> ok, they are queued
<- ask [a question]                                        -> its answer, or why there is none
The link is made again for ever. What was told and not acknowledged is told again over the next one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from twisted.application.internet import ClientService, backoffPolicy
from twisted.application.service import Service
from twisted.internet import task
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb

from tashi.clocks import within
from tashi.errors import INTERNAL, OurFault, TashiError
from tashi.interfaces import IHypervisor
from tashi.model.host import HostFacts
from tashi.model.host_identity import HostIdentity
from tashi.model.orders import NodeLogin, NodeWelcome, Observation, Order, Report, Seen
from tashi.model.questions import Question
from tashi.model.statistics import Sample, Statistics, pages_of
from tashi.node.access.answers import Answers
from tashi.node.agent_link import LinkFactory, Way
from tashi.node.executor import Executor
from tashi.node.listing import Listing
from tashi.node.network.own_card import mac_of
from tashi.node.sendable import encoded_report, read_orders
from tashi.node.statistics import Sampling
from tashi.wire.codec import decode, encode

PAGE_OBSERVATIONS: Final = 1000
LONGEST_DELAY: Final = 30.0
SILENT_PERIODS: Final = 3  # a link over which the other machine acknowledges nothing for so many report periods is dead
PATIENCE: Final = 90.0  # seconds for an answer: a control plane that was stopped for a minute is still the same one


class _Mind(pb.Referenceable):
    """What the control plane may call here."""

    def __init__(self, agent: NodeAgent, broker: pb.Broker, answers: Answers) -> None:
        self._agent = agent
        self._broker = broker
        self._answers = answers
        self.cell = ""  # as soon as we know it

    def remote_ask(self, text: bytes) -> Deferred[bytes]:
        """Answer a question, which may take as long as libvirt does."""
        return Deferred.fromCoroutine(self._ask(text))

    async def _ask(self, text: bytes) -> bytes:
        transport: Any = self._broker.transport
        return encode(await self._answers.answer(self.cell, getattr(transport.getHost(), "host", ""), decode(text, Question)))

    def remote_remember(self, mark: bytes) -> bytes:
        """Keep the mark in place of the one before."""
        self._agent.remember(mark.decode())
        return b"ok"

    def remote_orders(self, text: bytes) -> bytes:
        """Take orders; the answer means only that they are queued."""
        self._agent.take_orders(read_orders(text))
        return b"ok"


class NodeAgent(Service):
    """One host's agent. ``login`` gives what it shows at the door; ``period``: seconds between two reports at most; ``answers``
    knows what is asked at once; ``stats_interval``: seconds between two looks at what instances use, 0: none, by calls that hang in
    ``run_apart``; ``keep_mark`` keeps a mark of the cell's records for the next login."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoint: Any,
        login: Callable[[], NodeLogin],
        hypervisor: IHypervisor,
        run: Callable[..., Deferred[Any]],
        period: float,
        answers: Answers,
        run_long: Callable[..., Deferred[Any]] | None = None,
        stats_interval: float = 0.0,
        run_apart: Callable[..., Deferred[Any]] | None = None,
        keep_mark: Callable[[str], None] = lambda mark: None,
    ) -> None:
        self._reactor = reactor
        self._login = login
        self._hypervisor = hypervisor
        self._run = run
        self._period = period
        self._answers = answers
        self.executor = Executor(hypervisor, run, reactor, self.tell, run_long)
        self._policy = backoffPolicy(maxDelay=LONGEST_DELAY)
        self._failures = 0
        self._why = ""  # there is no link, as far as it was logged
        factory: Any = LinkFactory(self._connected, self._note_failure)
        way: Any = Way(endpoint, self._note_failure)
        self._client = ClientService(way, factory, retryPolicy=self._delay, clock=reactor)
        self._broker: pb.Broker | None = None
        self._avatar: pb.RemoteReference | None = None  # once everything was listed over this link
        self._facts: HostFacts | None = None
        self._identity: HostIdentity | None = None
        self._listing: Listing | None = None  # of the present link
        self._mac = ""
        self._untold: dict[tuple[int, str], Observation] = {}  # by id and incarnation
        self._cell = ""
        self._run_apart = run_apart or run
        self._keep_mark = keep_mark
        self._sampling = Sampling(reactor, stats_interval, self._sample, self._tell_use)
        self._use: list[Statistics] = []  # the pages that are not sent yet
        self._flushing = False
        self._flush_due = False
        self._beat = task.LoopingCall(self._tell_life)
        self._beat.clock = reactor
        self._beginning: Deferred[None] | None = None

    def startService(self) -> None:
        """Learn what the machine offers, then join."""
        super().startService()
        self._hypervisor.watch(lambda *hint: self._reactor.callFromThread(self._notice, *hint))
        self._beginning = Deferred.fromCoroutine(self._begin())
        self._beginning.addErrback(lambda failure: failure.trap(CancelledError))

    def stopService(self) -> Deferred[None]:
        """Let go of the link; what is under way on the machine is not waited for."""
        super().stopService()
        if self._beginning is not None:
            self._beginning.cancel()
        if self._beat.running:
            self._beat.stop()
        self._sampling.stop()
        self._stop_listing()
        self.executor.stop()
        return self._client.stopService()

    def take_orders(self, orders: Sequence[Order]) -> None:
        """Queue what the control plane wishes."""
        self.executor.give(orders)

    def remember(self, mark: str) -> None:
        """Keep a mark of the control plane's records, in a thread; without it only a loss of records is noticed less well."""
        if mark:
            kept = self._run(self._keep_mark, mark)
            kept.addErrback(lambda failure: self.log.warn("cannot keep the mark: {why}", why=failure.getErrorMessage()))

    def tell(self, observation: Observation) -> None:
        """Report this with whatever else happens in this turn of the reactor."""
        self._untold[observation.instance_id, observation.incarnation] = observation
        if observation.seen is Seen.MISSING and self._listing is not None:
            self._listing.hasten()
        self._flush_soon()

    def _notice(self, domain: str | None, *hint: Any) -> None:
        self.executor.notice(domain, *hint)
        if domain is None:
            self._answers.link_lost("the connection to libvirt is lost")

    async def _begin(self) -> None:
        delay = 0.5
        while self._facts is None:
            try:
                self._identity = await self._run(self._hypervisor.identity)
                self._facts = await self._run(self._hypervisor.facts)
            except OurFault as fault:
                self.log.warn("{fault}", fault=fault.message)
                delay = min(2 * delay, LONGEST_DELAY)
                await task.deferLater(self._reactor, delay)
        self._client.startService()
        self._beat.start(self._period, now=False)
        self._sampling.start()

    def _delay(self, attempt: int) -> float:
        """Seconds until the next attempt; a link that came to no login counts as a failed one."""
        self._failures += 1
        return min(self._policy(self._failures), LONGEST_DELAY)

    def _connected(self, broker: pb.Broker) -> None:
        self._broker = broker
        self._avatar = None
        transport: Any = broker.transport
        if isinstance(transport.getHost(), IPv4Address | IPv6Address):
            self._mac = mac_of(transport.getHost().host)
            _limit_unacknowledged(transport, SILENT_PERIODS * self._period)
            transport.setTcpNoDelay(True)  # a report follows an acknowledgement closely, and shall not wait for its ACK
        broker.notifyOnDisconnect(lambda: self._disconnected(broker))
        Deferred.fromCoroutine(self._join(broker)).addErrback(self._drop, broker)

    def _disconnected(self, broker: pb.Broker) -> None:
        if broker is self._broker:
            if self._avatar is not None:
                self.log.warn("the link to the control plane is lost")
            self._broker = self._avatar = None
            self._stop_listing()
            self._use.clear()
            self._answers.link_lost("the control plane has gone")

    def _note_failure(self, failure: Failure) -> Failure:
        """Log why there is no link, once for each reason in a row."""
        why = failure.getErrorMessage() or type(failure.value).__name__
        if why != self._why and not failure.check(CancelledError):
            self._why = why
            self.log.warn("no link to the control plane: {why}", why=why)
        return failure

    def _drop(self, failure: Failure, broker: pb.Broker | None) -> None:
        if broker is not self._broker:
            return  # the link went down under what failed
        self._note_failure(failure)
        transport: Any = broker and broker.transport
        if transport is not None:
            transport.abortConnection()

    async def _join(self, broker: pb.Broker) -> None:
        mind = _Mind(self, broker, self._answers)
        identity = await self._identify()
        login = msgspec.structs.replace(self._login(), identity=identity)
        avatar, answer = await self._in_time(broker.remoteForName("root").callRemote("login_node", encode(login), mind))
        if avatar is None:
            raise _refusal(answer)
        welcome: NodeWelcome = decode(answer, NodeWelcome)
        self._failures = 0
        self._why = ""
        self.log.info("logged in as host {id} of cell {cell}", id=welcome.host_id, cell=welcome.cell)
        self._cell = welcome.cell
        mind.cell = welcome.cell
        self.remember(welcome.mark)
        self.executor.enter(welcome.cell)
        await self._list_all(broker, avatar, identity)
        if broker is self._broker:
            self._avatar = avatar
            self._listing = Listing(self._reactor, lambda: self._list_again(broker, avatar, identity))
            self._flush_soon()

    async def _identify(self) -> HostIdentity | None:
        """Return which machine this is; while libvirt is away it is the one that it was."""
        try:
            self._identity = await within(self._run(self._hypervisor.identity), self._period / 2, self._reactor)
        except Exception as error:
            self.log.warn("the machine's identity is that of before: {error}", error=str(error) or "libvirt does not answer")
        return self._identity

    def _list_again(self, broker: pb.Broker, avatar: pb.RemoteReference, identity: HostIdentity | None) -> Deferred[None]:
        listed = Deferred.fromCoroutine(self._list_all(broker, avatar, identity))
        return listed.addErrback(self._drop, broker)

    def _stop_listing(self) -> None:
        listing, self._listing = self._listing, None
        if listing is not None:
            listing.stop()

    async def _list_all(self, broker: pb.Broker, avatar: pb.RemoteReference, identity: HostIdentity | None) -> None:
        """Say what is here, all of it, in pages; OurFault when it is another libvirt's than the one that has logged in."""
        survey = Deferred.fromCoroutine(self.executor.survey())
        broker.notifyOnDisconnect(survey.cancel)
        seen = await survey
        broker.dontNotifyOnDisconnect(survey.cancel)
        if await self._run(self._hypervisor.identity) != identity:
            raise OurFault(INTERNAL, "libvirt is another than the one that has logged in; the agent logs in again")
        pages = [seen[start : start + PAGE_OBSERVATIONS] for start in range(0, len(seen), PAGE_OBSERVATIONS)] or [[]]
        for number, listed in enumerate(pages, 1):
            page = [now for one in listed if (now := self.executor.latest(one)) is not None]  # it may have changed since
            await self._report(avatar, page, full=True, page=number, pages=len(pages))
            self._told(None, page)

    def _flush_soon(self) -> None:
        if not self._flush_due and self._avatar is not None:
            self._flush_due = True
            self._reactor.callLater(0, self._flush)

    def _flush(self, alive: bool = False) -> None:
        """Send what is untold, or with ``alive`` at least that we live, unless a report is on its way: then it follows."""
        self._flush_due = False
        if self._flushing or self._avatar is None or not (self._untold or self._use or alive):
            return
        self._flushing = True
        told = list(self._untold.values())[:PAGE_OBSERVATIONS]
        use = self._use.pop(0) if self._use else None
        sent = Deferred.fromCoroutine(self._report(self._avatar, told, statistics=use))
        sent.addCallback(self._told, told)
        sent.addErrback(self._drop, self._broker)
        sent.addBoth(self._flushed)

    def _told(self, ignored: object, told: Sequence[Observation]) -> None:
        for observation in told:
            key = observation.instance_id, observation.incarnation
            if self._untold.get(key) is observation:
                del self._untold[key]

    def _flushed(self, ignored: object) -> None:
        self._flushing = False
        if self._untold or self._use:
            self._flush_soon()

    async def _report(self, avatar: pb.RemoteReference, observations: Sequence[Observation], **place: Any) -> None:
        assert self._facts is not None
        report = Report(facts=msgspec.structs.replace(self._facts, mac=self._mac), observations=tuple(observations), **place)
        answer = await self._in_time(avatar.callRemote("report", encoded_report(report)))
        if answer != b"ok":
            raise _refusal(answer)

    async def _tell_life(self) -> None:
        """Renew the lease, with the facts of the machine if they can be had in time."""
        try:
            self._facts = await self._run(self._hypervisor.facts).addTimeout(self._period / 2, self._reactor)
        except Exception as error:
            self.log.warn("the machine's facts are those of before: {error}", error=str(error) or "libvirt does not answer")
        self._flush(alive=True)

    def _sample(self) -> Deferred[Sample] | None:
        return self._run_apart(self._hypervisor.statistics, self._cell) if self._cell else None

    def _tell_use(self, statistics: Statistics) -> None:
        """Tell this in place of what is older; without a link it is not worth keeping."""
        self._use = pages_of(statistics, PAGE_OBSERVATIONS) if self._avatar is not None else []
        self._flush_soon()

    def _in_time(self, answer: Deferred[Any]) -> Deferred[Any]:
        return within(answer, max(SILENT_PERIODS * self._period, PATIENCE), self._reactor)


def _limit_unacknowledged(transport: Any, seconds: float) -> None:
    """Have the kernel end the connection when the other machine acknowledges nothing for this long. A program that is only stopped is
    still acknowledged for by its kernel."""
    sock = getattr(getattr(transport, "transport", transport), "socket", None)  # within TLS, or without
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * seconds))


class _Refused(TashiError):
    """The control plane's own words."""


def _refusal(answer: bytes) -> TashiError:
    error = decode(answer, dict[str, Any]).get("error", {})
    return _Refused(str(error.get("code", "")), str(error.get("message", "the control plane refused without a word")))
