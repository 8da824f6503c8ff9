"""Cells that several tests share; a test that breaks its cell makes one of its own."""

from collections.abc import Iterator

import pytest

from tests.integration.cells import RunningCell, compute, running_cell
from tests.integration.conversation import Conversation


@pytest.fixture(scope="session")
def simulated_cell() -> Iterator[RunningCell]:
    """A cell with one test:/// host."""
    with running_cell("--hypervisor", "test") as cell:
        yield cell


@pytest.fixture(scope="session")
def qemu_cell() -> Iterator[RunningCell]:
    """A cell with one host that runs real virtual machines, and looks each second at what they use."""
    with running_cell("--hypervisor", "qemu", "--set", "NodeManagerService.statsInterval=1") as cell:
        yield cell


@pytest.fixture(scope="session")
def three_hosts() -> Iterator[RunningCell]:
    """A cell with three hosts that run real virtual machines and migrate them to each other; each test leaves them on, up and empty.

    A silent host is missed early, so that faults are seen in seconds.
    """
    early = ("--set", "ClusterManagerService.expireHostTime=8", "--set", "NodeManagerService.registerFrequency=2")
    with running_cell("--hypervisor", "qemu", "--hosts", "3", "--memory", "2048", *early) as cell:
        yield cell


@pytest.fixture(scope="session")
def conversation() -> Iterator[Conversation]:
    """A cell whose image directory holds traps, with one VM of bob's, and clients that are logged in."""
    with running_cell("--hypervisor", "test") as cell:
        images = cell.state_dir / "share" / "images"
        (images / "trap.img").symlink_to("/etc/passwd")
        (images / "folder.img").mkdir()
        (images / "tashi.img.old").symlink_to("tashi.img")
        with Conversation(cell) as conversation:
            reply = conversation.do(conversation.peers["ism"].ask(cell.sink, compute("bobs", userId=1001)))
            assert reply["status"] == "OK"
            yield conversation
