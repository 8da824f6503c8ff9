"""A whole cell under test, run as a user runs it: `tashi sandbox`, `tashi VERB`, and foreign XMPP clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import slixmpp

from tashi.sandbox import processes, qemu_host
from tashi.sandbox.layout import load_layout

READY_SECONDS = 120
ROOT = Path(__file__).parents[2]


class RunningCell:
    """One sandbox in a directory of its own."""

    def __init__(self, state_dir: Path, options: Sequence[str]) -> None:
        self.state_dir = state_dir
        self.options = options

    def start(self) -> None:
        """Start what is missing; the cell is ready when this returns."""
        self._sandbox("--detach", *self.options)

    def down(self) -> None:
        self._sandbox("down")

    def power_cut(self, host: int | str) -> None:
        """End all that runs on a host, which is meant by its place in the list or its name; nobody is told."""
        self._sandbox("kill", "--host", self.host(host)["name"])

    def boot(self, host: int | str) -> None:
        """Power a host on again; its daemons have started when this returns."""
        self._sandbox("boot", "--host", self.host(host)["name"])

    def cut(self, host: int | str) -> None:
        """Cut a host's link to the rest of the cell."""
        self._sandbox("cut", "--host", self.host(host)["name"])

    def heal(self, host: int | str) -> None:
        """Mend a host's link."""
        self._sandbox("heal", "--host", self.host(host)["name"])

    def _sandbox(self, *words: str) -> None:
        command = [sys.executable, "-m", "tashi.client", "sandbox", *words, "--state-dir", str(self.state_dir)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=READY_SECONDS)
        assert run.returncode == 0, f"tashi sandbox {' '.join(words)} failed: {run.stdout}\n{run.stderr}\n{self.logs()}"

    @property
    def description(self) -> dict[str, Any]:
        return json.loads((self.state_dir / "cell.json").read_text())

    @property
    def sink(self) -> str:
        return self.description["sink"]

    def cli(self, *words: str, code: int = 0) -> str:
        """What the client prints for a verb, as root; it must end with ``code``."""
        environment = os.environ | {"TASHI_CONF": self.description["conf"]}
        run = subprocess.run([sys.executable, "-m", "tashi.client", *words], capture_output=True, text=True, env=environment, timeout=120)
        assert run.returncode == code, f"tashi {' '.join(words)} ended with {run.returncode}: {run.stdout}{run.stderr}\n{self.logs()}"
        return run.stdout if code == 0 else run.stderr

    def instances(self) -> list[dict[str, Any]]:
        return json.loads(self.cli("getInstances", "-o", "json"))

    def wait_for_instances(self, condition: Callable[[list[dict[str, Any]]], bool], seconds: float = 60) -> list[dict[str, Any]]:
        """The rows of getInstances once they meet the condition."""
        return until(self.instances, condition, seconds)

    def pid(self, *path: str) -> int:
        value: Any = self.description["pids"]
        for step in path:
            value = value[step]
        return value

    def kill(self, *path: str) -> None:
        """kill -9 of a process of the cell, as `cell.json` names it; returns when it is gone."""
        pid = self.pid(*path)
        os.kill(pid, signal.SIGKILL)
        until(lambda: alive(pid), lambda living: not living, 10)

    def host(self, host: int | str) -> dict[str, str]:
        """What cell.json says of a host, by its place in the list or by its name."""
        hosts: list[dict[str, str]] = self.description["hosts"]
        return hosts[host] if isinstance(host, int) else next(each for each in hosts if each["name"] == host)

    def hosts(self) -> dict[str, dict[str, Any]]:
        """The rows of getHosts, by name."""
        return {row["name"]: row for row in json.loads(self.cli("getHosts", "-o", "json"))}

    def virsh(self, host: int | str, *words: str) -> str:
        """What virsh prints about a qemu host, as plain virsh sees it; works with its link cut, too."""
        command = ["virsh", "-q", "-c", self.host(host)["uri"], *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout

    def inside(self, host: int | str, *command: str) -> str:
        """What a command prints that is run on a qemu host."""
        init = qemu_host.init_of(processes.processes_of(self.state_dir), self.host(host)["name"])
        assert init is not None, f"host {host} is off"
        entering = ["nsenter", "--target", str(init.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]
        run = subprocess.run([*entering, *command], capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, f"{command} on {host} failed: {run.stdout}{run.stderr}"
        return run.stdout

    def migration_uri(self, host: int | str) -> str:
        """A qemu host's libvirt as the other hosts reach it."""
        layout = load_layout(self.state_dir)
        assert layout is not None
        return qemu_host.migration_uri(layout, self.host(host)["name"])

    def domains(self, host: int | str = 0) -> list[str]:
        """The names of the domains that run on a qemu host."""
        return sorted(self.virsh(host, "list", "--name").split())

    def logs(self) -> str:
        """The ends of all logs, for a failure's message."""
        ends = []
        for log in sorted((self.state_dir / "log").glob("*.log")):
            ends.append(f"==> {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-25:]))
        return "\n".join(ends)

    @asynccontextmanager
    async def peer(self, account: str, resource: str = "peer", present: bool = True) -> AsyncIterator[Peer]:
        """A foreign XMPP client, logged in as an account of the cell."""
        description = self.description
        peer = Peer(description["accounts"][account], resource, description["xmpp"], present)
        await peer.begin()
        try:
            yield peer
        finally:
            await peer.end()


class Peer:
    """What LLMS, or anybody, is on the wire: it sends messages and keeps those that come."""

    def __init__(self, account: dict[str, str], resource: str, server: dict[str, Any], present: bool) -> None:
        self.messages: list[Any] = []
        self._present = present
        self._server = server
        self._changed = asyncio.Event()
        self._online = asyncio.Event()
        self.client = slixmpp.ClientXMPP(f"{account['jid']}/{resource}", account["password"])
        self.client.ssl_context = ssl.create_default_context(cafile=server["ca"])
        self.client.add_event_handler("session_start", self._started)
        self.client.add_event_handler("message", self._received)

    async def begin(self) -> None:
        self.client.connect(self._server["host"], self._server["port"])
        await asyncio.wait_for(self._online.wait(), 20)

    async def end(self) -> None:
        await self.client.disconnect()

    def say(self, to: str, body: str, kind: str = "chat", **attributes: str) -> None:
        message = self.client.make_message(mto=to, mbody=body, mtype=kind)
        for name, value in attributes.items():
            message[name] = value
        message.send()

    async def until(self, condition: Callable[[list[Any]], bool], seconds: float = 60) -> list[Any]:
        """The messages so far once they meet the condition."""
        try:
            async with asyncio.timeout(seconds):
                while not condition(self.messages):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"after {seconds} s there are only {[message['body'] for message in self.messages]}") from None
        return self.messages

    async def replies(self, count: int, seconds: float = 60) -> list[dict[str, Any]]:
        """The bodies of the first ``count`` messages, as JSON."""
        await self.until(lambda messages: len(messages) >= count, seconds)
        return [json.loads(message["body"]) for message in self.messages]

    async def ask(self, to: str, body: str, **attributes: str) -> dict[str, Any]:
        """Say something and return the next message as JSON."""
        before = len(self.messages)
        self.say(to, body, **attributes)
        await self.until(lambda messages: len(messages) > before)
        return json.loads(self.messages[before]["body"])

    async def _started(self, event: object) -> None:
        if self._present:
            self.client.send_presence()
        self._online.set()

    def _received(self, message: Any) -> None:
        self.messages.append(message)
        self._changed.set()


def compute(name: str, **fields: Any) -> str:
    """A createcompute command for one VM of user 1000."""
    body = {"hostname": name, "imageIdentifier": "tashi", "userId": 1000, "resourceId": f"key-{name}", **fields}
    return "createcompute " + json.dumps(body)


def until(look: Callable[[], Any], condition: Callable[[Any], bool], seconds: float) -> Any:
    """What ``look`` returns once it meets the condition; AssertionError when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        value = look()
        if condition(value):
            return value
        assert time.monotonic() < deadline, f"not so within {seconds} s: {value}"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def running_cell(*options: str) -> Iterator[RunningCell]:
    """A cell that is there while the block runs, and leaves nothing."""
    with tempfile.TemporaryDirectory(prefix="tashi-cell-") as directory:
        cell = RunningCell(Path(directory) / "cell", options)
        try:
            cell.start()
            yield cell
        finally:
            cell.down()
