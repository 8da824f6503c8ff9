"""Peers that mean harm, at full speed, each kind a process of its own: ``python -m tests.integration.attackers KIND TARGET...``.

``Target`` is one control plane; `attack` starts the processes, `agent_login` and `user_call` are honest peers in plain sockets.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from twisted.spread import banana

from tashi.sandbox.layout import load_layout

THREADS: Final = 6
NOBODY: Final = 65534
DIALECT: Final = b"\x02\x82pb"
LISTS: Final = (
    b"\x00\x00\x28\x80" + b"\x01\x81" * 8000,  # 640 Ki elements
    b"\x3f\x80" * 4 + b"\x01\x81" * 8000,
    b"\x01\x80" * 8000,
    b"\x00\x00\x28\x82" + b"x" * 16_000,
)


class Target(NamedTuple):
    """Where a control plane listens; attackers come as this user, and from this address."""

    path: str
    port: int
    authority: str
    join_secret: str
    uid: int = NOBODY
    address: str = "127.0.0.2"


def target_of(state_dir: Path, **fields: Any) -> Target:
    """The control plane of a sandbox, its socket open to all users."""
    layout = load_layout(state_dir)
    assert layout is not None
    for directory in (state_dir.parent, state_dir, *layout.manager_socket.parents):
        if directory.stat().st_mode & 0o001 == 0:
            directory.chmod(directory.stat().st_mode | 0o011)
    secret = (state_dir / "manager" / "join.secret").read_text().strip()
    return Target(str(layout.manager_socket), layout.identity.manager_port, str(state_dir / "manager" / "ca.pem"), secret, **fields)


@contextlib.contextmanager
def attack(kinds: tuple[str, ...], target: Target) -> Iterator[None]:
    """Attackers of these kinds at both doors while the block runs."""
    command = [sys.executable, "-m", "tests.integration.attackers"]
    running = [subprocess.Popen([*command, kind, json.dumps(target)]) for kind in kinds]
    try:
        yield
        assert [process.poll() for process in running] == [None] * len(running), "an attacker gave up"
    finally:
        for process in running:
            process.kill()
            process.wait()


def agent_login(target: Target, name: str = "probe", seconds: float = 20.0) -> float:
    """Log in as a node agent does, with its pauses between attempts, and hang up; the seconds it took."""
    login = json.dumps({"name": name, "secret": name.ljust(40, "!"), "join": target.join_secret}).encode()
    call = banana.encode([b"message", 1, b"root", b"login_node", 1, [b"tuple", login, [b"remote", 1]], [b"dictionary"]])
    return _until_answered(lambda: _tls(target, "127.0.0.1"), call, b"hostId", seconds)


def user_call(target: Target, verb: str = "getInstances", seconds: float = 20.0) -> float:
    """Log in over the unix socket and call a verb; the seconds it took."""
    login = banana.encode([b"message", 1, b"root", b"login_user", 1, [b"tuple"], [b"dictionary"]])
    text = json.dumps({"verb": verb}).encode()
    call = banana.encode([b"message", 2, 1, b"call", 1, [b"tuple", text], [b"dictionary"]])
    return _until_answered(lambda: _unix(target), login, b'"userId"', seconds, call, b'"result"')


def _until_answered(connect: Callable[[], socket.socket], *steps: Any) -> float:
    call, sign, seconds, *more = steps
    began, pause = time.monotonic(), 0.25
    while True:
        try:
            with connect() as connection:
                connection.settimeout(12)
                connection.sendall(DIALECT + call)
                _read_until(connection, sign)
                if more:
                    connection.sendall(more[0])
                    _read_until(connection, more[1])
            return time.monotonic() - began
        except OSError:
            assert time.monotonic() - began < seconds, "no login"
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def _read_until(connection: socket.socket, sign: bytes) -> None:
    received = b""
    while sign not in received:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionResetError
        received += chunk
    assert b'{"error"' not in received, received


def _unix(target: Target) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    try:
        connection.connect(target.path)
    except BaseException:
        connection.close()
        raise
    return connection


def _tcp(target: Target, address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", target.port), 5, (address, 0))


def _tls(target: Target, address: str, context: ssl.SSLContext | None = None) -> socket.socket:
    context = context or ssl.create_default_context(cafile=target.authority)
    plain = _tcp(target, address)
    try:
        return context.wrap_socket(plain, server_hostname="tashi-cluster-manager")
    except BaseException:
        plain.close()
        raise


def _send_lists(connect: Callable[[], socket.socket], number: int) -> None:
    """A2: a list without end, at full speed, again and again."""
    with connect() as connection:
        connection.sendall(DIALECT + LISTS[number % len(LISTS)])
        while True:
            connection.sendall(b"\x01\x81" * 32_000)


def _stay_idle(connect: Callable[[], socket.socket], number: int) -> None:
    """As many connections as there may be, and nothing said over them."""
    kept: list[socket.socket] = []
    while True:
        kept.append(connect())
        if len(kept) > 500:
            kept.pop(0).close()


def _log_in_slowly(connect: Callable[[], socket.socket], number: int) -> None:
    """One byte a second."""
    with connect() as connection:
        for byte in DIALECT + LISTS[1]:
            connection.sendall(bytes([byte]))
            time.sleep(1)


def _call(connect: Callable[[], socket.socket], number: int) -> None:
    """A3: a user's calls, each refused, at full speed, with every answer read."""
    login = banana.encode([b"message", 1, b"root", b"login_user", 1, [b"tuple"], [b"dictionary"]])
    text = json.dumps({"verb": "destroyMany", "arguments": {"basename": "nothing"}}).encode()
    call = banana.encode([b"message", 2, 1, b"call", 1, [b"tuple", text], [b"dictionary"]])
    with connect() as connection:
        connection.sendall(DIALECT + login)
        connection.recv(65536)
        reader = threading.Thread(target=_read_all, args=(connection,), daemon=True)
        reader.start()
        while True:
            connection.sendall(call * 400)


def _read_all(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass


KINDS: Final = {"lists": _send_lists, "idle": _stay_idle, "slow": _log_in_slowly, "calls": _call}


def main(kind: str, target: Target) -> None:
    """Attack both doors until killed."""
    "".encode("idna")  # loads what another user may not read
    context = ssl.create_default_context(cafile=target.authority)
    if os.geteuid() == 0 and target.uid:
        os.setgroups([])
        os.setresuid(target.uid, target.uid, target.uid)
    doors = (lambda: _unix(target), lambda: _tls(target, target.address, context), lambda: _tcp(target, target.address))

    def repeat(connect: Callable[[], socket.socket], number: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                KINDS[kind](connect, number)

    threads = [threading.Thread(target=repeat, args=(door, number)) for number in range(THREADS) for door in doors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], Target(*json.loads(sys.argv[2])))
