"""Where a cell's things are: every path, name, subnet and port, all derived from the state directory.

An identity is drawn once from a hash of the directory's absolute path, checked against what the machine already uses, and kept in the
directory; so two cells never meet, and a cell that comes back finds the addresses it had. A directory that was moved gets a new identity.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tashi.files import write_whole
from tashi.sandbox.problem import SandboxProblem

DOMAIN = "cell.test"
RUN_ROOT = Path("/run")
FIRST_PORT, PORT_COUNT = 10_000, 20_000  # below the kernel's ephemeral range, above the well-known services


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What makes this cell's names and addresses its own."""

    state_dir: str
    tag: str  # eight hexadecimal digits
    subnet: str  # a /24 of its own
    xmpp_port: int
    manager_port: int
    hypervisor: str  # qemu or test


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The paths and names of one cell."""

    directory: Path
    identity: Identity

    @property
    def run_directory(self) -> Path:
        """Short, because a unix socket's path may have 107 characters only."""
        return run_directory(self.identity.tag)

    @property
    def bridge(self) -> str:
        """The management bridge between the control plane and its hosts."""
        return f"tashi{self.identity.tag}"

    @property
    def guest_bridge(self) -> str:
        """The bridge without an address that joins the hosts' guest networks."""
        return f"tashg{self.identity.tag}"

    @property
    def manager_address(self) -> str:
        """Where the agents reach the control plane."""
        return "127.0.0.1" if self.identity.hypervisor == "test" else self.address(1)

    @property
    def manager_socket(self) -> Path:
        return self.run_directory / "manager.sock"

    @property
    def manager_state(self) -> Path:
        return self.directory / "manager"

    @property
    def authority(self) -> Path:
        """The certificate authority that the control plane makes at its first start."""
        return self.manager_state / "ca.pem"

    @property
    def join_secret(self) -> Path:
        """The secret with which a new node agent joins; made by the control plane, too."""
        return self.manager_state / "join.secret"

    @property
    def pki(self) -> Path:
        """The authority by whose certificates the hosts' libvirt know each other."""
        return self.directory / "pki"

    @property
    def conf(self) -> Path:
        return self.directory / "conf"

    @property
    def xmpp(self) -> Path:
        return self.directory / "xmpp"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def share(self) -> Path:
        return self.directory / "share"

    @property
    def nodes(self) -> Path:
        return self.directory / "nodes"

    @property
    def cell_file(self) -> Path:
        return self.directory / "cell.json"

    def node(self, name: str) -> Path:
        return self.nodes / name

    def may_join(self, name: str) -> Path:
        """The file whose existence lets the host's agent start."""
        return self.node(name) / "may-join"

    def address(self, number: int) -> str:
        """The `number`th address of the cell's subnet; 1 is the control plane's."""
        return str(ipaddress.ip_network(self.identity.subnet)[number])

    def cgroup(self, name: str) -> str:
        return f"tashi-{self.identity.tag}-{name}"

    def host_uri(self, name: str) -> str:
        """The libvirt URI of a host, good inside the host and in the root namespaces alike."""
        if self.identity.hypervisor == "test":
            return f"test://{self.node(name) / 'node.xml'}"
        return f"qemu:///system?socket={self.run_directory / name / 'libvirt-sock'}"

    def host_names(self) -> list[str]:
        """The hosts that this cell has, in their order."""
        names = [entry.name for entry in self.nodes.iterdir()] if self.nodes.is_dir() else []
        return sorted(names, key=host_number)


def host_name(number: int) -> str:
    return f"node{number}"


def host_number(name: str) -> int:
    return int(name.removeprefix("node"))


def run_directory(tag: str) -> Path:
    """The directory of a cell's sockets."""
    return RUN_ROOT / f"tashi-{tag}"


def load_layout(directory: Path) -> Layout | None:
    """The layout of a cell that was set up in `directory`, or None when there is none (or it was set up elsewhere and moved)."""
    try:
        identity = msgspec.json.decode((directory / "identity.json").read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise SandboxProblem(f"{directory / 'identity.json'} is damaged ({error}); remove {directory} and start again") from error
    return Layout(directory=directory, identity=identity) if identity.state_dir == str(directory) else None


def make_layout(directory: Path, hypervisor: str) -> Layout:
    """Draw an identity for `directory`, and write it there."""
    layout = derive_layout(directory, hypervisor)
    write_whole(directory / "identity.json", msgspec.json.format(msgspec.json.encode(layout.identity)))
    return layout


def derive_layout(directory: Path, hypervisor: str) -> Layout:
    """The layout that a new cell in `directory` gets; its tag is the same each time, its ports and subnet as far as they are free."""
    tag = next(_free_tags(directory))
    seed = int(tag, 16)
    ports = _free_ports(seed)
    identity = Identity(
        state_dir=str(directory),
        tag=tag,
        subnet=_free_subnet(seed) if hypervisor == "qemu" else "127.0.0.0/24",
        xmpp_port=next(ports),
        manager_port=next(ports),
        hypervisor=hypervisor,
    )
    return Layout(directory=directory, identity=identity)


def _free_tags(directory: Path) -> Iterator[str]:
    """Hashes of the path that no other cell holds; the first one nearly always."""
    for salt in range(100):
        tag = hashlib.sha256(f"{directory}\0{salt}".encode()).hexdigest()[:8]
        owner = run_directory(tag) / "state-dir"
        if not owner.exists() or owner.read_text() == str(directory):
            yield tag
    raise SandboxProblem(f"no free name for a cell: look at {RUN_ROOT}/tashi-*")


def _free_ports(seed: int) -> Iterator[int]:
    """Loopback ports nobody listens on, from a place that the seed gives."""
    for step in range(PORT_COUNT):
        port = FIRST_PORT + (seed + step) % PORT_COUNT
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
        yield port
    raise SandboxProblem(f"no free TCP port between {FIRST_PORT} and {FIRST_PORT + PORT_COUNT}")


def _free_subnet(seed: int) -> str:
    """A /24 of 10.64.0.0/10 that no address and no route of this machine touches (a route to most of 10.0.0.0/8 does not count)."""
    routes = subprocess.run(["ip", "-j", "-4", "route", "show", "table", "all"], check=True, capture_output=True).stdout
    networks = [ipaddress.ip_network(route["dst"], strict=False) for route in msgspec.json.decode(routes) if route["dst"] != "default"]
    taken = [network for network in networks if network.prefixlen > 10]
    for step in range(64 * 256):
        number = (seed + step) % (64 * 256)
        subnet = ipaddress.ip_network(f"10.{64 + number // 256}.{number % 256}.0/24")
        if not any(subnet.overlaps(other) for other in taken):
            return str(subnet)
    raise SandboxProblem("no free /24 in 10.64.0.0/10: stop some cells")
