"""The cell in a box, run as its user runs it: brought up, hurt, brought up again, taken down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tashi.sandbox import control_groups, processes
from tashi.sandbox.layout import Layout, load_layout

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="the sandbox needs root"),
    pytest.mark.skipif(shutil.which("prosody") is None, reason="prosody is not installed"),
]
needs_libvirt = pytest.mark.skipif(shutil.which("libvirtd", path="/usr/sbin") is None, reason="libvirtd is not installed")


class Sandbox:
    """One cell under test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`tashi sandbox` with these words."""
        command = [sys.executable, "-m", "tashi.sandbox.command", *words, "--state-dir", str(self.directory)]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    def up(self, *words: str) -> dict[str, Any]:
        """Bring it up detached; the content of cell.json."""
        done = self.run("--detach", *words)
        assert done.returncode == 0, done.stderr
        return self.cell()

    def cell(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.directory / "cell.json").read_text())
        return content

    def layout(self) -> Layout:
        layout = load_layout(self.directory)
        assert layout is not None
        return layout

    def roles(self) -> dict[str, int]:
        """The roles that are played, each with its main process."""
        running = processes.processes_of(self.directory)
        found = {role: processes.main_process(running, role) for role in {process.role for process in running}}
        return {role: process.pid for role, process in found.items() if process is not None}

    def kill(self, role: str) -> None:
        processes.kill([self.roles()[role]])

    def leftovers(self) -> list[str]:
        """Everything of the cell that the machine still has."""
        layout = load_layout(self.directory)
        if layout is None:
            return [*self.roles()]
        links = [name for name in os.listdir("/sys/class/net") if layout.identity.tag in name]
        run = [str(layout.run_directory)] if layout.run_directory.exists() else []
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.directory) in line]
        return [*self.roles(), *links, *control_groups.names(layout.cgroup("")), *run, *mounts]

    def shoot(self, moment: Callable[[], bool], *words: str) -> None:
        """Bring it up, and kill -9 the command as soon as the moment has come."""
        command = [sys.executable, "-m", "tashi.sandbox.command", "--detach", "--state-dir", str(self.directory), *words]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bringing:
            assert processes.wait_until(lambda: moment() or bringing.poll() is not None, 60, step=0.002)
            assert bringing.poll() is None, "the cell was up before the moment came"
            bringing.kill()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path / "cell")
    yield sandbox
    sandbox.run("down")


def client(cell: dict[str, Any], *words: str) -> Any:
    """What the client answers in JSON."""
    environment = os.environ | {"TASHI_CONF": cell["conf"]}
    command = [sys.executable, "-m", "tashi.client", *words, "-o", "json"]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60).stdout)


def virsh(uri: str, *words: str) -> str:
    return subprocess.run(["virsh", "-c", uri, *words], capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_cell_tells_how_to_use_it(sandbox: Sandbox) -> None:
    """A detached cell is ready when the command returns, and cell.json says how to use it."""
    cell = sandbox.up("--hypervisor", "test", "--hosts", "2")
    assert set(cell) == {"xmpp", "sink", "accounts", "conf", "hosts", "pids"}
    assert set(cell["xmpp"]) == {"host", "port", "domain", "ca"}
    assert set(cell["accounts"]) == {"ism", "admin", "llms", "alice"}
    assert [host["name"] for host in cell["hosts"]] == ["node1", "node2"]
    roles = sandbox.roles()
    assert cell["pids"] == {
        "manager": roles["manager"],
        "xmpp": roles["xmpp"],
        "nodes": {"node1": roles["node:node1"], "node2": roles["node:node2"]},
    }
    hosts = client(cell, "getHosts")
    assert [(host["id"], host["name"], host["up"], host["cores"], host["memory"], host["config"]) for host in hosts] == [
        (number, name, True, 1024, 1024 * 1024, {"location": "ie"}) for number, name in enumerate(("node1", "node2"), 1)
    ]
    users = {user["name"]: (user["id"], user["jid"]) for user in client(cell, "getUsers")}
    assert users == {"root": (0, None), "alice": (1000, cell["accounts"]["alice"]["jid"]), "bob": (1001, None)}
    assert "tashi.img" in [image["imageName"] for image in client(cell, "getImages")]


def test_the_same_command_starts_only_what_is_missing(sandbox: Sandbox) -> None:
    """A second start keeps ports, accounts, configuration and what runs, and starts what was killed."""
    first = sandbox.up("--hypervisor", "test", "--hosts", "2")
    conf = Path(first["conf"], "Tashi.cfg")
    conf.write_text(conf.read_text() + "# mine\n")
    sandbox.kill("node:node1")
    second = sandbox.up("--hypervisor", "test", "--hosts", "2")
    assert second["pids"]["nodes"].pop("node1") != first["pids"]["nodes"].pop("node1")
    assert second == first
    assert conf.read_text().endswith("# mine\n")


def test_a_cell_that_was_taken_down_comes_back_as_it_was(sandbox: Sandbox) -> None:
    """`down` leaves nothing but the directory, and the cell comes back with its ports and passwords."""
    first = sandbox.up("--hypervisor", "test")
    assert sandbox.run("down").returncode == 0
    assert sandbox.leftovers() == []
    assert not (sandbox.directory / "cell.json").exists()
    second = sandbox.up()
    assert (second["xmpp"], second["accounts"], second["hosts"]) == (first["xmpp"], first["accounts"], first["hosts"])


def test_settings_reach_the_programs(sandbox: Sandbox) -> None:
    """--set ends in the configuration of control plane and agents, where the last one wins; secrets stay private."""
    cell = sandbox.up("--hypervisor", "test", "--set", "Scheduler.densePack=False", "--set", "Scheduler.densePack=True", "--cores", "4")
    files = [Path(cell["conf"], "Tashi.cfg"), sandbox.layout().node("node1") / "conf" / "Tashi.cfg"]
    assert all("densePack = True\n" in file.read_text() for file in files)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in [*files, sandbox.directory / "cell.json"])
    assert client(cell, "getHosts")[0]["cores"] == 4


def test_a_wrong_setting_is_told(sandbox: Sandbox) -> None:
    """A control plane that refuses its configuration ends the command with its reason, and nothing stays behind."""
    done = sandbox.run("--detach", "--hypervisor", "test", "--set", "Scheduler.densPack=True")
    assert done.returncode == 1
    assert "densePack" in done.stderr
    assert sandbox.leftovers() == []


def test_the_foreground_command_stops_cleanly(sandbox: Sandbox) -> None:
    """Without --detach the cell lasts until the command is told to stop, and then nothing is left."""
    command = [sys.executable, "-m", "tashi.sandbox.command", "--hypervisor", "test", "--state-dir", str(sandbox.directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as foreground:
        assert foreground.stdout is not None
        assert "is ready" in foreground.stdout.readline()
        foreground.send_signal(signal.SIGINT)
        assert foreground.wait(30) == 0
    assert sandbox.leftovers() == []


@needs_libvirt
def test_two_cells_of_real_hosts_run_side_by_side(sandbox: Sandbox, tmp_path: Path) -> None:
    """Cells share no name, address or port, and each host answers plain virsh from outside."""
    other = Sandbox(tmp_path / "other")
    try:
        cells = [sandbox.up("--hosts", "2"), other.up("--hosts", "1")]
        uris = [host["uri"] for cell in cells for host in cell["hosts"]]
        names = [virsh(uri, "hostname").strip() for uri in uris]
        assert names == ["node1.cell.test", "node2.cell.test", "node1.cell.test"]
        assert len({cell["xmpp"]["port"] for cell in cells}) == 2
        mine, others = sandbox.layout().identity, other.layout().identity
        assert {mine.tag, mine.subnet, mine.manager_port}.isdisjoint({others.tag, others.subnet, others.manager_port})
        other.run("down")
        assert other.leftovers() == []
        assert all(host["up"] for host in client(cells[0], "getHosts"))
    finally:
        other.run("down")


@needs_libvirt
def test_a_host_whose_agent_was_killed_keeps_its_guests(sandbox: Sandbox) -> None:
    """An agent that is killed and started again finds the domain that ran on."""
    cell = sandbox.up()
    uri = cell["hosts"][0]["uri"]
    client(cell, "createVm", "--name", "web", "--disks", "tashi.img", "--memory", "96", "--userId", "1000", "--wait")
    before = virsh(uri, "list", "--uuid")
    sandbox.kill("node:node1")
    again = sandbox.up()
    assert again["pids"]["nodes"] != cell["pids"]["nodes"]
    assert virsh(uri, "list", "--uuid") == before != ""
    assert [vm["state"] for vm in client(again, "getInstances")] == ["Running"]


@needs_libvirt
def test_down_copes_with_a_cell_that_was_shot(sandbox: Sandbox) -> None:
    """After a power cut of a host and kill -9 of everything else, `down` still leaves nothing."""
    sandbox.up("--hosts", "2")
    for role in ("host:node1", "manager", "xmpp"):
        sandbox.kill(role)
    assert sandbox.run("down").returncode == 0
    assert sandbox.leftovers() == []


@needs_libvirt
def test_a_bring_up_that_was_shot_is_cleaned_up_or_gone_on_with(sandbox: Sandbox) -> None:
    """Whenever the command is killed, `down` leaves nothing, and the same command makes the whole cell of what is there."""

    def link_is_there() -> bool:
        return len([name for name in os.listdir("/sys/class/net") if sandbox.layout().identity.tag in name]) > 2

    moments: list[Callable[[], bool]] = [
        (sandbox.directory / "identity.json").exists,
        lambda: "manager" in sandbox.roles(),
        lambda: "host:node1" in sandbox.roles(),
        link_is_there,
        lambda: "libvirtd:node2" in sandbox.roles(),
        lambda: sandbox.layout().may_join("node1").exists(),
    ]
    for moment in moments:
        sandbox.shoot(moment, "--hosts", "2")
        assert sandbox.run("down").returncode == 0
        assert sandbox.leftovers() == []
        sandbox.layout().may_join("node1").unlink(missing_ok=True)
    sandbox.shoot(moments[2], "--hosts", "2")
    cell = sandbox.up("--hosts", "2")
    assert [(host["id"], host["name"], host["up"]) for host in client(cell, "getHosts")] == [(1, "node1", True), (2, "node2", True)]
    roles = [process.role for process in processes.processes_of(sandbox.directory)]
    assert all(roles.count(role) == 1 for role in ("manager", "xmpp", "node:node1", "node:node2", "libvirtd:node1", "libvirtd:node2"))


def test_a_simulated_host_has_power_but_no_link(sandbox: Sandbox) -> None:
    """The power of a simulated host can be cut and comes back; its link cannot be cut, which is told."""
    first = sandbox.up("--hypervisor", "test")
    assert sandbox.run("kill", "--host", "node1").returncode == 0
    assert sandbox.cell()["pids"]["nodes"] == {"node1": None}
    refused = sandbox.run("cut", "--host", "node1")
    assert (refused.returncode, "simulated" in refused.stderr) == (1, True)
    assert sandbox.run("boot", "--host", "node1").returncode == 0
    assert sandbox.cell()["pids"]["nodes"]["node1"] not in (None, first["pids"]["nodes"]["node1"])


@needs_libvirt
def test_one_message_becomes_a_running_machine(sandbox: Sandbox) -> None:
    """The demonstration creates a machine by message, sees it boot and deletes it."""
    command = [sys.executable, "-m", "tashi.sandbox.demo", "--once", "--state-dir", str(sandbox.directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "GUEST-UP" in done.stderr
    assert sandbox.leftovers() == []


@pytest.mark.parametrize(
    "words",
    [("--hosts", "0"), ("--hypervisor", "xen"), ("--set", "nonsense"), ("--set", "Scheduler=1"), ("--memory", "much"), ("--host", "node1")],
)
def test_wrong_usage_is_refused(sandbox: Sandbox, words: tuple[str, str]) -> None:
    """Options that make no sense are refused before anything is made."""
    assert sandbox.run("--detach", *words).returncode == 2
    assert not sandbox.directory.exists()
