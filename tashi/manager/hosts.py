"""Hosts come, speak, fall silent and come back: logins, leases, and what their reports mean for their instances.

A host that loses its link is decayed at once; one silent for longer than its lease is down, and its instances are Orphaned:
never guessed, never started twice. When it is back its first full report says what became of them.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import msgspec
from twisted.logger import Logger

from tashi.interfaces import INodeLink
from tashi.limited_log import LimitedLog
from tashi.manager import migrations, restarts
from tashi.manager.admission import Admission, hashed
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.dispatch import Dispatch
from tashi.manager.images import Directory
from tashi.manager.lifecycle import advance, end
from tashi.manager.lists import HostLists
from tashi.manager.marks import Marks
from tashi.manager.missing import find_saved, miss
from tashi.manager.network_cards import NetworkCards
from tashi.manager.powering import arrived
from tashi.manager.reconcile import Step, addresses_in, ends_task, is_alive, is_missed, missing_in, step_after, step_for
from tashi.manager.settings import ManagerSettings
from tashi.manager.strays import Strays, generation_after
from tashi.manager.usage import Usage
from tashi.manager.wishes import end_task
from tashi.model.causes import Cause
from tashi.model.events import host_action, vm_action
from tashi.model.host import Host, reach_of
from tashi.model.instance import Instance
from tashi.model.orders import NodeLogin, NodeWelcome, Observation, Report
from tashi.model.states import TABLE, Happening, HostState, InstanceState, is_legal

PROGRESS_SECONDS = 0.5
_MALFORMED = "its agent sent a malformed report: "


class Hosts:
    """`tashi.interfaces.INodeDoor`: what agents may say, and the watch over their leases."""

    log = Logger()

    def __init__(
        self,
        cluster: Cluster,
        dispatch: Dispatch,
        settings: ManagerSettings,
        cell: UUID,
        join_secret: str,
        version: str,
        kick: Callable[[], None],
        usage: Usage,
        cards: NetworkCards,
        marks: Marks,
        limited: LimitedLog,
        images: Directory,
        strays: Strays,
    ) -> None:
        """``images`` tells whether the memory of an instance is kept beside the images."""
        self._images = images
        self._cluster = cluster
        self._cards = cards
        self._limited = limited
        self._progress_told: dict[int, float] = {}  # when the progress of an instance was last told
        self._dispatch = dispatch
        self._settings = settings
        self._cell = cell
        self._version = version
        self._kick = kick
        self._usage = usage
        self._marks = marks
        self._links: dict[int, INodeLink] = {}
        self._heard: dict[int, float] = {}
        self._admission = Admission(cluster, join_secret, self._links)
        self._lists: dict[int, HostLists] = {}
        self._strays = strays

    def begin(self) -> None:
        """After a restart nothing is known of any host: each has a lease to come back in before its instances are Orphaned."""
        now = self._cluster.awake.seconds()
        with self._cluster.transaction("forget_hosts") as tx:
            for host in self._cluster.hosts.values():
                self._heard[host.id] = now
                if host.up or not host.decayed:
                    tx.put_host(msgspec.structs.replace(host, up=False, decayed=True))

    async def login(self, login: NodeLogin, link: INodeLink) -> NodeWelcome:
        """See INodeDoor. The first login with the join secret pins the agent's own secret and machine to the host's name."""
        host = await self._admission.admit(login)
        self._marks.compare(login.name, login.mark)
        with self._cluster.transaction("log_in_host") as tx:
            new = host is None
            if host is None:
                host = Host(id=tx.next_id("host"), name=login.name)
            matching = login.version in ("", self._version) or self._settings.scheduling.allow_mismatched_versions
            host = _with_version(arrived(tx, host), matching=matching)
            before = host.identity
            if not host.secret_hash:
                host = msgspec.structs.replace(host, reach=None)  # its first report says it anew
            host = msgspec.structs.replace(host, secret_hash=hashed(login.secret), identity=login.identity, decayed=True)
            tx.put_host(host)
            if new:
                tx.tell(host_action("registered", host))
        if before is not None and host.identity is not None and host.identity.was_rebooted_since(before.boot):
            self.log.warn("host {name} was rebooted; it is on boot {boot}", name=host.name, boot=host.identity.boot_id)
        self._lists[host.id] = HostLists()
        former = self._links.get(host.id)
        self._links[host.id] = link
        self._dispatch.host_gone(host.id)
        if former is not None:
            former.close()
        self._heard[host.id] = self._cluster.awake.seconds()
        self.log.info("host {name} ({id}) has logged in", name=host.name, id=host.id)
        return NodeWelcome(host_id=host.id, cell=str(self._cell), lease=self._settings.expire_host_time, mark=self._marks.text())

    def report(self, host_id: int, link: INodeLink, report: Report) -> None:
        """See INodeDoor."""
        host = self._cluster.hosts.get(host_id)
        if host is None or self._links.get(host_id) is not link:
            return
        self._heard[host_id] = self._cluster.awake.seconds()
        observations = tuple(self._as_recorded(host_id, observation) for observation in report.observations)
        listed = self._lists[host_id].take(msgspec.structs.replace(report, observations=observations), self._is_known)
        with self._cluster.transaction("take_report") as tx:
            if not host.up or host.reach is None or host.facts != report.facts or (listed is not None and host.decayed):
                notes = "" if listed is not None and host.notes.startswith(_MALFORMED) else host.notes
                decayed = host.decayed and listed is None
                reach = host.reach or reach_of(report.facts, host.name, self._others(host_id))
                after = msgspec.structs.replace(host, up=True, facts=report.facts, decayed=decayed, notes=notes, reach=reach)
                tx.put_host(after)
                if after.unconfirmed and after.unconfirmed != host.unconfirmed:
                    self._limited.warn(f"host {host.name}", "unconfirmed addresses", "{source}: {words}", words=after.unconfirmed)
            for observation in self._strays.sift(tx, host_id, observations):
                self._note_boot(tx, host, observation)
                instance = tx.instance(observation.instance_id)
                if instance is not None and observation.progress is not None and instance.host_id == host_id:
                    self._tell_progress(tx, instance, observation.progress)
                if instance is not None and (moved := migrations.take(tx, instance, host_id, observation)) is not None:
                    self._take_pause(tx, moved, host_id, observation)
                    continue
                if instance is not None and ends_task(instance, host_id, observation):
                    instance = end_task(tx, instance, observation)
                if instance is not None and instance.host_id == host_id and observation.stuck:
                    _mark_stuck(tx, instance)
                    continue
                if instance is not None and is_missed(instance, host_id, observation):
                    if instance.state is InstanceState.Suspending and self._images.may_be_saved(instance.saved):
                        continue  # its host does not see the saved memory just now; it is asked again
                    if not self._strays.follow(tx, instance):
                        miss(tx, instance, host, alive=observation.reason if observation.cause is Cause.UNMARKED else "")
                    continue
                step = step_for(instance, host_id, observation)
                if step is not None:
                    self._take(tx, step)
                    if step.happening is Happening.FAILED:
                        self._take_pause(tx, tx.instance(step.instance_id), host_id, observation)
                self._learn(tx, host_id, observation)
            if listed is not None:
                self._take_list(tx, host, listed)
                tx.after_commit(lambda: self._ready(host_id, link))
        if report.statistics is not None:
            self._usage.take(self._cluster.hosts[host_id], report.statistics)
        self._kick()

    def _others(self, host_id: int) -> list[Host]:
        return [host for host in self._cluster.hosts.values() if host.id != host_id]

    def _tell_progress(self, tx: Transaction, instance: Instance, percent: int) -> None:
        """Tell how far it is, at most twice a second: each time is an event."""
        now = self._cluster.clock.seconds()
        if len(self._progress_told) > 1000:
            self._progress_told = {number: told for number, told in self._progress_told.items() if now - told < PROGRESS_SECONDS}
        if now - self._progress_told.get(instance.id, now - PROGRESS_SECONDS) >= PROGRESS_SECONDS:
            self._progress_told[instance.id] = now
            migrations.tell_progress(tx, instance, percent)

    def malformed(self, host_id: int, link: INodeLink, why: str) -> None:
        """See INodeDoor."""
        host = self._cluster.hosts.get(host_id)
        notes = f"{_MALFORMED}{why}"
        if host is None or self._links.get(host_id) is not link or (host.decayed and host.notes == notes):
            return
        with self._cluster.transaction("refuse_report") as tx:
            host = msgspec.structs.replace(host, decayed=True, notes=notes)
            tx.put_host(host)
            tx.tell(host_action("faulty", host, notes))

    def logout(self, host_id: int, link: INodeLink) -> None:
        """See INodeDoor."""
        if self._links.get(host_id) is not link:
            return
        del self._links[host_id]
        self._dispatch.host_gone(host_id)
        host = self._cluster.hosts.get(host_id)
        if host is not None and not host.decayed:
            with self._cluster.transaction("lose_link") as tx:
                host = msgspec.structs.replace(host, decayed=True)
                tx.put_host(host)
                if host.state is not HostState.PoweringOff:
                    tx.tell(host_action("decayed", host, "its agent's connection is lost"))

    def send_marks(self) -> None:
        """Let every agent that is logged in remember how far the records have come; call it about once a minute."""
        mark = self._marks.text()
        for link in self._links.values():
            link.remember(mark)

    def let_go(self, host_id: int) -> None:
        """The host has been switched off: whatever link there was leads nowhere."""
        self._dispatch.host_gone(host_id)
        link = self._links.pop(host_id, None)
        if link is not None:
            link.close()

    def check_leases(self) -> None:
        """Declare down what has been silent for longer than its lease; call it about once a second, after a turn of reading."""
        now = self._cluster.awake.seconds()
        for host in list(self._cluster.hosts.values()):
            silent = now - self._heard.setdefault(host.id, now)
            if silent <= self._settings.expire_host_time:
                continue
            lost = [self._cluster.instances[instance_id] for instance_id in sorted(self._cluster.errands.get(host.id, ()))]
            lost = [instance for instance in lost if _concerns(host.id, instance)]
            if not host.up and not lost:
                continue
            link = self._links.pop(host.id, None)
            self._dispatch.host_gone(host.id)
            with self._cluster.transaction("expire_host") as tx:
                down = msgspec.structs.replace(host, up=False, decayed=True)
                tx.put_host(down)
                if host.state is not HostState.PoweringOff:
                    tx.tell(host_action("decayed", down, f"nothing heard of it for {silent:.0f} s"))
                for instance in lost:
                    instance = migrations.lose_host(tx, instance, host)
                    if instance.host_id == host.id and is_legal(instance.state, Happening.HOST_LOST):
                        advance(tx, instance, Happening.HOST_LOST, reason=f"host {host.name} is silent", decayed=True)
            if link is not None:
                link.close()
            if host.state is not HostState.PoweringOff:
                self.log.warn("host {name} is down: nothing heard for {silent:.0f} s", name=host.name, silent=silent)

    def _take(self, tx: Transaction, step: Step) -> None:
        instance = tx.instance(step.instance_id)
        if instance is None or not is_legal(instance.state, step.happening):
            return
        if step.happening is Happening.SEEN_GONE and migrations.is_leaving(instance):
            migrations.leave(tx, instance)
        elif step.happening is Happening.SEEN_GONE and self._strays.follow(tx, instance):
            pass  # another host has it
        elif step.happening is Happening.SEEN_GONE and instance.state is InstanceState.Restarting:
            restarts.begin_again(tx, instance, self._settings.scheduling)
        elif step.happening is Happening.SEEN_GONE:
            end(tx, instance, step.reason)
        elif step.happening is Happening.FAILED and is_legal(instance.state, Happening.RETRIED) and instance.host_id is not None:
            # another host may still take it; the planner says so when none does
            advance(tx, instance, Happening.RETRIED, reason=step.reason, refused_by=(*instance.refused_by, instance.host_id))
        elif step.happening is Happening.DISK_READY:
            generation = generation_after(tx.cluster, instance)
            advance(tx, instance, step.happening, decayed=False, generation=generation, started=generation)
        elif step.happening is Happening.MOVED_AWAY:
            migration = instance.migration if instance.migration is not None and instance.migration.received else None
            instance = advance(tx, instance, step.happening, reason=step.reason, cause=step.cause, decayed=True, migration=migration)
            if migration is None:
                self._strays.follow(tx, instance)
        else:
            if instance.decayed:
                instance = msgspec.structs.replace(instance, reason="")  # it was about the doubt that ends here
            advance(tx, instance, step.happening, reason=step.reason, cause=step.cause, decayed=False)

    def _take_pause(self, tx: Transaction, instance: Instance | None, host_id: int, observation: Observation) -> None:
        """What has failed to change its state runs on, unless the same observation says that it is paused."""
        step = None if instance is None else step_after(instance, host_id, observation)
        if step is not None:
            self._take(tx, step)

    def _take_list(self, tx: Transaction, host: Host, listed: frozenset[int]) -> None:
        """Find out what has become of the instances and strays that the host's complete list lacks."""
        self._strays.keep_listed(tx, host.id, self._lists[host.id].keys)
        ours = [tx.instance(number) for number in sorted(self._cluster.on_host.get(host.id, ()))]
        missing = missing_in([one for one in ours if one is not None and one.host_id == host.id], listed)
        proven = self._lists[host.id].lack([one.id for one in missing], self._cluster.clock.seconds())
        for instance in missing:
            if self._strays.follow(tx, instance):
                continue  # another host has it
            kept = bool(instance.saved) and self._images.may_be_saved(instance.saved)
            if instance.id not in proven or kept or not find_saved(tx, instance, self._cell, self._images):
                miss(tx, instance, host, proven=instance.id in proven and not kept)

    def _note_boot(self, tx: Transaction, host: Host, observation: Observation) -> None:
        """Record on which boot of which machine a domain was last seen."""
        instance = tx.instance(observation.instance_id)
        boot = "" if host.identity is None else host.identity.boot
        if instance is not None and instance.boot != boot and is_alive(instance, host.id, observation):
            tx.put_instance(msgspec.structs.replace(instance, boot=boot))

    def _learn(self, tx: Transaction, host_id: int, observation: Observation) -> None:
        """Note the addresses that an instance's cards use, but for those that are another's: who came first has them."""
        instance = tx.instance(observation.instance_id) if observation.nics else None
        found = {} if instance is None else addresses_in(instance, host_id, observation)
        if instance is not None and found:
            nics = tuple(
                msgspec.structs.replace(nic, learnt=found[nic.mac])
                if nic.mac in found and self._cards.claim(instance.id, nic.network, found[nic.mac])
                else nic
                for nic in instance.nics
            )
            if nics != instance.nics:
                tx.put_instance(msgspec.structs.replace(instance, nics=nics))

    def _as_recorded(self, host_id: int, observation: Observation) -> Observation:
        """A domain without its mark is that of the instance which this host has under its id: nothing else could have its UUID."""
        instance = self._cluster.instances.get(observation.instance_id)
        if observation.cause is not Cause.UNMARKED or observation.incarnation or instance is None or instance.host_id != host_id:
            return observation
        return msgspec.structs.replace(observation, incarnation=instance.incarnation, generation=instance.generation)

    def _is_known(self, observation: Observation) -> bool:
        """Whether the observation is of a domain in the records."""
        instance = self._cluster.instances.get(observation.instance_id)
        return instance is not None and instance.incarnation == observation.incarnation

    def _ready(self, host_id: int, link: INodeLink) -> None:
        if self._links.get(host_id) is link and self._dispatch.link_to(host_id) is not link:
            self._dispatch.host_ready(host_id, link)


def _with_version(host: Host, *, matching: bool) -> Host:
    """The host as it is with an agent of our version or of another. One that is on its way off stays on it; one that was drained is
    drained again when its agent is of our version again."""
    if host.state is HostState.PoweringOff:
        return host if matching else msgspec.structs.replace(host, state_when_on=HostState.VersionMismatch)
    if not matching and host.state is not HostState.VersionMismatch:
        return msgspec.structs.replace(host, state=HostState.VersionMismatch, state_when_on=host.state)
    if matching and host.state is HostState.VersionMismatch:
        return msgspec.structs.replace(host, state=host.state_when_on, state_when_on=HostState.Normal)
    return host


def _mark_stuck(tx: Transaction, instance: Instance) -> None:
    """The process of its guest does not answer: what is known of it may be stale."""
    if not instance.decayed:
        instance = msgspec.structs.replace(instance, decayed=True, reason="the process of its guest does not answer")
        tx.put_instance(instance)
        state = instance.state.name
        tx.tell(vm_action("stateChanged", instance, state, state, instance.reason, tx.cluster.host_name(instance.host_id)))


def _concerns(host_id: int, instance: Instance) -> bool:
    """Whether the silence of this host means something for the instance that is not recorded yet."""
    if instance.host_id == host_id:
        after = TABLE.get((instance.state, Happening.HOST_LOST), instance.state)
        return after is not instance.state or not instance.decayed
    return instance.state is InstanceState.MigratePrep and instance.migration is not None and instance.migration.target == host_id
