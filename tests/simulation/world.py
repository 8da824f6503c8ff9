"""The world of a simulated cell: one clock, one source of chance, and a store on a disk that is slow and sometimes full."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tashi.interfaces import Change
from tashi.node.fake import SharedDirectory
from tashi.store.memory import MemoryStore
from tests.small_cell import Process, Wall


class World:
    """One clock, one source of chance, and whether things still go wrong."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.chance = Random(seed)
        self.incarnations = Random(f"incarnations {seed}")
        self.wall = Wall(self.clock)
        """The control plane's time of day, which jumps."""
        self._chances: dict[str, Random] = {}
        self.faulty = True
        self.shared = SharedDirectory()
        self.lost: set[str] = set()
        """The names of those that were on a machine when its power was cut."""
        self.left_behind: set[str] = set()
        """The domains whose unused copies could not be removed, since their host did not have the shared directory."""

    def set_time_of_day(self) -> None:
        """Now and then let the time of day jump, by up to an hour either way."""
        if self.strikes("jumps", 0.01):
            self.wall.offset += self.chance_of("jumps").uniform(-3600.0, 3600.0)

    def happens(self, probability: float) -> bool:
        """Whether this misfortune happens now."""
        return self.faulty and self.chance.random() < probability

    def strikes(self, fault: str, probability: float) -> bool:
        """Return whether this fault happens now. A new kind of fault leaves the chances of the others as they are."""
        return self.faulty and self.chance_of(fault).random() < probability

    def chance_of(self, fault: str) -> Random:
        """Return the source of chance that belongs to this kind of fault."""
        return self._chances.setdefault(fault, Random(f"{fault} {self.seed}"))

    def delay(self, most: float) -> float:
        """How long something takes, in seconds."""
        return self.chance.uniform(0.0, most)


class SlowStore(MemoryStore):
    """Commits take their time and sometimes fail; one that is under way when its process is killed is lost."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.process: Process = Process(world.clock)

    async def commit(self, changes: Sequence[Change]) -> None:
        written: Deferred[None] = Deferred()
        self.process.callLater(self._world.delay(0.2), written.callback, None)
        await written
        if self._world.happens(0.02):
            raise OSError("disk full")
        await super().commit(changes)
