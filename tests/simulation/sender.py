"""Those who ask something of a simulated cell: a sender of commands who repeats himself, and an operator who moves things about."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from tashi.errors import YourMistake
from tashi.model.instance import Disk, InstanceSpec, InstanceUpdate
from tashi.model.states import InstanceState
from tests.builders import ADMIN, ISM, a_spec, an_origin
from tests.simulation.cell import Cell
from tests.simulation.world import World

_RETURNS = {InstanceState.Suspended: "resumeVm", InstanceState.Paused: "unpauseVm"}

CROSSING = 2.0
"""Seconds that a command may be on its way before it is looked at."""


class Sender:
    """Sends commands, some of them twice, and repeats what was not answered with the very same stanza."""

    def __init__(self, world: World, cell: Cell) -> None:
        self._world = world
        self._cell = cell
        self.commands: dict[str, Callable[[], None]] = {}
        self.repeated_at: dict[str, float] = {}
        """When each command was last repeated."""
        self.names: dict[str, tuple[str, ...]] = {}
        """What each create asked for."""
        self.unwanted: set[str] = set()
        """What a delete named."""
        self._specs: dict[str, list[InstanceSpec]] = {}

    def act(self) -> None:
        """Send one command more."""
        chance = self._world.chance
        thread = f"t{len(self.commands)}"
        if self.names and chance.random() < 0.25:
            victim = chance.choice([name for names in self.names.values() for name in names])
            self.unwanted.add(victim)
            self._send(thread, "deletecompute", lambda origin: self._delete(origin, victim), victim)
            return
        if self.names and chance.random() < 0.2:
            victim = chance.choice([name for names in self.names.values() for name in names])
            update = InstanceUpdate(resource_id=f"r-{victim}", cores=chance.randint(1, 4), restart=True)
            self._send(thread, "reprovisioncompute", lambda origin: self._cell.manager.commands.update(ISM, origin, update), victim)
            return
        specs = [self._spec(f"{thread}-{number}") for number in range(chance.choice([1, 1, 1, 2, 3]))]
        if self.names and chance.random() < 0.2:  # the same as before, in a stanza of its own
            former = chance.choice(list(self.names))
            specs = self._specs[former]
        self._specs[thread] = specs
        self.names[thread] = tuple(spec.name for spec in specs)
        verb = "createcompute" if len(specs) == 1 else "createmanycompute"
        self._send(thread, verb, lambda origin: self._create(origin, specs), "")

    def ask_for(self, name: str) -> str:
        """A small machine of this name; the command's thread."""
        self._send(name, "createcompute", lambda origin: self._create(origin, [a_spec(name)]), "")
        return name

    def repeat(self) -> None:
        """Send again whatever has no answer."""
        if self._cell.up:
            for thread, command in self.commands.items():
                if thread not in self._cell.told:
                    self.repeated_at[thread] = self._world.clock.seconds()
                    command()

    def is_crossed(self, thread: str) -> bool:
        """Return whether a repetition of this command may have crossed its outcome, which is then told once more."""
        told_at = self._cell.told_at[thread]
        return 0.0 <= told_at - self.repeated_at.get(thread, -CROSSING) < CROSSING

    def _spec(self, name: str) -> InstanceSpec:
        chance = self._world.chance
        disks = (Disk(uri="tashi", persistent=chance.random() < 0.3),)
        return a_spec(name, cores=chance.randint(1, 3), memory=chance.choice([128, 1024, 2048]), disks=disks, resource_id=f"r-{name}")

    def _send(self, thread: str, verb: str, call: Callable[[Any], None], what: str) -> None:
        origin = an_origin(f"stanza-{thread}", verb, thread=thread, fingerprint=thread + what)

        def command() -> None:
            if self._cell.up:
                call(origin)

        self.commands[thread] = command
        command()
        if self._world.happens(0.2):
            self._world.clock.callLater(self._world.delay(0.05), command)

    def _create(self, origin: Any, specs: Sequence[InstanceSpec]) -> None:
        self._cell.manager.commands.create(ISM, origin, specs, [str(spec) for spec in specs])

    def _delete(self, origin: Any, name: str) -> None:
        self._cell.manager.commands.delete(ISM, origin, name)


def outcome_of(bodies: dict[str, set[str]]) -> dict[str, Any]:
    """Return the outcome that a command was told, the last one if it was told again."""
    (body,) = list(bodies.values())[-1]
    found: dict[str, Any] = json.loads(body)
    return found


class Operator:
    """Moves, suspends and pauses what others have created, and drains hosts; nobody owes him an outcome but the records."""

    def __init__(self, world: World, cell: Cell) -> None:
        self._world = world
        self._cell = cell

    def act(self) -> None:
        """Ask for something that may be refused."""
        chance = self._world.chance
        records = self._cell.manager.cluster
        hosts, running = sorted(records.hosts), [one.id for one in records.instances.values() if one.state is InstanceState.Running]
        instances = running if chance.random() < 0.8 else sorted(records.instances)
        if not hosts or not instances:
            return
        if chance.random() < 0.1:
            self._call(chance.choice(["drainHost", "setHostState", "setHostState"]), host=chance.choice(hosts), state="Normal")
            return
        verb = chance.choice(["migrateVm"] * 8 + ["suspendVm", "resumeVm"] * 2 + ["pauseVm", "unpauseVm", "adaptCpuShare"])
        if verb == "resumeVm":
            instances = [one.id for one in records.instances.values() if one.state is InstanceState.Suspended] or instances
        instance = records.instances[chance.choice(instances)]
        others = [host_id for host_id in hosts if host_id != instance.host_id] or hosts
        self._call(verb, instance=instance.id, dst=chance.choice(others), share=chance.randint(2, 2000))

    def make_good(self) -> None:
        """Let every host take instances again, and every instance run."""
        records = self._cell.manager.cluster
        for host_id in sorted(records.hosts):
            self._call("setHostState", host=host_id, state="Normal")
        for instance in list(records.instances.values()):
            if instance.state in _RETURNS:
                self._call(_RETURNS[instance.state], instance=instance.id)

    def _call(self, verb: str, **arguments: Any) -> None:
        call = Deferred.fromCoroutine(self._cell.manager.verbs.call(ADMIN, verb, arguments))
        call.addErrback(lambda failure: failure.trap(YourMistake))
