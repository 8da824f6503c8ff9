"""The node agent put together from the configuration; the one place of this package that knows all of it."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from twisted.application.service import Service
from twisted.internet import ssl
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from tashi import __version__
from tashi.config import Config
from tashi.errors import BAD_ARGUMENT, INTERNAL, OurFault, YourMistake
from tashi.files import hold
from tashi.interfaces import IGuestAccess, IHypervisor
from tashi.model.orders import NodeLogin
from tashi.node.access.answers import Answers
from tashi.node.access.logs import ConsoleLogs
from tashi.node.agent import NodeAgent
from tashi.node.credentials import join_secret, keep_mark, kept_mark, own_secret
from tashi.node.network.address_learning import AddressLearning
from tashi.node.network.bridges import Bridges
from tashi.node.network.vlans import Vlans
from tashi.node.shutting_down import ShuttingDown
from tashi.node.statistics import MOST_CALLS
from tashi.node.storage.disks import Disks
from tashi.node.threads import Threads

SERVER_NAME: Final = "tashi-cluster-manager"
"""What the certificate of every cell's control plane is made out to."""


def make_service(config: Config, reactor: Any) -> Service:
    """The agent of this machine, not yet started; YourMistake when the configuration does not allow one."""
    settings = config.node_manager_service
    state = config.node_state_dir
    state.mkdir(parents=True, exist_ok=True)
    lock = hold(state / "lock")
    if lock is None:
        raise OurFault(INTERNAL, f"another agent uses {state}; stop it, or choose another [NodeManagerService] stateDir")
    secret = own_secret(state)
    joining = Path(settings.join_secret_file or config.state_dir / "join.secret")
    name = settings.name or os.uname().nodename

    def login() -> NodeLogin:
        return NodeLogin(name=name, secret=secret, join=join_secret(joining), version=__version__, mark=kept_mark(state))

    threads = Threads(reactor, config.libvirt.threads, settings.call_timeout)
    long_calls = Threads(reactor, config.qemu.max_parallel_migrations, config.qemu.migrate_timeout + settings.call_timeout)
    hypervisor, access = make_hypervisor(config)
    measuring = Threads(reactor, MOST_CALLS, settings.call_timeout)
    switch = ShuttingDown(reactor, settings.power_off_command.words, hypervisor, threads.run)
    agent = NodeAgent(
        reactor,
        make_endpoint(config, reactor),
        login,
        hypervisor,
        threads.run,
        settings.register_frequency,
        Answers(reactor, access, threads.run, config.libvirt.vnc_address, switch.shut_down),
        long_calls.run,
        settings.stats_interval,
        measuring.run,
        partial(keep_mark, state),
    )
    learning = AddressLearning(reactor, threads.run, hypervisor.cards, agent.executor)
    hypervisor.watch(lambda *hint: reactor.callFromThread(learning.look_soon))
    return _NodeService(lock, (threads, long_calls, measuring), hypervisor, agent, learning)


def make_hypervisor(config: Config) -> tuple[IHypervisor, IGuestAccess]:
    """This machine's libvirt, and the way into its guests; YourMistake when its Python binding is not installed."""
    try:
        from tashi.node.libvirt.access import LibvirtAccess
        from tashi.node.libvirt.connection import LibvirtConnection
        from tashi.node.libvirt.guest import LibvirtHypervisor
        from tashi.node.libvirt.host import HostReader, Offer
        from tashi.node.libvirt.migrate import Way
    except ImportError as error:
        raise YourMistake(BAD_ARGUMENT, f"the node agent needs libvirt's Python binding ({error}); pip install 'tashi[libvirt]'") from None
    settings, state = config.node_manager_service, config.node_state_dir
    offer = Offer(cores=settings.offer_cores, memory=settings.offer_memory, reserved=config.qemu.reserved_mem)
    address = config.libvirt.migration_uri.replace("{fqdn}", socket.getfqdn())
    connection, consoles = LibvirtConnection(config.libvirt.uri), state / "console"
    disks = Disks(
        config.share_dir / "images",
        Path(config.qemu.scratch_dir or state / "scratch"),
        config.qemu.scratch_vg,
        settings.name or os.uname().nodename,
        [address] if address else [],
    )
    hypervisor = LibvirtHypervisor(
        connection,
        HostReader(offer, state),
        disks,
        consoles,
        make_bridges(config),
        Way(address=address, bandwidth=config.libvirt.migration_bandwidth),
        config.qemu.migrate_timeout,
    )
    return hypervisor, LibvirtAccess(connection, disks, ConsoleLogs(consoles))


def make_bridges(config: Config) -> Bridges:
    """This machine's networks; OurFault when a script of theirs cannot be run."""
    networks = config.networks
    vlans = Vlans(networks.vlan_device, networks.vlan_bridge) if networks.vlan_device else None
    bridges = Bridges(networks.bridges, vlans, networks.ifup)
    bridges.check()
    return bridges


def make_endpoint(config: Config, reactor: Any) -> Any:
    """The way to the control plane: TLS that verifies it, or plain TCP on this machine for a trial."""
    settings = config.node_manager_service
    address = HostnameEndpoint(reactor, settings.cluster_manager_host, settings.cluster_manager_port)
    if not settings.tls:
        if not _is_loopback(settings.cluster_manager_host):
            raise YourMistake(
                BAD_ARGUMENT,
                f"[NodeManagerService] tls is off, and {settings.cluster_manager_host} is another machine; turn it on",
            )
        return address
    return _VerifiedEndpoint(address, Path(settings.ca_file or config.state_dir / "ca.pem"))


@implementer(IStreamClientEndpoint)
class _VerifiedEndpoint:
    """TLS with the cell's own authority, read at each attempt: the control plane makes it when it first starts."""

    def __init__(self, address: Any, authority: Path) -> None:
        self._address = address
        self._authority = authority

    def connect(self, factory: Any) -> Deferred[Any]:
        """See IStreamClientEndpoint."""
        try:
            trusted = ssl.Certificate.loadPEM(self._authority.read_bytes())
        except OSError as error:
            return fail(OurFault(INTERNAL, f"the cell's certificate {self._authority} cannot be read: {error.strerror}"))
        endpoint: Any = wrapClientTLS(ssl.optionsForClientTLS(SERVER_NAME, trustRoot=trusted), self._address)
        return endpoint.connect(factory)


class _NodeService(Service):
    """Threads first, then what uses them; backwards at the end."""

    def __init__(
        self, lock: IO[str], threads: Sequence[Threads], hypervisor: IHypervisor, agent: NodeAgent, learning: AddressLearning
    ) -> None:
        self._lock = lock
        self._threads = threads
        self._learning = learning
        self._hypervisor = hypervisor
        self._agent = agent

    def startService(self) -> None:
        """See IService."""
        super().startService()
        for threads in self._threads:
            threads.start()
        self._agent.startService()
        self._learning.startService()

    def stopService(self) -> Deferred[None]:
        """See IService."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._learning.stopService()
        await self._agent.stopService()
        for stopped in [threads.stop() for threads in self._threads]:
            await stopped
        self._hypervisor.close()
        self._lock.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
