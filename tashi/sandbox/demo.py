"""What `make run` shows: one XMPP message becomes a running machine.

Brings up a cell with one real host, sends a createcompute message as the account `ism` by an XMPP client that is none of ours, and shows
the reply, the VM in the client's list, and the first lines of its console. Then it stays until Ctrl-C; with `--once` it deletes the VM,
stops, and exits 0 only when all of it worked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slixmpp

from tashi.sandbox import cell
from tashi.sandbox.command import DONE, FAILED, running_cell, say, stay, stopped_by_signals, summary
from tashi.sandbox.layout import Layout
from tashi.sandbox.problem import SandboxProblem

REPLY_SECONDS = 60.0
CONSOLE_SECONDS = 60.0
HEARTBEATS = 2  # console lines to show after the guest says that it is up
SHOWN = 100  # characters of a message to show


class Sender(slixmpp.ClientXMPP):  # type: ignore[misc]
    """The account ism, sending commands to the cell's message sink."""

    def __init__(self, facts: dict[str, Any]) -> None:
        account = facts["accounts"]["ism"]
        super().__init__(account["jid"], account["password"])
        self.ca_certs = facts["xmpp"]["ca"]
        self._facts = facts
        self._ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reply: asyncio.Future[str] | None = None
        self.add_event_handler("session_start", lambda event: self._ready.set_result(""))
        self.add_event_handler("failed_all_auth", lambda event: self._ready.set_result("the server refused the password"))
        self.add_event_handler("message", self._on_message)

    async def log_in(self) -> None:
        """Connect over verified TLS, log in and say that we are here."""
        self.connect(self._facts["xmpp"]["host"], self._facts["xmpp"]["port"])
        refusal = await asyncio.wait_for(self._ready, REPLY_SECONDS)
        if refusal:
            raise SandboxProblem(f"cannot log in as {self.boundjid.bare}: {refusal}")
        self.send_presence()

    async def command(self, text: str) -> dict[str, Any]:
        """Send a command and return the reply; raises SandboxProblem when it says ERROR, or none comes."""
        self._reply = asyncio.get_running_loop().create_future()
        say(f"--> {self._facts['sink']}: {_short(text)}")
        self.send_message(self._facts["sink"], text, mtype="chat")
        try:
            body = await asyncio.wait_for(self._reply, REPLY_SECONDS)
        except TimeoutError:
            raise SandboxProblem(f"no reply within {REPLY_SECONDS:.0f} s; look at the control plane's log") from None
        say(f"<-- {_short(body)}")
        reply: dict[str, Any] = json.loads(body)
        if reply["status"] != "OK":
            raise SandboxProblem(f"the control plane refused: {reply['message']}")
        return reply

    def _on_message(self, message: slixmpp.Message) -> None:
        if self._reply is not None and not self._reply.done() and message["from"].bare == self._facts["sink"].partition("/")[0]:
            self._reply.set_result(message["body"])


def main(argv: Sequence[str]) -> int:
    """Run the demonstration; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make run", description="A whole cell, and one XMPP message that becomes a running machine.")
    parser.add_argument("--state-dir", type=Path, default=Path(".cell"), metavar="DIR")
    parser.add_argument("--once", action="store_true", help="delete the VM, stop, and exit 0 only when all of it worked")
    arguments = parser.parse_args(argv)
    try:
        with stopped_by_signals(), running_cell(cell.Wish(directory=arguments.state_dir.resolve())) as layout:
            say(summary(layout))
            asyncio.run(show(layout, delete=arguments.once))
            if not arguments.once:
                with contextlib.suppress(KeyboardInterrupt):
                    say(next_steps(layout))
                    stay(layout)
    except SandboxProblem as problem:
        say(str(problem))
        return FAILED
    except KeyboardInterrupt:
        say("interrupted")
        return FAILED
    return DONE


async def show(layout: Layout, *, delete: bool) -> None:
    """Create a VM by message, show it, and delete it again when asked to."""
    facts = json.loads(layout.cell_file.read_text())
    sender = Sender(facts)
    await sender.log_in()
    began = time.monotonic()
    reply = await sender.command(f"createcompute {json.dumps(message())}")
    say(f"    {reply['resources'][0]} is {reply['state']} on {reply['host']} after {time.monotonic() - began:.1f} s\n")
    say(_client(layout, "getInstances"))
    uri = next(host["uri"] for host in facts["hosts"] if host["name"] == reply["host"])
    number = reply["ids"][0]
    await show_console(uri, number)
    if delete:
        await sender.command(f"deletecompute {number}")
        if _domain(uri, number) is not None:
            raise SandboxProblem(f"VM {number} was deleted, but its domain is still on {reply['host']}")
    await sender.disconnect()


def message() -> list[Any]:
    """The argument of the command: the message of the file beside this one, with a name and an id of its own."""
    content: list[Any] = json.loads(Path(__file__).with_name("demo_message.json").read_text())
    content[0] |= {"hostname": f"tizzy-{secrets.token_hex(2)}", "resourceId": str(uuid.uuid4())}
    return content


async def show_console(uri: str, number: int) -> None:
    """Show what the guest prints until it has beaten a few times."""
    say("    its console:")
    log = _console_log(uri, number)
    deadline = time.monotonic() + CONSOLE_SECONDS
    shown = beats = 0
    while beats < HEARTBEATS:
        lines = log.read_bytes().decode(errors="replace").splitlines(keepends=True) if log.exists() else []
        complete = [line.strip() for line in lines if line.endswith("\n")]
        for line in complete[shown:]:
            sign = re.search(r"GUEST-UP .*|HB \d+ .*", line)  # the guest's shell writes a prompt between them
            if sign is not None:
                say(f"    | {sign[0]}")
                beats += sign[0].startswith("HB")
        shown = len(complete)
        if time.monotonic() > deadline:
            raise SandboxProblem(f"the guest did not come up within {CONSOLE_SECONDS:.0f} s; its console is in {log}")
        await asyncio.sleep(0.1)


def next_steps(layout: Layout) -> str:
    """What to type next."""
    tashi = f"TASHI_CONF={layout.conf} {Path(sys.executable).parent / 'tashi'}"
    host = layout.host_names()[0]
    return "\n".join(
        (
            "",
            "The cell stays up until Ctrl-C. In another terminal, for instance:",
            f"  {tashi} createVm --name web --disks tashi.img --memory 128 --wait",
            f"  {tashi} getInstances",
            f"  {tashi} destroyVm --instance web",
            f"  virsh -c '{layout.host_uri(host)}' list",
        )
    )


def _client(layout: Layout, *words: str) -> str:
    """What the `tashi` command prints."""
    environment = os.environ | {"TASHI_CONF": str(layout.conf)}
    done = subprocess.run([sys.executable, "-m", "tashi.client", *words], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SandboxProblem(f"`tashi {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout


def _domain(uri: str, number: int) -> str | None:
    """The name of the VM's domain on the host, if there is one."""
    names = _virsh(uri, "list", "--all", "--name").split()
    return next((name for name in names if name.startswith(f"tashi-{number}-")), None)


def _console_log(uri: str, number: int) -> Path:
    """The file that the domain's serial console is logged to."""
    name = _domain(uri, number)
    if name is None:
        raise SandboxProblem(f"VM {number} is said to run, but has no domain at {uri}")
    log = ElementTree.fromstring(_virsh(uri, "dumpxml", name)).find("./devices/serial/log")
    if log is None:
        raise SandboxProblem(f"domain {name} keeps no log of its console")
    return Path(log.attrib["file"])


def _virsh(uri: str, *words: str) -> str:
    done = subprocess.run(["virsh", "-q", "-c", uri, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SandboxProblem(f"`virsh {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
