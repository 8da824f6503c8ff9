"""One pass of a built-in policy: what waits is placed, room is made for what matters more, and what runs is put where it is better off.

The parts agree through the fleet: each finds it as those before it will have left it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tashi.scheduling.fleet import Fleet
from tashi.scheduling.moving.evacuating import evacuate
from tashi.scheduling.moving.moves import Moves
from tashi.scheduling.placing.choosing import Placing, Rule
from tashi.scheduling.plan import Action, Plan, Postpone, PowerOff
from tashi.scheduling.powering import Reserve, power
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.squeezing import Squeezing, grow
from tashi.scheduling.survey import survey

Betterment = Callable[[Fleet], Moves]
"""Finds moves that better things, and makes them in the fleet."""


def planned(snapshot: Snapshot, rule: Rule, better: Betterment | None = None) -> Plan:
    """The plan of one pass: by the rule for each instance that is placed, and in a round that looks for them with the moves that pay.

    Who waits gets a host that is switched on rather than memory of others, though that takes longer: nobody loses anything by it.
    While room is made for somebody nothing moves for the better: what is promised makes hosts look fuller than they are to be.
    """
    # a pass over what waits trusts sums that are kept up to date all the time; whoever looks for more looks closely
    sound, remarks = survey(snapshot) if snapshot.rebalance or not snapshot.loads else (snapshot, ())
    fleet = Fleet(sound)
    squeezing = Squeezing(fleet)
    actions, waiting = _placed(fleet, rule, squeezing)
    switched = power(fleet, waiting)
    moves, stuck = evacuate(fleet, rule) if any(host.draining for host in fleet.hosts) else ([], {})
    actions += moves
    found = better(fleet) if better is not None and sound.rebalance and not squeezing.promised else None
    if found is not None:
        actions += found.moves
        remarks += found.remarks
    actions += grow(fleet)
    # a host that something has been moved to meanwhile stays on; one that has just been emptied is not empty yet
    actions += [one for one in switched if not isinstance(one, PowerOff) or not fleet.room(fleet.place_of[one.host_id]).residents]
    return Plan(
        actions=tuple(actions),
        before=found.before if found else None,
        after=found.after if found else None,
        bound=found.bound if found else None,
        remarks=(*remarks, *_named(sound, stuck)),
    )


def _placed(fleet: Fleet, rule: Rule, squeezing: Squeezing) -> tuple[list[Action], list[Postpone]]:
    """A place for each that waits, or room that is made for it before anything less important is placed; and what goes on waiting."""
    placing, reserve = Placing(fleet, rule), Reserve(fleet)
    actions: list[Action] = []
    waiting: list[Postpone] = []
    for instance in rule.order(fleet):
        action = placing.next(instance)
        actions.append(action)
        if isinstance(action, Postpone):
            waiting.append(action)
            if not reserve.can_hold(instance):
                actions += squeezing.next(instance)
    return actions, waiting


def _named(snapshot: Snapshot, words: Mapping[int, str]) -> Iterator[str]:
    """What is said of instances, each with its name."""
    if words:
        names = {one.id: one.name for group in snapshot.placed.values() for one in group}
        yield from (f"{names[number]} {text}" for number, text in words.items())
