"""What the documentation says is so: its commands parse, its configuration loads, its links lead somewhere, its tables are the code's."""

import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from occi.categories import Vocabulary
from occi.parse import parse_create
from occi.render import VERBS as MESSAGES
from tashi.client.parse import parse
from tashi.config import load
from tashi.model.diagram import page
from tests.small_cell import SmallCell

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECURITY = (ROOT / "docs/security.md").read_text()
UNITS = {"": 1, "s": 1, "KiB": 2**10, "MiB": 2**20}
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(language: str, text: str = README) -> list[str]:
    """The fenced blocks of a page in one language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def commands() -> list[list[str]]:
    """The words of each command line in the README, without what a shell does by itself."""
    return [shlex.split(line) for block in blocks("") for line in block.splitlines() if line and not line.startswith((" ", "export "))]


def test_the_readme_runs_only_what_there_is() -> None:
    """Each make target exists, each client command parses, and the others are those the program tests run."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    seen = set()
    for program, *words in commands():
        seen.add(Path(program).name)
        if program == "make":
            assert words[0] in targets
        elif program.endswith("tashi"):
            parse(words)
        else:
            assert [program, *words] in (["twistd", "-ny", "tashi.tac"], ["twistd", "-n", "tashi-node"])
    assert seen == {"make", "tashi", "twistd"}


@pytest.mark.parametrize(("number", "programs"), [(0, ("ClusterManager", "Agent")), (1, ("NodeManager",)), (2, ("NodeManager",))])
def test_the_readme_s_configuration_loads(number: int, programs: tuple[str, ...], tmp_path: Path) -> None:
    """The samples for the control plane, for a host and for networks load without a warning."""
    file = tmp_path / "Tashi.cfg"
    file.write_text(blocks("ini")[number])
    file.chmod(0o600)
    config = load(programs, environ={}, directories=[str(tmp_path)])
    assert config.warnings == ()
    assert config.share_dir == Path("/srv/tashi") or number == 2


@pytest.mark.parametrize(("number", "driver"), [(0, "ipmi"), (1, "wol"), (2, "command")])
def test_the_samples_for_the_power_of_hosts_load(number: int, driver: str, tmp_path: Path) -> None:
    """Each sample of docs/power.md names its driver, and loads without a warning."""
    file = tmp_path / "Tashi.cfg"
    file.write_text(blocks("ini", (ROOT / "docs/power.md").read_text())[number])
    file.chmod(0o600)
    config = load(("ClusterManager", "Agent"), environ={}, directories=[str(tmp_path)])
    assert (config.warnings, config.power.driver) == ((), driver)


def test_the_readme_s_message_is_understood() -> None:
    """The createcompute of the README asks for what it says."""
    verb, _, argument = blocks("json")[0].strip().partition(" ")
    (spec,) = parse_create(argument, Vocabulary()).specs
    assert (verb, spec.name, spec.cores, spec.memory) == ("createcompute", "web1", 2, 2048)


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link of a page names a file."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_page_of_states_is_the_table() -> None:
    """docs/reference/states.md is what the table of states makes of itself."""
    assert (ROOT / "docs/reference/states.md").read_text() == page()


def section(title: str) -> str:
    """The part of docs/security.md below this title."""
    found = re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", SECURITY, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def verbs_in_the_table(title: str) -> list[str]:
    """The verbs of each row of a table of docs/security.md."""
    rows = re.findall(r"^\| \w+ \| ((?:`\w+` ?)+)\|", section(title), re.MULTILINE)
    return [verb for row in rows for verb in re.findall(r"`(\w+)`", row)]


def constant(path: str) -> Any:
    """What a dotted path leads to: a constant of a module, or an attribute of one."""
    parts = path.split(".")
    cut = next(count for count in range(len(parts), 0, -1) if (ROOT.joinpath(*parts[:count]).with_suffix(".py")).exists())
    value: Any = import_module(".".join(parts[:cut]))
    for name in parts[cut:]:
        value = getattr(value, name)
    return value


def test_every_verb_has_its_place_in_the_page_on_security() -> None:
    """Each verb of the socket and each message stands in exactly one group of the tables of docs/security.md."""
    at_the_socket = [verb.lower() for verb in verbs_in_the_table("Verbs at the unix socket")]
    assert sorted(at_the_socket) == sorted(SmallCell().manager.verbs.names)
    assert sorted(verbs_in_the_table("Verbs by message")) == sorted(MESSAGES)


def test_the_bounds_of_the_page_on_security_are_the_code_s() -> None:
    """Each number in the table of bounds is the constant that is named beside it."""
    text = section("Bounds")
    rows = re.findall(r"^\| [^|]+ \| ([\d,]+) ?(s|KiB|MiB|) \| `([\w.]+)` \|$", text, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| [^*|-].*`$|^\| [^*|-].*` \|$", text, re.MULTILINE)) > 30
    for number, unit, path in rows:
        assert int(number.replace(",", "")) * UNITS[unit] == constant(path), path
