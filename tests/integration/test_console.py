"""`tashi console` and the screen of a real guest, through the whole cell."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.integration.cells import RunningCell, until
from tests.integration.rfb import log_in
from tests.integration.test_node_libvirt import BOOT_IMAGE, GREETING

pytestmark = pytest.mark.integration

PATIENCE = 60.0


@pytest.fixture(scope="module")
def guest(qemu_cell: RunningCell) -> Iterator[str]:
    """A running guest whose shell waits at its console."""
    name = "talker"
    qemu_cell.cli("createVm", "--name", name, "--disks", "tashi.img", "--wait")
    until(lambda: log_of(qemu_cell, name), lambda said: b"/ # " in said, 60)
    yield name
    qemu_cell.cli("destroyVm", "--instance", name, "--wait")


def start(cell: RunningCell, *words: str, **streams: int) -> subprocess.Popen[bytes]:
    """`tashi console` as a process of its own."""
    environment = os.environ | {"TASHI_CONF": cell.description["conf"]}
    return subprocess.Popen([sys.executable, "-m", "tashi.client", "console", *words], env=environment, **streams)  # type: ignore[call-overload,no-any-return]


def console(cell: RunningCell, words: Sequence[str], typed: bytes = b"", code: int = 0) -> tuple[bytes, str]:
    """What it puts out for what is typed, and its words, when it is over."""
    pipe = subprocess.PIPE
    with start(cell, *words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        said, words_of_ours = process.communicate(typed, 60)
    assert process.returncode == code, words_of_ours.decode()
    return said, words_of_ours.decode()


def log_of(cell: RunningCell, name: str) -> bytes:
    """All that the guest has said."""
    return console(cell, ["--instance", name, "--log"])[0]


class Terminal:
    """A terminal with `tashi console` at it."""

    def __init__(self, cell: RunningCell, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self.process = start(cell, *words, stdin=theirs, stdout=theirs, stderr=theirs)
        self.theirs = theirs
        self.shown = b""

    def wait_for(self, words: bytes) -> None:
        """Read on until these are shown; what was shown before them is forgotten."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.shown:
            readable, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"{words!r} was not shown, only {self.shown!r}"
            self.shown += os.read(self._ours, 4096)
        self.shown = self.shown.partition(words)[2]

    def type(self, words: bytes) -> None:
        """Press these keys."""
        os.write(self._ours, words)

    def end(self) -> int:
        """The exit code, when it is over."""
        try:
            return self.process.wait(30)
        finally:
            assert termios.tcgetattr(self.theirs) == self.before, "the terminal is not as it was"
            os.close(self.theirs)
            os.close(self._ours)


def test_a_conversation(qemu_cell: RunningCell, guest: str) -> None:
    """What comes on a pipe is typed, what the guest answers comes out, and the log has it, too."""
    said, words = console(qemu_cell, ["--instance", guest], b"echo answer=$((6*7))\n")
    assert b"answer=42" in said
    assert f"at the console of {guest}" in words
    assert b"answer=42" in log_of(qemu_cell, guest)


def test_a_terminal(qemu_cell: RunningCell, guest: str) -> None:
    """Every key goes to the guest, Ctrl-C too, but Ctrl-] leaves; a second one is refused or takes over; the terminal is restored."""
    first = Terminal(qemu_cell, "--instance", guest)
    first.wait_for(b"Ctrl-] leaves")
    first.type(b"printf be; printf gun; sleep 1000\r")
    first.wait_for(b"begun")
    first.type(b"\x03")
    first.type(b"echo answer=$((7*7))\r")
    first.wait_for(b"answer=49")
    assert "--force" in console(qemu_cell, ["--instance", guest], code=1)[1]
    second = Terminal(qemu_cell, "--instance", guest, "--force")
    first.wait_for(b"somebody else has taken the console over")
    assert first.end() == 1
    second.type(b"echo answer=$((8*8))\r")
    second.wait_for(b"answer=64")
    second.type(b"\x1d")
    assert second.end() == 0


def test_a_killed_client(qemu_cell: RunningCell, guest: str) -> None:
    """A client that is killed is at the console no more."""
    victim = Terminal(qemu_cell, "--instance", guest)
    victim.wait_for(b"HB ")
    assert console_code(qemu_cell, guest) == 1  # and by now it waits for more
    victim.process.kill()
    victim.process.wait(30)
    until(lambda: console_code(qemu_cell, guest), lambda code: code == 0, PATIENCE)


def console_code(cell: RunningCell, name: str) -> int:
    """The exit code of a short visit."""
    nowhere = subprocess.DEVNULL
    with start(cell, "--instance", name, "--for", "0.1", stdin=nowhere, stdout=nowhere, stderr=nowhere) as process:
        return process.wait(60)


@contextlib.contextmanager
def an_image(cell: RunningCell, name: str, content: bytes) -> Iterator[None]:
    """An image of this content, for as long as the block lasts."""
    path = cell.state_dir / "share" / "images" / name
    path.write_bytes(content)
    try:
        yield
    finally:
        path.unlink()


def test_the_end_of_the_guest(qemu_cell: RunningCell) -> None:
    """Who is at the console when the guest ends is told so, and can read afterwards what it said."""
    with an_image(qemu_cell, "greeter.img", BOOT_IMAGE):
        qemu_cell.cli("createVm", "--name", "brief", "--disks", "greeter.img", "--memory", "32", "--wait")
    (row,) = [row for row in qemu_cell.instances() if row["name"] == "brief"]
    until(lambda: log_of(qemu_cell, "brief"), lambda said: GREETING in said, PATIENCE)
    terminal = Terminal(qemu_cell, "--instance", "brief")
    terminal.wait_for(b"Ctrl-] leaves")
    uri = qemu_cell.description["hosts"][0]["uri"]
    subprocess.run(["virsh", "-c", uri, "destroy", f"tashi-{row['id']}-brief"], check=True, capture_output=True, timeout=PATIENCE)
    terminal.wait_for(b"the console has closed: ")
    assert terminal.end() == 1
    qemu_cell.wait_for_instances(lambda rows: "brief" not in [each["name"] for each in rows])
    assert GREETING in log_of(qemu_cell, str(row["id"]))


def test_the_screen(qemu_cell: RunningCell, guest: str) -> None:
    """The screen can be reached once with the password that startVnc says, at the host's address, and not after stopVnc."""

    def start_vnc() -> tuple[tuple[str, int], str]:
        place, password = qemu_cell.cli("vmmSpecificCall", "--instance", guest, "--arg", "startVnc").splitlines()
        host, _, port = place.removeprefix("VNC running on ").partition(":")
        assert not host.startswith("127."), "it is bound to the host's own address"
        return (host, int(port)), password

    address, password = start_vnc()
    with socket.create_connection(address, 10) as viewer:
        assert guest in log_in(viewer, password)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 10)
        assert qemu_cell.cli("vmmSpecificCall", "--instance", guest, "--arg", "stopVnc") == "VNC halted\n"
        with contextlib.suppress(ConnectionResetError):
            while viewer.recv(4096):
                pass
    address, password = start_vnc()
    with socket.create_connection(address, 10) as viewer, pytest.raises(PermissionError):
        log_in(viewer, password[::-1] + "x")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 10)
    secrets = [path for path in qemu_cell.state_dir.rglob("*") if path.suffix in (".log", ".sqlite", ".sqlite-wal")]
    assert secrets
    assert [path for path in secrets if password.encode() in path.read_bytes()] == []


def test_the_cdrom(qemu_cell: RunningCell, guest: str) -> None:
    """An image is put into the drive by its name, as it is written, and taken out again."""
    with an_image(qemu_cell, "Tools.iso", bytes(2**16)):
        changed = qemu_cell.cli("vmmSpecificCall", "--instance", guest, "--arg", "changeCdrom:Tools.iso")
        assert changed == "Changed ide1-cd0 to Tools.iso\n"
        assert "no image" in qemu_cell.cli("vmmSpecificCall", "--instance", guest, "--arg", "changeCdrom:tools.iso", code=4)
        assert qemu_cell.cli("vmmSpecificCall", "--instance", guest, "--arg", "changeCdrom:") == "Ejected ide1-cd0\n"


def test_a_host_without_consoles(simulated_cell: RunningCell) -> None:
    """A host whose machines have no consoles, or screens, says so."""
    simulated_cell.cli("createVm", "--name", "mute", "--disks", "tashi.img", "--wait")
    try:
        assert "cannot be opened" in console(simulated_cell, ["--instance", "mute"], code=1)[1]
        assert "cannot be shown" in simulated_cell.cli("vmmSpecificCall", "--instance", "mute", "--arg", "startVnc", code=1)
        assert "no instance" in console(simulated_cell, ["--instance", "nobody"], code=4)[1]
    finally:
        simulated_cell.cli("destroyVm", "--instance", "mute", "--wait")
