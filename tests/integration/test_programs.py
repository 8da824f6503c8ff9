"""The programs as they are started by hand: from a bare checkout, installed, and with a configuration that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.cells import ROOT, alive, until

TWISTD = "#!{python}\nimport sys\nfrom twisted.scripts.twistd import run\nsys.exit(run())\n"
IN_A_MACHINE_OF_ITS_OWN = 'mount -t tmpfs tmpfs /var/lib && ip link set lo up && exec "$@"'
"""What an administrator's first start writes to must not be this machine's: the shell's arguments are run in its stead."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The tracked files and nothing else."""
    names = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True).stdout.decode().split("\0")
    copy = tmp_path / "checkout"
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """An interpreter that has what Tashi needs, and no Tashi; beside it stands twistd."""
    directory = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True, timeout=60)
    python = directory / "bin" / "python"
    (site,) = directory.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # the .pth files there are not read
    twistd = directory / "bin" / "twistd"
    twistd.write_text(TWISTD.format(python=python))
    twistd.chmod(0o755)
    missing = subprocess.run(
        [python, "-c", "import twisted, wokkel, msgspec\nimport tashi.app"], capture_output=True, text=True, cwd=tmp_path
    )
    assert "No module named 'tashi" in missing.stderr
    return python


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A configuration directory for a control plane that keeps to the test's directory and a port of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    directory = tmp_path / "conf"
    directory.mkdir()
    (directory / "Tashi.cfg").write_text(f"[ClusterManagerService]\nstateDir = {tmp_path}/state\nport = {port}\n")
    return directory


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program; what still runs when the test ends is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object, cwd: Path, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(word) for word in words], cwd=cwd, env=clean(**variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=20)


def clean(**variables: str) -> dict[str, str]:
    """The environment of somebody who has set nothing."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **variables}


def ended(*words: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program that has run to its end."""
    return subprocess.run([str(word) for word in words], cwd=cwd, env=clean(**variables), capture_output=True, text=True, timeout=60)


def answers(look: Callable[[], subprocess.CompletedProcess[str]]) -> str:
    """What the client prints once there is an answer."""
    return until(look, lambda run: run.returncode != 5, 30).stdout


def test_a_bare_checkout_with_its_defaults(checkout: Path, bare_python: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """`twistd -ny tashi.tac` needs no configuration and no installation, keeps its state in the system's place, and ends on SIGTERM."""
    alone = ["unshare", "-m", "-n", "sh", "-c", IN_A_MACHINE_OF_ITS_OWN, "sh"]
    outside = Path("/var/lib/tashi").exists()
    home = checkout.parent / "home"
    plane = start(*alone, bare_python.parent / "twistd", "-ny", "tashi.tac", cwd=checkout, HOME=str(home))
    inside = ["nsenter", "-m", "-n", "-t", plane.pid, "env", f"HOME={home}", f"PYTHONPATH={checkout}"]
    client = [bare_python, "-m", "tashi.client"]

    def ask(*words: str) -> Callable[[], subprocess.CompletedProcess[str]]:
        return lambda: ended(*inside, *client, *words, cwd=checkout)

    assert json.loads(answers(ask("whoami", "-o", "json"))) == [{"userId": 0, "name": "root", "admin": True}]
    assert json.loads(ask("getInstances", "-o", "json")().stdout) == []
    assert "there is no image" in ask("createVm", "--name", "a", "--disks", "b")().stderr
    state = Path(f"/proc/{plane.pid}/root/var/lib/tashi")
    assert {"tashi.sqlite", "tashi.sock", "join.secret", "ca.pem", "ca.key"} <= {path.name for path in state.iterdir()}
    assert all((state / name).stat().st_mode & 0o077 == 0 for name in ("tashi.sqlite", "join.secret", "ca.key", "manager.pem"))
    plane.send_signal(signal.SIGTERM)
    output, _ = plane.communicate(timeout=20)
    assert plane.returncode == -signal.SIGTERM, output  # twistd hands the signal on when all is closed
    assert "Main loop terminated" in output
    assert "Traceback" not in output and "Unhandled" not in output
    assert Path("/var/lib/tashi").exists() == outside


def test_the_first_start_of_an_ordinary_user(checkout: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """Who is not root keeps the state in the data directory of his own; here XDG_DATA_HOME says where that is."""
    program = (
        "import os\nos.geteuid = lambda: 1000\nimport sys\nfrom tashi.config import load\nprint(load(('ClusterManager',)).state_dir)\n"
    )
    run = ended(sys.executable, "-c", program, cwd=checkout, HOME=str(tmp_path / "home"), XDG_DATA_HOME=str(tmp_path / "data"))
    assert run.stdout.strip() == str(tmp_path / "data" / "tashi"), run.stderr
    run = ended(sys.executable, "-c", program, cwd=checkout, HOME=str(tmp_path / "home"))
    assert run.stdout.strip() == str(tmp_path / "home" / ".local" / "share" / "tashi"), run.stderr


def test_it_daemonises(checkout: Path, bare_python: Path, conf: Path, tmp_path: Path) -> None:
    """`twistd -l tashi-occi-xmpp.log -y tashi.tac` leaves a daemon that answers, with its log where it was told."""
    pidfile = tmp_path / "twistd.pid"
    words = [bare_python.parent / "twistd", "--pidfile", pidfile, "-l", "tashi-occi-xmpp.log", "-y", "tashi.tac"]
    run = ended(*words, cwd=checkout, TASHI_CONF=str(conf))
    assert run.returncode == 0, run.stderr
    pid = int(until(lambda: pidfile.read_text() if pidfile.exists() else "", bool, 20))
    try:
        client = [bare_python, "-m", "tashi.client", "whoami", "-o", "name"]
        assert answers(lambda: ended(*client, cwd=checkout, TASHI_CONF=str(conf))) == "root\n"
        assert "ready: " in (checkout / "tashi-occi-xmpp.log").read_text()
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: alive(pid), lambda living: not living, 20)


@pytest.mark.parametrize("way", [[], ["--editable"]], ids=["ordinary", "editable"])
def test_an_installation_brings_the_programs(
    checkout: Path, bare_python: Path, conf: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]], way: list[str]
) -> None:
    """After pip install, `twistd --help` lists both plugins, `tashi` is there by both its names, and the plugin starts and answers."""
    pip = [sys.executable, "-m", "pip", "--python", bare_python, "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    alone = ["--no-build-isolation", "--no-index"] if all(map(find_spec, ("hatchling", "editables"))) else []
    done = subprocess.run([*map(str, pip), *alone, *way, str(checkout)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    programs = bare_python.parent
    listed = [line.split()[0] for line in ended(programs / "twistd", "--help", cwd=tmp_path).stdout.splitlines() if line.strip()]
    assert {"tashi", "tashi-node"} <= set(listed)
    for name in ("tashi", "tashi-client"):
        assert "createVm" in ended(programs / name, "--help", cwd=tmp_path).stdout
    start(programs / "twistd", "-n", "--pidfile=", "tashi", cwd=tmp_path, TASHI_CONF=str(conf))
    assert answers(lambda: ended(programs / "tashi", "whoami", "-o", "name", cwd=tmp_path, TASHI_CONF=str(conf))) == "root\n"


def test_o9_d12_hang_up_opens_the_logs_anew(conf: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """O9, D12, O6: on SIGHUP the control plane goes on, makes the log and the audit log that logrotate moved away anew, and says so."""
    log, audit = tmp_path / "tashi.log", tmp_path / "state" / "audit.log"
    words = ("-n", "--pidfile=", "-l", log, "tashi")
    plane = start(Path(sys.executable).parent / "twistd", *words, cwd=ROOT, TASHI_CONF=str(conf))
    client = [sys.executable, "-m", "tashi.client"]

    def refused() -> subprocess.CompletedProcess[str]:
        return ended(*client, "destroyVm", "--instance", "nothing", cwd=tmp_path, TASHI_CONF=str(conf))

    answers(refused)
    (record,) = map(json.loads, audit.read_text().splitlines())
    assert (record["door"], record["who"], record["verb"], record["target"], record["result"]) == (
        "socket", "root", "destroyvm", "'nothing'", "unknown-id",
    )  # fmt: skip
    assert audit.stat().st_mode & 0o777 == 0o640
    for file in (log, audit):
        file.rename(file.with_suffix(".moved"))
    plane.send_signal(signal.SIGHUP)
    until(lambda: log.read_text() if log.exists() else "", lambda text: "SIGHUP: the logs are opened anew" in text, 20)
    assert refused().returncode == 4
    assert len(audit.read_text().splitlines()) == 1
    assert plane.poll() is None


def test_o9_hang_up_does_not_end_an_agent(conf: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """O9: the agent, too, goes on after SIGHUP and says so, even where it has found neither libvirt nor a control plane."""
    settings = f"[NodeManagerService]\nstateDir = {tmp_path}/node\n[Libvirt]\nuri = test:///default\n"
    (conf / "NodeManager.cfg").write_text(settings)
    log = tmp_path / "node.log"
    agent = start(Path(sys.executable).parent / "twistd", "-n", "--pidfile=", "-l", log, "tashi-node", cwd=ROOT, TASHI_CONF=str(conf))
    until(lambda: log.read_text() if log.exists() else "", lambda text: "starting up" in text, 20)
    agent.send_signal(signal.SIGHUP)
    until(log.read_text, lambda text: "SIGHUP: the logs are opened anew" in text, 20)
    assert agent.poll() is None


def test_two_on_one_state_directory(conf: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """A second control plane on the same state directory ends at once, in words; the first one goes on."""
    client = [sys.executable, "-m", "tashi.client", "whoami", "-o", "name"]
    first = start(*plane(), cwd=tmp_path, TASHI_CONF=str(conf))
    answers(lambda: ended(*client, cwd=tmp_path, TASHI_CONF=str(conf)))
    second = ended(*plane(), cwd=tmp_path, TASHI_CONF=str(conf))
    assert second.returncode == 1
    assert f"tashi: the control plane cannot start: another control plane uses {tmp_path}/state; stop it, or" in second.stderr
    assert "Traceback" not in second.stdout + second.stderr
    assert answers(lambda: ended(*client, cwd=tmp_path, TASHI_CONF=str(conf))) == "root\n" and first.poll() is None


def test_two_agents_on_one_state_directory(conf: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """A second agent on the same state directory ends at once, in words; when the first was killed another may begin."""
    with (conf / "Tashi.cfg").open("a") as file:
        file.write(f"[NodeManagerService]\nstateDir = {tmp_path}/node\n[Libvirt]\nuri = test:///default\n")
    first = start(*plane("tashi-node"), cwd=tmp_path, TASHI_CONF=str(conf))
    until(lambda: (tmp_path / "node" / "node.secret").exists(), bool, 30)
    second = ended(*plane("tashi-node"), cwd=tmp_path, TASHI_CONF=str(conf))
    assert second.returncode == 1
    assert f"tashi-node: the agent cannot start: another agent uses {tmp_path}/node; stop it, or" in second.stderr
    assert "Traceback" not in second.stdout + second.stderr and first.poll() is None
    first.kill()
    first.wait(20)
    third = start(*plane("tashi-node"), cwd=tmp_path, TASHI_CONF=str(conf))
    assert third.stdout is not None
    assert any("no link to the control plane" in line for line in third.stdout)


@pytest.mark.parametrize("content", ["", "\n  \n", "hunter2\n"])
def test_a7_a_join_secret_that_is_none(conf: Path, tmp_path: Path, content: str) -> None:
    """A7: a control plane with an empty or short join secret ends at once, in words that name the file."""
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "join.secret"
    path.write_text(content)
    path.chmod(0o600)
    run = ended(*plane(), cwd=tmp_path, TASHI_CONF=str(conf))
    assert run.returncode == 1
    assert f"{path}: expected a secret of at least 32 characters" in run.stderr and "Traceback" not in run.stderr
    assert "hunter2" not in run.stdout + run.stderr


def test_a_port_that_is_taken(conf: Path, tmp_path: Path) -> None:
    """A port that somebody else listens on ends the start, in words that name it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (conf / "Tashi.cfg").write_text(f"[ClusterManagerService]\nstateDir = {tmp_path}/state\nport = {port}\n")
        run = ended(*plane(), cwd=tmp_path, TASHI_CONF=str(conf))
    assert run.returncode == 1 and str(port) in run.stderr and "Traceback" not in run.stderr


def test_a_database_of_a_newer_version(conf: Path, tmp_path: Path) -> None:
    """What a newer Tashi wrote is left as it is, in words that say what to do."""
    (tmp_path / "state").mkdir()
    with sqlite3.connect(tmp_path / "state" / "tashi.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    run = ended(*plane(), cwd=tmp_path, TASHI_CONF=str(conf))
    assert run.returncode == 1
    assert "tashi.sqlite has schema version 99" in run.stderr and "a newer Tashi wrote it" in run.stderr
    with sqlite3.connect(tmp_path / "state" / "tashi.sqlite") as database:
        assert database.execute("PRAGMA user_version").fetchone() == (99,)
        assert database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_database_that_is_none(conf: Path, tmp_path: Path) -> None:
    """A file that is no database ends the start, and stays as it was."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "tashi.sqlite").write_text("these are my notes\n" * 100)
    run = ended(*plane(), cwd=tmp_path, TASHI_CONF=str(conf))
    assert run.returncode == 1 and "database" in run.stderr and "tashi.sqlite" in run.stderr
    assert (tmp_path / "state" / "tashi.sqlite").read_text().startswith("these are my notes")


@pytest.mark.parametrize("program", ["tashi", "tashi-node", "client"])
def test_an_unknown_key(conf: Path, tmp_path: Path, program: str) -> None:
    """A key that is unknown in a known section ends every program that reads it: file, line, key and the nearest one."""
    section = {"tashi": "ClusterManagerService", "tashi-node": "NodeManagerService", "client": "Client"}[program]
    key = {"tashi": "maxMemry", "tashi-node": "registerFreqency", "client": "sokcet"}[program]
    near = {"tashi": "maxMemory", "tashi-node": "registerFrequency", "client": "socket"}[program]
    path = conf / {"tashi": "ClusterManager.cfg", "tashi-node": "NodeManager.cfg", "client": "Client.cfg"}[program]
    path.write_text(f"# a comment\n[{section}]\n{key} = 7\n")
    words = [sys.executable, "-m", "tashi.client", "whoami"] if program == "client" else plane(program)
    run = ended(*words, cwd=tmp_path, TASHI_CONF=str(conf))
    assert run.returncode not in (0, 5)
    said = run.stdout + run.stderr
    assert f"{path}:3" in said and key in said and near in said and "Traceback" not in said


def test_a_configuration_that_others_can_write(conf: Path, tmp_path: Path) -> None:
    """A file that anybody could have written is refused."""
    (conf / "Tashi.cfg").chmod(0o666)
    run = ended(*plane(), cwd=tmp_path, TASHI_CONF=str(conf))
    assert run.returncode != 0 and "can be written by others" in run.stdout + run.stderr


def plane(plugin: str = "tashi") -> list[str]:
    """The command that starts it in the foreground."""
    return [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", plugin]
