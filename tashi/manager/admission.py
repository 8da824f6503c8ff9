"""Which agents may speak for a host: those with its secret, on its machine, and one at a time.

A host's secret and its machine are pinned at the first login. The secret alone is not enough, since it is copied with the agent's
directory. An administrator who replaces a machine unregisters the host; nothing is guessed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from twisted.logger import Logger

from tashi.errors import CONFLICT, FORBIDDEN, RefusedAgent, YourMistake
from tashi.files import SHORTEST_SECRET
from tashi.interfaces import INodeLink
from tashi.manager.cluster import Cluster
from tashi.model.events import host_action
from tashi.model.host import Host
from tashi.model.host_identity import HostIdentity
from tashi.model.names import check_hostname, check_new_name
from tashi.model.orders import NodeLogin

MOST_TOLD: Final = 1000


class Admission:
    """Checks logins. ``links``: the present link of each host."""

    log = Logger()

    def __init__(self, cluster: Cluster, join_secret: str, links: Mapping[int, INodeLink]) -> None:
        self._cluster = cluster
        self._join_secret = join_secret
        self._links = links
        self._told: set[tuple[int, str]] = set()
        """The refusals that were told: host and what was wrong."""

    async def admit(self, login: NodeLogin) -> Host | None:
        """Return the record of the host that the agent may speak for, None for a new one. Raises YourMistake.

        Where another agent is logged in, it is asked whether it lives: whoever answers keeps the host.
        """
        check_hostname("name", login.name)
        while True:
            host = self._host(login.name)
            if host is None:
                check_new_name("name", login.name)
            self._check_secret(host, login)
            try:
                _check_identity(host, login, self._cluster.hosts)
            except YourMistake as mistake:
                if host is None:
                    raise
                self._tell(host, "" if login.identity is None else login.identity.machine, mistake.message)
                raise RefusedAgent(mistake.code, mistake.message) from None
            rival = None if host is None else self._links.get(host.id)
            if host is None or rival is None:
                return host
            if await rival.answers():
                words = (
                    f"host {host.name} has an agent that is logged in and answers, and this is another process; stop one of the two. If "
                    "this one's state directory was copied, remove node.secret there and give it its own [NodeManagerService] name"
                )
                self._tell(host, "second agent", words)
                raise RefusedAgent(CONFLICT, words)
            if self._links.get(host.id) is rival and self._host(login.name) == host:
                return host

    def _host(self, name: str) -> Host | None:
        return next((host for host in self._cluster.hosts.values() if host.name == name), None)

    def _check_secret(self, host: Host | None, login: NodeLogin) -> None:
        if len(login.secret) < SHORTEST_SECRET:
            raise YourMistake(FORBIDDEN, "the agent's own secret is too short; remove the file node.secret in its state directory")
        if host is None or not host.secret_hash:
            usable = len(self._join_secret) >= SHORTEST_SECRET
            if not (usable and hmac.compare_digest(login.join.encode(), self._join_secret.encode())):
                raise YourMistake(
                    FORBIDDEN,
                    f"host {login.name} is new, and its join secret is not this cell's; copy join.secret from the control plane's state "
                    "directory and name it in [NodeManagerService] joinSecretFile",
                )
        elif not hmac.compare_digest(hashed(login.secret), host.secret_hash):
            raise YourMistake(
                FORBIDDEN,
                f"host {login.name} is pinned to another secret; if its agent was reinstalled, `tashi unregisterHost` it first",
            )

    def _tell(self, host: Host, what: str, words: str) -> None:
        """Log and publish a refusal, once for each host and machine: an agent that is refused tries again for ever."""
        if (host.id, what) in self._told:
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told.add((host.id, what))
        self.log.warn("an agent of host {name} was refused: {words}", name=host.name, words=words)
        with self._cluster.transaction("tell_refused_login") as tx:
            tx.tell(host_action("faulty", host, f"identity: {words}"))


def hashed(secret: str) -> str:
    """Return what is kept of an agent's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _check_identity(host: Host | None, login: NodeLogin, hosts: Mapping[int, Host]) -> None:
    """Refuse another machine than the host's, and a machine that is in the cell under another name; always with the same words."""
    told, name = login.identity, login.name
    pinned = None if host is None else host.identity
    if told is None:
        if pinned is not None:
            raise YourMistake(FORBIDDEN, f"host {name} is pinned to its machine, and this agent does not say where it runs; upgrade it")
        return
    if pinned is not None and not pinned.is_same_machine(told):
        raise YourMistake(FORBIDDEN, _other_machine(name, pinned, told))
    for other in hosts.values():
        if other.name != name and other.identity is not None and other.identity.is_same_machine(told):
            raise YourMistake(
                FORBIDDEN,
                f"the machine of this agent, {told.describe()}, is in the cell as host {other.name}; set [NodeManagerService] "
                f"name = {other.name}, or run `tashi unregisterHost --hostId {other.name}` first",
            )


def _other_machine(name: str, pinned: HostIdentity, told: HostIdentity) -> str:
    return (
        f"host {name} is pinned to another machine: expected {pinned.describe()}, got {told.describe()}. If this agent's state directory "
        f"was copied, remove node.secret there and give this machine its own [NodeManagerService] name. If {name} has a new mainboard, "
        f"installation or [Libvirt] uri, stop every other agent of that name and run `tashi unregisterHost --hostId {name}`; its "
        "instances stay in the records"
    )
