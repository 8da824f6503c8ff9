"""Command lines, and what they mean."""

from __future__ import annotations

import shlex

import pytest

from tashi.client import console
from tashi.client.parse import Command, WrongUsage, parse
from tashi.client.table import columns_of
from tashi.client.usage import full_usage, verb_usage
from tashi.client.verbs import PROGRAMS, VERBS, Verb


def parsed(line: str) -> Command:
    return parse(shlex.split(line))


@pytest.mark.parametrize(("verb", "example"), [(verb, example) for verb in VERBS for example in verb.examples])
def test_every_example_can_be_typed(verb: Verb, example: str) -> None:
    """The examples of the help are understood, and are about their verb."""
    assert parsed(f"{verb.name} {example}").verb is verb


def test_verbs_are_known_in_any_case() -> None:
    """`gethosts` is `getHosts`."""
    command = parsed("gethosts")
    assert isinstance(command.verb, Verb)
    assert command.verb.name == "getHosts"


def test_repeated_hints_merge() -> None:
    """Each --hints adds to those before it, and the last value of one hint counts."""
    assert parsed("createVm --name a --disks b --hints x=1,y=2 --hints y=3").values["hints"] == {"x": "1", "y": "3"}


def test_repeated_disks_add_up() -> None:
    """A second --disks gives a second disk."""
    assert [disk["uri"] for disk in parsed("createVm --name a --disks b --disks c").values["disks"]] == ["b", "c"]


def test_instances_are_named_by_id_or_name() -> None:
    """Canonical digits are an id, everything else is a name, and name: says that digits are a name (D1, O11)."""
    for text, reference in (
        ("12345", 12345), ("0", 0), ("vm1", "vm1"), ("003", "003"), ("1.5", "1.5"), ("-1", "-1"), ("१०", "१०"), ("1_0", "1_0"),
        ("name:9", "name:9"), ("name:vm1", "name:vm1"),
    ):  # fmt: skip
        assert parsed(f"destroyVm --instance={text}").values == {"instance": reference}
        assert parsed(f"migrateVm --instance a --dst {text}").values["dst"] == reference
    with pytest.raises(WrongUsage, match="is no id"):
        parsed(f"destroyVm --instance {2**63}")


@pytest.mark.parametrize("words", [["--instance", str(2**63)], ["--instance", "a", "--instance", "9"], []])
def test_the_console_reads_its_instance_as_every_verb_does(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An impossible id, two instances and none are wrong usage of the console, too, told in words."""
    with pytest.raises(SystemExit) as ended:
        console.main(words)
    assert ended.value.code == 2
    assert "--instance" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ("--hide-all --show-id --show-nics", ["id", "nics"]),
        ("--show-nics --hide-disk", ["id", "hostId", "name", "user", "state", "memory", "cores", "nics"]),
        ("--show-hints --hide-all", []),
        ("--hide-all --show-HOSTID", ["hostId"]),
    ],
)
def test_columns_are_shown_and_hidden_in_the_order_given(options: str, columns: list[str]) -> None:
    """Each --show and --hide works on what the ones before it left."""
    command = parsed(f"getInstances {options}")
    assert isinstance(command.verb, Verb)
    assert columns_of(command.verb.shape, command.columns) == columns


def test_show_all_begins_with_the_id() -> None:
    """--show-all shows every column there is, the id first."""
    command = parsed("getHosts --hide-all --show-all")
    assert isinstance(command.verb, Verb)
    columns = columns_of(command.verb.shape, command.columns)
    assert columns[0] == "id"
    assert set(columns) == set(command.verb.shape.columns)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "say what to do"),
        ("createvn --name a", "Unknown function createvn; did you mean createVm?"),
        ("createVm --nam a --disks b", "Unknown argument --nam for createVm; did you mean --name?"),
        ("createVm --name a", "createVm needs --disks with a value"),
        ("createVm --name", "--name of createVm needs a value"),
        ("createVm --name a --disks b --cores x", "createVm --cores: --cores is 'x', which is no whole number"),
        ("createMany --basename a --disks b --count 0", "--count is 0"),
        ("getInstances --show-hint", "Unknown column hint of getInstances; did you mean hints?"),
        ("destroyVm --instance dup --instance 9", "--instance of destroyVm is given twice; give it once"),
        ("destroyVm --instance 9 --instance=9", "--instance of destroyVm is given twice"),
        ("createVm --name a --disks b --cores 1 --cores 2", "--cores of createVm is given twice"),
        ("destroyVm --instance a --wait --timeout 5 --timeout 6", "--timeout of destroyVm is given twice"),
        ("getInstances -o json --output name", "--output of getInstances is given twice"),
        ("getInstances -o yaml", "use table, json, name"),
        ("getInstances --wait", "Unknown argument --wait for getInstances"),
        ("getInstances extra", "Unknown argument extra for getInstances"),
        ("destroyVm --instance a --wait --timeout soon", "number of seconds"),
        ("getSlots --cores 0", "Argument to cores must be 1 or greater."),
        ("getSlots --memory 0", "Argument to memory must be greater than 0."),
    ],
)
def test_wrong_usage_says_what_is_wrong_and_what_is_near(line: str, words: str) -> None:
    """A command line that cannot be understood is refused with its fault and the nearest known name."""
    with pytest.raises(WrongUsage) as caught:
        parsed(line)
    assert words in str(caught.value)


def test_waiting_has_a_timeout() -> None:
    """--wait waits 300 seconds unless --timeout says otherwise."""
    assert parsed("destroyVm --instance 1 --wait").timeout == 300.0
    assert parsed("destroyVm --instance 1 --wait --timeout 5").timeout == 5.0


def test_help_wins_over_everything_else_in_the_line() -> None:
    """`VERB --help` is a question, whatever else is missing."""
    assert parsed("createVm --name a --help").asks_for == "help"


def test_the_rest_of_the_line_belongs_to_the_program() -> None:
    """`tashi sandbox` gets its words untouched."""
    assert parsed("sandbox down --state-dir x --help").rest == ("down", "--state-dir", "x", "--help")


def test_help_names_every_verb_and_argument() -> None:
    """The help is made of the table: nothing in it is left out."""
    for verb in VERBS:
        assert f"\t{verb.name}" in full_usage()
        assert all(f"--{argument.name}" in verb_usage(verb) and argument.help in verb_usage(verb) for argument in verb.arguments)
    assert all(program.name in full_usage() for program in PROGRAMS)
