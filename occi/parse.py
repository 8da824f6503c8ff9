"""The argument of each verb: text in, checked values out, or a YourMistake that names the field. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from occi.categories import Vocabulary
from occi.compute import Door, Parsed, duplicates, parse_compute, read_update
from occi.json_text import parse_json
from tashi.errors import BAD_ARGUMENT, BAD_SYNTAX, CONFLICT, DUPLICATE_HOSTNAME, YourMistake
from tashi.model.instance import InstanceSpec, InstanceUpdate
from tashi.model.names import MAX_ID, check_hostname, check_integer, check_resource_id, shown

_JSON: Final = re.compile(r"""["\[{].*|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null""", re.DOTALL)
"""What is read as JSON where a bare word is allowed, too: a number is an id or nothing."""
_BARE_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_DEFAULTS: Final = {field.name: field.default for field in msgspec.structs.fields(InstanceSpec)}


class Creation(msgspec.Struct, frozen=True):
    """What to create, the digest of each specification, and the words that meant nothing to us."""

    specs: tuple[InstanceSpec, ...]
    content: tuple[str, ...]
    unknown: tuple[str, ...] = ()


class HostSetting(msgspec.Struct, frozen=True):
    """One element of a host's configuration; the host by id or name."""

    host: int | str
    name: str
    value: str


def nobody(jid: str) -> bool:
    """No notificationUri is allowed."""
    return False


def parse_create(text: str, vocabulary: Vocabulary, may_be_notified: Callable[[str], bool] = nobody) -> Creation:
    """The argument of createcompute."""
    value = parse_json(_some(text, "[Compute, [Category, ...], [Link, ...]]"))
    return _creation([parse_compute(value, "", Door(vocabulary, may_be_notified))])


def parse_create_many(text: str, vocabulary: Vocabulary, may_be_notified: Callable[[str], bool] = nobody) -> Creation:
    """The argument of createmanycompute: a list of Compute, or of what createcompute takes."""
    values = parse_json(_some(text, "[Compute, Compute, ...]"))
    if not isinstance(values, list) or not values:
        raise YourMistake(BAD_SYNTAX, f"the argument is {shown(values)}; use a list of at least one Compute")
    door = Door(vocabulary, may_be_notified)
    parsed = [parse_compute(value, f"[{number}].", door) for number, value in enumerate(values)]
    for name in duplicates([each.spec.name for each in parsed]):
        raise YourMistake(DUPLICATE_HOSTNAME, f"hostname {name} is asked for twice in one message; give each its own")
    for key in duplicates([each.spec.resource_id for each in parsed if each.spec.resource_id]):
        raise YourMistake(CONFLICT, f"resourceId {shown(key)} is used twice in one message; give each its own")
    return _creation(parsed)


def parse_update(text: str, vocabulary: Vocabulary) -> InstanceUpdate:
    """The argument of updatecompute and reprovisioncompute."""
    return read_update(parse_json(_some(text, "[Compute with resourceId, [Category, ...]]")), vocabulary)


def parse_reference(text: str) -> int | str:
    """Which instance: a JSON integer is its id, a JSON string or a bare word the sender's resourceId or its hostname."""
    text = _some(text, "an instance's id, resourceId or hostname")
    if _JSON.fullmatch(text):
        value = parse_json(text)
        if isinstance(value, str):
            return check_resource_id("the instance", value)
        return check_integer("the instance's id", value, 1, MAX_ID)
    if not _BARE_WORD.fullmatch(text):
        raise YourMistake(BAD_ARGUMENT, f'the instance is {shown(text)}; use its id, or "resourceId" or "hostname" in double quotes')
    return text


def parse_list(text: str) -> int:
    """The id after which a page of listcompute begins; 0 for the first page."""
    if not text:
        return 0
    value = parse_json(text)
    if not isinstance(value, dict) or not value.keys() <= {"after"}:
        raise YourMistake(BAD_ARGUMENT, f'the argument is {shown(value)}; use nothing or {{"after": id}}')
    after = value.get("after")
    return 0 if after is None else check_integer("after", after, 0, MAX_ID)


def parse_host_setting(text: str) -> HostSetting:
    """The argument of sethostconfig."""
    value = parse_json(_some(text, '{"hostId": ..., "elemName": ..., "value": ...}'))
    if not isinstance(value, dict) or value.keys() != {"hostId", "elemName", "value"}:
        raise YourMistake(BAD_ARGUMENT, f"the argument is {shown(value)}; use an object of hostId, elemName and value")
    host = value["hostId"]
    if isinstance(host, str):
        host = check_hostname("hostId", host)
    else:
        host = check_integer("hostId", host, 1, MAX_ID)
    return HostSetting(host, _line("elemName", value["elemName"], 1, 64), _line("value", value["value"], 0, 255))


def resource_id_in(text: str) -> str | None:
    """The resourceId of a createcompute that is wrong otherwise, so that its refusal can name it; None when there is none."""
    try:
        value = parse_json(text)
        compute = value[0] if isinstance(value, list) and value else value
        return check_resource_id("resourceId", compute["resourceId"]) if isinstance(compute, dict) and "resourceId" in compute else None
    except YourMistake:
        return None


def digest(spec: InstanceSpec) -> str:
    """What tells two specifications apart: a hash over every field that differs from its default."""
    said = {name: value for name, value in msgspec.structs.asdict(spec).items() if value != _DEFAULTS.get(name)}
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()


def _creation(parsed: list[Parsed]) -> Creation:
    specs = tuple(each.spec for each in parsed)
    unknown = dict.fromkeys(word for each in parsed for word in each.unknown)
    return Creation(specs, tuple(digest(spec) for spec in specs), tuple(unknown))


def _some(text: str, wanted: str) -> str:
    if not text:
        raise YourMistake(BAD_SYNTAX, f"the argument is missing; use {wanted}")
    return text


def _line(field: str, value: Any, least: int, most: int) -> str:
    if not isinstance(value, str) or not least <= len(value) <= most or not value.isprintable():
        raise YourMistake(BAD_ARGUMENT, f"{field} is {shown(value)}; use a string of {least} to {most} printable characters")
    return value
