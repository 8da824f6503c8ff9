"""A sandbox host without a hypervisor: a node file of libvirt's test driver, and an agent in the machine's own namespaces."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from tashi.files import write_whole
from tashi.sandbox import processes
from tashi.sandbox.layout import Layout
from tashi.sandbox.qemu_host import agent_role

CORES = 1024
MEMORY = 1024 * 1024  # MB: one TiB
SPEED = 2600  # MHz


def write_node_file(layout: Layout, name: str, cores: int, memory: int) -> None:
    """Write what libvirt shall take for the host: `cores`, `memory` in MB; kept when it is there."""
    path = layout.node(name) / "node.xml"
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    node = ElementTree.Element("node")
    processor = ElementTree.SubElement(node, "cpu")
    shape = {"mhz": SPEED, "model": "x86_64", "active": cores, "nodes": 1, "sockets": 1, "cores": cores, "threads": 1}
    for key, value in shape.items():
        ElementTree.SubElement(processor, key).text = str(value)
    ElementTree.SubElement(node, "memory").text = str(memory * 1024)
    write_whole(path, ElementTree.tostring(node))


def start(layout: Layout, name: str, agent: list[str]) -> None:
    """Start the host's agent; its VMs live in it and end with it."""
    variables = {"TASHI_CONF": str(layout.node(name) / "conf")}
    processes.start(agent, directory=layout.directory, role=agent_role(name), log=layout.log / f"{name}.log", **variables)
