"""What agents keep of the cell's records, and what is done when records were lost.

Each agent keeps a signed `Mark` on its disk and shows it when it logs in. A mark that the store does not contain means that the
whole state directory went back in time, its own marker with it. Nobody but this cell can make a mark, so a hostile agent can show
an old one at most.
"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec
from twisted.logger import Logger

from tashi.errors import CONFLICT, INTERNAL, OurFault, YourMistake
from tashi.interfaces import IStore
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.lifecycle import advance
from tashi.model.causes import Cause, in_words
from tashi.model.events import cell_action
from tashi.model.instance import Instance
from tashi.model.marks import GENERATION_STEP, LOSS, Loss, Mark, sign, verify
from tashi.model.states import Happening, HostState, InstanceState

MOST_WARNINGS: Final = 3
MOST_STRANGERS: Final = 1000
MOST_NAMED: Final = 10
_TO_BE_STARTED: Final = frozenset({InstanceState.Pending, InstanceState.PreparingDisk, InstanceState.Activating, InstanceState.Resuming})


class Marks:
    """Tells marks, compares those that come back, and steps over every number that lost records may have given out."""

    log = Logger()

    def __init__(self, cluster: Cluster, store: IStore, cell: str) -> None:
        self._cluster = cluster
        self._store = store
        self._cell = cell
        self._key = cluster.setting("markKey", lambda: secrets.token_hex(32))
        self._losses: tuple[str, ...] = ()
        self._strangers: dict[str, str] = {}
        """The hosts whose mark these records did not make, each with the warning about it."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should know of losses since the start."""
        return self._losses + tuple(self._strangers.values())[:MOST_WARNINGS]

    def begin(self) -> None:
        """Deal with a loss that the store knows of: after a restore, or when the operator has accepted one."""
        text = self._cluster.settings.get(LOSS)
        if text is not None:
            self._step_over(msgspec.json.decode(text, type=Loss))

    def text(self) -> str:
        """The mark of what is committed now, signed, for an agent to keep."""
        mark = self._store.mark()
        return sign(msgspec.structs.replace(mark, cell=self._cell), self._key)

    def compare(self, host: str, text: str) -> None:
        """Look whether the records contain the mark that this host's agent was told."""
        if not text:
            return
        mark = verify(text, self._key)
        if mark is None:
            if host in self._strangers or len(self._strangers) >= MOST_STRANGERS:
                return
            words = (
                f"host {host} shows a mark of other records: it was in another cell, or all records of this one "
                "are lost, with the marker; if they are, stop the control plane and `tashi db restore FILE`"
            )
            self._strangers[host] = words
            self.log.warn("{words}", words=words)
        elif not self._store.contains(mark) and not self._has_stepped_over(mark):
            now = self._store.mark().commits
            reason = (
                f"host {host} was told of commit {mark.commits}, and these records, now at commit {now}, do not have it: "
                "the state directory is an older copy"
            )
            self._step_over(Loss(reason=reason, numbers=mark.numbers))

    def _has_stepped_over(self, mark: Mark) -> bool:
        return all(self._cluster.counters.get(kind, 0) >= number for kind, number in mark.numbers.items())

    def _step_over(self, loss: Loss) -> None:
        """Give out only numbers above those that were given out by the lost records, and tell of the loss.

        An instance keeps the generation that it was started with, so that what its host reports of any later generation counts;
        its next order is newer than all of them.
        """
        with self._cluster.transaction("step_over_loss") as tx:
            for kind, number in loss.numbers.items():
                tx.step_over(kind, number)
            answers_anew(tx)
            for instance in list(self._cluster.instances.values()):
                tx.put_instance(msgspec.structs.replace(instance, generation=instance.generation + GENERATION_STEP))
            for number in list(self._cluster.instances):
                start_nothing(tx, number)
            tx.tell(cell_action("storeLost", loss.reason))
            tx.remove_setting(LOSS)
        self.log.warn("records were lost: {reason}; new numbers begin above the old ones", reason=loss.reason)
        self._losses = (*self._losses, f"records were lost: {loss.reason}")[-MOST_WARNINGS:]


def answers_anew(tx: Transaction) -> None:
    """Give the commands that are open new numbers: lost records may have answered them, and no stanza id has two contents."""
    for request in sorted(tx.cluster.requests.values(), key=lambda one: one.id):
        if request.done_at is not None:
            continue
        number = tx.next_id("request")
        tx.remove_request(request.id)
        tx.put_request(msgspec.structs.replace(request, id=number))
        for instance_id in request.instance_ids:
            instance = tx.instance(instance_id)
            if instance is not None and any(task.request == request.id for task in instance.tasks):
                tasks = tuple(
                    msgspec.structs.replace(task, request=number) if task.request == request.id else task for task in instance.tasks
                )
                tx.put_instance(msgspec.structs.replace(instance, tasks=tasks))


def start_nothing(tx: Transaction, instance_id: int) -> None:
    """Hold an instance that waits for its start: it may have been started, and moved, by records that are lost.

    Where a host reports its domain, the record follows it there. Nobody starts a second one meanwhile.
    """
    instance = tx.instance(instance_id)
    if instance is not None and instance.state in _TO_BE_STARTED:
        reason = in_words(Cause.RECORDS_LOST)
        error = OurFault(INTERNAL, f"{instance.name} was not started, because records were lost; ask again")
        advance(tx, instance, Happening.FAILED, reason=reason, cause=Cause.RECORDS_LOST, error=error)


def refuse_early_start(cluster: Cluster, instance: Instance) -> None:
    """YourMistake(conflict) when an instance is held for lost records and a host has not listed what it has since."""
    if instance.cause is Cause.RECORDS_LOST:
        silent = [host.name for host in cluster.hosts.values() if host.decayed and host.state is not HostState.PoweredOff]
        if silent:
            raise YourMistake(
                CONFLICT,
                f"records were lost, and {instance.name} may run on {', '.join(silent[:MOST_NAMED])}, not heard of since; resume it when "
                "they have reported, or unregister a host that is gone for good",
            )


def tell_of_absence(cluster: Cluster, why: str, seconds: float) -> None:
    """Publish that the store took no changes for a while; before it takes them again nothing can be published."""
    with cluster.transaction("tell_of_absence") as tx:
        tx.tell(cell_action("storeAway", f"the store took no changes for {seconds:.0f} s: {why}"))
        tx.tell(cell_action("storeBack", "the store takes changes again"))
