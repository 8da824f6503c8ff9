"""How a call over Perspective Broker is answered: {"result": ...} or {"error": {"code", "message"}}, in pages."""

from __future__ import annotations

from tashi.errors import TashiError
from tashi.wire.codec import encode


def error_answer(error: TashiError) -> bytes:
    """The answer that says what went wrong."""
    return encode({"error": {"code": error.code, "message": error.message}})


def result_answer(result: object) -> bytes:
    """The answer that was asked for."""
    return encode({"result": result})
