"""The door for agents with an audit record of each refusal: grouped per host name and minute, so that a stubborn agent floods nothing."""

from __future__ import annotations

from typing import Final

from tashi.errors import TashiError
from tashi.interfaces import INodeDoor, INodeLink
from tashi.manager.cluster import Cluster
from tashi.model.events import audit_record
from tashi.model.orders import NodeLogin, NodeWelcome, Report

MOST_NAMES: Final = 1000
"""Different refusals that are kept for one minute's records; more are counted together."""
OTHERS: Final = "others"
LONGEST_NAME: Final = 63
"""Characters of a host's name that are kept; no host that was let in has more."""


class RefusedLogins:
    """An INodeDoor that keeps what another one refuses."""

    def __init__(self, door: INodeDoor, cluster: Cluster) -> None:
        self._door = door
        self._cluster = cluster
        self._refused: dict[tuple[str, str], int] = {}

    async def login(self, login: NodeLogin, link: INodeLink) -> NodeWelcome:
        """See INodeDoor."""
        try:
            return await self._door.login(login, link)
        except TashiError as error:
            key = (login.name[:LONGEST_NAME], error.code)
            if key not in self._refused and len(self._refused) >= MOST_NAMES:
                key = (OTHERS, error.code)
            self._refused[key] = self._refused.get(key, 0) + 1
            raise

    def report(self, host_id: int, link: INodeLink, report: Report) -> None:
        """See INodeDoor."""
        self._door.report(host_id, link, report)

    def logout(self, host_id: int, link: INodeLink) -> None:
        """See INodeDoor."""
        self._door.logout(host_id, link)

    def malformed(self, host_id: int, link: INodeLink, why: str) -> None:
        """See INodeDoor."""
        self._door.malformed(host_id, link, why)

    def tell(self) -> None:
        """One audit record for each host name and code since the last call; call it once a minute."""
        refused, self._refused = self._refused, {}
        if refused:
            with self._cluster.transaction("audit_refused_logins") as tx:
                for (name, code), count in refused.items():
                    tx.tell(audit_record(f"host {name}", "login", name, code, count, door="node"))
