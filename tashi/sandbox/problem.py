"""The one error of the sandbox: its text says what failed, why, and what to do."""

from __future__ import annotations


class SandboxProblem(Exception):
    """The cell cannot be brought up, and the message is for the person who asked."""
