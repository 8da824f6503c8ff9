"""The only module that knows every room: configuration in, one service out."""

from __future__ import annotations

import gc
import os
import sys
from functools import partial
from typing import IO, Any

from twisted.application.service import MultiService, Service
from twisted.internet import endpoints, ssl
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.threadpool import ThreadPool

from tashi import __version__
from tashi.audit_log import AuditLog
from tashi.clocks import WallClock, use_monotonic_time
from tashi.config import Config, ConfigError, load
from tashi.config import SlaClass as ConfiguredClass
from tashi.config.sections.scheduling import Scheduler
from tashi.errors import BAD_ARGUMENT, TashiError, YourMistake
from tashi.hang_up import reopen_logs_on_hang_up
from tashi.images.directory import ImageDirectory
from tashi.interfaces import IStore
from tashi.manager.planner import InThread
from tashi.manager.service import ClusterManager
from tashi.manager.settings import ManagerSettings
from tashi.manager.status import audit_part
from tashi.model.sla import SlaClass
from tashi.model.status import StatusPart
from tashi.policy_plugins import policy_named
from tashi.power.drivers import make_power
from tashi.scheduling.snapshot import SchedulingSettings
from tashi.store.lock import lock
from tashi.store.sqlite import SQLiteStore
from tashi.users.system import first_free_uid
from tashi.wire import certificates
from tashi.wire.admission import Admission
from tashi.wire.broker import BrokerFactory
from tashi.wire.gate import GateFactory, raise_descriptor_limit
from tashi.wire.portal import Door

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_SWITCH_SECONDS = 0.0005
"""How long a thread that is done with the disk or libvirt waits for a busy reactor to let it go on; Python's own 5 ms add up."""


def control_plane(reactor: Any, config: Config | None = None, *, accept_loss: bool = False) -> Service:
    """The control plane of one cell; ends the program with words when the configuration cannot be used.

    ``accept_loss``: start once with what is left of records that were lost.
    """
    use_monotonic_time(reactor)
    sys.setswitchinterval(_SWITCH_SECONDS)
    config = config or _loaded("ClusterManager", "Agent")
    audit = _audit_log(config)
    reopen_logs_on_hang_up(reactor, audit)
    return ControlPlane(reactor, config, accept_loss, audit)


def node_agent(reactor: Any, config: Config | None = None) -> Service:
    """The agent of this machine; ends the program with words when the configuration does not allow one."""
    from tashi.node.service import make_service

    use_monotonic_time(reactor)
    sys.setswitchinterval(_SWITCH_SECONDS)
    reopen_logs_on_hang_up(reactor)
    try:
        return make_service(config or _loaded("NodeManager"), reactor)
    except TashiError as error:
        sys.exit(f"tashi-node: the agent cannot start: {error.message}")


def _loaded(*programs: str) -> Config:
    try:
        config = load(programs)
    except ConfigError as error:
        sys.exit(f"tashi: {error.message}")
    for warning in config.warnings:
        Logger().warn("{warning}", warning=warning)
    return config


class ControlPlane(Service):
    """Opens the store, then the cluster manager, then the doors; stops in the other order.

    What cannot be opened ends the process with words: a control plane that half works is worse than none.
    """

    log = Logger()

    def __init__(self, reactor: Any, config: Config, accept_loss: bool = False, audit: AuditLog | None = None) -> None:
        """``accept_loss``: start once with what is left of records that were lost; ``audit``: the audit log, if it has a file."""
        self.setName("tashi")
        self._accept_loss = accept_loss
        self._audit = audit
        self._reactor = reactor
        self._config = config
        self._lock: IO[str] | None = None
        self._ports: list[Any] = []
        self._doors = MultiService()
        self.manager: ClusterManager | None = None
        self._opening: Deferred[None] | None = None

    def startService(self) -> None:
        super().startService()
        self._opening = Deferred.fromCoroutine(self._open())
        self._opening.addErrback(self._cannot_open)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._close())

    async def _open(self) -> None:
        config, reactor = self._config, self._reactor
        state_dir = config.state_dir
        state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)  # others may reach the socket in it, and list nothing
        self._lock = lock(state_dir)
        images = ImageDirectory(str(config.share_dir / "images"))
        xmpp_on = config.xmpp.enabled and bool(config.xmpp.jid)
        manager = ClusterManager(
            reactor,
            _store(reactor, config, self._accept_loss),
            images,
            _settings(config),
            policy_named(config.scheduler.scheduler),
            join_secret=certificates.join_secret(state_dir),
            version=__version__,
            publishing=xmpp_on and bool(config.xmpp.recipient or config.xmpp.pubsub_service),
            make_power=partial(make_power, reactor, config.power),
            in_thread=_planning_thread(reactor),
            first_free_uid=first_free_uid,
            write_audit=self._audit.write if self._audit is not None else None,
        )
        await manager.open()
        self.manager = manager
        manager.startService()
        await self._listen(manager)
        if xmpp_on:
            from tashi.xmpp.service import make_service  # wokkel wants a reactor that is chosen already

            xmpp = make_service(reactor, config.xmpp, manager.commands, manager.outbox, _vocabulary(config), add_status=manager.status.add)
            xmpp.setServiceParent(self._doors)
        else:
            manager.status.add("xmpp", lambda: StatusPart(words="off", data={"enabled": False}))
        audit = self._audit
        if audit is not None:
            manager.status.add("audit", lambda: audit_part(audit.missing))
        self._doors.startService()
        gc.freeze()  # all that is here stays: searching it for garbage again and again would hold the reactor for tens of milliseconds
        service = config.cluster_manager_service
        self.log.info(
            "ready: {socket} for users, {host}:{port} for agents", socket=str(config.manager_socket), host=service.host, port=service.port
        )

    async def _listen(self, manager: ClusterManager) -> None:
        service = self._config.cluster_manager_service
        raise_descriptor_limit()
        brokers: Any = BrokerFactory(self._reactor, Door(self._reactor, manager.node_door, manager.verbs, manager.cluster.users))
        admission = Admission(self._reactor)
        path = self._config.manager_socket
        path.unlink(missing_ok=True)
        local = endpoints.UNIXServerEndpoint(self._reactor, str(path), mode=0o666)
        self._ports.append(await local.listen(GateFactory(self._reactor, brokers, brokers, admission, for_users=True)))
        inner: Any = brokers
        if service.tls:
            pem = certificates.prepare(self._config.state_dir, WallClock().seconds())
            inner = TLSMemoryBIOFactory(ssl.PrivateCertificate.loadPEM(pem.read_text()).options(), False, brokers)
        elif service.host not in _LOOPBACK:
            raise YourMistake(
                BAD_ARGUMENT, f"[ClusterManagerService] tls = False is only for a loopback host, and host = {service.host}; set tls = True"
            )
        public = endpoints.TCP4ServerEndpoint(self._reactor, service.port, interface=service.host)
        self._ports.append(await public.listen(GateFactory(self._reactor, inner, brokers, admission)))

    async def _close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        for port in self._ports:
            await port.stopListening()
        await self._doors.stopService()
        if self.manager is not None:
            await self.manager.stopService()
        if self._lock is not None:
            self._lock.close()

    def _cannot_open(self, failure: Any) -> None:
        if not self.running:
            return
        if failure.check(TashiError, OSError, CannotListenError):
            why = failure.getErrorMessage()
        else:
            why = f"a fault of ours ({failure.type.__name__}); the log says more"
            self.log.failure("cannot start", failure=failure)
        self.log.critical("the control plane cannot start: {why}", why=why)
        # twistd has put a log in the place of sys.stderr
        print(f"tashi: the control plane cannot start: {why}", file=sys.__stderr__)
        self._reactor.addSystemEventTrigger("after", "shutdown", lambda: os._exit(1))  # twistd itself would end with 0
        self._reactor.callWhenRunning(self._reactor.stop)  # what fails at once fails before the reactor runs


def _store(reactor: Any, config: Config, accept_loss: bool) -> IStore:
    return SQLiteStore(reactor, str(config.database), config.marker, accept_loss=accept_loss)


def _audit_log(config: Config) -> AuditLog | None:
    """The audit log of the configuration; None when it goes to the program's log."""
    if not config.audit.file:
        return None
    return AuditLog(config.state_dir / config.audit.file, config.audit.max_size * 2**20, config.audit.keep)


def _planning_thread(reactor: Any) -> InThread:
    """A thread of its own for plans that take long: a pool that others use might keep one waiting."""
    pool = ThreadPool(0, 1, "planning")
    reactor.callWhenRunning(pool.start)
    reactor.addSystemEventTrigger("during", "shutdown", pool.stop)
    return lambda work: deferToThreadPool(reactor, pool, work)


def _settings(config: Config) -> ManagerSettings:
    service, scheduler, xmpp = config.cluster_manager_service, config.scheduler, config.xmpp
    same = (field for field in SchedulingSettings.__struct_fields__ if field in Scheduler.__struct_fields__)
    return ManagerSettings(
        scheduling=SchedulingSettings(
            policy=scheduler.scheduler,
            allow_mismatched_versions=service.allow_mismatched_versions,
            most_moves=scheduler.max_moves,
            most_moves_per_host=scheduler.max_moves_per_host,
            **{field: getattr(scheduler, field) for field in same},
        ),
        schedule_delay=scheduler.schedule_delay,
        rebalance_interval=scheduler.rebalance_interval,
        reschedule_after_start=scheduler.reschedule_after_start,
        provision_timeout=xmpp.provision_timeout,
        max_command_age=xmpp.max_command_age,
        expire_host_time=service.expire_host_time,
        wake_timeout=config.power.wake_timeout,
        off_timeout=config.power.off_timeout,
        power_retry_delay=config.power.retry_delay,
        shutdown_grace=service.shutdown_grace,
        max_migrations=service.max_migrations,
        max_migrations_per_host=service.max_host_migrations,
        layout_interval=xmpp.layout_interval,
        max_memory=service.max_memory,
        max_cores=service.max_cores,
        allow_duplicate_names=service.allow_duplicate_names,
        default_network=service.default_network,
        sla_classes={name: _sla_class(name, one) for name, one in config.sla_classes.classes.items()},
        ratings=dict(config.servers.priorities),
        trusted=frozenset(xmpp.trusted),
        admins=frozenset(xmpp.admins),
    )


def _sla_class(name: str, configured: ConfiguredClass) -> SlaClass:
    hints = {"location": configured.location} if configured.location else {}
    hints |= {term: "True" for term in ("auditability", "isolation") if getattr(configured, term)}
    return SlaClass(
        name=name,
        priority=configured.priority,
        cpu_share=configured.cpu_share or None,
        cpu_speed=configured.cpu_speed or None,
        disk_weight=configured.disk_weight or None,
        net_down=configured.net_down or None,
        net_up=configured.net_up or None,
        memory=configured.memory or 0,
        hints=hints,
    )


def _vocabulary(config: Config) -> Any:
    from occi.categories import Vocabulary

    occi = config.occi
    return Vocabulary(kinds=occi.kind_schemes, prefixes=occi.category_prefixes, templates=dict(config.templates.images))
