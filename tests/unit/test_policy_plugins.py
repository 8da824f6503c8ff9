"""Policies of other packages are found by the name under which they are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tashi.errors import YourMistake
from tashi.policy_plugins import installed, policy_named
from tashi.scheduling.plan import Postpone
from tashi.scheduling.policies import POLICIES
from tests.builders import a_snapshot

THEIRS = """
from tashi.scheduling.plan import Plan, Postpone

def never(snapshot):
    return Plan(actions=tuple(Postpone(instance_id=one.id) for one in snapshot.pending))

number = 7
"""


def install(directory: Path, name: str, points: str, source: str = THEIRS) -> None:
    """Put a package where Python looks for packages, as pip would."""
    (directory / f"{name}.py").write_text(source)
    about = directory / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[tashi.policies]\n{points}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with packages."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_own_policies_have_their_names() -> None:
    """The names of the configuration are those of the policies."""
    assert policy_named("Primitive") is POLICIES["Primitive"]


def test_another_package_brings_one(site: Path) -> None:
    """A function that is named in the package's entry points is a policy by that name, a dotted one, too."""
    install(site, "procrastination", "Procrastinating = procrastination:never\nold.dotted.Name = procrastination:never")
    assert {"Procrastinating", "old.dotted.Name", "Primitive"} <= set(installed())
    for name in ("Procrastinating", "old.dotted.Name"):
        plan = policy_named(name)(a_snapshot("h1 8c 16G", waiting="vm1 1c 1G"))
        assert plan.actions == (Postpone(instance_id=1),)


def test_its_own_names_stay_its_own(site: Path) -> None:
    """No package takes the place of a policy of Tashi's."""
    install(site, "impostor", "Primitive = impostor:never")
    assert policy_named("Primitive") is POLICIES["Primitive"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Nobodys", r"scheduler = Nobodys is no policy; installed are .*Broken, .*Missing, Number, .*Primitive.*Twice"),
        ("Missing", "scheduler = Missing cannot be loaded from theirs:nothing: AttributeError"),
        ("Number", "scheduler = Number names theirs:number, which is no function"),
        ("Broken", "scheduler = Broken cannot be loaded from shattered:never: ZeroDivisionError: division by zero"),
        ("Twice", "scheduler = Twice is a policy of others and of theirs; uninstall all but one"),
    ],
)
def test_what_cannot_be_used(site: Path, name: str, words: str) -> None:
    """A name that none has, or two have, and a policy that cannot be loaded or is none, is refused in words that say which there are."""
    points = "Missing = theirs:nothing\nNumber = theirs:number\nTwice = theirs:never"
    install(site, "theirs", points)
    install(site, "others", "Twice = others:never")
    install(site, "shattered", "Broken = shattered:never", source="1 / 0\n")
    with pytest.raises(YourMistake, match=words):
        policy_named(name)
