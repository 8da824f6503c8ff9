"""Clocks: monotonic time in a program, awake time, and waits that read first."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as OutOfTime
from twisted.internet.task import Clock

from tashi.clocks import LONGEST_STEP, AwakeClock, LastResort, use_monotonic_time, within


class _Reactor(ReactorBase):
    """A reactor that is never run."""

    def installWaker(self) -> None:
        """Nothing wakes it."""


def test_a_program_measures_by_the_monotonic_clock() -> None:
    """H5, A10: a call is scheduled by the monotonic clock, so that the time of day cannot move it."""
    reactor = _Reactor()
    use_monotonic_time(reactor)
    use_monotonic_time(reactor)  # a second program in one process changes nothing
    call = reactor.callLater(5.0, bool)
    assert abs(call.getTime() - time.monotonic() - 5.0) < 1.0


def test_nothing_is_scheduled_before() -> None:
    """H5: a call that was scheduled by the other clock would come at the wrong time, so a program that has one does not start."""
    reactor = _Reactor()
    reactor.callLater(5.0, bool)
    with pytest.raises(RuntimeError, match="expected a reactor without scheduled calls"):
        use_monotonic_time(reactor)


@pytest.mark.parametrize("program", ["tashi.app.control_plane", "tashi.app.node_agent", "tashi.client.process.run_to_end"])
def test_each_program_does_so_first(program: str) -> None:
    """H5: the control plane, the agent and the client each set their reactor's clock, even when they cannot do anything else."""
    module, name = program.rsplit(".", 1)
    script = f"""
import sys, time
from {module} import {name} as program
if {name!r} == "run_to_end":
    async def work(reactor):
        return 0
    program(work)
    from twisted.internet import reactor
else:
    from twisted.internet import reactor
    try:
        program(reactor, None)
    except SystemExit:
        pass
sys.exit(reactor.seconds is not time.monotonic)
"""
    environment = {"TASHI_CONF": "/nonexistent", "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_awake_time_leaves_out_a_stop() -> None:
    """A10: twenty seconds without a look count as one short step, and after it time goes on as before."""
    clock = Clock()
    awake = AwakeClock(clock)
    for _ in range(3):
        clock.advance(1)
        awake.look()
    assert awake.seconds() == 3.0
    clock.advance(20)
    assert awake.seconds() == 3.0 + LONGEST_STEP
    awake.look()
    clock.advance(1)
    assert awake.seconds() == 4.0 + LONGEST_STEP


def test_an_answer_that_has_arrived_is_read_before_its_wait_ends() -> None:
    """A10: when time is up, the reactor reads once more; what it finds then is the answer."""
    clock, answer = Clock(), Deferred[str]()
    results: list[object] = []
    clock.callLater(10.0, lambda: clock.callLater(0, answer.callback, "read"))  # as the turn after a stop does
    within(answer, 10.0, clock).addBoth(results.append)
    clock.advance(10)
    assert results == ["read"]
    assert clock.getDelayedCalls() == []


def test_an_answer_that_never_comes_ends_in_a_timeout() -> None:
    """A wait has an end, and what fails by itself fails with its own error."""
    clock = Clock()
    late: Deferred[str] = within(Deferred(), 10.0, clock)
    errors: list[type] = []
    late.addErrback(lambda failure: errors.append(failure.type))
    clock.advance(9.9)
    assert errors == []
    clock.advance(0.2)
    assert errors == [OutOfTime]
    broken: Deferred[str] = Deferred()
    within(broken, 10.0, clock).addErrback(lambda failure: errors.append(failure.type))
    broken.errback(KeyError("x"))
    assert errors == [OutOfTime, KeyError]
    assert clock.getDelayedCalls() == []


def test_what_gives_somebody_up_can_be_cancelled_until_the_sockets_were_read() -> None:
    """A10: a peer that has spoken is kept, whether that is read before the time is up or in the turn after it."""
    clock, calls = Clock(), dict[float, LastResort]()
    given_up: list[float] = []
    for read_at in (4.0, 5.0, 99.0):
        clock.callLater(read_at, lambda at: clock.callLater(0, calls[at].cancel), read_at)  # as a turn of reading does
        calls[read_at] = LastResort(clock, 5.0, lambda at=read_at: given_up.append(at))  # type: ignore[misc]
    assert all(call.active() for call in calls.values())
    clock.advance(4.0)
    clock.advance(1.0)
    assert given_up == [99.0]
    assert not any(call.active() for call in calls.values())
