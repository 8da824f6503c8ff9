"""The table of verbs in docs/security.md is what the verbs do: every role tries every verb on what is another's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

from tashi.errors import CODES, FORBIDDEN, UNKNOWN_USER, TashiError
from tashi.model.user import Principal
from tests.builders import ADMIN, ALICE, BOB, a_spec
from tests.fake_agent import result_of
from tests.small_cell import FakeAgent, SmallCell

PAGE: Final = (Path(__file__).parents[2] / "docs/security.md").read_text()
NOBODY: Final = Principal(name="uid 4711", uid=4711)
ARGUMENTS: Final[dict[str, Any]] = {
    "instance": 1, "dst": "h1", "host": "h1", "hostId": "h1", "basename": "web", "ids": [1], "until": "Running", "timeout": 0,
    "arg": "startVnc", "session": "x", "data": "eA==", "elemName": "location", "value": "ie", "state": "Normal", "userId": 1001,
    "share": 100, "limit": 64, "weight": 200, "netDown": 100,
}  # fmt: skip
"""Of everybody's verbs: what names bob's instance, and a host."""


def group(name: str) -> list[str]:
    """The verbs of a group at the unix socket."""
    table = PAGE.partition("### Verbs at the unix socket")[2].partition("### ")[0]
    found = re.search(rf"^\| {name} \| ([^|]+)\|", table, re.MULTILINE)
    assert found is not None
    return re.findall(r"`(\w+)`", found[1])


def a_cell() -> SmallCell:
    """A cell with bob's instance 1, called web-0, as createMany makes it."""
    cell = SmallCell(hosts=[FakeAgent("h1")])
    cell.call(BOB, "createMany", instances=[{"name": "web-0", "disks": [{"uri": "tashi"}]}])
    cell.create(a_spec(name="other", user_id=1001), who=ADMIN)
    cell.work()
    return cell


def code_of(cell: SmallCell, who: Principal, verb: str, **arguments: Any) -> str:
    """The code of the refusal; OK when there is none, or none before a host is asked."""
    try:
        result_of(cell.manager.verbs.call(who, verb, arguments or ARGUMENTS))
    except TashiError as error:
        assert error.code in CODES
        return error.code
    except AssertionError:  # it waits for a host, or for the disk
        return "OK"
    return "OK"


@pytest.mark.parametrize("verb", group("read"))
@pytest.mark.parametrize("who", [NOBODY, ALICE, ADMIN], ids=lambda who: who.name)
def test_reads_are_for_everybody(verb: str, who: Principal) -> None:
    """A read is refused to nobody who has come in by the socket."""
    assert code_of(a_cell(), who, verb) == "OK"


@pytest.mark.parametrize("verb", [*group("change"), *group("enter")])
@pytest.mark.parametrize("who", [NOBODY, ALICE], ids=lambda who: who.name)
def test_what_is_another_s_is_forbidden(verb: str, who: Principal) -> None:
    """Neither an unregistered nor another user changes or enters an instance, and its record stays as it is."""
    cell = a_cell()
    before = cell.manager.cluster.instances[1]
    assert code_of(cell, who, verb) == FORBIDDEN
    cell.work()
    assert cell.manager.cluster.instances[1] == before


@pytest.mark.parametrize("verb", [*group("change"), *group("enter")])
@pytest.mark.parametrize("who", [BOB, ADMIN], ids=lambda who: who.name)
def test_the_owner_and_an_administrator_are_not_forbidden(verb: str, who: Principal) -> None:
    """The same call by the owner or an administrator may fail for another reason, but not for who asks."""
    assert code_of(a_cell(), who, verb) != FORBIDDEN


@pytest.mark.parametrize("verb", group("operate"))
@pytest.mark.parametrize("who", [NOBODY, ALICE], ids=lambda who: who.name)
def test_operating_is_for_administrators(verb: str, who: Principal) -> None:
    """Whoever is no administrator is refused before anything else is looked at, and an administrator is not."""
    cell = a_cell()
    arguments = ARGUMENTS | {"name": "mallory"}
    hosts, users = dict(cell.manager.cluster.hosts), dict(cell.manager.cluster.users)
    assert code_of(cell, who, verb, **arguments) == FORBIDDEN
    assert (cell.manager.cluster.hosts, cell.manager.cluster.users) == (hosts, users)
    assert code_of(cell, ADMIN, verb, **arguments) != FORBIDDEN


@pytest.mark.parametrize("verb", group("create"))
def test_nobody_creates_for_another(verb: str) -> None:
    """An unregistered user creates nothing; a user creates for itself, and an administrator for everybody."""
    one = {"name": "new-0", "disks": [{"uri": "tashi"}], "userId": 1001}
    arguments = {"instances": [one]} if verb == "createMany" else one
    assert code_of(a_cell(), NOBODY, verb, **arguments) == FORBIDDEN
    assert code_of(a_cell(), ALICE, verb, **arguments) == FORBIDDEN
    assert code_of(a_cell(), ADMIN, verb, **arguments) == "OK"
    assert code_of(a_cell(), BOB, verb, **arguments) == "OK"
    del one["userId"]
    assert code_of(a_cell(), NOBODY, verb, **arguments) == UNKNOWN_USER


def test_a_plan_is_carried_out_for_administrators_only() -> None:
    """`plan` with `apply` changes things, and is refused to users."""
    cell = a_cell()
    assert code_of(cell, BOB, "plan", apply=True) == FORBIDDEN
    assert code_of(cell, ADMIN, "plan", apply=True) == "OK"
