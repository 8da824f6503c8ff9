"""What is configured of networks: for the cell, for one host, for VLANs and scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tashi.config import Config, ConfigError, load
from tashi.config.check import missing


def a_config(directory: Path, *programs: str, **files: str) -> Config:
    """The configuration of these files."""
    for name, text in files.items():
        (directory / f"{name}.cfg").write_text(text)
        (directory / f"{name}.cfg").chmod(0o600)
    return load(programs or ("NodeManager",), environ={}, directories=[directory])


def test_a_host_of_its_own_mind(tmp_path: Path) -> None:
    """What a host's NodeManager.cfg says of a network counts there, in place of what is said for all; nothing takes it away."""
    files = {"Tashi": "[Networks]\n0 = vmbr\n1 = br1\n2 = br2\n", "NodeManager": "[Networks]\n1 = own\n2 =\n30 = br30\n"}
    assert a_config(tmp_path, **files).networks.bridges == {0: "vmbr", 1: "own", 30: "br30"}
    assert a_config(tmp_path, "ClusterManager").networks.bridges == {0: "vmbr", 1: "br1", 2: "br2"}


def test_vlans(tmp_path: Path) -> None:
    """The device and the names of the bridges; by default there are no VLANs."""
    assert a_config(tmp_path).networks.vlan_device == ""
    networks = a_config(tmp_path, Tashi="[Networks]\nvlanDevice = eth0\nvlanBridge = br-{id}\n").networks
    assert (networks.vlan_device, networks.vlan_bridge, networks.bridges) == ("eth0", "br-{id}", {})


@pytest.mark.parametrize("name", ["vmbr", "{id}.{id}", "vmbr {id}", "the-bridge-of-{id}", "vmbr/{id}", ""])
def test_no_name_of_bridges(tmp_path: Path, name: str) -> None:
    """A name that is the same for all VLANs, too long or not one at all is refused with its place."""
    with pytest.raises(ConfigError, match=r"Tashi.cfg:2: \[Networks\] vlanBridge: expected a name with {id} in it"):
        a_config(tmp_path, Tashi=f"[Networks]\nvlanBridge = {name}\n")


def test_a_missing_script(tmp_path: Path) -> None:
    """A script that is not there is told of by the check."""
    script = tmp_path / "qemu-ifup.0"
    config = a_config(tmp_path, Tashi=f"[Networks]\n0 = br0\nifup = {tmp_path}/qemu-ifup.{{id}}\n")
    assert any(f"[Networks] ifup: {script} is not there" in words for words in missing(config))
    script.touch()
    assert not any("ifup" in words for words in missing(config))
