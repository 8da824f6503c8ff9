"""Cells that several tests share; a test that breaks its cell makes one of its own."""

from collections.abc import Iterator

import pytest

from tests.integration.cells import RunningCell, running_cell


@pytest.fixture(scope="session")
def simulated_cell() -> Iterator[RunningCell]:
    """A cell with one test:/// host."""
    with running_cell("--hypervisor", "test") as cell:
        yield cell


@pytest.fixture(scope="session")
def qemu_cell() -> Iterator[RunningCell]:
    """A cell with one host that runs real virtual machines."""
    with running_cell("--hypervisor", "qemu") as cell:
        yield cell
