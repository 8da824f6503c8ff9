"""The bodies of answers that the sink gives by itself: to reads, and in words to people. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final

import msgspec

from tashi.errors import TashiError
from tashi.model.events import timestamp
from tashi.model.user import Principal

MAX_REPLY: Final = 100 * 1024

VERBS: Final[Mapping[str, str]] = {
    "createcompute": "[Compute, [Category...], [Link...]] - create a virtual machine; answered when it runs or has failed",
    "createmanycompute": "[Compute, Compute, ...] - create all of them or none",
    "updatecompute": "[Compute with resourceId] - change cpu_share, cpu_speed, memory_size, disk_weight, disk_iops, disk_bytes, net_down, "
    'net_up while it runs; 0 ends a limit; cpu_cores, imageIdentifier and more memory with "restart": true',
    "reprovisioncompute": "the same as updatecompute",
    "deletecompute": 'id, "resourceId" or "hostname" - destroy a virtual machine',
    "getcompute": 'id, "resourceId" or "hostname" - the state of a virtual machine',
    "listcompute": '[{"after": id}] - the virtual machines you may see, in pages',
    "explain": 'id, "resourceId" or "hostname" - why a virtual machine is where it is, or nowhere',
    "sethostconfig": '{"hostId", "elemName", "value"} - set one element of a host\'s configuration',
    "help": "- this text",
    "whoami": "- who you are to this cell",
}
READS: Final = frozenset({"getcompute", "listcompute", "explain", "help", "whoami"})
FOR_ADMINS: Final = frozenset({"sethostconfig"})
NOT_YET: Final = frozenset({"registeruser", "unregisteruser"})


def answer(verb: str, seconds: float, **data: Any) -> str:
    """The body of a good answer; ``seconds`` since the epoch."""
    return _json({"status": "OK", "verb": verb, **data, "timestamp": timestamp(seconds)})


def refusal(verb: str, seconds: float, error: TashiError) -> str:
    """The body of a bad answer."""
    return _json({"status": "ERROR", "message": error.message, "code": error.code, "verb": verb, "timestamp": timestamp(seconds)})


def explanation(words: str) -> str:
    """As many of the lines as one message holds; of the hosts of the others how many there are."""
    lines = words.splitlines()
    room = MAX_REPLY * 3 // 4  # as JSON and as XML they are longer
    sizes = accumulate(len(msgspec.json.encode(line)) for line in lines)
    count = bisect_right(list(sizes), room)
    if count == len(lines):
        return words
    return "\n".join([*lines[:count], f"and {len(lines) - count} more hosts; `tashi explain` names them all"])


def help_text(who: Principal) -> str:
    """What this sender may do."""
    lines = [f"{verb} {words}" for verb, words in VERBS.items() if who.admin or verb not in FOR_ADMINS]
    return "Send one of these as a message:\n" + "\n".join(lines)


def whoami_text(who: Principal) -> str:
    """Who this sender is to us."""
    words = [f"You are {who.name}"]
    if who.user_id is not None:
        words.append(f"user {who.user_id}")
    if who.admin:
        words.append("an admin: you may do everything")
    elif who.trusted:
        words.append("trusted: you may act for every user")
    else:
        words.append("you may act for yourself")
    return ", ".join(words) + "."


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
