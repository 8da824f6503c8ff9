"""Why a domain stands still or is off, as its host found out: a value to decide by, and the words for people."""

from __future__ import annotations

import enum
from typing import Final


class Cause(enum.StrEnum):
    """Why a domain does not run. An observation carries it from the host, a record keeps it while it holds."""

    # paused, and still paused when somebody looks again
    OWNER = "owner"  # only in records: its owner asked for it
    ADMINISTRATOR = "administrator"  # paused through libvirt; a host cannot tell by whom
    NO_SPACE = "no-space"
    IO_ERROR = "io-error"
    WATCHDOG = "watchdog"
    PANIC = "panic"
    ASLEEP = "asleep"
    POSTCOPY = "postcopy"
    REVERTED_PAUSED = "reverted-paused"
    # paused for a moment, by something that is under way
    STARTING = "starting"
    MIGRATING = "migrating"
    SAVING = "saving"
    DUMPING = "dumping"
    SNAPSHOT = "snapshot"
    STOPPING = "stopping"
    # off, and not ended
    SAVED_BY_HOST = "saved-by-host"
    SAVED_TO_FILE = "saved-to-file"
    REVERTED = "reverted"
    # on another host
    MIGRATED_AWAY = "migrated-away"
    # alive, and not known by its mark
    UNMARKED = "unmarked"
    # only in records
    RECORDS_LOST = "records-lost"
    # ended
    SHUT_DOWN = "shut-down"
    DESTROYED = "destroyed"
    CRASHED = "crashed"
    FAILED = "failed"
    UNDEFINED = "undefined"


PASSING: Final = frozenset(
    {Cause.STARTING, Cause.MIGRATING, Cause.SAVING, Cause.DUMPING, Cause.SNAPSHOT, Cause.STOPPING}
)
"""Causes of a pause that ends by itself, as soon as what is under way does."""

OFF: Final = frozenset({Cause.SAVED_BY_HOST, Cause.SAVED_TO_FILE, Cause.REVERTED})
"""Causes for which a domain has no process and yet has not ended: it is paused, and nothing of it may be removed."""

ENDED: Final = frozenset({Cause.SHUT_DOWN, Cause.DESTROYED, Cause.CRASHED, Cause.FAILED, Cause.UNDEFINED})
"""Causes after which nothing of the domain can go on."""

WORDS: Final[dict[Cause, str]] = {
    Cause.OWNER: "paused by its owner",
    Cause.ADMINISTRATOR: "paused by an administrator of its host; unpauseVm continues it",
    Cause.NO_SPACE: "paused by its host: no space left for its disks; it continues when there is space again",
    Cause.IO_ERROR: "paused by its host: I/O error on its disks; mend the storage, then unpauseVm",
    Cause.WATCHDOG: "paused by its watchdog: the guest has stopped responding",
    Cause.PANIC: "paused by its host: the guest's kernel has crashed",
    Cause.ASLEEP: "the guest has suspended itself to memory; unpauseVm wakes it up",
    Cause.POSTCOPY: "paused by its host: a post-copy migration has not finished",
    Cause.REVERTED_PAUSED: "reverted to a snapshot by an administrator of its host; unpauseVm continues it",
    Cause.STARTING: "paused while it is being started",
    Cause.MIGRATING: "paused while its memory is being transferred",
    Cause.SAVING: "paused while it is being saved by its host",
    Cause.DUMPING: "paused while its memory is being dumped by its host",
    Cause.SNAPSHOT: "paused while a snapshot of it is being taken",
    Cause.STOPPING: "paused while it is being shut down",
    Cause.SAVED_BY_HOST: "saved by its host (managed save); resumeVm continues it",
    Cause.SAVED_TO_FILE: "saved to a file by an administrator of its host, who can restore it with `virsh restore`",
    Cause.REVERTED: "reverted to a snapshot without memory by an administrator of its host; resumeVm starts it",
    Cause.MIGRATED_AWAY: "migrated away",
    Cause.UNMARKED: (
        "its domain runs, but an administrator of its host has removed or changed its mark (the metadata of the domain);"
        " put the mark back, or end the domain with virsh"
    ),
    Cause.RECORDS_LOST: (
        "records were lost, and it may run on a host that has not reported since; resumeVm starts it when all hosts have"
    ),
    Cause.SHUT_DOWN: "shut down",
    Cause.DESTROYED: "destroyed by an administrator of its host",
    Cause.CRASHED: "crashed",
    Cause.FAILED: "failed to start",
    Cause.UNDEFINED: "undefined by an administrator of its host",
}


def in_words(cause: Cause, detail: str = "") -> str:
    """The words for this cause; ``detail`` names what it is about, such as the disks that are full."""
    return f"{WORDS[cause]} ({detail})" if detail else WORDS[cause]
