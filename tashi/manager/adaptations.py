"""The arguments of the verbs that adapt an instance: each is one of its resources, and 0 is the end of a limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.model.instance import Resources
from tashi.model.names import CPU_SHARES, DISK_WEIGHTS, MAX_DISK_BYTES, MAX_DISK_IOPS, MAX_KILOBITS, MAX_MEMORY_MB, check_integer


class Argument(msgspec.Struct, frozen=True):
    """One argument, the resource it means, and its limits."""

    name: str
    resource: str
    least: int
    most: int
    unit: str = ""


ADAPTATIONS: Final = {
    "adaptcpushare": (Argument("share", "cpu_share", *CPU_SHARES),),
    "adaptmemorylimit": (Argument("limit", "memory", 1, MAX_MEMORY_MB, "MB"),),
    "adaptdiskbandwidth": (
        Argument("weight", "disk_weight", *DISK_WEIGHTS),
        Argument("iops", "disk_iops", 0, MAX_DISK_IOPS, "requests a second, or 0 for no limit"),
        Argument("bytes", "disk_bytes", 0, MAX_DISK_BYTES, "a second, or 0 for no limit"),
    ),
    "adaptnetworkbandwidth": (
        Argument("downspeed", "net_down", 0, MAX_KILOBITS, "kbit/s, or 0 for no limit"),
        Argument("upspeed", "net_up", 0, MAX_KILOBITS, "kbit/s, or 0 for no limit"),
    ),
}


def wished_by(verb: str, arguments: Mapping[str, Any]) -> Resources:
    """What the verb's arguments ask for; YourMistake when one of them is wrong, or all are missing."""
    wished = {
        each.resource: check_integer(each.name, arguments[each.name], each.least, each.most, each.unit)
        for each in ADAPTATIONS[verb]
        if arguments.get(each.name) is not None
    }
    if not wished:
        names = " and ".join(each.name for each in ADAPTATIONS[verb])
        raise YourMistake(BAD_ARGUMENT, f"{names} missing; say what it shall be")
    return Resources(**wished)
