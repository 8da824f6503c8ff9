"""One Compute with its categories and links, as plain JSON data, to an InstanceSpec. Pure; every refusal names the field."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from occi.categories import Category, Vocabulary
from tashi.errors import BAD_ARGUMENT, BAD_SYNTAX, UNSUPPORTED_KIND, UNSUPPORTED_LINK, YourMistake
from tashi.model.instance import DEFAULT_CPU_SHARE, Disk, InstanceSpec, InstanceUpdate, Resources
from tashi.model.jid import prepare_bare
from tashi.model.names import (
    CPU_SHARES,
    DISK_WEIGHTS,
    MAX_CORES,
    MAX_DISK_BYTES,
    MAX_DISK_IOPS,
    MAX_KILOBITS,
    MAX_MEMORY_MB,
    check_hints,
    check_hostname,
    check_image,
    check_integer,
    check_new_name,
    check_resource_id,
    shown,
)

GIGAHERTZ_BELOW: Final = 100
"""A cpu_speed below this is GHz, from here on MHz."""
MAX_MEGAHERTZ: Final = 1_000_000
MAX_USER_ID: Final = 2**32 - 1
MAX_JID: Final = 2047

_USED: Final = frozenset(
    {
        "hostname", "imageIdentifier", "userId", "cpu_cores", "memory_size", "cpu_speed", "resourceId", "links", "cpu_share",
        "disk_weight", "disk_iops", "disk_bytes", "net_down", "net_up", "persistent", "notificationUri", "hints",
    }
)  # fmt: skip
_WITHOUT_MEANING: Final = frozenset(
    {
        "class", "id", "type", "status", "provisionRequest", "categories", "provisioningSystemId", "boot_vol_type",
        "memory_reliability", "memory_speed", "cpu_arch",
    }
)  # fmt: skip
_NOT_ASKED: Final = frozenset({"false", "no", "off", "none"})
_LIMITS: Final = {  # the most of each, and its unit; in an update 0 is the end of the limit
    "disk_iops": (MAX_DISK_IOPS, "a second"),
    "disk_bytes": (MAX_DISK_BYTES, "a second"),
    "net_down": (MAX_KILOBITS, "kbit/s"),
    "net_up": (MAX_KILOBITS, "kbit/s"),
}
_HINT_OF: Final = {"locations": "location", "auditability": "auditability", "isolation": "isolation"}


class Parsed(msgspec.Struct, frozen=True):
    """One specification, and the keys and schemes that meant nothing to us."""

    spec: InstanceSpec
    unknown: tuple[str, ...] = ()


class Door(msgspec.Struct, frozen=True):
    """What the meaning of a request depends on beside itself: the vocabulary, and whom a notificationUri may name."""

    vocabulary: Vocabulary
    may_be_notified: Callable[[str], bool]


def parse_compute(value: Any, where: str, door: Door) -> Parsed:
    """One ``[Compute, [Category...], [Link...]]``, a shorter list, or a bare Compute; ``where`` precedes the names of fields."""
    parts = [value] if isinstance(value, dict) else value
    if not isinstance(parts, list) or not 1 <= len(parts) <= 3:
        raise YourMistake(BAD_SYNTAX, f"{where or 'the argument'} is {shown(value)}; use [Compute, [Category, ...], [Link, ...]]")
    compute, categories, links = parts + [None] * (3 - len(parts))
    if not isinstance(compute, dict):
        raise YourMistake(BAD_ARGUMENT, f"{where}Compute is {shown(compute)}; use a JSON object")
    for name, value in (("links", compute.get("links")), ("Links", links)):
        if value not in (None, [], {}):
            raise YourMistake(UNSUPPORTED_LINK, f"{where}{name} is {shown(value)}; links are not supported, leave the list empty")
    meant, unknown = _read_categories(categories, where, door.vocabulary)
    unknown.extend(key for key in compute if key not in _USED and key not in _WITHOUT_MEANING)
    return Parsed(_spec(compute, meant, where, door), tuple(unknown))


def read_update(value: Any, vocabulary: Vocabulary) -> InstanceUpdate:
    """``[Compute with resourceId, [Category...]]`` or a bare Compute: what is absent or null stays as it is."""
    parts = [value] if isinstance(value, dict) else value
    if not isinstance(parts, list) or not 1 <= len(parts) <= 3 or not isinstance(parts[0], dict):
        raise YourMistake(BAD_SYNTAX, f"the argument is {shown(value)}; use [Compute with resourceId, [Category, ...]]")
    for links in (parts[0].get("links"), *parts[2:]):
        if links not in (None, [], {}):
            raise YourMistake(UNSUPPORTED_LINK, f"links is {shown(links)}; links are not supported, leave the list empty")
    given = {key: value for key, value in parts[0].items() if value is not None}
    meant, _ = _read_categories(parts[1] if len(parts) > 1 else None, "", vocabulary)

    def integer(field: str, least: int, most: int, unit: str = "") -> int | None:
        return check_integer(field, given[field], least, most, unit) if field in given else None

    return InstanceUpdate(
        resource_id=check_resource_id("resourceId", _required(given, "resourceId", "")),
        resources=Resources(
            cpu_share=integer("cpu_share", *CPU_SHARES),
            cpu_speed=_changed_speed(given.get("cpu_speed")),
            memory=integer("memory_size", 1, MAX_MEMORY_MB, "MB"),
            disk_weight=integer("disk_weight", *DISK_WEIGHTS),
            **{field: integer(field, 0, most, f"{unit}, or 0 for no limit") for field, (most, unit) in _LIMITS.items()},
        ),
        name=check_hostname("hostname", given["hostname"]) if "hostname" in given else None,
        cores=integer("cpu_cores", 1, MAX_CORES),
        image=check_image("imageIdentifier", given["imageIdentifier"]) if "imageIdentifier" in given else None,
        sla=meant.get("sla"),
        restart=_boolean(given, "restart", ""),
    )


def _spec(compute: Mapping[str, Any], meant: Mapping[str, str], where: str, door: Door) -> InstanceSpec:
    given = {key: value for key, value in compute.items() if value is not None}

    def integer(field: str, least: int, most: int, default: Any, unit: str = "") -> Any:
        return check_integer(where + field, given[field], least, most, unit) if field in given else default

    return InstanceSpec(
        name=check_new_name(where + "hostname", _required(given, "hostname", where)),
        user_id=check_integer(where + "userId", _required(given, "userId", where), 0, MAX_USER_ID),
        disks=(Disk(uri=_image(given, meant, where, door.vocabulary), persistent=_boolean(given, "persistent", where)),),
        cores=integer("cpu_cores", 1, MAX_CORES, 1),
        memory=integer("memory_size", 1, MAX_MEMORY_MB, 128, "MB"),
        cpu_share=integer("cpu_share", *CPU_SHARES, DEFAULT_CPU_SHARE),
        cpu_speed=_megahertz(where + "cpu_speed", given["cpu_speed"]) if "cpu_speed" in given else None,
        disk_weight=integer("disk_weight", *DISK_WEIGHTS, None),
        **{field: integer(field, 1, most, None, unit) for field, (most, unit) in _LIMITS.items()},
        hints=_hints(given.get("hints", {}), meant, where),
        sla=meant.get("sla"),
        resource_id=check_resource_id(where + "resourceId", given["resourceId"]) if "resourceId" in given else None,
        notification_uri=_notification(where + "notificationUri", given["notificationUri"], door) if "notificationUri" in given else None,
    )


def _required(given: Mapping[str, Any], field: str, where: str) -> Any:
    if field not in given:
        raise YourMistake(BAD_ARGUMENT, f"{where}{field} is missing; say which")
    return given[field]


def _boolean(given: Mapping[str, Any], field: str, where: str) -> bool:
    value = given.get(field, False)
    if not isinstance(value, bool):
        raise YourMistake(BAD_ARGUMENT, f"{where}{field} is {shown(value)}; use true or false")
    return value


def _image(given: Mapping[str, Any], meant: Mapping[str, str], where: str, vocabulary: Vocabulary) -> str:
    if "imageIdentifier" in given:
        return check_image(where + "imageIdentifier", given["imageIdentifier"])
    if "templates" not in meant:
        raise YourMistake(BAD_ARGUMENT, f"{where}imageIdentifier is missing; name an image, or a templates category")
    term = meant["templates"]
    return check_image(where + "templates category", vocabulary.templates.get(term, term))


def _megahertz(field: str, value: Any) -> int:
    if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
        megahertz = round(value * 1000 if value < GIGAHERTZ_BELOW else value)
        if 1 <= megahertz <= MAX_MEGAHERTZ:
            return megahertz
    raise YourMistake(
        BAD_ARGUMENT, f"{field} is {shown(value)}; use null, GHz below {GIGAHERTZ_BELOW}, or MHz from {GIGAHERTZ_BELOW} to {MAX_MEGAHERTZ}"
    )


def _changed_speed(value: Any) -> int | None:
    """The cpu_speed of an update: 0 is the end of the limit."""
    if value is None or (type(value) is int and value == 0):
        return value
    return _megahertz("cpu_speed", value)


def _hints(value: Any, meant: Mapping[str, str], where: str) -> dict[str, str]:
    hints = dict(check_hints(where + "hints", value))
    for meaning, key in _HINT_OF.items():
        if meaning not in meant:
            continue
        asked = meant[meaning] if meaning == "locations" else str(meant[meaning].lower() not in _NOT_ASKED)
        if hints.setdefault(key, asked) != asked:
            raise YourMistake(
                BAD_ARGUMENT, f"{where}hints.{key} is {shown(hints[key])}, but the {meaning} category says {shown(asked)}; say one of them"
            )
    return dict(sorted(hints.items()))


def _notification(field: str, value: Any, door: Door) -> str:
    try:
        jid = prepare_bare(value if isinstance(value, str) and len(value) <= MAX_JID else "")
    except ValueError as error:
        raise YourMistake(BAD_ARGUMENT, f"{field} is {shown(value)}; {error}") from None
    if not door.may_be_notified(jid):
        raise YourMistake(BAD_ARGUMENT, f"{field} is {shown(value)}; use your own bare JID, a recipient's or a trusted one")
    return jid


def _read_categories(value: Any, where: str, vocabulary: Vocabulary) -> tuple[dict[str, str], list[str]]:
    """The term of each meaning, and the schemes that have none."""
    meant: dict[str, str] = {}
    unknown: list[str] = []
    for category in _category_list(value, where):
        meaning = vocabulary.meaning(category)
        if meaning is None:
            unknown.append(category.scheme)
        elif meaning == "kind":
            if category.term != "compute":
                raise YourMistake(UNSUPPORTED_KIND, f"{where}Category kind is {shown(category.term)}; only compute is provided here")
        elif meant.setdefault(meaning, category.term) != category.term:
            terms = f"{shown(meant[meaning])} and {shown(category.term)}"
            raise YourMistake(BAD_ARGUMENT, f"{where}Category {meaning} is both {terms}; say one of them")
    return meant, unknown


def _category_list(value: Any, where: str) -> Sequence[Category]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise YourMistake(BAD_ARGUMENT, f"{where}Categories is {shown(value)}; use a list of objects with scheme and term")
    return [Category(_word(item, "scheme", where), _word(item, "term", where)) for item in value]


def _word(category: Any, key: str, where: str) -> str:
    word = category.get(key) if isinstance(category, dict) else None
    if not isinstance(word, str) or not 1 <= len(word) <= 255 or not word.isprintable():
        raise YourMistake(BAD_ARGUMENT, f"{where}Category {key} is {shown(word)} in {shown(category)}; use up to 255 printable characters")
    return word


def duplicates(names: Collection[str]) -> list[str]:
    """The names that stand in the collection more than once."""
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
