"""What libvirt's states and lifecycle events mean, with their reasons: tables from its numbers to our words.

A test checks that every reason and every event of the installed binding is in them.
"""

from __future__ import annotations

from typing import Final

import libvirt

from tashi.model.causes import Cause
from tashi.model.orders import Seen

STATES: Final = {
    libvirt.VIR_DOMAIN_NOSTATE: Seen.GONE,
    libvirt.VIR_DOMAIN_RUNNING: Seen.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: Seen.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: Seen.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: Seen.RUNNING,  # until its process has ended
    libvirt.VIR_DOMAIN_SHUTOFF: Seen.GONE,  # unless the reason is one of `tashi.model.causes.OFF`
    libvirt.VIR_DOMAIN_CRASHED: Seen.GONE,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Seen.PAUSED,
}
"""What a domain in this state is observed as."""

PAUSED: Final[dict[int, Cause | None]] = {
    libvirt.VIR_DOMAIN_PAUSED_UNKNOWN: None,
    libvirt.VIR_DOMAIN_PAUSED_USER: Cause.ADMINISTRATOR,
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: Cause.MIGRATING,
    libvirt.VIR_DOMAIN_PAUSED_SAVE: Cause.SAVING,
    libvirt.VIR_DOMAIN_PAUSED_DUMP: Cause.DUMPING,
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: Cause.IO_ERROR,  # or NO_SPACE: the disks tell
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: Cause.WATCHDOG,
    libvirt.VIR_DOMAIN_PAUSED_FROM_SNAPSHOT: Cause.REVERTED_PAUSED,
    libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN: Cause.STOPPING,
    libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT: Cause.SNAPSHOT,
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: Cause.PANIC,
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: Cause.STARTING,
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY: Cause.MIGRATING,
    libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: Cause.POSTCOPY,
}
SHUT_OFF: Final[dict[int, Cause | None]] = {
    libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN: None,
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: Cause.SHUT_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: Cause.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: Cause.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: Cause.MIGRATED_AWAY,
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: Cause.SAVED_TO_FILE,  # or SAVED_BY_HOST: libvirt has the file
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: Cause.FAILED,
    libvirt.VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT: Cause.REVERTED,
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON: Cause.CRASHED,
}
CRASHED: Final[dict[int, Cause | None]] = {
    libvirt.VIR_DOMAIN_CRASHED_UNKNOWN: Cause.CRASHED,
    libvirt.VIR_DOMAIN_CRASHED_PANICKED: Cause.CRASHED,
}
ASLEEP: Final[dict[int, Cause | None]] = {libvirt.VIR_DOMAIN_PMSUSPENDED_UNKNOWN: Cause.ASLEEP}

REASONS: Final = {
    libvirt.VIR_DOMAIN_PAUSED: PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: SHUT_OFF,
    libvirt.VIR_DOMAIN_CRASHED: CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: ASLEEP,
}
"""For each state in which a domain does not run, the cause by libvirt's reason; None: libvirt does not know it."""

Hint = tuple[Seen, Cause | None]
_RUNS: Final[Hint] = (Seen.RUNNING, None)

EVENTS: Final[dict[int, dict[int, Hint | None]]] = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: {
        libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED: None,
        libvirt.VIR_DOMAIN_EVENT_DEFINED_UPDATED: None,
        libvirt.VIR_DOMAIN_EVENT_DEFINED_RENAMED: None,
        libvirt.VIR_DOMAIN_EVENT_DEFINED_FROM_SNAPSHOT: None,
    },
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: {
        libvirt.VIR_DOMAIN_EVENT_UNDEFINED_REMOVED: (Seen.GONE, Cause.UNDEFINED),  # or it runs on
        libvirt.VIR_DOMAIN_EVENT_UNDEFINED_RENAMED: None,
    },
    libvirt.VIR_DOMAIN_EVENT_STARTED: {
        libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED: _RUNS,
        libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED: _RUNS,
        libvirt.VIR_DOMAIN_EVENT_STARTED_RESTORED: _RUNS,
        libvirt.VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT: _RUNS,
        libvirt.VIR_DOMAIN_EVENT_STARTED_WAKEUP: _RUNS,
    },
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: {
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED: (Seen.PAUSED, Cause.ADMINISTRATOR),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED: (Seen.PAUSED, Cause.MIGRATING),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR: (Seen.PAUSED, Cause.IO_ERROR),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG: (Seen.PAUSED, Cause.WATCHDOG),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_RESTORED: (Seen.PAUSED, Cause.ADMINISTRATOR),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT: (Seen.PAUSED, Cause.REVERTED_PAUSED),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_API_ERROR: (Seen.PAUSED, None),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY: (Seen.PAUSED, Cause.MIGRATING),
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED: (Seen.PAUSED, Cause.POSTCOPY),
    },
    libvirt.VIR_DOMAIN_EVENT_RESUMED: {
        libvirt.VIR_DOMAIN_EVENT_RESUMED_UNPAUSED: _RUNS,
        libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED: _RUNS,
        libvirt.VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT: _RUNS,
        libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY: _RUNS,
        libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED: _RUNS,
    },
    libvirt.VIR_DOMAIN_EVENT_STOPPED: {
        libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: (Seen.GONE, Cause.SHUT_DOWN),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: (Seen.GONE, Cause.DESTROYED),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: (Seen.GONE, Cause.CRASHED),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: (Seen.GONE, Cause.MIGRATED_AWAY),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: (Seen.GONE, Cause.SAVED_TO_FILE),
        libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: (Seen.GONE, Cause.CRASHED),  # qemu ended while libvirt was starting it
        libvirt.VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT: (Seen.GONE, Cause.REVERTED),
    },
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN: {  # the guest is off, and its process still has to end
        libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_FINISHED: None,
        libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_GUEST: None,
        libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST: None,
    },
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: {
        libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED_MEMORY: (Seen.PAUSED, Cause.ASLEEP),
        libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED_DISK: None,  # it shuts down next
    },
    libvirt.VIR_DOMAIN_EVENT_CRASHED: {
        libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED: (Seen.GONE, Cause.CRASHED),
        libvirt.VIR_DOMAIN_EVENT_CRASHED_CRASHLOADED: None,  # the guest boots its crash kernel and goes on
    },
}
"""What a lifecycle event hints at, by its detail; None: nothing about whether the domain runs."""


def cause_of(state: int, reason: int) -> Cause | None:
    """The cause for which a domain in this state of libvirt's does not run; None when it runs, or libvirt does not know."""
    return REASONS.get(state, {}).get(reason)


def hint_of(event: int, detail: int) -> Hint | None:
    """What a lifecycle event hints at; one with a detail that is newer than this program makes somebody look."""
    known = EVENTS.get(event)
    if known is None:
        return None
    return known.get(detail, (_UNKNOWN_DETAIL[event], None) if event in _UNKNOWN_DETAIL else None)


_UNKNOWN_DETAIL: Final = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: Seen.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: Seen.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: Seen.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: Seen.GONE,
}
