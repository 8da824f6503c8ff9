"""Which machine and boot an agent names, and how two of them compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from tashi.errors import OurFault, YourMistake
from tashi.model.orders import NodeLogin
from tashi.node.machine import boot_id, machine_id
from tashi.wire.codec import decode, encode
from tests.builders import a_login, an_identity


def test_a_machine_is_all_of_its_parts() -> None:
    """Another machine id, host UUID or URI is another machine; another boot is not."""
    one = an_identity("h1")
    assert one.is_same_machine(an_identity("h1", 2))
    assert one.machine == an_identity("h1", 2).machine
    for field in ("machine_id", "host_uuid", "uri"):
        other = an_identity("h1", **{field: "other"})
        assert not one.is_same_machine(other) and one.machine != other.machine


def test_a_boot_belongs_to_its_machine() -> None:
    """A reboot is another boot of the same machine; the boot of another one, or an unknown boot, says nothing."""
    first, second = an_identity("h1"), an_identity("h1", 2)
    assert second.was_rebooted_since(first.boot) and first.was_rebooted_since(second.boot)
    for other in (first.boot, "", an_identity("h2", 2).boot, an_identity("h1", uri="other").boot):
        assert not first.was_rebooted_since(other)
    assert an_identity("h1", boot_id="").boot == ""
    assert not an_identity("h1", boot_id="").was_rebooted_since(first.boot)


def test_what_is_too_long_is_no_login() -> None:
    """What an agent says of its machine is bounded."""
    for field, length in (("machine_id", 129), ("host_uuid", 129), ("boot_id", 129), ("uri", 1025)):
        login = a_login("h1", identity=an_identity("h1", **{field: "x" * length}))
        with pytest.raises(YourMistake, match="not a valid message"):
            decode(encode(login), NodeLogin)
        assert decode(encode(a_login("h1")), NodeLogin) == a_login("h1")


def test_the_machine_id_is_not_told_itself(tmp_path: Path) -> None:
    """The machine id is confidential: a digest of it is told, '' where there is none, and the same each time."""
    path = tmp_path / "machine-id"
    assert machine_id((path,)) == ""
    for text, known in (("uninitialized\n", False), ("", False), ("3d1219c7c4c5404aaa1f6d2a48adfda4\n", True)):
        path.write_text(text)
        told = machine_id((tmp_path / "none", path))
        assert (bool(told) == known and text[:8] not in (told or "-")) or not text
    assert len(machine_id((path,))) == 32 and machine_id((path,)) == machine_id((path,))


def test_a_kernel_without_boot_id_is_refused(tmp_path: Path) -> None:
    """Without /proc nothing can be said about boots, and the agent says so."""
    with pytest.raises(OurFault, match="mount /proc"):
        boot_id(tmp_path / "none")
    assert len(boot_id()) == 36
