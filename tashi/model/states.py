"""All that is legal about the state of an instance stands in this file: one table, (state, happening) -> state.

The numbers 1 to 16 are the original's; PreparingDisk and Restarting are the project's. Nothing else moves a state: a happening that the
table does not hold raises IllegalHappening, and the diagram in the documentation is made from the table.
"""

from __future__ import annotations

import enum
from typing import Final


class InstanceState(enum.IntEnum):
    """Where an instance is in its life; the number is stored, the name is shown."""

    Pending = 1  # wished, not placed
    Activating = 2  # placed; its host has been or will be told to start it
    Running = 3
    Pausing = 4
    Paused = 5
    Unpausing = 6
    Suspending = 7
    Resuming = 8
    MigratePrep = 9
    MigrateTrans = 10
    ShuttingDown = 11
    Destroying = 12
    Orphaned = 13  # its host is silent, or somebody else has moved it; nothing is guessed about it
    Held = 14  # could not be started; waits for its owner
    Exited = 15  # gone; only history keeps it
    Suspended = 16
    PreparingDisk = 17  # its persistent disk is being copied
    Restarting = 18  # its domain ends, to begin again as the record says


class HostState(enum.IntEnum):
    """What an operator or a version check says of a host; whether it is up is another matter."""

    Normal = 1
    Drained = 2
    VersionMismatch = 3
    PoweredOff = 4  # switched off to save power, and a reserve that can be switched on
    PoweringOn = 5
    PoweringOff = 6
    WakeFailed = 7  # was switched on and has not come; others are tried before it


WITHOUT_POWER: Final = frozenset({HostState.PoweredOff, HostState.PoweringOn, HostState.PoweringOff, HostState.WakeFailed})
"""States of a host that is off, or on its way there or back: it has no instance and gets none."""


class Happening(enum.Enum):
    """What can happen to an instance: asked for by somebody, seen by its host, or decided by the cluster manager."""

    PLACED = "placed"
    RESUME_PLACED = "placed to resume"
    DISK_NEEDED = "disk needed"
    DISK_READY = "disk ready"
    SEEN_RUNNING = "seen running"
    SEEN_PAUSED = "seen paused"
    SEEN_SAVED = "seen saved"
    SEEN_GONE = "seen gone"
    HOST_PAUSED = "paused on its host"
    MOVED_AWAY = "moved away by somebody else"
    REMAINS = "ended with remains"
    FAILED = "failed"
    RETRIED = "retried"
    GIVEN_UP = "given up"
    HOST_LOST = "host lost"
    HOST_REBOOTED = "host rebooted"
    MISSED = "missed"
    PAUSE_ASKED = "pause asked"
    UNPAUSE_ASKED = "unpause asked"
    SUSPEND_ASKED = "suspend asked"
    RESUME_ASKED = "resume asked"
    SHUTDOWN_ASKED = "shutdown asked"
    DESTROY_ASKED = "destroy asked"
    RESTART_ASKED = "restart asked"
    MIGRATE_ASKED = "migrate asked"
    MIGRATION_STARTED = "migration started"
    MIGRATION_FAILED = "migration failed"
    LEFT = "left its host"
    ARRIVED = "arrived"
    FOUND = "found on a host"


class IllegalHappening(ValueError):
    """The table holds no such step; ``state`` and ``happening`` say which."""

    def __init__(self, state: InstanceState, happening: Happening) -> None:
        super().__init__(f"an instance in state {state.name} cannot be {happening.value}")
        self.state = state
        self.happening = happening


_S = InstanceState
_H = Happening

ON_A_HOST: Final = frozenset(
    {
        _S.Activating, _S.Running, _S.Pausing, _S.Paused, _S.Unpausing, _S.Suspending, _S.Resuming, _S.MigratePrep,
        _S.MigrateTrans, _S.ShuttingDown, _S.Destroying, _S.Orphaned, _S.PreparingDisk, _S.Restarting,
    }
)  # fmt: skip
"""States in which an instance takes room on the host its record names."""

WITHOUT_A_HOST: Final = frozenset({_S.Pending, _S.Held, _S.Suspended})
"""States in which no host knows the instance: destroying one needs nobody's help."""

TABLE: Final[dict[tuple[InstanceState, Happening], InstanceState]] = {
    # birth
    (_S.Pending, _H.PLACED): _S.Activating,
    (_S.Pending, _H.RESUME_PLACED): _S.Resuming,
    (_S.Pending, _H.DISK_NEEDED): _S.PreparingDisk,
    (_S.Pending, _H.FAILED): _S.Held,
    (_S.PreparingDisk, _H.DISK_READY): _S.Activating,
    (_S.PreparingDisk, _H.FAILED): _S.Held,
    (_S.PreparingDisk, _H.HOST_LOST): _S.PreparingDisk,
    (_S.Activating, _H.SEEN_RUNNING): _S.Running,
    (_S.Activating, _H.SEEN_PAUSED): _S.Activating,  # qemu starts paused for a moment
    (_S.Activating, _H.FAILED): _S.Held,
    (_S.Activating, _H.SEEN_GONE): _S.Held,
    (_S.Activating, _H.RETRIED): _S.Pending,  # refused by one host, another may take it
    (_S.Activating, _H.HOST_LOST): _S.Activating,  # the order is repeated when the host is back
    (_S.Held, _H.RETRIED): _S.Pending,
    # life
    (_S.Running, _H.SEEN_RUNNING): _S.Running,
    (_S.Running, _H.SEEN_PAUSED): _S.Paused,
    (_S.Running, _H.PAUSE_ASKED): _S.Pausing,
    (_S.Pausing, _H.SEEN_PAUSED): _S.Paused,
    (_S.Pausing, _H.SEEN_RUNNING): _S.Pausing,
    (_S.Pausing, _H.FAILED): _S.Running,
    (_S.Paused, _H.SEEN_PAUSED): _S.Paused,
    (_S.Paused, _H.SEEN_RUNNING): _S.Running,
    (_S.Paused, _H.UNPAUSE_ASKED): _S.Unpausing,
    (_S.Unpausing, _H.SEEN_RUNNING): _S.Running,
    (_S.Unpausing, _H.SEEN_PAUSED): _S.Unpausing,
    (_S.Unpausing, _H.FAILED): _S.Paused,
    (_S.Paused, _H.RESUME_ASKED): _S.Unpausing,  # only where its host has saved it
    (_S.Running, _H.SUSPEND_ASKED): _S.Suspending,
    (_S.Suspending, _H.SEEN_RUNNING): _S.Suspending,
    (_S.Suspending, _H.SEEN_PAUSED): _S.Suspending,
    (_S.Suspending, _H.SEEN_SAVED): _S.Suspended,
    (_S.Orphaned, _H.SEEN_SAVED): _S.Suspended,  # no host has it, and all of it is kept, as after a restore of the records
    (_S.Suspending, _H.FAILED): _S.Running,
    (_S.Suspending, _H.HOST_LOST): _S.Suspending,  # it may be saved already; the host tells when it is back
    (_S.Suspended, _H.RESUME_ASKED): _S.Pending,
    (_S.Resuming, _H.SEEN_RUNNING): _S.Running,
    (_S.Resuming, _H.SEEN_PAUSED): _S.Resuming,
    (_S.Resuming, _H.FAILED): _S.Suspended,
    (_S.Resuming, _H.SEEN_GONE): _S.Suspended,
    (_S.Resuming, _H.HOST_LOST): _S.Resuming,
    (_S.Running, _H.MIGRATE_ASKED): _S.MigratePrep,
    (_S.MigratePrep, _H.MIGRATION_STARTED): _S.MigrateTrans,
    (_S.MigratePrep, _H.MIGRATION_FAILED): _S.Running,
    (_S.MigratePrep, _H.SEEN_RUNNING): _S.MigratePrep,
    (_S.MigratePrep, _H.SEEN_PAUSED): _S.MigratePrep,
    (_S.MigrateTrans, _H.MIGRATION_FAILED): _S.Running,
    (_S.MigrateTrans, _H.ARRIVED): _S.Running,
    (_S.MigrateTrans, _H.LEFT): _S.MigrateTrans,  # its target, whose it is now, is asked what has become of it
    (_S.MigrateTrans, _H.SEEN_RUNNING): _S.Running,
    (_S.MigrateTrans, _H.SEEN_PAUSED): _S.MigrateTrans,
    (_S.Running, _H.SHUTDOWN_ASKED): _S.ShuttingDown,
    (_S.ShuttingDown, _H.SEEN_RUNNING): _S.ShuttingDown,
    (_S.ShuttingDown, _H.SHUTDOWN_ASKED): _S.ShuttingDown,  # a guest that boots loses the first press of the button
    (_S.ShuttingDown, _H.SEEN_PAUSED): _S.Paused,  # it cannot shut down until it continues
    (_S.ShuttingDown, _H.FAILED): _S.Running,
    (_S.Destroying, _H.SEEN_RUNNING): _S.Destroying,
    (_S.Destroying, _H.SEEN_PAUSED): _S.Destroying,
    (_S.Destroying, _H.FAILED): _S.Destroying,  # the wish stands until it is gone
    (_S.Destroying, _H.HOST_LOST): _S.Destroying,
    (_S.Running, _H.RESTART_ASKED): _S.Restarting,
    (_S.Restarting, _H.SEEN_RUNNING): _S.Restarting,
    (_S.Restarting, _H.SEEN_PAUSED): _S.Restarting,
    (_S.Restarting, _H.FAILED): _S.Restarting,
    (_S.Restarting, _H.HOST_LOST): _S.Restarting,
    (_S.Restarting, _H.PLACED): _S.Activating,  # gone, and begun again where it was
    (_S.Restarting, _H.SEEN_GONE): _S.Pending,  # its host has no room for what it has become
    # its own host does not have it, and another reports its domain: somebody else moved it, or the records are older than it
    **{
        (state, _H.FOUND): _S.Running
        for state in (
            _S.Pending, _S.Held, _S.Suspended, _S.Activating, _S.Resuming, _S.Running, _S.Pausing, _S.Paused, _S.Unpausing,
            _S.Suspending, _S.MigratePrep, _S.ShuttingDown, _S.Orphaned,
        )
    },
    # a host falls silent, and comes back
    (_S.Orphaned, _H.HOST_LOST): _S.Orphaned,
    (_S.Orphaned, _H.SEEN_RUNNING): _S.Running,
    (_S.Orphaned, _H.SEEN_PAUSED): _S.Paused,
    (_S.Orphaned, _H.ARRIVED): _S.Running,
    (_S.Orphaned, _H.MIGRATION_STARTED): _S.MigrateTrans,  # its host is back, and still at it
    # what was never placed, or is on no host, is simply given up
    **{(state, _H.GIVEN_UP): _S.Exited for state in WITHOUT_A_HOST},
    # a wish to be rid of it is legal wherever a host may know of it, or have something of it left
    **{(state, _H.DESTROY_ASKED): _S.Destroying for state in ON_A_HOST | WITHOUT_A_HOST},
    # a pause that nobody asked for here lasts until something is done about it; what is under way on the domain tells its own end
    **{
        (state, _H.HOST_PAUSED): _S.Paused
        for state in (
            _S.Activating, _S.Running, _S.Paused, _S.Resuming, _S.MigrateTrans, _S.ShuttingDown, _S.Orphaned,
        )
    },
    # it runs on somewhere, until another host reports it
    **{
        (state, _H.MOVED_AWAY): _S.Orphaned
        for state in (
            _S.Running, _S.Pausing, _S.Paused, _S.Unpausing, _S.Suspending, _S.MigratePrep, _S.ShuttingDown, _S.Orphaned,
        )
    },
    # silence orphans whatever was or may have been running
    **{
        (state, _H.HOST_LOST): _S.Orphaned
        for state in (
            _S.Running, _S.Pausing, _S.Paused, _S.Unpausing, _S.MigratePrep, _S.MigrateTrans, _S.ShuttingDown,
        )
    },
    # what its host lacks and was not seen to end is in doubt
    **{
        (state, _H.MISSED): _S.Orphaned
        for state in (
            _S.Running, _S.Pausing, _S.Paused, _S.Unpausing, _S.Suspending, _S.MigratePrep, _S.MigrateTrans, _S.ShuttingDown,
            _S.Orphaned,
        )
    },
    # a host that was rebooted has nothing of what ran on it before
    **{
        (state, _H.HOST_REBOOTED): _S.Held
        for state in (
            _S.Running, _S.Pausing, _S.Paused, _S.Unpausing, _S.Suspending, _S.MigratePrep, _S.ShuttingDown, _S.Orphaned,
        )
    },
    # a domain that ends, ends the instance; what may be left of it on other hosts is cleared away first
    (_S.Destroying, _H.SEEN_GONE): _S.Exited,
    **{
        (state, happening): after
        for state in (
            _S.Running, _S.Pausing, _S.Paused, _S.Unpausing, _S.Suspending, _S.MigratePrep, _S.MigrateTrans, _S.ShuttingDown,
            _S.Orphaned,
        )
        for happening, after in ((_H.SEEN_GONE, _S.Exited), (_H.REMAINS, _S.Destroying))
    },
}  # fmt: skip


def step(state: InstanceState, happening: Happening) -> InstanceState:
    """The state after the happening; IllegalHappening where the table holds none."""
    try:
        return TABLE[state, happening]
    except KeyError:
        raise IllegalHappening(state, happening) from None


def is_legal(state: InstanceState, happening: Happening) -> bool:
    """Whether the table holds this step."""
    return (state, happening) in TABLE
