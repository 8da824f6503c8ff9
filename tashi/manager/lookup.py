"""The one place where a reference becomes a record: an instance, a host or a user, living or in history.

An integer is an id. A text is never an id: it is first one of the sender's own resourceIds, living or in
history, and then a name. Among instances of one name the sender's own come first, and one that is being
destroyed has lost its claim to the name. A reference that fits two records is refused, and the refusal names
both. Nobody's resourceId reaches another sender's instance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeVar

from tashi.errors import AMBIGUOUS, FORBIDDEN, UNKNOWN_ID, UNKNOWN_USER, YourMistake
from tashi.interfaces import IStore
from tashi.manager.cluster import Cluster
from tashi.model.host import Host
from tashi.model.instance import Instance
from tashi.model.names import shown
from tashi.model.states import InstanceState
from tashi.model.user import Principal, User

Reference = int | str
MOST_NAMED: Final = 10
"""Candidates that a refusal names; the others are counted."""


class _Named(Protocol):
    """A host or a user: a record with an id and a name."""

    @property
    def id(self) -> int: ...

    @property
    def name(self) -> str: ...


Record = TypeVar("Record", bound=_Named)


class Lookup:
    """Finds an instance for the message sink, whose senders have resourceIds and may name what is gone."""

    def __init__(self, cluster: Cluster, store: IStore) -> None:
        self._cluster = cluster
        self._store = store

    async def instance(self, who: Principal, reference: Reference, *, change: bool = True) -> Instance:
        """Return the instance that the reference means, in state Exited when it is gone.

        ``change``: the sender wants to change it, so it must be one that the sender may act on.
        YourMistake: unknown-id, ambiguous or forbidden.
        """
        found = await (
            self._by_id(reference) if isinstance(reference, int) else self._by_text(who, reference, change)
        )
        if found is None:
            raise _unknown_instance(reference)
        if change:
            check_owner(who, found)
        return found

    async def living(self, who: Principal, reference: Reference, *, change: bool = True) -> Instance:
        """Return the instance that the reference means; YourMistake(unknown-id) also when it is gone."""
        found = await self.instance(who, reference, change=change)
        if found.id not in self._cluster.instances:
            raise YourMistake(
                UNKNOWN_ID, f"{found.name} ({found.id}), which {shown(reference)} names, is gone"
            )
        return found

    async def typed(self, who: Principal, reference: Reference) -> Instance:
        """Return the instance, living or gone, that somebody typed at the command line and may act on; see
        `living_instance`."""
        if isinstance(reference, int):
            found = by_typed_digits(self._cluster, reference)
            if found is not None:
                check_owner(who, found)
                return found
        return await self.instance(who, reference)

    async def gone(self, instance_id: int) -> Instance | None:
        """Return the instance of this id from history, or None."""
        await self._cluster.journal.written()  # what has just gone is not in the store before
        found: Instance | None = await self._store.find_gone(instance_id=instance_id)
        return found

    async def gone_of_name(self, who: Principal, name: str) -> Instance | None:
        """Return the newest instance of this name from history, one that ``who`` may act on before any other,
        or None."""
        await self._cluster.journal.written()
        found: Instance | None = None
        if not (who.admin or who.trusted) and who.user_id is not None:
            found = await self._store.find_gone(name=name, user_id=who.user_id)
        return found or await self._store.find_gone(name=name)

    async def _by_id(self, instance_id: int) -> Instance | None:
        return self._cluster.instances.get(instance_id) or await self.gone(instance_id)

    async def _by_text(self, who: Principal, text: str, change: bool) -> Instance | None:
        if who.jid is not None:
            key = (who.jid, text)
            number = self._cluster.by_key.get(key)
            if number is not None:
                return self._cluster.instances[number]
            await self._cluster.journal.written()
            gone: Instance | None = await self._store.find_gone(key=key)
            if gone is not None:
                return gone
        namesakes = _namesakes(self._cluster, text)
        found = _one_of_name(who, text, namesakes, change)
        if found is not None:
            return found
        gone = await self.gone_of_name(who, text)
        if gone is not None and who.may_act_for(gone.user_id):
            return gone
        return namesakes[0] if namesakes else gone  # another's, which the caller refuses or shows


def living_instance(
    cluster: Cluster, who: Principal, reference: Reference, *, change: bool = True
) -> Instance:
    """Return the living instance of this id or name, as somebody typed it at the command line.

    There digits are an id; where they are also the name of an instance, which only an older version allowed,
    they are ambiguous.
    ``change``: it must be one that ``who`` may act on. YourMistake: unknown-id, ambiguous or forbidden.
    """
    if isinstance(reference, int):
        found = by_typed_digits(cluster, reference)
    else:
        namesakes = _namesakes(cluster, reference)
        found = _one_of_name(who, reference, namesakes, change) or next(iter(namesakes), None)
    if found is None:
        raise _unknown_instance(reference)
    if change:
        check_owner(who, found)
    return found


def by_typed_digits(cluster: Cluster, number: int) -> Instance | None:
    """Return the living instance of this id, or None; YourMistake when another one has these digits for a
    name."""
    found = cluster.instances.get(number)
    others = [one for one in _namesakes(cluster, str(number)) if one.id != number]
    _refuse_digits(number, "instance", UNKNOWN_ID, found, others)
    return found


def check_owner(who: Principal, instance: Instance) -> None:
    """Raise YourMistake(forbidden) unless ``who`` may act on the instance."""
    if not who.may_act_for(instance.user_id):
        raise YourMistake(
            FORBIDDEN,
            f"You don't have permissions on VM {instance.name} ({instance.id}): "
            f"it belongs to user {instance.user_id}",
        )


def the_host(cluster: Cluster, reference: Reference) -> Host:
    """Return the host of this id or name; YourMistake: unknown-id or ambiguous."""
    return _one(cluster.hosts, reference, "host", UNKNOWN_ID, "tashi getHosts")


def the_user(cluster: Cluster, reference: Reference) -> User:
    """Return the user of this id or name; YourMistake: unknown-user or ambiguous."""
    return _one(cluster.users, reference, "user", UNKNOWN_USER, "tashi getUsers")


def _one(records: Mapping[int, Record], reference: Reference, kind: str, unknown: str, verb: str) -> Record:
    named = [one for one in records.values() if one.name == str(reference) and one.id != reference]
    if isinstance(reference, int):
        found = records.get(reference)
        _refuse_digits(reference, kind, unknown, found, named)
    elif len(named) > 1:
        raise _ambiguous(reference, kind, named)
    else:
        found = named[0] if named else None
    if found is None:
        raise YourMistake(unknown, f"there is no {kind} {shown(reference)}; see `{verb}`")
    return found


def _refuse_digits(
    number: int, kind: str, unknown: str, found: _Named | None, named: Sequence[_Named]
) -> None:
    """Raise YourMistake when these digits are a name, too. New names are never digits alone, but older
    versions allowed it."""
    if not named:
        return
    names = ", ".join(f"{one.name} ({one.id})" for one in named[:MOST_NAMED])
    remedy = f"to name the {kind} that is called {number}, give its id or, at the command line, name:{number}"
    if found is None:
        raise YourMistake(
            unknown, f"there is no {kind} with the id {number}, but one of that name: {names}; {remedy}"
        )
    raise YourMistake(
        AMBIGUOUS,
        f"{number} is the id of {kind} {found.name} ({found.id}) and the name of {kind} {names}; "
        f"{remedy}; for the other give its name",
    )


def _namesakes(cluster: Cluster, name: str) -> list[Instance]:
    """The living instances of this name, oldest first."""
    return [cluster.instances[number] for number in sorted(cluster.by_name.get(name, ()))]


def _one_of_name(who: Principal, name: str, namesakes: Sequence[Instance], change: bool) -> Instance | None:
    """The one of them that ``who`` means; None when there is none that ``who`` may act on and ``change`` asks
    for that."""
    own = [one for one in namesakes if who.may_act_for(one.user_id)]
    candidates = own if own or change else namesakes
    candidates = [one for one in candidates if one.state is not InstanceState.Destroying] or candidates
    if len(candidates) > 1:
        raise _ambiguous(name, "instance", candidates)
    return candidates[0] if candidates else None


def _ambiguous(text: str, kind: str, candidates: Sequence[_Named]) -> YourMistake:
    ids = ", ".join(str(one.id) for one in candidates[:MOST_NAMED])
    more = f" and {len(candidates) - MOST_NAMED} more" if len(candidates) > MOST_NAMED else ""
    return YourMistake(
        AMBIGUOUS,
        f"{shown(text)} names more than one {kind}; give the id of the one that you mean: {ids}{more}",
    )


def _unknown_instance(reference: Reference) -> YourMistake:
    message = (
        f"there is no instance {shown(reference)}; `tashi getInstances` and listcompute list those that exist"
    )
    if isinstance(reference, str) and reference.isascii() and reference.isdigit():
        message += f"; {reference} in quotes is a name or a resourceId, and never an id"
    return YourMistake(UNKNOWN_ID, message)
