"""The machine shut down because its control plane asks for it: by the command of its configuration, and only with nothing on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tashi.errors import CONFLICT, INTERNAL, OurFault
from tashi.interfaces import IHypervisor
from tashi.model.orders import Seen
from tashi.programs import run

SECONDS = 25.0
"""How long the command may take: less than the control plane waits for an answer."""


class ShuttingDown:
    """Runs ``command`` when asked."""

    log = Logger()

    def __init__(self, reactor: Any, command: Sequence[str], hypervisor: IHypervisor, run_call: Callable[..., Deferred[Any]]) -> None:
        self._reactor = reactor
        self._command = command
        self._hypervisor = hypervisor
        self._run_call = run_call

    async def shut_down(self, cell: str) -> None:
        """Have it begin to shut down. OurFault while a domain of the cell runs here, and when the command fails."""
        if not self._command:
            raise OurFault(INTERNAL, "[NodeManagerService] powerOffCommand is empty on this host, which therefore stays on")
        running = [one for one in await self._run_call(self._hypervisor.domains, cell) if one.seen is not Seen.GONE]
        if running:
            raise OurFault(CONFLICT, f"this host stays on: {len(running)} domains of the cell run on it")
        self.log.info("the machine shuts down, as the control plane asks")
        await run(self._reactor, self._command, SECONDS)
