"""The command line against a running cell: every verb, as root and as other users of the machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cells import RunningCell, running_cell

AS_ANOTHER = """
import encodings.idna, encodings.utf_8_sig, ipaddress, os, sys, traceback
import tashi.client.cell, tashi.client.command, tashi.client.link, tashi.client.waiting, tashi.config.load
import twisted.internet.reactor, twisted.internet.defer, twisted.internet.task, twisted.spread.pb
uid = int(sys.argv[1])
os.setgroups([]); os.setgid(uid); os.setuid(uid)
sys.exit(tashi.client.command.main(sys.argv[2:]))
"""
"""The modules are loaded first: the interpreter may lie where that user cannot look."""

ALICE, BOB, NOBODY = 1000, 1001, 65534


@pytest.fixture(scope="module")
def a_cell() -> Iterator[RunningCell]:
    with running_cell("--hypervisor", "test") as cell:
        yield cell


@pytest.fixture
def cell(a_cell: RunningCell) -> Iterator[RunningCell]:
    """This module's cell, which each test leaves without instances."""
    yield a_cell
    for row in a_cell.instances():
        a_cell.cli("destroyVm", "--instance", row["name"], "--wait")


@pytest.fixture(scope="module")
def public_conf(a_cell: RunningCell) -> Iterator[str]:
    """A configuration directory that everybody may read, with the socket of the cell."""
    with tempfile.TemporaryDirectory(prefix="tashi-client-") as directory:
        os.chmod(directory, 0o755)
        path = Path(directory, "Client.cfg")
        path.write_text(Path(a_cell.description["conf"], "Client.cfg").read_text())
        path.chmod(0o644)
        yield directory


def rows(cell: RunningCell, *words: str) -> list[dict[str, Any]]:
    return json.loads(cell.cli(*words, "-o", "json"))


def run_as(uid: int, conf: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`tashi` as another user of this machine."""
    environment = {"TASHI_CONF": conf, "HOME": "/nonexistent", "PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", AS_ANOTHER, str(uid), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_a_machine_is_made_looked_at_and_destroyed(cell: RunningCell) -> None:
    """createVm --wait prints the running instance, getInstances lists it in three forms, destroyVm --wait prints nothing."""
    words = ("--name", "web", "--disks", "tashi.img", "--cores", "2", "--memory", "256", "--cpuShare", "2048")
    table = cell.cli("createVm", *words, "--userId", "alice", "--hints", "a=b,c=d", "--hints", "e=f", "--nics", ":10.0.0.7", "--wait")
    header, rule, line = table.splitlines()
    assert header.split() == ["id", "hostId", "name", "user", "state", "disk", "memory", "cores"]
    assert set(rule) == {"-"} and len(rule) == len(header)
    number, *rest = line.split()
    assert rest == ["1", "web", "alice", "Running", "tashi.img", "256", "2"]
    (row,) = rows(cell, "getInstances")
    assert (row["id"], row["userId"], row["host"], row["cpuShare"]) == (int(number), ALICE, "node1", 2048)
    assert row["hints"] == {"a": "b", "c": "d", "e": "f"}
    assert row["disks"] == [{"uri": "tashi.img", "persistent": False}]
    (nic,) = row["nics"]
    assert nic["ip"] == "10.0.0.7" and nic["network"] == 0 and re.fullmatch("52:54:00(:[0-9a-f]{2}){3}", nic["mac"])
    assert cell.cli("getInstances", "-o", "name") == "web\n"
    shown = cell.cli("getInstances", "--hide-all", "--show-name", "--show-hints").splitlines()
    assert shown[2].split() == ["web", "a=b,c=d,e=f"]
    assert cell.cli("destroyVm", "--instance", number, "--wait") == ""
    assert cell.instances() == []


def test_names_numbers_and_verbs_in_any_case(cell: RunningCell) -> None:
    """An instance is named by id or name, a user too, a verb in any mixture of capitals."""
    (made,) = rows(cell, "CREATEVM", "--name", "web", "--disks", "tashi", "--userId", "1001")
    assert (made["state"], made["user"]) == ("Pending", "bob")
    for reference in ("web", str(made["id"])):
        assert "web" in cell.cli("explain", "--instance", reference)
    cell.cli("destroyvm", "--instance", "web", "--wait")
    assert "there is no instance 'web'" in cell.cli("destroyVm", "--instance", "web", code=4)


def test_many_are_made_and_destroyed_together(cell: RunningCell) -> None:
    """createMany pads its numbers, each card has a MAC of its own, all or none; destroyMany takes those and no others."""
    made = rows(cell, "createMany", "--basename", "farm", "--count", "11", "--disks", "tashi", "--wait")
    assert [row["name"] for row in made] == [f"farm-{number:02}" for number in range(11)]
    assert {row["state"] for row in made} == {"Running"}
    assert len({row["nics"][0]["mac"] for row in made}) == 11
    cell.cli("createVm", "--name", "farm-x", "--disks", "tashi", "--wait")
    assert "farm-00" in cell.cli("createMany", "--basename", "farm", "--count", "11", "--disks", "tashi", code=1)
    assert cell.cli("createMany", "--basename", "big", "--count", "3", "--cores", "1025", "--disks", "tashi", code=1)
    assert len(cell.instances()) == 12
    cell.cli("destroyMany", "--basename", "farm", "--wait")
    assert [row["name"] for row in cell.instances()] == ["farm-x"]
    assert "unused basename" in cell.cli("destroyMany", "--basename", "farm", code=4)


def test_explain_says_why(cell: RunningCell) -> None:
    """explain names host and policy of what is placed, and a reason per host of what is not."""
    cell.cli("createVm", "--name", "web", "--disks", "tashi", "--wait")
    assert re.match(r"web \(\d+\) is Running on node1, placed there by Primitive", cell.cli("explain", "--instance", "web"))
    cell.cli("createVm", "--name", "large", "--disks", "tashi", "--cores", "1024")
    words = cell.cli("explain", "--instance", "large").splitlines()
    assert words[0].startswith("large (") and "is Pending" in words[0]
    assert words[1].startswith("node1: ") and "core" in words[1]


def test_waiting_ends_when_time_is_up(cell: RunningCell) -> None:
    """--wait of what cannot be placed yet ends with 1 and the reason, and what was asked for stands."""
    cell.cli("createVm", "--name", "web", "--disks", "tashi", "--wait")
    words = cell.cli("createVm", "--name", "late", "--disks", "tashi", "--cores", "1024", "--wait", "--timeout", "0.5", code=1)
    assert "late is not Running but Pending: time is up" in words
    cell.cli("destroyVm", "--instance", "web", "--wait")
    cell.wait_for_instances(lambda rows: [row["state"] for row in rows] == ["Running"])


def test_a_machine_that_no_host_can_start_is_held(cell: RunningCell) -> None:
    """An image that no hypervisor takes ends in Held, with the reason; the instance stays to be looked at."""
    trap = cell.state_dir / "share" / "images" / "backed.qcow2"
    trap.write_bytes(b"QFI\xfb\0\0\0\3" + (104).to_bytes(8, "big") + (8).to_bytes(4, "big") + bytes(84) + b"/etc/passwd" + bytes(400))
    try:
        words = cell.cli("createVm", "--name", "trap", "--disks", "backed.qcow2", "--wait", code=1)
        assert "trap is not Running but Held: " in words and "backing" in words
        (row,) = cell.instances()
        assert row["state"] == "Held" and row["host"] is None and "backing" in row["reason"]
    finally:
        trap.unlink()


def test_hosts_images_and_users_are_listed(cell: RunningCell) -> None:
    """The lists have the promised columns, sorted by id."""
    (host,) = rows(cell, "getHosts")
    wanted = ["id", "name", "up", "decayed", "state", "memory", "cores", "cpuSpeed", "version", "notes", "reserved", "config", "priority"]
    assert [key for key in wanted if key not in host] == []
    assert (host["id"], host["name"], host["up"], host["state"], host["cores"]) == (1, "node1", True, "Normal", 1024)
    assert rows(cell, "getImages") == [{"id": 0, "imageName": "tashi.img", "imageSize": "1.00M"}]
    assert [(row["id"], row["name"]) for row in rows(cell, "getUsers")] == [(0, "root"), (1000, "alice"), (1001, "bob")]
    assert cell.cli("getSlots", "--cores", "1024") == "1 available slot for instances with 1024 cores and 128 MB of memory.\n"
    (layout,) = rows(cell, "getVmLayout")
    assert (layout["usedCores"], layout["instances"]) == (0, [])


def test_a_host_is_configured(cell: RunningCell) -> None:
    """setHostConfig sets and removes an element; what asks for it is placed by it."""
    sentence = cell.cli("setHostConfig", "--hostId", "1", "--elemName", "auditability", "--value", "True")
    assert sentence == "auditability of host 1 is now True\n"
    assert rows(cell, "getHosts")[0]["config"] == {"auditability": "True", "location": "ie"}
    cell.cli("createVm", "--name", "web", "--disks", "tashi", "--hints", "auditability=True", "--wait")
    cell.cli("destroyVm", "--instance", "web", "--wait")
    cell.cli("setHostConfig", "--hostId", "node1", "--elemName", "auditability", "--value", "")
    assert rows(cell, "getHosts")[0]["config"] == {"location": "ie"}
    assert "no host of this cell could ever hold web" in cell.cli(
        "createVm", "--name", "web", "--disks", "tashi", "--hints", "auditability=True", code=1
    )
    assert cell.cli("setHostConfig", "--hostId", "9", "--elemName", "a", "--value", "b", code=4)


def test_users_come_and_go(cell: RunningCell) -> None:
    """registerUser says the id, takes the password from stdin, and unregisterUser refuses while the user owns something."""
    environment = os.environ | {"TASHI_CONF": cell.description["conf"]}
    command = [sys.executable, "-m", "tashi.client", "registerUser", "--name", "mihas", "--passwd", "-", "--priority", "12"]
    run = subprocess.run(command, input="mihas12\n", capture_output=True, text=True, env=environment, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "User mihas registered with userId 100000\n", "")
    (mihas,) = [row for row in rows(cell, "getUsers") if row["name"] == "mihas"]
    assert (mihas["id"], mihas["priority"]) == (100000, 12)
    assert "mihas12" not in (cell.state_dir / "log" / "manager.log").read_text()
    cell.cli("createVm", "--name", "web", "--userId", "mihas", "--disks", "tashi", "--wait")
    assert "has 1 instance" in cell.cli("unregisterUser", "--userId", "mihas", code=1)
    cell.cli("destroyVm", "--instance", "web", "--wait")
    assert cell.cli("unregisterUser", "--userId", "100000") == "User 100000 unregistered\n"
    assert cell.cli("unregisterUser", "--userId", "mihas", code=4)
    again = rows(cell, "registerUser", "--name", "mihas")[0]["id"]
    assert again == 100001, "an id is never given twice"
    cell.cli("unregisterUser", "--userId", "mihas")


def test_every_wrong_word_has_its_code(cell: RunningCell) -> None:
    """2 for wrong usage with the nearest name, 4 for what is not there, 1 for what cannot be; and the words go to stderr."""
    assert "createVm" in cell.cli("createVmm", code=2)
    assert "--instance" in cell.cli("destroyVm", code=2)
    assert "did you mean --disks" in cell.cli("createVm", "--name", "a", "--disk", "tashi", code=2)
    assert "--memory" in cell.cli("createVm", "--name", "a", "--disks", "tashi", "--memory", "much", code=2)
    assert "there is no image nothing" in cell.cli("createVm", "--name", "a", "--disks", "nothing", code=4)
    assert "imageIdentifier" in cell.cli("createVm", "--name", "a", "--disks", "../../etc/passwd", code=1)
    assert "there is no user 'carol'" in cell.cli("createVm", "--name", "a", "--disks", "tashi", "--userId", "carol", code=4)
    assert "there is no user 77" in cell.cli("createVm", "--name", "a", "--disks", "tashi", "--userId", "77", code=4)
    assert "hostname is 'a b'" in cell.cli("createVm", "--name", "a b", "--disks", "tashi", code=1)
    assert cell.cli("explain", "--instance", "99999", code=4)


def test_the_help_names_every_verb(cell: RunningCell) -> None:
    """--help, --examples and those of a verb are printed without a control plane."""
    text = cell.cli("--help")
    for verb in ("createVm", "createMany", "destroyVm", "destroyMany", "getInstances", "getHosts", "getImages", "setHostConfig", "explain"):
        assert f"\t{verb}" in text
        assert verb in cell.cli(verb, "--help")
    assert "tashi createVm --name" in cell.cli("--examples")


def test_other_users_do_what_is_theirs(cell: RunningCell, public_conf: str) -> None:
    """Who one is on the machine is who one is to the cell: alice has hers, may not touch bob's, and sees no more of it than she should."""
    me = run_as(ALICE, public_conf, "whoami", "-o", "json")
    assert json.loads(me.stdout) == [{"userId": ALICE, "name": "alice", "admin": False}]
    made = run_as(ALICE, public_conf, "createVm", "--name", "hers", "--disks", "tashi", "--hints", "secret=1", "--wait", "-o", "json")
    assert made.returncode == 0 and json.loads(made.stdout)[0]["userId"] == ALICE
    assert run_as(BOB, public_conf, "createVm", "--name", "his", "--disks", "tashi", "--hints", "secret=2", "--wait").returncode == 0
    seen = {row["name"]: row for row in json.loads(run_as(ALICE, public_conf, "getInstances", "-o", "json").stdout)}
    assert (seen["hers"]["hints"], seen["his"]["hints"], seen["his"]["nics"]) == ({"secret": "1"}, {}, [])
    assert len(seen["hers"]["nics"]) == 1
    assert run_as(ALICE, public_conf, "getMyInstances", "-o", "name").stdout == "hers\n"
    for words in (
        ("destroyVm", "--instance", "his"),
        ("createVm", "--name", "x", "--disks", "tashi", "--userId", "bob"),
        ("setHostConfig", "--hostId", "1", "--elemName", "location", "--value", "de"),
        ("registerUser", "--name", "carol"),
        ("unregisterUser", "--userId", "bob"),
    ):
        refused = run_as(ALICE, public_conf, *words)
        assert (refused.returncode, refused.stdout) == (3, ""), words
        assert "alice" in refused.stderr or "You don't have permissions" in refused.stderr
    assert run_as(ALICE, public_conf, "destroyVm", "--instance", "hers", "--wait").returncode == 0
    assert [row["name"] for row in cell.instances()] == ["his"]


def test_who_is_not_registered_may_look(cell: RunningCell, public_conf: str) -> None:
    """A user of the machine whom the cell does not know may list, and may create nothing; the words say what an admin must do."""
    assert run_as(NOBODY, public_conf, "getHosts", "-o", "name").stdout == "node1\n"
    refused = run_as(NOBODY, public_conf, "createVm", "--name", "x", "--disks", "tashi")
    assert refused.returncode == 4 and f"registerUser --name NAME --userId {NOBODY}" in refused.stderr


def test_a_control_plane_that_is_not_there(cell: RunningCell, tmp_path: Path) -> None:
    """Exit code 5, and words that say where it was sought and what to do."""
    (tmp_path / "Client.cfg").write_text(f"[Client]\nsocket = {tmp_path}/none.sock\n")
    run = run_as(0, str(tmp_path), "getInstances")
    assert run.returncode == 5 and f"{tmp_path}/none.sock" in run.stderr and "start it" in run.stderr


def test_the_python_interface(cell: RunningCell) -> None:
    """`from tashi.client import connect` gives the same verbs as coroutines."""
    program = """
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from tashi.client import connect

async def main(reactor):
    async with connect(reactor) as cell:
        (row,) = await cell.createVm("api", disks=[{"uri": "tashi"}], memory=64)
        await cell.waitFor([row["id"]], "Running")
        print([one["state"] for one in await cell.getInstances()])
        await cell.destroyVm("api")
        print((await cell.waitFor([row["id"]], "gone"))[0]["ok"])

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""
    environment = os.environ | {"TASHI_CONF": cell.description["conf"]}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert run.stdout == "['Running']\nTrue\n", run.stderr


def test_a_cell_without_hosts_that_are_up() -> None:
    """With every host down a create waits, and explain says so; when the agent is back it runs."""
    with running_cell("--hypervisor", "test") as cell:
        cell.kill("nodes", "node1")
        cell.cli("createVm", "--name", "web", "--disks", "tashi")
        words = cell.cli("explain", "--instance", "web")
        assert "web (1) is" in words
        cell.start()
        cell.wait_for_instances(lambda rows: [row["state"] for row in rows] == ["Running"])
