"""A real host of the sandbox goes off and comes on by verb: its control plane runs the commands that cut its power and boot it."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import pytest

from tests.integration.cells import RunningCell, alive, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="the sandbox needs root"),
    pytest.mark.skipif(shutil.which("libvirtd", path="/usr/sbin") is None, reason="libvirtd is not installed"),
]


def row(cell: RunningCell, name: str = "node3") -> dict[str, Any]:
    return cell.hosts()[name]


def test_a_host_goes_off_and_comes_back(three_hosts: RunningCell) -> None:
    """A host with a guest stays on; an empty one goes off and takes nothing; switched on it runs what has waited for it."""
    cell = three_hosts
    (link,) = json.loads(cell.inside("node3", "ip", "-j", "link", "show", "eth0"))
    assert row(cell)["mac"] == link["address"]
    cell.cli("createVm", "--name", "settler", "--disks", "tashi.img", "--memory", "64", "--hints", "targetHost=node3", "--wait")
    assert "node3 holds an instance" in cell.cli("powerOff", "--host", "node3", code=1)
    cell.cli("destroyVm", "--instance", "settler", "--wait")
    agent = cell.pid("nodes", "node3")
    assert cell.cli("powerOff", "--host", "node3") == "Host node3 is being powered off.\n"
    until(lambda: row(cell)["state"], lambda state: state == "PoweredOff", 20)
    assert not alive(agent) and not row(cell)["up"]
    cell.cli("createVm", "--name", "settler", "--disks", "tashi.img", "--memory", "64", "--hints", "targetHost=node3")
    assert "node3: is powered off" in cell.cli("explain", "--instance", "settler")
    assert cell.cli("powerOn", "--host", "node3") == "Host node3 is being powered on.\n"
    until(lambda: row(cell), lambda found: (found["state"], found["up"], found["decayed"]) == ("Normal", True, False), 30)
    cell.wait_for_instances(lambda rows: [one["state"] for one in rows if one["name"] == "settler"] == ["Running"])
    assert [name for name in cell.domains("node3") if name.endswith("-settler")]
    cell.cli("destroyVm", "--instance", "settler", "--wait")
