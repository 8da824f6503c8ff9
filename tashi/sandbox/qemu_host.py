"""A sandbox host with a real libvirt and QEMU: one bundle of namespaces per host, with the node agent inside.

A host's network, mounts, processes and control groups live exactly as long as its first process: `kill` is a power cut, and leaves
nothing but its control groups and libvirt's files, which the next `boot` finds like a machine finds its disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tashi.files import write_whole
from tashi.node.kvm_probe import kvm_works
from tashi.sandbox import control_groups, processes
from tashi.sandbox.certificates import prepare_authority, write_host_certificates
from tashi.sandbox.host_init import Daemon, HostSpecification
from tashi.sandbox.image import cache_directory
from tashi.sandbox.layout import DOMAIN, Layout, host_number
from tashi.sandbox.problem import SandboxProblem

IFF_UP = 1  # <linux/if.h>
PATH = "/usr/sbin:/usr/bin"
EMULATOR = "qemu-system-x86_64"
TOOLS = ("libvirtd", "virtlogd", EMULATOR)
PATIENCE = 30.0  # seconds for a host to start its daemons
GUEST_BRIDGE = "tashibr0"  # the same on every host: network 0 of the node agent's configuration
CAPABILITIES = Path("cache/qemu/capabilities")  # of a host, below its directory
PKI = "/etc/libvirt/pki"  # as the host sees it
OWN_DIRECTORIES = (("etc", "/etc/libvirt"), ("lib", "/var/lib/libvirt"), ("cache", "/var/cache/libvirt"), ("log", "/var/log/libvirt"))

LIBVIRTD_CONFIGURATION = """\
unix_sock_dir = "{sockets}"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
listen_tls = 1
listen_tcp = 0
listen_addr = "{address}"
auth_tls = "none"
ca_file = "{pki}/cacert.pem"
cert_file = "{pki}/servercert.pem"
key_file = "{pki}/serverkey.pem"
keepalive_interval = 2
keepalive_count = 3
host_uuid = "{uuid}"
log_outputs = "2:stderr"
max_clients = 500
min_workers = 5
max_workers = 40
max_client_requests = 40
"""
# Other hosts enter by TLS, with a certificate of the cell's own authority on both sides.
# No security driver, namespaces or ownership changes: the host as a whole is the fence, and all of it runs as root
QEMU_CONFIGURATION = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ "cpu", "cpuacct", "cpuset", "devices", "blkio" ]
migration_host = "{address}"
migration_address = "{address}"
keepalive_interval = 2
keepalive_count = 3
vnc_listen = "127.0.0.1"
stdio_handler = "logd"
"""


def migration_uri(layout: Layout, name: str) -> str:
    """The host's libvirt as the libvirt of every other host reaches it; the certificates are the caller's own."""
    return f"qemu+tls://{_address(layout, name)}/system?pkipath={PKI}"


def host_role(name: str) -> str:
    return f"host:{name}"


def agent_role(name: str) -> str:
    return f"node:{name}"


def libvirt_role(name: str) -> str:
    return f"libvirtd:{name}"


def prepare(layout: Layout) -> None:
    """Make the cell's two bridges, when they are not there, and find out what all hosts have to know about this machine."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        raise SandboxProblem(f"{', '.join(missing)} not found; run `make deps`, or use --hypervisor test")
    prepare_authority(layout.pki)
    # the hosts ask, too, and wait for this answer; it is kept until the machine is booted again
    threading.Thread(target=kvm_works, args=(cache_directory(), shutil.which(EMULATOR, path=PATH)), daemon=True).start()
    # with a MAC address of their own: one taken from a port would change when that host loses its power, and cut off the others for seconds
    tag = ":".join(layout.identity.tag[place : place + 2] for place in range(0, 8, 2))
    bridges = [
        f"link add {name} address 02:{number:02x}:{tag} type bridge"
        for number, name in enumerate((layout.bridge, layout.guest_bridge))
        if not Path("/sys/class/net", name).exists()
    ]
    address = f"address replace {layout.manager_address}/24 dev {layout.bridge}"
    _ip(*bridges, address, f"link set {layout.bridge} up", f"link set {layout.guest_bridge} up")


def remove_bridges(layout: Layout) -> None:
    """Remove the cell's bridges, when they are there."""
    _delete_links(layout.bridge, layout.guest_bridge)


def start(layout: Layout, name: str, agent: list[str], running: Iterable[processes.Process]) -> None:
    """Boot the host when it is off; when it is on, mend its network, and start those of its daemons that have ended."""
    is_on = any(process.role == host_role(name) for process in running)
    if not is_on:
        _power_on(layout, name, agent)
    init = _await_init(layout, name)
    _plug_in(layout, name, init.pid)
    if is_on and not _daemons_run(layout, name):
        os.kill(init.pid, signal.SIGHUP)
    if not processes.wait_until(lambda: _daemons_run(layout, name), PATIENCE, step=0.05):
        raise _no_start(layout, name, "its daemons do not start")


def _power_on(layout: Layout, name: str, agent: list[str]) -> None:
    """Start the first process of the host, which starts libvirt and `agent` once the host has its network."""
    control_groups.remove(layout.cgroup(name))
    _unplug(layout, name)
    specification = _write_files(layout, name, agent)
    log = layout.log / f"{name}-init.log"
    fences = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    command = ["unshare", *fences, sys.executable, "-m", "tashi.sandbox.host_init", str(specification)]
    processes.start(command, directory=layout.directory, role=host_role(name), log=log)


def _await_init(layout: Layout, name: str) -> processes.Process:
    """The first process of a host that was powered on just now; SandboxProblem when it has ended."""
    deadline = time.monotonic() + PATIENCE
    seen_at = time.monotonic()
    while time.monotonic() < deadline:
        running = processes.processes_of(layout.directory)
        init = init_of(running, name)
        if init is not None:
            return init
        if any(process.role == host_role(name) for process in running):
            seen_at = time.monotonic()
        elif time.monotonic() - seen_at > 1.0:  # not at once: what is only just being executed shows no mark yet
            break
    raise _no_start(layout, name, "it has no first process")


def _no_start(layout: Layout, name: str, why: str) -> SandboxProblem:
    log = layout.log / f"{name}-init.log"
    return SandboxProblem(f"host {name} does not start: {why}; the end of {log}:\n{processes.tail(log)}")


def init_of(running: Iterable[processes.Process], name: str) -> processes.Process | None:
    """The first process of the host, when the host is on."""
    return next((process for process in running if process.role == host_role(name) and process.inner_pid == 1), None)


def kill(layout: Layout, name: str) -> None:
    """Cut the host's power: everything on it ends at once, and has no time to tell its peers."""
    if has_link(layout, name):
        set_link(layout, name, up=False)
    processes.kill(process.pid for process in processes.processes_of(layout.directory) if process.role == host_role(name))
    control_groups.remove(layout.cgroup(name))
    _unplug(layout, name)
    shutil.rmtree(layout.run_directory / name, ignore_errors=True)


def has_link(layout: Layout, name: str) -> bool:
    """Whether the host is on and its link to the control plane and the other hosts carries anything."""
    try:
        return bool(int(Path("/sys/class/net", _link(layout, name), "flags").read_text(), 16) & IFF_UP)
    except OSError:
        return False


def set_link(layout: Layout, name: str, *, up: bool) -> None:
    """Cut or mend the link of a host that is on."""
    _ip(f"link set {_link(layout, name)} {'up' if up else 'down'}")


def _link(layout: Layout, name: str) -> str:
    """The outer end of the host's link to the management bridge."""
    return _cards(layout, name)[0][1]


def _daemons_run(layout: Layout, name: str) -> bool:
    roles = {process.role for process in processes.processes_of(layout.directory)}
    return {libvirt_role(name), agent_role(name), f"virtlogd:{name}"} <= roles


def _write_files(layout: Layout, name: str, agent: list[str]) -> Path:
    """Write the host's configuration, and return the path of what its init is told."""
    node = layout.node(name)
    for own, _ in OWN_DIRECTORIES:
        (node / own).mkdir(mode=0o700, parents=True, exist_ok=True)
    _share_answers(layout, name)
    sockets = layout.run_directory / name
    shutil.rmtree(sockets, ignore_errors=True)
    sockets.mkdir(mode=0o700)
    address = _address(layout, name)
    write_host_certificates(layout.pki, node / "etc" / "pki", [address, f"{name}.{DOMAIN}"])
    identifier = uuid.uuid5(uuid.NAMESPACE_URL, f"{layout.directory}/{name}")
    libvirtd = LIBVIRTD_CONFIGURATION.format(sockets=sockets, uuid=identifier, address=address, pki=PKI)
    write_whole(node / "etc" / "libvirtd.conf", libvirtd)
    write_whole(node / "etc" / "qemu.conf", QEMU_CONFIGURATION.format(address=address))
    with contextlib.suppress(FileNotFoundError):
        shutil.copytree("/etc/libvirt/nwfilter", node / "etc" / "nwfilter", dirs_exist_ok=True)
    machine_id, boot_id = node / "machine-id", node / "boot-id"
    if not machine_id.exists():
        write_whole(machine_id, f"{uuid.uuid4().hex}\n", 0o644)
    write_whole(boot_id, f"{uuid.uuid4()}\n", 0o644)
    logs = layout.log
    specification = HostSpecification(
        hostname=f"{name}.{DOMAIN}",
        address=f"{address}/24",
        guest_bridge=GUEST_BRIDGE,
        groups=control_groups.create(layout.cgroup(name)),
        binds=[(str(node / own), systems) for own, systems in OWN_DIRECTORIES],
        machine_id=str(machine_id),
        boot_id=str(boot_id),
        keep=[str(layout.run_directory), str(layout.directory), sys.prefix],
        share=str(layout.share),
        daemons=[
            Daemon(role=f"virtlogd:{name}", command=["/usr/sbin/virtlogd"], log=str(logs / f"{name}-virtlogd.log")),
            Daemon(role=libvirt_role(name), command=["/usr/sbin/libvirtd", "--listen"], log=str(logs / f"{name}-libvirtd.log")),
            Daemon(
                role=agent_role(name),
                command=agent,
                log=str(logs / f"{name}.log"),
                environment={"TASHI_CONF": str(node / "conf")},
            ),
        ],
    )
    path = node / "host.json"
    write_whole(path, msgspec.json.format(msgspec.json.encode(specification)))
    return path


def keep_answers(layout: Layout, name: str) -> None:
    """Keep for other hosts what this one's libvirt has found out about the emulators, which takes a second of work."""
    kept = cache_directory() / "capabilities"
    kept.mkdir(exist_ok=True)
    for found in (layout.node(name) / CAPABILITIES).glob("*.xml"):
        content = found.read_bytes()
        if not (kept / found.name).exists() or (kept / found.name).read_bytes() != content:
            write_whole(kept / found.name, content)


def _share_answers(layout: Layout, name: str) -> None:
    """Let the host find what is known: whether KVM runs guests, and what the emulators can (libvirt looks whether that is still true)."""
    node = layout.node(name)
    (node / "state").mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (node / "state" / "kvm.json").symlink_to(cache_directory() / "kvm.json")
    if not (node / CAPABILITIES).exists():
        (node / CAPABILITIES).mkdir(parents=True)
        for kept in (cache_directory() / "capabilities").glob("*.xml"):
            write_whole(node / CAPABILITIES / kept.name, kept.read_bytes())


def _address(layout: Layout, name: str) -> str:
    return layout.address(10 + host_number(name))


def _cards(layout: Layout, name: str) -> list[tuple[str, str, str]]:
    """The host's network cards: name inside, name outside, bridge."""
    suffix = f"{layout.identity.tag}-{host_number(name)}"
    return [("eth0", f"tm{suffix}", layout.bridge), ("eth1", f"tg{suffix}", layout.guest_bridge)]


def _plug_in(layout: Layout, name: str, init: int) -> None:
    """Connect the host's network cards to the cell's bridges, as far as they are not; they vanish with the host."""
    for inner, outer, bridge in _cards(layout, name):
        if not Path("/sys/class/net", outer).exists():
            _ip(f"link add {outer} type veth peer name {inner} netns {init}")
        _ip(f"link set {outer} master {bridge} up")


def _unplug(layout: Layout, name: str) -> None:
    """Remove the cards of a host that is off, as the kernel does by itself a little later."""
    _delete_links(*(outer for _, outer, _ in _cards(layout, name)))


def _delete_links(*names: str) -> None:
    """Delete network devices; one that is not there, or goes by itself just now, is as good."""
    for name in names:
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
    processes.wait_until(lambda: not any(Path("/sys/class/net", name).exists() for name in names), PATIENCE)


def _ip(*commands: str) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(commands).encode(), capture_output=True, check=False)
    if done.returncode != 0:
        raise SandboxProblem(f"the cell's network cannot be set up: {done.stderr.decode().strip()}")
