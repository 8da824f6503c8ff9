"""Libvirt's numbers and our words: nothing that the installed binding can say is without a meaning (H6, H8)."""

from __future__ import annotations

import libvirt
import pytest

from tashi.model.causes import ENDED, OFF, PASSING, WORDS, Cause, in_words
from tashi.model.orders import Seen
from tashi.node.libvirt.causes import EVENTS, REASONS, STATES, cause_of, hint_of

STATE_NAMES = ("NOSTATE", "RUNNING", "BLOCKED", "PAUSED", "SHUTDOWN", "SHUTOFF", "CRASHED", "PMSUSPENDED")
EVENT_NAMES = (
    "DEFINED", "UNDEFINED", "STARTED", "SUSPENDED", "RESUMED", "STOPPED", "SHUTDOWN", "PMSUSPENDED", "CRASHED",
)  # fmt: skip


def constants(prefix: str) -> dict[str, int]:
    """The binding's numbers whose names begin so."""
    found = {name: getattr(libvirt, name) for name in dir(libvirt) if name.startswith(prefix)}
    return {name: value for name, value in found.items() if not name.endswith("_LAST")}


def test_every_state_has_a_meaning() -> None:
    """Each state of a domain is observed as something."""
    assert {value for name in STATE_NAMES for value in [getattr(libvirt, f"VIR_DOMAIN_{name}")]} == set(STATES)


@pytest.mark.parametrize("state", ["PAUSED", "SHUTOFF", "CRASHED", "PMSUSPENDED"])
def test_every_reason_has_a_cause(state: str) -> None:
    """Each reason for which a domain does not run has a cause, except that libvirt does not know one."""
    table = REASONS[getattr(libvirt, f"VIR_DOMAIN_{state}")]
    reasons = {name: value for name, value in constants(f"VIR_DOMAIN_{state}_").items() if "DISK_UNKNOWN" not in name}
    assert reasons.keys() and set(table) == set(reasons.values())
    assert {name for name, value in reasons.items() if table[value] is None} <= {
        "VIR_DOMAIN_PAUSED_UNKNOWN",
        "VIR_DOMAIN_SHUTOFF_UNKNOWN",
    }


@pytest.mark.parametrize("event", EVENT_NAMES)
def test_every_event_has_a_meaning(event: str) -> None:
    """Each detail of each lifecycle event is in the table."""
    number = getattr(libvirt, f"VIR_DOMAIN_EVENT_{event}")
    details = constants(f"VIR_DOMAIN_EVENT_{event}_")
    assert details.keys() and set(EVENTS[number]) == set(details.values())


def test_every_kind_of_event_is_known() -> None:
    """The table has all lifecycle events; a new binding with another one fails here."""
    assert set(EVENTS) == set(range(len(EVENT_NAMES)))


def test_what_runs_has_no_cause() -> None:
    """A domain that runs has no cause not to, whatever the reason for its state is."""
    for value in constants("VIR_DOMAIN_RUNNING_").values():
        assert cause_of(libvirt.VIR_DOMAIN_RUNNING, value) is None


def test_a_newer_libvirt() -> None:
    """An event with a detail that is not known yet still makes somebody look; one of an unknown kind does not."""
    assert hint_of(libvirt.VIR_DOMAIN_EVENT_STOPPED, 999) == (Seen.GONE, None)
    assert hint_of(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, 999) == (Seen.PAUSED, None)
    assert hint_of(libvirt.VIR_DOMAIN_EVENT_DEFINED, 999) is None
    assert hint_of(999, 0) is None


def test_every_cause_has_words() -> None:
    """Each cause has words of its own, and is of one kind at most."""
    assert set(WORDS) == set(Cause)
    assert len(set(WORDS.values())) == len(Cause)
    assert not (OFF & ENDED or OFF & PASSING or ENDED & PASSING)
    assert in_words(Cause.NO_SPACE, "vda").endswith("(vda)")


def test_ends_and_what_is_none() -> None:
    """H8: saved, reverted and migrated away are no ends; shut down, destroyed, crashed and failed are."""
    shut_off = {
        "SHUTDOWN": True, "DESTROYED": True, "CRASHED": True, "FAILED": True, "DAEMON": True,
        "SAVED": False, "FROM_SNAPSHOT": False, "MIGRATED": False,
    }  # fmt: skip
    for name, ended in shut_off.items():
        cause = cause_of(libvirt.VIR_DOMAIN_SHUTOFF, getattr(libvirt, f"VIR_DOMAIN_SHUTOFF_{name}"))
        assert (cause in ENDED) is ended
