"""Every error Tashi tells somebody about: whose mistake it is stands in the type, what kind stands in the code."""

from __future__ import annotations

from typing import Final

BAD_SYNTAX: Final = "bad-syntax"
UNKNOWN_VERB: Final = "unknown-verb"
BAD_ARGUMENT: Final = "bad-argument"
FORBIDDEN: Final = "forbidden"
UNKNOWN_USER: Final = "unknown-user"
UNKNOWN_IMAGE: Final = "unknown-image"
UNKNOWN_SLA: Final = "unknown-sla"
UNKNOWN_ID: Final = "unknown-id"
AMBIGUOUS: Final = "ambiguous"
DUPLICATE_HOSTNAME: Final = "duplicate-hostname"
CONFLICT: Final = "conflict"
QUOTA: Final = "quota"
NO_SUITABLE_HOST: Final = "no-suitable-host"
NOT_SUPPORTED_LIVE: Final = "not-supported-live"
READ_ONLY_STORE: Final = "read-only-store"
UNSUPPORTED_KIND: Final = "unsupported-kind"
UNSUPPORTED_LINK: Final = "unsupported-link"
TIMEOUT: Final = "timeout"
EXPIRED: Final = "expired"
BUSY: Final = "busy"
INTERNAL: Final = "internal"

CODES: Final = frozenset(
    {
        BAD_SYNTAX, UNKNOWN_VERB, BAD_ARGUMENT, FORBIDDEN, UNKNOWN_USER, UNKNOWN_IMAGE, UNKNOWN_SLA, UNKNOWN_ID,
        AMBIGUOUS, DUPLICATE_HOSTNAME, CONFLICT, QUOTA, NO_SUITABLE_HOST, NOT_SUPPORTED_LIVE, READ_ONLY_STORE, UNSUPPORTED_KIND,
        UNSUPPORTED_LINK, TIMEOUT, EXPIRED, BUSY, INTERNAL,
    }
)  # fmt: skip


class TashiError(Exception):
    """An error with a token for programs (``code``) and words for people (``message``: what, why, what to do)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class YourMistake(TashiError):
    """The asker can mend it: answered to the asker, nothing is changed, nothing is logged as a fault."""


class OurFault(TashiError):
    """Tashi or a machine of its cell failed: logged with its traceback, the asker is told in words."""


class RefusedAgent(YourMistake):
    """An agent that may not speak for its host. Whoever raises it has logged that, once: the agent tries again for ever."""
