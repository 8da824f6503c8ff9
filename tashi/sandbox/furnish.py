"""Gives a started cell its hosts, its users and its hosts' configuration: `python -m tashi.sandbox.furnish SOCKET HOST=FILE...`.

Waits until the control plane answers, lets one host after the other join by making its file, so that their ids follow their names, and
waits until all are up; adds what is missing, and changes nothing that is there. It runs as root, whom the control plane's socket knows
as its administrator. The caller sets the time limit.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from tashi.client import CannotReach, Cell, connect
from tashi.sandbox.layout import DOMAIN

STEP = 0.05  # seconds between two looks
USERS = (
    {"name": "alice", "userId": 1000, "priority": 5, "jid": f"alice@{DOMAIN}"},
    {"name": "bob", "userId": 1001, "priority": 5},
)
HOST_CONFIGURATION = {"location": "ie"}


async def furnish(reactor: Any, socket: str, hosts: Mapping[str, Path]) -> None:
    """Wait for the control plane, then add users, hosts and host configuration. ``hosts``: for each the file that lets it join."""
    while True:
        try:
            async with connect(reactor, socket=socket) as cell:
                await add_users(cell)
                await admit_hosts(reactor, cell, hosts)
                await configure_hosts(cell, hosts)
                return
        except CannotReach:
            await deferLater(reactor, STEP)


async def add_users(cell: Cell) -> None:
    """Register the users that are not there."""
    names = {row["name"] for row in await cell.getUsers()}
    for user in USERS:
        if user["name"] not in names:
            await cell.registerUser(**user)  # type: ignore[arg-type]


async def admit_hosts(reactor: Any, cell: Cell, hosts: Mapping[str, Path]) -> None:
    """Let each host join when those before it have joined, and wait until all are up."""
    for name, may_join in hosts.items():
        may_join.touch()
        while name not in {row["name"] for row in await cell.getHosts()}:
            await deferLater(reactor, STEP)
    while not hosts.keys() <= {row["name"] for row in await cell.getHosts() if row["up"]}:
        await deferLater(reactor, STEP)


async def configure_hosts(cell: Cell, hosts: Mapping[str, Path]) -> None:
    """Set what the hosts' configuration does not say yet."""
    for row in await cell.getHosts():
        for name, value in HOST_CONFIGURATION.items():
            if row["name"] in hosts and name not in row["config"]:
                await cell.setHostConfig(row["id"], name, value)


def main() -> None:
    socket, *words = sys.argv[1:]
    hosts = {name: Path(file) for name, _, file in (word.partition("=") for word in words)}
    react(lambda reactor: Deferred.fromCoroutine(furnish(reactor, socket, hosts)))


if __name__ == "__main__":
    main()
