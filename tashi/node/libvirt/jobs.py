"""What is under way on domains and takes long: how far it is, and an end to what stands still, takes too long or is not wanted any more."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

import libvirt

from tashi.node.libvirt.connection import gone_meanwhile

STALL_SECONDS: Final = 15.0
"""A job whose bytes do not move for so long is ended: its link may be cut, and libvirt would wait for ever."""


class Job:
    """One of them: begun when, and how many bytes had moved when. ``why_ended`` is what to say of it when it was ended from here."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._moved = -1
        self._moved_at = time.monotonic()
        self.why_ended = ""

    def is_overdue(self) -> bool:
        """Whether it has had its time."""
        return time.monotonic() > self._deadline

    def look(self, moved: int) -> None:
        """Note how many bytes have moved, and find a reason to end it if there is one."""
        now = time.monotonic()
        if moved != self._moved:
            self._moved, self._moved_at = moved, now
        elif now - self._moved_at > STALL_SECONDS:
            self.why_ended = f"nothing has moved for {STALL_SECONDS:g} s; the link between the hosts may be cut"
        if now > self._deadline:
            self.why_ended = f"it was not finished within {self._seconds:g} s"


class Jobs:
    """The jobs of this machine by domain. ``seconds``: the longest that one may take."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._jobs: dict[str, Job] = {}

    @contextlib.contextmanager
    def under_way(self, domain_uuid: str) -> Iterator[Job]:
        """A job begins with the block and ends with it."""
        job = self._jobs[domain_uuid] = Job(self._seconds)
        try:
            yield job
        finally:
            del self._jobs[domain_uuid]

    def progress(self, connection: Any, domain_uuid: str) -> int | None:
        """Percent done, or None when nothing is under way; see IHypervisor."""
        job = self._jobs.get(domain_uuid)
        if job is None:
            return None
        stats: dict[str, Any] = {}
        with gone_meanwhile(libvirt.VIR_ERR_OPERATION_INVALID):
            domain = connection.lookupByUUIDString(domain_uuid)
            stats = domain.jobStats()
        if not stats:
            return None
        done, left = int(stats.get("data_processed", 0)), int(stats.get("data_remaining", 0))
        job.look(done)
        if job.why_ended:
            _end(domain)
        return 100 * done // (done + left) if done + left else 0

    def abort(self, connection: Any, domain_uuid: str) -> bool:
        """End the job, if there is one; whether there is."""
        job = self._jobs.get(domain_uuid)
        if job is not None:
            job.why_ended = job.why_ended or "the instance is to be destroyed"
            _end(connection.lookupByUUIDString(domain_uuid))
        return job is not None


def _end(domain: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):  # it has come to its end just now
        domain.abortJob()
