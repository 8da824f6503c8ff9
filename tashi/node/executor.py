"""Orders carried out: one after another for one instance, side by side for different ones; each outcome is told as an observation.

Only the newest order of an instance waits: what it overtook is void. An order that was carried out already is answered with what is seen
now, an older one is refused. What libvirt says of a domain's life is a hint to look, never taken as the truth. While libvirt is away the
orders wait, and afterwards everything is looked at again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from tashi.errors import OurFault
from tashi.interfaces import IHypervisor
from tashi.model.bounds import cut
from tashi.model.causes import Cause, in_words
from tashi.model.instance import Nic, domain_uuid
from tashi.model.orders import Deed, Destroy, Observation, Order, Seen
from tashi.node.carry_out import LONGEST_REASON, carry_out
from tashi.node.faults import HypervisorAway
from tashi.node.life import ALIVE, AT_AN_END, Key, Life, interval, is_forgotten, is_news, same, takes_long
from tashi.node.lives import Lives
from tashi.node.room_timer import RoomTimer

STUCK_SECONDS: Final = 5.0
"""A deed that takes longer although it should not waits for a guest whose process does not answer."""
SHORTEST_WAIT: Final = 0.2
LONGEST_WAIT: Final = 10.0


class Executor:
    """The queues of one host. ``run(function, *arguments)`` calls in a thread, ``run_long`` in one of those for what may take minutes;
    ``tell`` gets every observation, in the reactor."""

    log = Logger()

    def __init__(
        self,
        hypervisor: IHypervisor,
        run: Callable[..., Deferred[Any]],
        clock: Any,
        tell: Callable[[Observation], None],
        run_long: Callable[..., Deferred[Any]] | None = None,
    ) -> None:
        self._hypervisor = hypervisor
        self._run = run
        self._run_long = run_long or run
        self._clock = clock
        self._tell = tell
        self._cell = ""
        self._nics: dict[int, tuple[Nic, ...]] = {}  # as they were learnt
        self._lives = Lives()
        self._room = RoomTimer(clock, self._look_for_room)
        self._changes = 0
        self._returning: Deferred[Any] | None = None
        self._stopped = False

    @property
    def cell(self) -> str:
        """The UUID of the cell that is served, '' as long as there is none."""
        return self._cell

    def enter(self, cell: str) -> None:
        """Serve this cell from now on; what was known of another one is forgotten."""
        if cell != self._cell:
            self._cell = cell
            self._lives.clear()
            self._nics.clear()
            self._room.stop()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True
        self._room.stop()
        if self._returning is not None:
            self._returning.cancel()

    def give(self, orders: Sequence[Order]) -> None:
        """Take these orders, in their sequence."""
        for order in orders:
            self._take(order)

    def learn(self, instance_id: int, nics: tuple[Nic, ...]) -> None:
        """Tell with an instance what was found out of its network cards."""
        self._nics[instance_id] = nics
        for life in self._lives.of_instance(instance_id):
            if life.last is not None and life.last.seen in ALIVE and not life.busy:
                self._note(life, self._answering(life, life.last))

    def notice(self, domain: str | None, seen: Seen | None = None, cause: Cause | None = None) -> None:
        """What libvirt says of a domain's life; None: it was out of sight."""
        if domain is None:
            self._wait_for_hypervisor()
            return
        for life in (lives := self._lives.of_domain(domain)):
            life.notice(seen, cause)
            self._proceed(life)
        if not lives and seen in ALIVE and self._cell and not self._stopped:
            looked = self._run(self._hypervisor.look, self._cell, domain).addCallback(self._meet, domain)
            looked.addErrback(lambda failure: failure.trap(CancelledError, OurFault))  # the next list will have it

    def _meet(self, observation: Observation | None, domain: str) -> None:
        """A domain that nobody ordered, such as one that was moved here by hand: if it is the cell's, that is told."""
        if observation is not None and observation.seen in ALIVE and not self._lives.of_domain(domain):
            life = self._lives.begin((observation.instance_id, observation.incarnation), domain)
            life.generation = observation.generation
            self._note(life, observation)

    async def survey(self) -> list[Observation]:
        """What is seen of every instance now; waits until libvirt can be asked. What has ended is cleared away and told by itself, too."""
        delay = 0.5
        while True:
            since = self._changes
            try:
                found = await self._run(self._hypervisor.domains, self._cell)
            except CancelledError:
                raise
            except OurFault as fault:
                self.log.warn("{fault}", fault=fault.message)
            except Exception:
                self.log.failure("the instances were not listed")
            else:
                return self._adopt(found, since)
            delay = min(2 * delay, LONGEST_WAIT)
            await deferLater(self._clock, delay)

    def latest(self, observation: Observation) -> Observation | None:
        """Return what is known now of an instance that was listed; None: it has ended since, which is told by itself."""
        life = self._lives.of((observation.instance_id, observation.incarnation))
        if life is None or life.last is None:
            return observation
        return self._answering(life, life.last) if life.last.seen in (*ALIVE, observation.seen) else None

    def _take(self, order: Order) -> None:
        life = self._lives.begin((order.instance_id, order.incarnation), order.uuid)
        destroying = isinstance(order, Destroy)
        if (order.generation, destroying) < (life.generation, life.destroying):
            self.log.info("refused an old order for instance {id}", id=order.instance_id)
        elif (order.generation, destroying) > (life.generation, life.destroying):
            life.generation, life.destroying, life.waiting, life.done = order.generation, destroying, order, None
            self._lives.goes_on(life)
            if destroying and life.busy:
                self._clock.callLater(0 if life.at is not None else STUCK_SECONDS, self._end, life)
            self._proceed(life)
        elif life.busy and life.waiting is None and not life.has_begun(order):
            life.waiting = order  # an agent before this one had it; what is under way is only a look
        elif not life.busy and life.waiting is None:  # otherwise its outcome is still to come
            if isinstance(order, Deed) and life.done is None:
                life.waiting = order  # whoever ran here before us may not have got to it
                self._proceed(life)
            elif destroying and not life.is_gone:
                life.waiting = order  # the wish to be rid of it stands, whatever was seen of it since it failed
                self._proceed(life)
            elif life.last is None or life.last.seen in ALIVE:
                life.look = life.asked = True
                self._proceed(life)
            else:
                self._tell(life.last)

    def _proceed(self, life: Life) -> None:
        """Begin what is next for this instance, if anything is, and nothing is under way for its domain."""
        if self._stopped or self._returning is not None or self._lives.is_busy(life.domain):
            return
        if life.waiting is not None:
            order, life.waiting = life.waiting, None
            life.busy, life.look = True, False
            run = self._run
            if takes_long(order):
                run, life.at, life.percent = self._run_long, order, None
                self._clock.callLater(interval(order), self._ask_progress, life, order)
            elif isinstance(order, Deed):
                self._clock.callLater(STUCK_SECONDS, self._look_if_stuck, life, order)
            life.order = order
            run(carry_out, self._hypervisor, self._cell, order).addCallbacks(
                self._finished, self._failed, callbackArgs=(life,), errbackArgs=(life, order)
            ).addErrback(self._broken)
        elif life.look or is_news(life):
            life.busy, life.look, life.hint = True, False, None
            known = (life.domain, life.generation, life.known_cause, life.incarnation)
            self._run(self._hypervisor.settle, self._cell, *known).addCallbacks(
                self._looked_at, self._failed, callbackArgs=(life,), errbackArgs=(life, None)
            ).addErrback(self._broken)
        else:
            life.hint = None

    def _end(self, life: Life) -> None:
        """What is under way and keeps a Destroy waiting is to end."""
        if life.busy and life.destroying and life.waiting is not None and not self._stopped:
            self._run(self._hypervisor.abort, self._cell, life.domain, life.incarnation).addErrback(self._broken)

    def _look_if_stuck(self, life: Life, order: Deed) -> None:
        if life.busy and life.order is order and life.waiting is None and life.last is not None and not self._stopped:
            self._tell(msgspec.structs.replace(life.last, stuck=True, done=False))

    def _ask_progress(self, life: Life, order: Order) -> None:
        if life.at is order and not self._stopped:
            # an abort that came before there was anything to end is said again
            if life.destroying:
                asked = self._run(self._hypervisor.abort, self._cell, life.domain, life.incarnation)
            else:
                asked = self._run(self._hypervisor.progress, self._cell, life.domain)
            asked.addCallback(self._tell_progress, life, order).addErrback(self._broken)
            asked.addBoth(lambda ignored: self._clock.callLater(interval(order), self._ask_progress, life, order))

    def _tell_progress(self, percent: int | None, life: Life, order: Order) -> None:
        if life.at is order and life.waiting is None and percent is not None and percent != life.percent:
            life.percent = percent
            seen = life.last.seen if life.last is not None and life.last.seen in ALIVE else Seen.EXPECTED
            self._tell(life.observed(seen, generation=order.generation, progress=percent))

    def _finished(self, observation: Observation | None, life: Life) -> None:
        life.busy, life.at = False, None
        if observation is None:
            life.asked = True
            self._looked_at(None, life, done=True)
            return
        life.keep_outcome(observation)
        self._note(life, observation)
        self._proceed_all(life)

    def _looked_at(self, observation: Observation | None, life: Life, *, done: bool = False) -> None:
        """Note what was seen; ``done``: an order found no domain, which is its outcome."""
        life.busy = False
        if observation is not None:
            self._note(life, self._answering(life, observation))
        elif life.asked or (life.last is not None and life.last.seen in ALIVE):
            generation = life.order.generation if done and life.order is not None else life.generation
            cause = life.cause if life.cause in AT_AN_END else None
            seen, reason = (Seen.MISSING, "") if cause is None else (Seen.GONE, in_words(cause))
            self._note(life, life.observed(seen, generation=generation, reason=reason, cause=cause, done=done))
        self._proceed_all(life)

    def _proceed_all(self, life: Life) -> None:
        """Begin what is next for the instance, or else for another incarnation that waits for the domain."""
        for one in (life, *self._lives.of_domain(life.domain)):
            self._proceed(one)

    def _answering(self, life: Life, observation: Observation) -> Observation:
        """A domain that was to be destroyed and is still there is seen in answer to that order; after a deed, in answer to it."""
        if life.destroying and observation.generation < life.generation:
            return msgspec.structs.replace(observation, generation=life.generation)
        if life.done is not None and not life.busy and life.waiting is None:
            done = life.done
            return msgspec.structs.replace(
                observation, generation=done.generation, done=True, refused=done.refused, adapted=done.adapted, offer=done.offer
            )
        return observation

    def _failed(self, failure: Failure, life: Life, order: Order | None) -> None:
        """A call that gave no outcome: libvirt is away, or the program is at fault. Nothing is told; the order will be repeated."""
        life.busy, life.at = False, None
        if failure.check(HypervisorAway):
            if life.waiting is None:
                life.waiting = order
            life.look = life.look or order is None
            self._wait_for_hypervisor()
            return
        self.log.failure("instance {id} was not looked after", failure, id=life.instance_id)
        self._proceed_all(life)

    def _broken(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("an outcome was lost", failure)

    def _note(self, life: Life, observation: Observation) -> None:
        """Keep what was seen, and tell it unless it was told or a newer order made it void."""
        self._changes += 1
        life.changed = self._changes
        known = life.last
        nics = self._nics.get(life.instance_id) or observation.nics or (known.nics if known is not None and known.seen in ALIVE else ())
        reason = cut(observation.reason, LONGEST_REASON)
        observation = msgspec.structs.replace(observation, at=self._clock.seconds(), reason=reason, nics=nics)
        life.last = observation
        if observation.cause is Cause.NO_SPACE and not self._stopped:
            self._room.wait(life.key)
        if observation.seen not in ALIVE:
            self._nics.pop(life.instance_id, None)
            for ended in self._lives.has_ended(life):
                self._room.forget(ended.key)
        if life.waiting is None and (life.asked or not same(known, observation)):
            life.asked = False
            self._tell(observation)

    def _look_for_room(self, key: Key) -> None:
        """Let a guest that had no space on its disks continue, if there is some."""
        life = self._lives.of(key)
        if life is None or life.last is None or life.last.cause is not Cause.NO_SPACE:
            return
        if self._lives.is_busy(life.domain) or life.waiting is not None or self._returning is not None:
            self._room.wait(key)
            return
        life.busy = True
        tried = self._run(self._hypervisor.resume_if_room, self._cell, life.domain, life.incarnation)
        tried.addErrback(self._no_room, life).addCallback(self._tried, life).addErrback(self._broken)

    def _no_room(self, failure: Failure, life: Life) -> None:
        failure.trap(OurFault)
        self.log.warn("instance {id} stays paused: {why}", id=life.instance_id, why=failure.getErrorMessage())

    def _tried(self, ignored: object, life: Life) -> None:
        life.busy, life.look = False, True
        if not self._stopped:
            self._room.wait(life.key)
        self._proceed_all(life)

    def _adopt(self, found: Sequence[Observation], since: int) -> list[Observation]:
        """Make what was listed what is known, but for what changed after `since` or is being changed; the list, brought up to date."""
        listed = {(each.instance_id, each.incarnation): each for each in map(self._lives.recognized, found)}
        for key, observation in list(listed.items()):
            life = self._lives.begin(key, str(domain_uuid(uuid.UUID(self._cell), observation.instance_id)))
            if life.busy or life.waiting is not None or life.changed > since:
                continue
            if life.last is not None and is_forgotten(life.last, observation):
                listed[key] = life.last
                continue
            if observation.seen is Seen.GONE and not observation.reason:
                life.look = True  # never begun: cleared away without a word, and its order, when it comes again, is a new one
                self._proceed(life)
                continue
            life.generation = max(life.generation, observation.generation)
            if observation.seen in ALIVE:
                self._note(life, self._answering(life, observation))
            else:
                life.look = True  # to clear it away
                self._proceed(life)
        for life in self._lives:
            unseen = life.key not in listed and life.last is not None and life.last.seen in ALIVE
            if unseen and not life.busy and life.changed <= since:
                life.look = True
                self._proceed(life)
            if life.last is not None and (life.changed > since or same(life.last, listed.get(life.key))):
                listed[life.key] = life.last
        return [
            self._answering(self._lives.begin(key, ""), each)
            for key, each in listed.items()
            if each.seen in (*ALIVE, Seen.SAVED) or (each.seen is Seen.GONE and each.reason) or each.cause is Cause.UNMARKED
        ]

    def _wait_for_hypervisor(self) -> None:
        """Hold everything until libvirt answers, then look at everything."""
        if self._returning is None and not self._stopped and self._cell:
            self._returning = Deferred.fromCoroutine(self._return())
            self._returning.addCallbacks(self._back, self._broken)

    async def _return(self) -> None:
        await deferLater(self._clock, SHORTEST_WAIT)  # a daemon that comes and goes must not make us spin
        await self.survey()

    def _back(self, ignored: object) -> None:
        self._returning = None
        for life in self._lives:
            self._proceed(life)
