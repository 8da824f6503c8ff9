"""The client: the `tashi` command, and the same verbs as coroutines.

`async with connect(reactor) as cell: rows = await cell.createVm(name="web", disks="tashi.img")`
"""

from tashi.client.cell import Cell, connect
from tashi.client.unreachable import CannotReach

__all__ = ["CannotReach", "Cell", "connect"]
