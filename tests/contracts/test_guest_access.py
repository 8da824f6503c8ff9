"""The contract of `IGuestAccess`, kept by the one in memory; libvirt's is tried on real machines."""

from twisted.trial.unittest import TestCase

from tests.contracts.guest_access_contract import HERE, GuestAccessContract
from tests.contracts.hypervisor_contract import CELL
from tests.fake_access import FakeAccess


class FakeAccessTests(GuestAccessContract, TestCase):
    """The guest in memory."""

    def setUp(self) -> None:
        """One that runs."""
        self.fake = self.access = FakeAccess({HERE}, {"tools.iso"}, CELL)

    def tearDown(self) -> None:
        """Let go of its screens."""
        for screen in self.fake.screens:
            screen.close()

    def speak(self) -> bytes:
        """See GuestAccessContract."""
        self.fake.consoles[-1].say(b"hello")
        return b"hello"

    def end(self) -> None:
        """See GuestAccessContract."""
        self.fake.consoles[-1].end()
