"""Brings a whole cell up, and takes it down again.

`bring_up` starts what is missing and changes nothing that runs; `take_down` ends every process, network, control group and mount of the
cell and keeps its directory, from which the next `bring_up` goes on. Nothing watches a cell once it is up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

from tashi.files import write_whole
from tashi.sandbox import configuration, control_groups, image, processes, qemu_host, simulated_host, xmpp_server
from tashi.sandbox.layout import DOMAIN, Layout, derive_layout, host_name, load_layout, make_layout
from tashi.sandbox.problem import SandboxProblem

Tell = Callable[[str], None]

MANAGER = "manager"
FURNISHING = "furnish"
NEEDED_TOOLS = ("ip", "unshare")
PATIENCE, PATIENCE_PER_HOST = 90.0, 3.0  # seconds until the hosts must be up
SINK_PATIENCE = 45.0  # seconds until the control plane must be online; it tries at least every 30


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asks for; None is what the cell has, or the default."""

    directory: Path
    hosts: int | None = None
    hypervisor: str | None = None
    cores: int | None = None
    memory: int | None = None  # MB
    settings: Sequence[configuration.Setting] = ()


def bring_up(wish: Wish, tell: Tell) -> Layout:
    """Start what is missing of the cell, and return when all of it is ready. Raises SandboxProblem."""
    _check_machine(wish.directory)
    with locked(wish.directory):
        layout = _layout(wish)
        _make_directories(layout)
        running = processes.processes_of(layout.directory)
        if not running:
            layout.cell_file.unlink(missing_ok=True)  # of a cell that ended without a goodbye
        names = _host_names(layout, wish)
        _write_files(layout, wish, names)
        tell("guest image ...")
        _provide_image(layout)
        if layout.identity.hypervisor == "qemu":
            qemu_host.prepare(layout)
        steps: list[Callable[[], object]] = []
        if processes.main_process(running, xmpp_server.ROLE) is None:
            tell(f"XMPP server on 127.0.0.1:{layout.identity.xmpp_port} ...")
            steps.append(lambda: xmpp_server.start(layout))
        if processes.main_process(running, MANAGER) is None:
            tell("control plane ...")
            steps.append(lambda: _start_manager(layout))
        tell(f"{len(names)} {layout.identity.hypervisor} {'host' if len(names) == 1 else 'hosts'} ...")
        steps.extend(partial(start_host, layout, name, running) for name in names)
        furnishing = _start_furnishing(layout, names)
        try:
            _at_once(steps)
            _await_furnishing(layout, names, furnishing)
        finally:
            processes.kill([furnishing.pid])
        if layout.identity.hypervisor == "qemu":
            qemu_host.keep_answers(layout, names[0])
        _await_sink(layout)
        write_cell_file(layout, names)
    return layout


def take_down(directory: Path) -> None:
    """End all that runs of the cell at `directory`, in whatever state, even with the directory gone. Its files stay, cell.json goes."""
    with locked(directory):
        layout = load_layout(directory) or derive_layout(directory, "qemu")
        layout.cell_file.unlink(missing_ok=True)
        # first the control plane, so that it takes no note of the hosts that vanish
        for is_next in (lambda role: role in (FURNISHING, MANAGER), lambda role: role.startswith("node:")):
            processes.stop(process.pid for process in _others(directory) if is_next(process.role))
        for name in {process.role.partition(":")[2] for process in _others(directory) if process.role.startswith("host:")}:
            qemu_host.kill(layout, name)
        processes.stop(process.pid for process in _others(directory))
        processes.kill(process.pid for process in _others(directory))  # what those were just about to start
        for group in control_groups.names(layout.cgroup("")):
            control_groups.remove(group)
        qemu_host.remove_bridges(layout)
        shutil.rmtree(layout.run_directory, ignore_errors=True)


def is_running(directory: Path) -> bool:
    """Whether any process of the cell runs."""
    return bool(processes.processes_of(directory))


def write_cell_file(layout: Layout, names: Sequence[str]) -> None:
    """Tell the world how to use the cell: DIR/cell.json."""
    running = processes.processes_of(layout.directory)

    def pid_of(role: str) -> int | None:
        process = processes.main_process(running, role)
        return process.pid if process is not None else None

    passwords = xmpp_server.passwords(layout)
    cell = {
        "xmpp": {"host": "127.0.0.1", "port": layout.identity.xmpp_port, "domain": DOMAIN, "ca": str(layout.xmpp / "ca.pem")},
        "sink": f"tashi@{DOMAIN}/sink",
        "accounts": {name: {"jid": f"{name}@{DOMAIN}", "password": passwords[name]} for name in xmpp_server.ACCOUNTS if name != "tashi"},
        "conf": str(layout.conf),
        "hosts": [{"name": name, "uri": layout.host_uri(name)} for name in names],
        "pids": {
            "manager": pid_of(MANAGER),
            "xmpp": pid_of(xmpp_server.ROLE),
            "nodes": {name: pid_of(qemu_host.agent_role(name)) for name in names},
        },
    }
    write_whole(layout.cell_file, msgspec.json.format(msgspec.json.encode(cell)))


def _check_machine(directory: Path) -> None:
    if os.geteuid() != 0:
        raise SandboxProblem("the sandbox makes networks and namespaces, which only root may; run it with sudo")
    missing = [tool for tool in NEEDED_TOOLS if shutil.which(tool) is None]
    if missing:
        raise SandboxProblem(f"{', '.join(missing)} not found; run `make deps`, or install iproute2 and util-linux")
    configuration.check_path(directory)
    directory.mkdir(mode=0o755, exist_ok=True)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One command at a time works on a cell; the others wait. Where there is no directory, there is nothing to guard."""
    if not directory.is_dir():
        yield
        return
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _layout(wish: Wish) -> Layout:
    layout = load_layout(wish.directory)
    if layout is None:
        return make_layout(wish.directory, wish.hypervisor or "qemu")
    if wish.hypervisor not in (None, layout.identity.hypervisor):
        had = layout.identity.hypervisor
        raise SandboxProblem(f"{wish.directory} is a cell of {had} hosts; use --hypervisor {had}, or another --state-dir")
    return layout


def _make_directories(layout: Layout) -> None:
    layout.run_directory.mkdir(mode=0o755, exist_ok=True)
    (layout.run_directory / "state-dir").write_text(str(layout.directory))
    for directory in (layout.log, layout.nodes, layout.manager_state):
        directory.mkdir(mode=0o700, exist_ok=True)
    for name in ("images", "scratch", "suspend"):  # the last two hold what guests write
        (layout.share / name).mkdir(mode=0o755 if name == "images" else 0o700, parents=True, exist_ok=True)


def _host_names(layout: Layout, wish: Wish) -> list[str]:
    """The hosts that the cell has and those that it is asked to have."""
    existing = layout.host_names()
    count = wish.hosts if wish.hosts is not None else len(existing) or 1
    return existing + [name for name in (host_name(number + 1) for number in range(count)) if name not in existing]


def _write_files(layout: Layout, wish: Wish, names: Sequence[str]) -> None:
    simulated = layout.identity.hypervisor == "test"
    cores = wish.cores or (simulated_host.CORES if simulated else 0)
    memory = wish.memory or (simulated_host.MEMORY if simulated else 0)
    xmpp_server.prepare(layout)
    configuration.write_manager_files(layout, cores or os.cpu_count() or 1, wish.settings)
    for name in names:
        configuration.write_node_files(layout, name, cores, memory, wish.settings)
        if simulated:
            simulated_host.write_node_file(layout, name, cores, memory)


def _provide_image(layout: Layout) -> None:
    """Put the guest image among the cell's images; where nothing boots, an empty disk does when there is none."""
    target = layout.share / "images" / "tashi.img"
    if target.exists():
        return
    temporary = target.with_suffix(".part")
    if layout.identity.hypervisor == "qemu":
        shutil.copyfile(image.image(), temporary)
    else:
        with temporary.open("wb") as stream:
            stream.truncate(1024 * 1024)
    temporary.replace(target)


def twistd(plugin: str) -> list[str]:
    """The command of a program of ours: in the foreground, without a pid file."""
    return [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", plugin]


def _at_once(steps: Sequence[Callable[[], object]]) -> None:
    """Do all of it side by side; when some fail, raise what the first of them raised, once all have ended."""
    with ThreadPoolExecutor(max_workers=max(1, len(steps))) as threads:
        for each in [threads.submit(step) for step in steps]:
            each.result()


def _start_manager(layout: Layout) -> None:
    layout.manager_socket.unlink(missing_ok=True)
    log = layout.log / "manager.log"
    variables = {"TASHI_CONF": str(layout.conf)}
    if layout.identity.hypervisor == "qemu":
        variables["TASHI_CACHE"] = str(image.cache_directory())  # it powers hosts on, and they are to find what is known of the machine
    started = processes.start(twistd("tashi"), directory=layout.directory, role=MANAGER, log=log, **variables)
    ready = (layout.join_secret, layout.authority, layout.manager_socket)
    processes.await_start(started, lambda: all(path.exists() for path in ready), "The control plane", log)


def start_host(layout: Layout, name: str, running: Sequence[processes.Process]) -> None:
    """Power the host on, or start what has ended on it; returns when its daemons run. Raises SandboxProblem."""
    agent = [sys.executable, "-m", "tashi.sandbox.agent", str(layout.may_join(name))]
    if layout.identity.hypervisor == "test":
        if processes.main_process(running, qemu_host.agent_role(name)) is None:
            simulated_host.start(layout, name, agent)
    else:
        qemu_host.start(layout, name, agent, running)


def _start_furnishing(layout: Layout, names: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start what lets the hosts join, and sets up users and hosts, as soon as the control plane and the hosts are there."""
    log = layout.log / "furnish.log"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tashi.sandbox.furnish", str(layout.manager_socket)]
    command += [f"{name}={layout.may_join(name)}" for name in names]
    return processes.start(command, directory=layout.directory, role=FURNISHING, log=log)


def _await_furnishing(layout: Layout, names: Sequence[str], furnishing: subprocess.Popen[bytes]) -> None:
    """Wait until hosts and users are set up; watch meanwhile that nothing dies."""
    log = layout.log / "furnish.log"
    logs = {MANAGER: layout.log / "manager.log"} | {qemu_host.agent_role(name): layout.log / f"{name}.log" for name in names}
    if layout.identity.hypervisor == "qemu":
        logs |= {qemu_host.libvirt_role(name): layout.log / f"{name}-libvirtd.log" for name in names}
    seen: set[str] = set()
    died: set[str] = set()
    next_look = 0.0

    def settled() -> bool:
        nonlocal next_look
        if furnishing.poll() is not None:
            return True
        if time.monotonic() < next_look:
            return False
        next_look = time.monotonic() + 0.5
        alive = {process.role for process in processes.processes_of(layout.directory)}
        died.update(role for role in logs if role in seen and role not in alive)
        seen.update(alive)
        return bool(died)

    seconds = PATIENCE + PATIENCE_PER_HOST * len(names)
    in_time = processes.wait_until(settled, seconds)
    if furnishing.poll() == 0:
        return
    if died:
        role = min(died)
        raise SandboxProblem(f"{role} has ended; the end of {logs[role]}:\n{processes.tail(logs[role])}")
    if not in_time:
        agent_log = layout.log / f"{names[0]}.log"
        raise SandboxProblem(f"the hosts are not up after {seconds:.0f} s; the end of {agent_log}:\n{processes.tail(agent_log)}")
    raise SandboxProblem(f"users and hosts cannot be set up; the end of {log}:\n{processes.tail(log)}")


def _await_sink(layout: Layout) -> None:
    """Wait until the control plane is logged in at the XMPP server, by what its log says last about that."""
    log = layout.log / "manager.log"

    def is_online() -> bool:
        text = log.read_bytes()
        return text.rfind(b"XMPP: online as ") > text.rfind(b" is offline, trying again")

    if configuration.uses_xmpp(layout) and not processes.wait_until(is_online, SINK_PATIENCE, step=0.05):
        raise SandboxProblem(f"the control plane cannot log in at the XMPP server; the end of {log}:\n{processes.tail(log)}")


def _others(directory: Path) -> list[processes.Process]:
    """The cell's processes but this one and those it runs under: `down` may be called from inside."""
    mine = set()
    pid = os.getpid()
    while pid > 0:
        mine.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return [process for process in processes.processes_of(directory) if process.pid not in mine]
