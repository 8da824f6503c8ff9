"""The first process of a sandbox host: `python -m tashi.sandbox.host_init SPECIFICATION`.

It runs as number 1 of fresh mount, network, pid, uts and ipc namespaces, makes them look like a machine of its own, and starts the
host's daemons: virtlogd, libvirtd, bindfs where installed, the node agent. It restarts nothing by itself; on SIGHUP it starts those that
have ended. When it dies, the kernel ends everything on the host, as a power cut would.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tashi.node import machine
from tashi.sandbox import control_groups, kernel, processes

PATIENCE = 60.0  # seconds to wait for what the outside provides


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """A program that belongs to the host."""

    role: str  # the mark by which the sandbox finds it
    command: list[str]
    log: str
    environment: dict[str, str] = {}


class HostSpecification(msgspec.Struct, frozen=True, kw_only=True):
    """All that the init process is told."""

    hostname: str
    address: str  # with its prefix length, on eth0
    guest_bridge: str  # joins the guests' interfaces with eth1
    groups: list[str]  # its control groups, one directory per hierarchy
    binds: list[tuple[str, str]]  # (own directory, the system's directory it stands in for)
    machine_id: str  # a file that stands in for the machine's id, the same at each boot
    boot_id: str  # a file that stands in for the kernel's id of this boot
    keep: list[str]  # directories that stay visible even when they lie under /run
    share: str  # shown as a file system that libvirt takes for shared
    daemons: list[Daemon]


def main(argument: str) -> None:
    """Set the host up, then collect ended children for ever."""
    specification = msgspec.json.decode(Path(argument).read_bytes(), type=HostSpecification)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    set_up_control_groups(specification)
    set_up_files(specification)
    set_up_network(specification)
    show_as_shared(specification.share)
    daemons = Daemons(specification.daemons)
    signal.signal(signal.SIGHUP, lambda number, frame: daemons.start_missing())
    daemons.start_missing()
    while True:
        try:
            daemons.collect(*os.wait())
        except ChildProcessError:
            signal.pause()


def set_up_control_groups(specification: HostSpecification) -> None:
    """Enter the host's groups, and make them the roots of what the host sees."""
    trees = control_groups.hierarchies()
    for directory in specification.groups:
        Path(directory, "cgroup.procs").write_text("0")
    kernel.unshare(kernel.CLONE_NEWCGROUP)
    kernel.mount("proc", "/proc", "proc")
    kernel.mount("sysfs", "/sys", "sysfs")
    if all(tree.controllers for tree in trees):
        kernel.mount("tmpfs", "/sys/fs/cgroup", "tmpfs", options="mode=755")
        for tree in trees:
            place = Path("/sys/fs/cgroup", tree.controllers)
            place.mkdir()
            kernel.mount("cgroup", str(place), "cgroup", options=tree.controllers)
    else:
        kernel.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
        root = Path("/sys/fs/cgroup")
        (root / "init").mkdir(exist_ok=True)  # a group with processes of its own cannot hand controllers down
        (root / "init" / "cgroup.procs").write_text("0")
        for controller in (root / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                (root / "cgroup.subtree_control").write_text(f"+{controller}")


def set_up_files(specification: HostSpecification) -> None:
    """Give the host a /run and libvirt directories of its own; without the outer /run no system bus or machine manager is in sight."""
    handles = {path: os.open(path, os.O_PATH) for path in specification.keep if path.startswith("/run/")}
    kernel.mount("tmpfs", "/run", "tmpfs", options="mode=755")
    for path, handle in handles.items():
        os.makedirs(path)
        kernel.bind(f"/proc/self/fd/{handle}", path)
        os.close(handle)
    for directory in ("/run/libvirt", "/run/lock", "/run/log"):
        os.makedirs(directory)
    for own, systems in specification.binds:
        os.makedirs(systems, exist_ok=True)
        kernel.bind(own, systems)
    for file in filter(Path.exists, machine.MACHINE_ID):
        kernel.bind(specification.machine_id, str(file))
    kernel.bind(specification.boot_id, str(machine.BOOT_ID))


def set_up_network(specification: HostSpecification) -> None:
    """Name the host, wait for its two network cards, and configure them."""
    socket.sethostname(specification.hostname)
    wait_for(lambda: {"eth0", "eth1"} <= {name for _, name in socket.if_nameindex()}, "network cards")
    bridge = specification.guest_bridge
    commands = (
        "link set lo up",
        f"address add {specification.address} dev eth0",
        "link set eth0 up",
        f"link add {bridge} type bridge",
        f"link set eth1 master {bridge} up",
        f"link set {bridge} up",
    )
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands).encode(), check=True)


def show_as_shared(share: str) -> None:
    """Lay a bindfs that calls itself glusterfs over the shared directory: libvirt then migrates guests without copying their disks."""
    program = shutil.which("bindfs")
    if program is not None and os.path.exists("/dev/fuse"):
        subprocess.run([program, "-o", "subtype=glusterfs", share, share], check=False, start_new_session=True)


class Daemons:
    """The host's daemons and those of them that run."""

    def __init__(self, daemons: Sequence[Daemon]) -> None:
        self._daemons = daemons
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starting = False

    def start_missing(self) -> None:
        """Start the daemons that are not running, in their order. A signal may call this while it is at work, and then need not."""
        if self._starting:
            return
        self._starting = True
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                self.collect(*ended)
        for daemon in self._daemons:
            if daemon.role not in self._running:
                self._start(daemon)
        self._starting = False

    def collect(self, pid: int, status: int) -> None:
        """Forget a child that was waited for; those it left behind come here, too, and have no entry."""
        for role in [role for role, process in self._running.items() if process.pid == pid]:
            self._running.pop(role).returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again

    def _start(self, daemon: Daemon) -> None:
        with open(daemon.log, "ab") as output:
            self._running[daemon.role] = subprocess.Popen(
                daemon.command,
                env=os.environ | daemon.environment | {processes.ROLE: daemon.role},
                cwd=os.path.dirname(daemon.log),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait for what the outside provides; give up, and with that the host, when it does not come."""
    if not processes.wait_until(condition, PATIENCE):
        sys.exit(f"{what}: not there after {PATIENCE:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1])
