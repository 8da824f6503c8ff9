"""A plan's moves while they are made one after another: a value that says which are left, and what becomes of them when one fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tashi.scheduling.plan import Migrate


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One instance goes from one host to another."""

    instance_id: int
    source: int
    target: int
    why: str = ""


class Programme(msgspec.Struct, frozen=True):
    """The steps that are to be taken, in their order, and those that are being taken."""

    waiting: tuple[Step, ...] = ()
    under_way: tuple[Step, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left of it."""
        return not self.waiting and not self.under_way

    def next_free(self, tried: Sequence[Step] = ()) -> Step | None:
        """The first waiting step that has not been tried and shares no host and no instance with one before it that still waits, nor its
        instance with one that is being taken: no step overtakes one that it may have to do with."""
        hosts: set[int] = set()
        instances = {step.instance_id for step in self.under_way}
        for step in self.waiting:
            if not hosts & {step.source, step.target} and step.instance_id not in instances and not any(step is one for one in tried):
                return step
            hosts |= {step.source, step.target}
            instances.add(step.instance_id)
        return None

    def begun(self, step: Step) -> Programme:
        """This waiting step is being taken."""
        return Programme(self._left(step), (*self.under_way, step))

    def taken(self, step: Step) -> Programme:
        """This step is at its end: its instance is where it was to go."""
        return Programme(self.waiting, tuple(one for one in self.under_way if one is not step))

    def gone(self, step: Step) -> Programme:
        """Its instance is no longer where it was, by no doing of this programme: what else was planned for it is dropped."""
        waiting = tuple(one for one in self._left(step) if one.instance_id != step.instance_id)
        return Programme(waiting, tuple(one for one in self.under_way if one is not step))

    def failed(self, step: Step) -> Programme:
        """Its instance stays where it is: all that counts on the room that it was to leave there is dropped."""
        stays, full = {step.instance_id}, {step.source}
        waiting: list[Step] = []
        for one in self._left(step):
            if one.instance_id in stays or one.target in full:
                stays.add(one.instance_id)
                full.add(one.source)
            else:
                waiting.append(one)
        return Programme(tuple(waiting), tuple(one for one in self.under_way if one is not step))

    def _left(self, step: Step) -> tuple[Step, ...]:
        return tuple(one for one in self.waiting if one is not step)


def programme(moves: Iterable[Migrate], hosts: Mapping[int, int]) -> Programme:
    """The programme of these moves; ``hosts``: where each instance is now. One that stops over on its way goes on from there."""
    here = dict(hosts)
    steps: list[Step] = []
    for move in moves:
        if move.instance_id in here:
            steps.append(Step(instance_id=move.instance_id, source=here[move.instance_id], target=move.host_id, why=move.why))
            here[move.instance_id] = move.host_id
    return Programme(tuple(steps))
