"""All that the command line can do, one row a verb: usage, help, parsing, completion and output derive from this table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from tashi.client import arguments as convert
from tashi.client.arguments import Converter
from tashi.client.cell import Cell, Row
from tashi.client.table import CALLER, HOSTS, IMAGES, INSTANCES, LAYOUT, SLOTS, STRAYS, USERS, WORDS, Shape
from tashi.model.names import CPU_SHARES, DISK_WEIGHTS, MAX_DISK_BYTES, MAX_DISK_IOPS, MAX_KILOBITS

Values = Mapping[str, Any]


class Argument(msgspec.Struct, frozen=True):
    """One ``--name value``; ``completes`` is the verb whose names it may hold."""

    name: str
    help: str
    convert: Converter = convert.text
    required: bool = False
    completes: str = ""


class Verb(msgspec.Struct, frozen=True):
    """One verb. ``sentence`` replaces the table (None: nothing is printed); ``waits_for`` is what ``--wait`` waits for."""

    name: str
    help: str
    action: Callable[..., Awaitable[list[Row]]]
    arguments: tuple[Argument, ...] = ()
    shape: Shape = INSTANCES
    examples: tuple[str, ...] = ()
    sentence: Callable[[Sequence[Row], Values], str | None] | None = None
    waits_for: str = ""


class Program(msgspec.Struct, frozen=True):
    """A verb that is a program of its own: ``module``'s main gets the rest of the line. ``completes``: what holds names of the cell."""

    name: str
    help: str
    usage: str
    module: str
    completes: tuple[Argument, ...] = ()


def _required(name: str, help: str, converter: Converter = convert.text, completes: str = "") -> Argument:
    return Argument(name, help, converter, True, completes)


def _slots(rows: Sequence[Row], values: Values) -> str:
    slots, cores, memory = (rows[0][name] for name in ("slots", "cores", "memory"))
    return (
        f"{slots} available slot{'' if slots == 1 else 's'} for instances with "
        f"{cores} core{'' if cores == 1 else 's'} and {memory} MB of memory."
    )


def _unregistered(rows: Sequence[Row], values: Values) -> str:
    name, count = rows[0]["name"], rows[0]["instances"]
    if not count:
        return f"Host {name} is unregistered."
    return f"Host {name} keeps its {count} instance{'s' if count > 1 else ''}; its agent may join anew with the cell's join secret."


def _named(doing: str) -> Callable[[Sequence[Row], Values], str]:
    """A sentence that says which instances a verb was carried out on."""
    return lambda rows, values: f"{doing} {', '.join(str(row['name']) for row in rows)}."


def _nothing(rows: Sequence[Row], values: Values) -> None:
    return None


_INSTANCE = _required("instance", "the instance, by id or name", convert.typed_reference, "getInstances")
_BASENAME = _required("basename", "what comes before the number in the instances' names")
_SIZE = (
    Argument("userId", "the owner, by id or name (default: you)", convert.typed_reference, completes="getUsers"),
    Argument("cores", "number of cores (default: 1)", convert.whole("cores", 1)),
    Argument("memory", "memory in MB (default: 128)", convert.whole("memory", 1)),
    Argument("nics", "network[:ip[:mac]],... (default: one on the default network)", convert.nics),
    Argument("hints", "name=value,... for scheduler and hypervisor", convert.hints),
    Argument("cpuShare", "weight of its CPU time among its neighbours (default: 1024)", convert.whole("cpuShare", 2, 262_144)),
    Argument("diskIops", "requests a second that each disk may serve (default: no limit)", convert.whole("diskIops", 1, MAX_DISK_IOPS)),
    Argument("diskBytes", "bytes a second that each disk may move (default: no limit)", convert.whole("diskBytes", 1, MAX_DISK_BYTES)),
)
_DISKS = _required("disks", "uri[:persistent],... (default: not persistent)", convert.disks, "getImages")

VERBS: Final = (
    Verb(
        "createVm", "Creates one instance and has it placed on a host", Cell.createVm,
        (_required("name", "name of the instance"), _DISKS, *_SIZE),
        examples=(
            "--name vmname --disks i386-hardy.qcow2",
            "--userId 3 --name vmname --cores 8 --memory 7168 --disks mpi-hardy.qcow2:True,scratch.qcow2:False "
            "--nics :1.2.3.4,1::52:54:00:00:56:78 --hints enableDisplay=True --hints subDomain=mysubdomain",
            "--name test1 --cpuShare 2048 --disks tashi.img --wait",
        ),
        waits_for="Running",
    ),
    Verb(
        "createMany", "Creates several equal instances, all or none", Cell.createMany,
        (_BASENAME, _DISKS, _required("count", "how many", convert.whole("count", 1, 100_000)), *_SIZE),
        examples=("--basename vmname --disks i386-hardy.qcow2 --count 4",), waits_for="Running",
    ),
    Verb(
        "destroyVm", "Destroys an instance at once", Cell.destroyVm, (_INSTANCE,),
        examples=("--instance 12345", "--instance vmname"), sentence=_nothing, waits_for="gone",
    ),
    Verb(
        "destroyMany", "Destroys the instances of a createMany", Cell.destroyMany, (_BASENAME,),
        examples=("--basename vmname",), sentence=_named("Destroying"), waits_for="gone",
    ),
    Verb(
        "shutdownVm", "Presses the power button of a running instance", Cell.shutdownVm, (_INSTANCE,),
        examples=("--instance 12345", "--instance vmname"), sentence=_nothing, waits_for="gone",
    ),
    Verb(
        "shutdownMany", "Presses the power buttons of the instances of a createMany", Cell.shutdownMany, (_BASENAME,),
        examples=("--basename vmname",), sentence=_named("Shutting down"), waits_for="gone",
    ),
    Verb(
        "pauseVm", "Lets a running instance stand still", Cell.pauseVm, (_INSTANCE,),
        examples=("--instance 12345", "--instance vmname"), sentence=_nothing, waits_for="Paused",
    ),
    Verb(
        "unpauseVm", "Lets a paused instance go on", Cell.unpauseVm, (_INSTANCE,),
        examples=("--instance 12345", "--instance vmname"), sentence=_nothing, waits_for="Running",
    ),
    Verb(
        "suspendVm", "Keeps a running instance's memory and frees its host", Cell.suspendVm, (_INSTANCE,),
        examples=("--instance 12345", "--instance vmname"), sentence=lambda rows, values: f"{rows[0]['name']} is suspending.",
        waits_for="Suspended",
    ),
    Verb(
        "resumeVm", "Resume a suspended instance on any host, or one that its host has saved there", Cell.resumeVm, (_INSTANCE,),
        examples=("--instance 12345", "--instance vmname"), sentence=lambda rows, values: f"{rows[0]['name']} is resuming.",
        waits_for="Running",
    ),
    Verb(
        "migrateVm", "Moves a running instance to another host while it runs", Cell.migrateVm,
        (_INSTANCE, _required("dst", "the host to move to, by id or name", convert.typed_reference, "getHosts")),
        examples=("--instance 12345 --dst vmhost1", "--instance vmname --dst 73 --wait"), sentence=_nothing, waits_for="migrated",
    ),
    Verb(
        "adaptCpuShare", "Weighs the CPU time of a running instance anew", Cell.adaptCpuShare,
        (_required("share", "its weight among its neighbours", convert.whole("share", *CPU_SHARES)), _INSTANCE),
        examples=("--share 512 --instance 12345", "--share 2048 --instance vmname --wait"), sentence=_nothing, waits_for="adapted",
    ),
    Verb(
        "adaptMemoryLimit", "Lets a running instance use so much of its memory", Cell.adaptMemoryLimit,
        (_required("limit", "memory in MB, at most what it was made with", convert.whole("limit", 1)), _INSTANCE),
        examples=("--limit 96 --instance 12345", "--limit 96 --instance vmname --wait"), sentence=_nothing, waits_for="adapted",
    ),
    Verb(
        "adaptDiskBandwidth", "Weighs the disk time of a running instance anew, or limits what its disks do", Cell.adaptDiskBandwidth,
        (
            Argument("weight", "its weight among its neighbours", convert.whole("weight", *DISK_WEIGHTS)),
            Argument("iops", "requests a second that each disk may serve; none: no limit", convert.limit("iops", MAX_DISK_IOPS)),
            Argument("bytes", "bytes a second that each disk may move; none: no limit", convert.limit("bytes", MAX_DISK_BYTES)), _INSTANCE,
        ),
        examples=("--weight 500 --instance vmname", "--iops 200 --bytes none --instance vmname"), sentence=_nothing, waits_for="adapted",
    ),
    Verb(
        "adaptNetworkBandwidth", "Limits what a running instance receives and sends", Cell.adaptNetworkBandwidth,
        (
            Argument("downspeed", "to the instance, in kbit/s; none: no limit", convert.limit("downspeed", MAX_KILOBITS)),
            Argument("upspeed", "from the instance, in kbit/s; none: no limit", convert.limit("upspeed", MAX_KILOBITS)), _INSTANCE,
        ),
        examples=("--downspeed 8000 --upspeed 4000 --instance vmname", "--downspeed none --instance vmname"),
        sentence=_nothing, waits_for="adapted",
    ),
    Verb(
        "vmmSpecificCall", "Gives the instance's hypervisor a command, such as reset; list names those there are", Cell.vmmSpecificCall,
        (_INSTANCE, _required("arg", "the command")), WORDS,
        ("--instance 12345 --arg startVnc", "--instance vmname --arg changeCdrom:tools.iso", "--instance vmname --arg list"),
        lambda rows, values: str(rows[0]["text"]),
    ),
    Verb("getInstances", "Lists all instances", Cell.getInstances, examples=("", "--show-nics --hide-disk", "-o json")),
    Verb("getMyInstances", "Lists your instances", Cell.getMyInstances, examples=("",)),
    Verb("getHosts", "Lists the hosts", Cell.getHosts, shape=HOSTS, examples=("",)),
    Verb("getImages", "List the images and your own persistent disks", Cell.getImages, shape=IMAGES, examples=("",)),
    Verb("getUsers", "Lists the users", Cell.getUsers, shape=USERS, examples=("",)),
    Verb("getVmLayout", "Lists the hosts with their instances and what these use", Cell.getVmLayout, shape=LAYOUT, examples=("",)),
    Verb(
        "getSlots", "Says how many instances of a size would fit", Cell.getSlots,
        (
            Argument("cores", "cores of each (default: 1)",
                     convert.whole("cores", 1, refusal="Argument to cores must be 1 or greater.")),
            Argument("memory", "memory of each in MB (default: 128)",
                     convert.whole("memory", 1, refusal="Argument to memory must be greater than 0.")),
        ),
        shape=SLOTS, examples=("--cores 1 --memory 128",), sentence=_slots,
    ),
    Verb(
        "explain", "Says why an instance is where it is, or why it is nowhere", Cell.explain, (_INSTANCE,), WORDS,
        ("--instance vmname",), lambda rows, values: str(rows[0]["text"]),
    ),
    Verb(
        "setHostConfig", "Sets one element of a host's configuration (administrators)", Cell.setHostConfig,
        (
            _required("hostId", "the host, by id or name", convert.typed_reference, "getHosts"),
            _required("elemName", "name of the element, such as location"),
            _required("value", "its value"),
        ),
        HOSTS, ("--hostId 2 --elemName auditability --value True",),
        lambda rows, values: f"{values['elemName']} of host {values['hostId']} is now {values['value']}",
    ),
    Verb(
        "drainHost", "Moves what runs on a host elsewhere, and lets it take nothing new (administrators)", Cell.drainHost,
        (_required("host", "the host, by id or name", convert.typed_reference, "getHosts"),),
        examples=("--host node3 --wait",), waits_for="migrated",
    ),
    Verb(
        "unregisterHost", "Forgets a host that is down; one that has instances keeps them for an agent that is installed anew",
        Cell.unregisterHost, (_required("hostId", "the host, by id or name", convert.typed_reference, "getHosts"),), HOSTS,
        ("--hostId 2", "--hostId node3"), _unregistered,
    ),
    Verb(
        "setHostState", "Normal: a host takes instances; Drained: it takes none (administrators)", Cell.setHostState,
        (_required("host", "the host, by id or name", convert.typed_reference, "getHosts"), _required("state", "Normal or Drained")),
        HOSTS, ("--host node3 --state Normal",), lambda rows, values: f"Host state set to {rows[0]['state']}.",
    ),
    Verb(
        "getStrays", "List domains on hosts that the records do not account for (administrators)", Cell.getStrays,
        shape=STRAYS, examples=("", "-o json"),
    ),
    Verb(
        "adoptVm", "Make a record of a stray, which runs on under its id (administrators)", Cell.adoptVm,
        (
            _required("host", "the host that reports it, by id or name", convert.reference, "getHosts"),
            _required("instance", "the id of the stray, as getStrays shows it", convert.whole("instance", 1)),
            Argument("name", "its name (default: the one that its host reports)"),
            Argument("user", "its owner, by id or name (default: the one that its host reports)", convert.reference, completes="getUsers"),
        ),
        examples=("--host node1 --instance 14", "--host node1 --instance 14 --name web2 --user alice"),
    ),
    Verb(
        "destroyStray", "End a stray and remove its throw-away disks (administrators)", Cell.destroyStray,
        (
            _required("host", "the host that reports it, by id or name", convert.reference, "getHosts"),
            _required("instance", "the id of the stray, as getStrays shows it", convert.whole("instance", 1)),
        ),
        STRAYS, ("--host node1 --instance 14",),
        lambda rows, values: f"Stray {rows[0]['id']} on host {rows[0]['host']} is being destroyed.",
    ),
    Verb(
        "powerOff", "Switches an empty host off (administrators)", Cell.powerOff,
        (_required("host", "the host, by id or name", convert.typed_reference, "getHosts"),),
        HOSTS, ("--host node3",), lambda rows, values: f"Host {rows[0]['name']} is being powered off.",
    ),
    Verb(
        "powerOn", "Switches on a host that was powered off (administrators)", Cell.powerOn,
        (_required("host", "the host, by id or name", convert.typed_reference, "getHosts"),),
        HOSTS, ("--host node3",), lambda rows, values: f"Host {rows[0]['name']} is being powered on.",
    ),
    Verb(
        "registerUser", "Registers a user (administrators)", Cell.registerUser,
        (
            _required("name", "name of the user"),
            Argument("passwd", "the password; - reads it from the terminal or stdin"),
            Argument("priority", "a higher one is more important (default: 0)", convert.whole("priority", -(2**31))),
            Argument("userId", "the id (default: the next one)", convert.whole("userId", 0)),
            Argument("jid", "the XMPP address that acts as this user"),
        ),
        USERS, ("--name mihas --passwd - --priority 12",),
        lambda rows, values: f"User {rows[0]['name']} registered with userId {rows[0]['id']}",
    ),
    Verb(
        "unregisterUser", "Removes a user who has no instances (administrators)", Cell.unregisterUser,
        (_required("userId", "the user, by id or name", convert.typed_reference, "getUsers"),),
        USERS, ("--userId 1",), lambda rows, values: f"User {values['userId']} unregistered",
    ),
    Verb("whoami", "Says as whom the control plane knows you", Cell.whoami, shape=CALLER, examples=("",)),
)  # fmt: skip

PROGRAMS: Final = (
    Program(
        "console", "Sits you down at the serial console of a running instance, or prints its log",
        "--instance <value> [--force] [--for <seconds>] [--log]", "tashi.client.console", (_INSTANCE,),
    ),
    Program(
        "plan", "Prints what the scheduler would do now, and with --apply lets it be done; with --from for the cluster in a file",
        "[--apply] [--from <file>] [--set <name>=<value>] [-o table|json]", "tashi.client.plan",
    ),
    Program(
        "snapshot", "Prints the cluster as the scheduler sees it, to look at and to plan on again; with --from converts a file",
        "[--from <file>] [--to tashi|ganeti]", "tashi.client.snapshot",
    ),
    Program(
        "db", "Back up, restore or check the control plane's database on this machine",
        "backup|restore|check|accept-loss [<file>] [--with-secrets] [--force] [--help]", "tashi.db_command",
    ),
    Program("status", "Show how the cell is, with warnings; exit 0 healthy, 1 degraded", "[-o table|json]", "tashi.client.status"),
    Program("config", "Checks the configuration and prints every setting with where it comes from", "--check", "tashi.client.config_check"),
    Program(
        "sandbox", "Starts a whole cell on this machine, stops it, or makes a fault on one of its hosts",
        "[down|kill|boot|cut|heal|power] [--host <value>] [--state-dir <value>] [--hosts <value>] [--hypervisor qemu|test] [--detach] "
        "[--help]",
        "tashi.sandbox.command",
    ),
)  # fmt: skip
