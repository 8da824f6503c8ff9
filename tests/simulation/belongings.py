"""A small model of whose everything is, written from the contract and not from the code: what each reference
may reach."""

from __future__ import annotations

from typing import Final, NamedTuple

UNKNOWN, AMBIGUOUS, FORBIDDEN = "unknown-id", "ambiguous", "forbidden"
REFUSALS: Final = frozenset({UNKNOWN, AMBIGUOUS, FORBIDDEN})


class Actor(NamedTuple):
    """Somebody at a door: by ``jid`` over XMPP, by ``uid`` at the command line. ``user``: whose instances are
    the actor's own."""

    name: str
    jid: str | None = None
    uid: int | None = None
    user: int | None = None
    everybody: bool = False  # trusted, or an administrator
    admin: bool = False


class Vm:
    """One instance: who made it, under which key, for whom, and whether it still lives."""

    def __init__(
        self, number: int, name: str, owner: int, *, sender: str | None = None, key: str | None = None
    ) -> None:
        self.number = number
        self.name = name
        self.owner = owner
        self.sender = sender
        self.key = key
        self.content: object = None
        self.group: str | None = None
        self.disk: str | None = None  # the persistent disk that it has
        self.dying = False
        self.gone = False


class Belongings:
    """All instances there ever were, and the users there are."""

    def __init__(self) -> None:
        self.vms: dict[int, Vm] = {}
        self.users: dict[str, int] = {}
        self.disks: dict[str, int | None] = {}
        """The owner of each persistent disk, living instance or not."""

    def may_attach(self, who: Actor, disk: str, owner: int) -> bool:
        """Whether the actor may give this disk to an instance of this owner."""
        return who.admin or (self.disks[disk] == owner and (who.everybody or who.user == owner))

    def is_free(self, disk: str) -> bool:
        """Whether no living instance has the disk."""
        return all(vm.disk != disk for vm in self.living())

    def may(self, who: Actor, vm: Vm) -> bool:
        """Whether the actor may act on this instance."""
        return who.everybody or (who.user is not None and who.user == vm.owner)

    def living(self) -> list[Vm]:
        """The instances that are not gone, oldest first."""
        return [vm for vm in self.vms.values() if not vm.gone]

    def meant(self, who: Actor, reference: int | str, *, change: bool, history: bool) -> Vm | str:
        """The instance that the actor's reference means, or the code of the refusal. ``history``: it may be
        gone."""
        found = (
            self._by_id(who, reference)
            if isinstance(reference, int)
            else self._by_text(who, reference, change, history)
        )
        if isinstance(found, str):
            return found
        if found is None or (found.gone and not history and who.uid is not None):
            return UNKNOWN
        if change and not self.may(who, found):
            return FORBIDDEN
        return UNKNOWN if found.gone and not history else found

    def group(self, who: Actor, basename: str) -> list[Vm] | str:
        """The instances of a createMany that the actor may act on, or the code of the refusal."""
        made = [vm for vm in self.living() if vm.group == basename]
        own = [vm for vm in made if self.may(who, vm)]
        if not made:
            return UNKNOWN
        if not own:
            return FORBIDDEN
        return own if len({vm.owner for vm in own}) == 1 else AMBIGUOUS

    def under_key(self, sender: str | None, key: str | None) -> Vm | None:
        """The instance that lives under this sender's key."""
        found = [vm for vm in self.living() if key is not None and (vm.sender, vm.key) == (sender, key)]
        assert len(found) < 2
        return found[0] if found else None

    def is_taken(self, name: str) -> bool:
        """Whether an instance has a claim to this name."""
        return any(vm.name == name and not vm.dying for vm in self.living())

    def _by_id(self, who: Actor, number: int) -> Vm | str | None:
        found = self.vms.get(number)
        if who.uid is not None:  # digits that somebody typed
            lives = found is not None and not found.gone
            if any(vm.name == str(number) and vm.number != number for vm in self.living()):
                return AMBIGUOUS if lives else UNKNOWN
        return found

    def _by_text(self, who: Actor, text: str, change: bool, history: bool) -> Vm | str | None:
        keyed = [
            vm for vm in self.vms.values() if who.jid is not None and (vm.sender, vm.key) == (who.jid, text)
        ]
        if keyed:
            return max(keyed, key=lambda vm: (not vm.gone, vm.number))
        named = [vm for vm in self.vms.values() if vm.name == text]
        living = [vm for vm in named if not vm.gone]
        own = [vm for vm in living if self.may(who, vm)]
        candidates = own if own or change else living
        candidates = [vm for vm in candidates if not vm.dying] or candidates
        if len(candidates) > 1:
            return AMBIGUOUS
        if candidates:
            return candidates[0]
        gone = [vm for vm in named if vm.gone] if history or who.jid is not None else []
        own_gone = [vm for vm in gone if self.may(who, vm)]
        if own_gone:
            return own_gone[-1]
        return (living or gone or [None])[-1]
