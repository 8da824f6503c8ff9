"""What importing the door does and does not do."""

from __future__ import annotations

import subprocess
import sys


def test_no_reactor() -> None:
    """The whole door, and all of wokkel that it uses, is imported without choosing a reactor."""
    program = "import tashi.xmpp.service, sys; sys.exit('twisted.internet.reactor' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
