"""The house keeps its rules: who may import whom, read from the sources. Each rule is data; a new room is a new line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]

FLOORS: Final = (
    ("bedrock", "tashi tashi.errors tashi.model tashi.scheduling tashi.manager.reconcile tashi.manager.settings tashi.wire.codec "
                "tashi.xmpp.grammar occi occi.categories occi.compute occi.json_text occi.parse occi.render "
                "tashi.node.domain tashi.node.network.cards tashi.node.network.packets tashi.network.addresses"),
    ("contracts", "tashi.interfaces tashi.clocks tashi.audit_log tashi.hang_up tashi.config tashi.files tashi.limited_log tashi.programs "
                  "tashi.policy_plugins"),
    ("cellars", "tashi.store tashi.users tashi.images tashi.network tashi.power tashi.node"),
    ("hall", "tashi.manager"),
    ("doors", "occi.sink tashi.xmpp tashi.wire tashi.client tashi.compat"),
    ("wiring", "tashi.app"),
    ("attic", "tashi.tap tashi.node_tap tashi.sandbox tashi.db_command"),
)  # fmt: skip
"""From the ground up: rooms by the modules they hold; the longest name that fits is a module's room. Imports go down or stay."""

ADAPTERS: Final = ("tashi.store", "tashi.users", "tashi.images", "tashi.network", "tashi.power", "tashi.node")
"""Never import each other."""

NEVER_IN_BEDROCK: Final = ("twisted", "time", "random", "os", "sqlite3", "libvirt", "threading", "subprocess", "socket", "pathlib")

ONE_ROOM: Final = {
    "libvirt": ("tashi.node.libvirt.",),
    "libvirt_qemu": ("tashi.node.libvirt.",),
    "wokkel": ("tashi.xmpp.",),
    "twisted.words": ("tashi.xmpp.",),
    "scramp": ("tashi.xmpp.",),
    "twisted.spread": ("tashi.wire.", "tashi.node.agent", "tashi.client.link", "tashi.app"),
    "sqlite3": ("tashi.store.sqlite",),
    "twisted.enterprise": ("tashi.store.",),
    "pymysql": ("tashi.store.",),
    "dns": ("tashi.network.",),
    "ldaptor": ("tashi.users.ldap",),
    "argcomplete": ("tashi.client.",),
    "ortools": ("tashi.scheduling.consolidating.",),
    "cryptography": ("tashi.wire.certificates", "tashi.xmpp.", "tashi.sandbox.certificates"),
}
"""A third party's library and the modules (by how their names begin) that may know it."""

FORBIDDEN: Final = (
    ("tashi.node", "tashi.manager", "they run on different machines"),
    ("tashi.manager", "tashi.node", "they run on different machines"),
    ("tashi.manager", "tashi.xmpp", "the hall does not know its doors"),
    ("tashi.manager", "occi", "the hall does not know its doors"),
    ("tashi.client", "tashi.manager", "the client is another program"),
    ("tashi.node", "tashi.client", "the agent is another program"),
)
"""Who never imports whom, and why."""

MAY_IMPORT_APP: Final = ("tashi.tap", "tashi.node_tap")
MAY_IMPORT_THE_REACTOR: Final = ("tashi.tap", "tashi.node_tap", "tashi.client.process", "tashi.client.cell")


class Source(NamedTuple):
    """One file of the house."""

    path: Path
    text: str
    tree: ast.Module


@cache
def _sources() -> dict[str, Source]:
    """Every module of the house."""
    paths = [path for top in ("tashi", "occi") for path in sorted((ROOT / top).rglob("*.py"))]
    return {_name(path): Source(path, text, ast.parse(text)) for path in paths for text in [path.read_text()]}


@cache
def _imports() -> dict[str, frozenset[str]]:
    """For each module what it imports, wherever in the file, down to the names of modules."""
    modules = frozenset(_sources())
    return {name: frozenset(_imported(source, modules)) for name, source in _sources().items()}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(source: Source, modules: frozenset[str]) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source.path} imports relatively; say the whole name"
            base = node.module or ""
            ours = {f"{base}.{alias.name}" for alias in node.names} & modules
            yield from ours or {f"{base}.{alias.name}" for alias in node.names} | {base}


def _within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


@cache
def _floor(module: str) -> int:
    homes = [(len(room), floor) for floor, (_, rooms) in enumerate(FLOORS) for room in rooms.split() if _within(module, room)]
    return max(homes)[1]


def _is_ours(name: str) -> bool:
    return name in _imports()


def test_imports_go_down_only() -> None:
    """No module imports one of a floor above its own."""
    wrong = [
        f"{module} ({FLOORS[_floor(module)][0]}) imports {name} ({FLOORS[_floor(name)][0]})"
        for module, names in _imports().items()
        for name in sorted(names)
        if _is_ours(name) and _floor(name) > _floor(module)
    ]
    assert wrong == []


def test_bedrock_is_pure() -> None:
    """What the rest stands on knows no reactor, no clock, no chance and no I/O."""
    wrong = [
        f"{module} imports {name}"
        for module, names in _imports().items()
        if _floor(module) == 0
        for name in sorted(names)
        if any(_within(name, impure) for impure in NEVER_IN_BEDROCK)
    ]
    assert wrong == []


def test_every_module_has_a_room() -> None:
    """Nothing but the top package itself stands on the ground for want of a room."""
    rooms = [room for _, names in FLOORS for room in names.split() if room not in ("tashi", "occi")]
    homeless = [name for name in _imports() if name not in ("tashi", "occi") and not any(_within(name, room) for room in rooms)]
    assert homeless == []


def test_adapters_do_not_know_each_other() -> None:
    """Each adapter keeps its own contract and knows no other."""
    wrong = [
        f"{module} imports {name}"
        for module, names in _imports().items()
        for name in sorted(names)
        for mine in ADAPTERS
        for other in ADAPTERS
        if mine != other and _within(module, mine) and _within(name, other)
    ]
    assert wrong == []


def test_doors_do_not_know_cellars() -> None:
    """A door speaks to the hall; what lies under it is not its business."""
    doors, cellars = ([name for name, _ in FLOORS].index(floor) for floor in ("doors", "cellars"))
    wrong = [
        f"{module} imports {name}"
        for module, names in _imports().items()
        if _floor(module) == doors
        for name in sorted(names)
        if _is_ours(name) and _floor(name) == cellars
    ]
    assert wrong == []


def test_one_library_one_room() -> None:
    """A library that one room deals with is not seen in another."""
    wrong = [
        f"{module} imports {name}"
        for module, names in _imports().items()
        for name in sorted(names)
        for library, rooms in ONE_ROOM.items()
        if _within(name, library) and not f"{module}.".startswith(rooms)
    ]
    assert wrong == []


def test_who_never_knows_whom() -> None:
    """What runs apart, or must not know its callers, does not import them; bedrock is shared by all."""
    wrong = [
        f"{module} imports {name}: {why}"
        for module, names in _imports().items()
        for name in sorted(names)
        for who, whom, why in FORBIDDEN
        if _within(module, who) and _within(name, whom) and _is_ours(name) and _floor(name) > 0 and _floor(module) > 0
    ]
    assert wrong == []


def test_nobody_imports_the_wiring() -> None:
    """Only what starts the program imports the module that knows every room."""
    wrong = [module for module, names in _imports().items() if "tashi.app" in names and module not in MAY_IMPORT_APP]
    assert wrong == []


def test_the_reactor_is_an_argument() -> None:
    """Only programs import the reactor; modules are given it."""
    wrong = [module for module, names in _imports().items() if "twisted.internet.reactor" in names and module not in MAY_IMPORT_THE_REACTOR]
    assert wrong == []


def test_files_have_one_subject() -> None:
    """A file that grows beyond 360 lines usually has two subjects."""
    long = [name for name, source in _sources().items() if len(source.text.splitlines()) > 360]
    assert long == []


def test_every_module_says_what_it_promises() -> None:
    """Each module that holds anything begins with its promise."""
    silent = [name for name, source in _sources().items() if source.text.strip() and not ast.get_docstring(source.tree)]
    assert silent == []
