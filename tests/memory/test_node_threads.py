"""The agent's threads: a call that hangs takes its own thread and nobody else's."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tashi.node.threads import Threads


class ThreadsTests(TestCase):
    """Real threads on the real reactor."""

    timeout = 20

    def some_threads(self, size: int, seconds: float) -> Threads:
        """A pool that is stopped after the test."""
        threads = Threads(reactor, size, seconds)
        threads.start()
        self.addCleanup(threads.stop)
        return threads

    async def test_result(self) -> None:
        """A call gives what the function returns, from another thread."""
        threads = self.some_threads(2, 5.0)
        name = await threads.run(lambda greeting: f"{greeting} {threading.current_thread().name}", "hello")
        self.assertIn("hello", name)
        self.assertNotEqual(name, f"hello {threading.current_thread().name}")

    async def test_failure(self) -> None:
        """A call gives what the function raises."""
        threads = self.some_threads(1, 5.0)
        with self.assertRaises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)

    async def test_hung_call(self) -> None:
        """Behind a call that does not return, others are made; when it does return it has its outcome."""
        threads = self.some_threads(1, 0.05)
        release = threading.Event()
        self.addCleanup(release.set)
        hung = threads.run(self.wait_for, release)
        self.assertEqual(await threads.run(lambda: "served"), "served")
        self.assertFalse(hung.called)
        release.set()
        self.assertEqual(await hung, "released")
        self.assertEqual(await threads.run(lambda: "still there"), "still there")

    def wait_for(self, release: Any) -> str:
        """A call of a hung machine."""
        release.wait(20)
        return "released"
