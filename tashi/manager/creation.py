"""From what somebody asks for to an instance that is wished: permission, limits, names, images, terms; all or nothing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec

from tashi.errors import (
    BAD_ARGUMENT,
    DUPLICATE_HOSTNAME,
    FORBIDDEN,
    NO_SUITABLE_HOST,
    NOT_SUPPORTED_LIVE,
    QUOTA,
    UNKNOWN_SLA,
    UNKNOWN_USER,
    YourMistake,
)
from tashi.manager.cluster import Cluster, Transaction
from tashi.manager.images import Images
from tashi.manager.network_cards import NetworkCards
from tashi.manager.settings import ManagerSettings
from tashi.model.disks import is_own
from tashi.model.events import vm_action
from tashi.model.instance import DEFAULT_CPU_SHARE, Disk, Instance, InstanceSpec, Nic
from tashi.model.names import (
    MAX_CORES,
    MAX_DISK_BYTES,
    MAX_DISK_IOPS,
    MAX_MEMORY_MB,
    MAX_NETWORK,
    check_address,
    check_hints,
    check_integer,
    check_mac,
    check_new_name,
    check_scratch_space,
)
from tashi.model.sla import SlaClass
from tashi.model.states import InstanceState
from tashi.model.user import Principal
from tashi.scheduling.plan import in_words
from tashi.scheduling.policies import never_fits
from tashi.scheduling.terms import needs

MOST_HINTS = 64
MOST_DEVICES = 16


class Creation:
    """Makes Pending instances of specifications."""

    def __init__(self, cluster: Cluster, images: Images, settings: ManagerSettings, cards: NetworkCards) -> None:
        self._cluster = cluster
        self._images = images
        self._settings = settings
        self._cards = cards

    def check(self, who: Principal, specs: Sequence[InstanceSpec]) -> list[InstanceSpec]:
        """The specifications with names resolved and terms applied; YourMistake when one of them cannot be had. Changes nothing."""
        names: set[str] = set()
        macs: set[str] = set()
        hopeful: set[Hashable] = set()
        checked: list[InstanceSpec] = []
        if not specs:
            raise YourMistake(BAD_ARGUMENT, "no instance is asked for; name at least one")
        alike: tuple[InstanceSpec, InstanceSpec] | None = None  # the last that was looked at closely, and what came of it
        for spec in specs:
            own = {"name": spec.name, "resource_id": spec.resource_id}
            if alike is not None and msgspec.structs.replace(alike[0], **own) == spec:
                check_new_name("hostname", spec.name)
                self._check_free(spec.name)
                ready = msgspec.structs.replace(alike[1], **own)
            else:
                ready = self._check_one(who, spec, hopeful)
                alike = spec, ready
            ready = msgspec.structs.replace(ready, nics=self._cards.with_macs(ready.nics, macs))
            if ready.name in names:
                raise YourMistake(DUPLICATE_HOSTNAME, f"the host name {ready.name} is asked for twice; give each instance its own")
            names.add(ready.name)
            checked.append(ready)
        return checked

    def make(
        self,
        tx: Transaction,
        spec: InstanceSpec,
        *,
        owner_jid: str | None = None,
        content: str = "",
        group_name: str | None = None,
    ) -> Instance:
        """Record a checked specification as an instance that waits for its place.

        ``group_name`` is the basename of its createMany.
        """
        number = tx.next_id("instance")
        fields = msgspec.structs.asdict(spec)
        instance = Instance(
            id=number,
            incarnation=tx.cluster.new_incarnation(),
            owner_jid=owner_jid,
            content=content,
            created_at=tx.now,
            group_name=group_name,
            **fields,
        )
        tx.put_instance(instance)
        tx.tell(vm_action("created", instance, None, instance.state.name, "", None))
        return instance

    def _check_one(self, who: Principal, spec: InstanceSpec, hopeful: set[Hashable]) -> InstanceSpec:
        """``hopeful``: the needs of those that some host could hold."""
        if not who.may_act_for(spec.user_id):
            raise YourMistake(
                FORBIDDEN, f"{who.name} may not create instances of user {spec.user_id}; ask as that user, or as a trusted manager"
            )
        if spec.user_id not in self._cluster.users:
            raise YourMistake(
                UNKNOWN_USER, f"userId is {spec.user_id}, and there is no such user; see `tashi getUsers`, or register it first"
            )
        check_new_name("hostname", spec.name)
        check_integer("cpu_cores", spec.cores, 1, MAX_CORES)
        check_integer("memory_size", spec.memory, 1, MAX_MEMORY_MB, "MB")
        check_integer("cpu_share", spec.cpu_share, 2, 262144)
        for name, most in (("disk_iops", MAX_DISK_IOPS), ("disk_bytes", MAX_DISK_BYTES)):
            if getattr(spec, name) is not None:
                check_integer(name, getattr(spec, name), 1, most)
        nics = tuple(
            Nic(
                network=check_integer("nics", nic.network, 0, MAX_NETWORK),
                mac=check_mac("nics", nic.mac),
                ip=check_address("nics", nic.ip),
            )
            for nic in spec.nics or (Nic(network=self._settings.default_network),)
        )
        check_hints("hints", spec.hints)
        self._check_quota(spec)
        if not spec.disks:
            raise YourMistake(BAD_ARGUMENT, f"{spec.name} has no disk; name an image (imageIdentifier or --disks)")
        if len(spec.hints) > MOST_HINTS or any(len(name) > 64 or len(value) > 255 for name, value in spec.hints.items()):
            raise YourMistake(BAD_ARGUMENT, f"hints are too many or too long; use at most {MOST_HINTS} of 64 and 255 characters")
        if len(spec.disks) > MOST_DEVICES or len(spec.nics) > MOST_DEVICES:
            raise YourMistake(BAD_ARGUMENT, f"{spec.name} has too many disks or network cards; use at most {MOST_DEVICES} of each")
        self._check_free(spec.name)
        disks = tuple(Disk(uri=self._images.resolve(who, disk.uri, spec.user_id), persistent=disk.persistent) for disk in spec.disks)
        own = [disk.uri for disk in disks if is_own(disk.uri)]
        if len(own) > len(set(own)):
            raise YourMistake(BAD_ARGUMENT, f"disks names a persistent disk of {spec.name} twice ({', '.join(own)}); name it once")
        ready = _with_terms(msgspec.structs.replace(spec, disks=disks, nics=nics), self._sla_class(spec.sla))
        if "scratchSpace" in ready.hints:
            check_scratch_space("hints.scratchSpace", ready.hints["scratchSpace"])
        instance = Instance(id=0, **msgspec.structs.asdict(ready))
        if (need := needs(instance)) not in hopeful:
            refusals = never_fits(instance, self._cluster.hosts, self._settings.scheduling)
            if refusals:
                raise YourMistake(NO_SUITABLE_HOST, f"no host of this cell could ever hold {spec.name}: {in_words(refusals)}")
            hopeful.add(need)
        return ready

    def check_change(
        self, who: Principal, instance: Instance, *, cores: int, memory: int, image: str | None
    ) -> tuple[Disk, ...]:
        """The disks the instance would have of this size and on this image (None: the same); YourMistake when it cannot be so."""
        self._check_quota(msgspec.structs.replace(instance, cores=cores, memory=memory))
        first, *rest = instance.disks
        if image is None:
            return instance.disks
        if first.persistent or is_own(first.uri):
            words = f"imageIdentifier is {first.uri}, the persistent disk of {instance.name}, which stays; create another instance"
            raise YourMistake(NOT_SUPPORTED_LIVE, words)
        uri = self._images.resolve(who, image, instance.user_id)
        if is_own(uri):
            raise YourMistake(NOT_SUPPORTED_LIVE, f"imageIdentifier is {uri}, a persistent disk; name an image, or create another instance")
        return Disk(uri=uri), *rest

    def _check_quota(self, spec: InstanceSpec) -> None:
        for limit, value, what in (
            (self._settings.max_memory, spec.memory, "MB of memory"),
            (self._settings.max_cores, spec.cores, "cores"),
        ):
            if limit and value > limit:
                raise YourMistake(QUOTA, f"{spec.name} asks for {value} {what}, and this cell allows {limit} an instance; ask for less")

    def _check_free(self, name: str) -> None:
        """What is being destroyed has no claim to its name any more."""
        namesakes = (self._cluster.instances[number] for number in self._cluster.by_name.get(name, ()))
        taken = any(namesake.state is not InstanceState.Destroying for namesake in namesakes)
        if taken and not self._settings.allow_duplicate_names:
            raise YourMistake(DUPLICATE_HOSTNAME, f"the name {name} is already in use; choose another, or destroy that instance")

    def _sla_class(self, name: str | None) -> SlaClass | None:
        if name is None:
            return None
        try:
            return self._settings.sla_classes[name]
        except KeyError:
            known = ", ".join(sorted(self._settings.sla_classes)) or "none"
            raise YourMistake(UNKNOWN_SLA, f"the SLA class {name!r} is not one of this cell's ({known}); see [SlaClasses]") from None


def _with_terms(spec: InstanceSpec, sla: SlaClass | None) -> InstanceSpec:
    if sla is None:
        return spec
    terms: dict[str, object] = {"hints": {**sla.hints, **spec.hints}}
    for name in ("cpu_speed", "disk_weight", "net_down", "net_up"):
        if getattr(spec, name) is None:
            terms[name] = getattr(sla, name)
    if sla.cpu_share is not None and spec.cpu_share == DEFAULT_CPU_SHARE:
        terms["cpu_share"] = sla.cpu_share
    return msgspec.structs.replace(spec, **terms)
