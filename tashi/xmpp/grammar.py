"""What a message says, without XMPP: a verb, a space, an argument; and the record in which a message reaches the sink."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tashi.errors import BAD_SYNTAX, YourMistake

MAX_BODY: Final = 200 * 1024
"""Most bytes of a body: servers close a stream above 256 KiB."""

_COMMAND: Final = re.compile(r"\s*(\S+)(?:\s+(.*))?", re.DOTALL)
_OUR_REPLY: Final = '{"status":'


class IncomingMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A chat or normal message with a body. ``sender`` is the bare, ``sender_full`` the full JID that the server vouches for.

    ``delayed_at``: when it was stored, in seconds since the epoch, if it was not delivered at once.
    """

    sender: str
    sender_full: str
    type: str
    body: str
    id: str | None = None
    thread: str | None = None
    delayed_at: float | None = None


def is_silent(body: str) -> bool:
    """Whether a body is not to be answered at all: empty, or a reply like our own, which would make two sinks talk for ever."""
    return not body or body.isspace() or body.lstrip().startswith(_OUR_REPLY)


def parse_body(body: str) -> tuple[str, str]:
    """The verb in lower case, and the argument's text ('' when there is none). YourMistake(bad-syntax) when the body is too long."""
    if len(body) > MAX_BODY or len(body.encode("utf-8", "surrogatepass")) > MAX_BODY:
        raise YourMistake(BAD_SYNTAX, f"the message is longer than {MAX_BODY} bytes; send it in parts")
    match = _COMMAND.fullmatch(body)
    if match is None:
        return "", ""
    return match[1].lower(), (match[2] or "").strip()
