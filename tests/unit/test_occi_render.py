"""What the sink says by itself."""

from __future__ import annotations

import json

from occi import render
from tashi.errors import UNKNOWN_ID, YourMistake
from tashi.model.user import Principal


def test_answer() -> None:
    """A good answer has its data between status, verb and timestamp."""
    assert json.loads(render.answer("getcompute", 0.5, id=7, state="Running")) == {
        "status": "OK",
        "verb": "getcompute",
        "id": 7,
        "state": "Running",
        "timestamp": "1970-01-01T00:00:00.500Z",
    }


def test_refusal() -> None:
    """A bad answer has words and a code."""
    said = json.loads(render.refusal("getcompute", 0, YourMistake(UNKNOWN_ID, "there is no 7")))
    assert (said["status"], said["message"], said["code"], said["verb"]) == ("ERROR", "there is no 7", "unknown-id", "getcompute")


def test_answers_are_silent() -> None:
    """Two sinks cannot be made to talk to each other: what one says, the other does not answer."""
    from tashi.xmpp.grammar import is_silent

    assert is_silent(render.answer("help", 0, message="x"))
    assert is_silent(render.refusal("help", 0, YourMistake(UNKNOWN_ID, "x")))


def test_help() -> None:
    """Help names the verbs that this sender may use."""
    assert "createcompute" in render.help_text(Principal(name="alice", user_id=1000))
    assert "sethostconfig" not in render.help_text(Principal(name="alice", user_id=1000))
    assert "sethostconfig" in render.help_text(Principal(name="root", admin=True))


def test_whoami() -> None:
    """The sender learns its name, its user and its powers."""
    assert render.whoami_text(Principal(name="alice", user_id=1000)) == "You are alice, user 1000, you may act for yourself."
    assert "admin" in render.whoami_text(Principal(name="root", user_id=0, admin=True))
    assert "every user" in render.whoami_text(Principal(name="ism@x", trusted=True))
