"""A libvirtd with QEMU for one test class: in namespaces of its own, with a directory of its own, gone when it is stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 30.0
_INIT = """
set -e
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/libvirt /run/lock /run/log
for pair in etc:/etc/libvirt lib:/var/lib/libvirt cache:/var/cache/libvirt log:/var/log/libvirt; do
    mkdir -p "${pair#*:}" "$1/${pair%%:*}"
    mount --bind "$1/${pair%%:*}" "${pair#*:}"
done
/usr/sbin/virtlogd -d
touch "$1/ready"
set +e
while :; do sleep 3600 & wait $!; done  # and collect what is orphaned: libvirt waits for that
"""
_LIBVIRTD = """
unix_sock_dir = "{directory}"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "7a6c0000-0000-4000-8000-000000000001"
"""
_QEMU = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ ]
"""


class PrivateLibvirtd:
    """The daemon, and the power switch of the machine it thinks it is on."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tashi-libvirt-"))
        self.uri = f"qemu:///system?socket={self.directory}/libvirt-sock"
        (self.directory / "etc").mkdir()
        (self.directory / "etc" / "libvirtd.conf").write_text(_LIBVIRTD.format(directory=self.directory))
        (self.directory / "etc" / "qemu.conf").write_text(_QEMU)
        fences = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        self._machine = subprocess.Popen(["unshare", *fences, "bash", "-c", _INIT, "bash", str(self.directory)])
        self._daemon: subprocess.Popen[bytes] | None = None
        wait_until((self.directory / "ready").exists)

    def start(self) -> None:
        """Start libvirtd, and wait until it takes connections."""
        inside = ["nsenter", "-t", str(self.init()), "--mount", "--net", "--uts", "--ipc", "--pid", "--"]
        self._daemon = subprocess.Popen([*inside, "/usr/sbin/libvirtd"], stderr=subprocess.DEVNULL)
        wait_until(self._answers)

    def kill(self) -> None:
        """Let libvirtd crash; the guests run on."""
        for pid in self._inside("libvirtd"):
            os.kill(pid, signal.SIGKILL)
        if self._daemon is not None:
            self._daemon.wait(PATIENCE)

    def guests(self) -> list[int]:
        """The process ids of the QEMU processes."""
        return self._inside("qemu-system-x86_64")

    def stop(self) -> None:
        """Switch the machine off, and remove its directory."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.init(), signal.SIGKILL)
        self._machine.wait(PATIENCE)
        if self._daemon is not None:
            self._daemon.wait(PATIENCE)
        shutil.rmtree(self.directory, ignore_errors=True)

    def init(self) -> int:
        """The first process of the machine."""
        children = Path(f"/proc/{self._machine.pid}/task/{self._machine.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _inside(self, program: str) -> list[int]:
        """The processes of this program in the machine's process namespace."""
        space = os.readlink(f"/proc/{self.init()}/ns/pid")
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "ns/pid") == space:
                    name = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
                    if name.endswith(program):
                        found.append(int(entry.name))
        return found

    def _answers(self) -> bool:
        command = ["virsh", "-c", self.uri, "uri"]
        return subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE).returncode == 0


def wait_until(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait for a real server to get there; AssertionError when it does not in time."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
