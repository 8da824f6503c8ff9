"""A real Prosody for tests: in a directory of its own, on a free loopback port, with a certificate authority of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from tashi.sandbox.certificates import write_certificates
from tashi.sandbox.xmpp_server import CONFIGURATION

DOMAIN = "door.test"
AVAILABLE = shutil.which("prosody") is not None


async def until(reactor: Any, condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Return when the condition holds; AssertionError when it does not within so many seconds."""
    deadline = reactor.seconds() + seconds
    while not condition():
        assert reactor.seconds() < deadline, "it did not happen in time"
        await deferLater(reactor, 0.01)


class Prosody:
    """One server; ``start`` and ``stop`` as often as needed, always on the same port."""

    def __init__(self, reactor: Any, first_lines: str = "", encrypted: bool = True, stanza_limit: int = 262144) -> None:
        self._reactor = reactor
        self.directory = Path(tempfile.mkdtemp(prefix="tashi-prosody-"))
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        write_certificates(self.directory, [DOMAIN, f"pubsub.{DOMAIN}"])
        configuration = CONFIGURATION.format(directory=self.directory, log=self.directory / "prosody.log", port=self.port, domain=DOMAIN)
        if not encrypted:
            configuration = configuration.replace("c2s_require_encryption = true", "c2s_require_encryption = false")
        configuration = configuration.replace("c2s_stanza_size_limit = 262144", f"c2s_stanza_size_limit = {stanza_limit}")
        (self.directory / "prosody.cfg.lua").write_text(first_lines + configuration)

    @property
    def ca_file(self) -> str:
        """The certificate authority that signed the server's certificate."""
        return str(self.directory / "ca.pem")

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return (self.directory / "prosody.log").read_text()

    def account(self, name: str, password: str) -> None:
        """Make an account, or give it another password."""
        accounts = self.directory / "data" / DOMAIN.replace(".", "%2e") / "accounts"
        accounts.mkdir(parents=True, exist_ok=True)
        (accounts / f"{name}.dat").write_text(f'return {{ ["password"] = "{password}" }};\n')

    async def start(self) -> None:
        """Start, and return when it listens."""
        command = ["prosody", "--config", str(self.directory / "prosody.cfg.lua"), "-F"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        await until(self._reactor, self._listens)

    def kill(self) -> None:
        """Pull the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Leave nothing behind."""
        self.kill()
        shutil.rmtree(self.directory)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
