"""From files to a ``Config``: every line finds its declaration, is parsed once, and overrides what earlier files said."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tashi.config import legacy
from tashi.config.files import Assignment, Refused, read, search
from tashi.config.model import Config, ConfigError, section_types
from tashi.config.options import Keys, Option, options_of
from tashi.config.values import Guarded, parse

PROGRAMS = ("ClusterManager", "Agent", "NodeManager", "Client")
# All that is secret is the control plane's; the other programs have no use for it.
SECRETS_ARE_FOR = {"ClusterManager", "Agent"}
ENVIRONMENT = {"TASHI_CM_HOST": "clusterManagerHost", "TASHI_CM_PORT": "clusterManagerPort"}


def load(
    programs: Iterable[str] = PROGRAMS, environ: Mapping[str, str] = os.environ, directories: Sequence[str | Path] | None = None
) -> Config:
    """The configuration of ``programs`` from the usual directories (or ``directories``), then from the one in $TASHI_CONF.

    ``ConfigError`` lists all that is wrong, each with file, line, key and what to do.
    """
    programs = tuple(programs)
    reading = _Reading(programs)
    try:
        for path in search(programs, environ, directories):
            reading.read(path)
    except Refused as error:
        reading.problems.append(str(error))
    if "Client" in programs:
        for variable, key in ENVIRONMENT.items():
            if environ.get(variable):
                reading.take(Assignment(f"${variable}", 0, "Client", key, environ[variable]))
    return reading.config(environ)


class _Reading:
    """What the lines read so far come to."""

    def __init__(self, programs: tuple[str, ...]) -> None:
        self.programs = programs
        self.problems: list[str] = []
        self.warnings: dict[str, str] = {}
        self.exposed: list[tuple[str, str]] = []
        self.skipped: list[str] = []
        self.values: dict[tuple[str, str], Any] = {}
        self.sources: dict[tuple[str, str], Assignment] = {}

    def read(self, path: Path) -> None:
        """Take a file's lines; one that must not be believed, or is not INI, is a problem, and the next one is still read."""
        try:
            assignments = read(path)
        except Refused as error:
            self.problems.append(str(error))
        except PermissionError:
            if "Client" in self.programs:
                self.skipped.append(f"{path}: skipped, you may not read it")
            else:
                self.problems.append(f"{path}: may not be read: run as its owner, or chown it")
        else:
            for assignment in assignments:
                self.take(assignment)

    def take(self, assignment: Assignment) -> None:
        """Let one line have its effect, or note what is wrong with it."""
        section, key = assignment.section, assignment.key
        place = f"{assignment.where}: [{section}]"
        if found := _declarations().get((section, key.lower())):
            self._set(assignment, found, None)
        elif family := next((f for f in _families().get(section, ()) if _suffix(f, key) is not None), None):
            self._set(assignment, family, _suffix(family, key))
        elif legacy.is_logging(section):
            self._warn_once("logging", place, legacy.LOGGING)
        elif section in legacy.SECTIONS:
            self._warn_once(section, place, legacy.SECTIONS[section])
        elif key.lower() in legacy.KEYS.get(section, {}):
            self._retired(assignment, legacy.KEYS[section][key.lower()])
        elif section in _known_keys():
            near = _nearest(key, _known_keys()[section], 0) or "".join(f": expected such as {f.example}" for f in _families()[section])
            self.problems.append(f"{place} {key}: there is no such key{near}")
        else:
            self._warn_once(section, place, f"there is no such section, and it has no effect{_nearest(section, _known_keys(), 0.6)}")

    def _set(self, assignment: Assignment, option: Option, suffix: str | int | None) -> None:
        """Give an option its value, or to a family of options one entry; an empty entry takes away what an earlier file said."""
        field = (option.section, option.attribute)
        if suffix is not None:
            entries = self.values.setdefault(field, dict(option.default))
            if not assignment.text:
                entries.pop(suffix, None)
                return
        try:
            value = self._parsed(assignment, option)
        except ValueError as error:
            self.problems.append(f"{assignment.place}: {error}")
            return
        if value is None:
            return
        if suffix is None:
            self.values[field] = value
        else:
            entries[suffix] = value
        self.sources[option.section, f"{option.name}{'' if suffix is None else suffix}".lower()] = assignment
        if isinstance(value, Guarded) and value.holds_secret() and not assignment.private:
            self.exposed.append((option.section, f"{assignment.place}: others may read this secret: chmod 600 {assignment.file}"))

    def _parsed(self, assignment: Assignment, option: Option) -> Any:
        """The value of a line; None where it names a part that is gone and has no successor."""
        value = parse(option.kind, option.form, assignment.text)
        if not option.form.part:
            return value
        part = legacy.part_named(value or option.default)
        if part.advice:
            self._warn_once(part.advice, assignment.place, part.advice)
        return part.name

    def _retired(self, assignment: Assignment, advice: str) -> None:
        """Say what to do about a key without effect, unless it names a part that stands in its place anyway."""
        try:
            advice = advice or legacy.part_named(assignment.text).advice
        except ValueError as error:
            advice = str(error)
        if advice:
            self._warn_once(advice, assignment.place, advice)

    def _warn_once(self, about: str, place: str, advice: str) -> None:
        """Warn unless there was a warning about the same before: one is enough to act on."""
        self.warnings.setdefault(about, f"{place}: {advice}")

    def config(self, environ: Mapping[str, str]) -> Config:
        """All that was read, or a ``ConfigError`` with all that is wrong."""
        if self.values.get(("XMPP", "enabled")) and not self.values.get(("XMPP", "jid")):
            self.values["XMPP", "enabled"] = False
            self._warn_once("jid", self.sources["XMPP", "enabled"].place, "XMPP stays off, since jid is empty: set jid and pwd")
        sections: dict[str, Any] = {
            name: kind(**{option.attribute: self._value(option) for option in options_of(kind) if self._is_set(option)})
            for name, kind in section_types().items()
        }
        home = environ.get("HOME") or os.path.expanduser("~")
        user_state = Path(environ.get("XDG_DATA_HOME") or Path(home, ".local", "share"), "tashi")
        config = Config(
            **sections,
            programs=self.programs,
            skipped=tuple(self.skipped),
            sources={key: assignment.where for key, assignment in self.sources.items()},
            usual_state_dir=Path("/var/lib/tashi") if os.geteuid() == 0 else user_state,
        )
        self._mind_secrets(_secrets_in_use(config))
        if self.problems:
            raise ConfigError("\n".join(self.problems))
        return msgspec.structs.replace(config, warnings=tuple(self.warnings.values()))

    def _mind_secrets(self, in_use: set[str]) -> None:
        """A secret open to others stops only a program that uses it; who merely looks at the configuration is warned."""
        if not SECRETS_ARE_FOR & set(self.programs):
            return
        for section, complaint in self.exposed:
            if section in in_use and "Client" not in self.programs:
                self.problems.append(complaint)
            else:
                self._warn_once(complaint, *complaint.split(": ", 1))

    def _is_set(self, option: Option) -> bool:
        return (option.section, option.attribute) in self.values

    def _value(self, option: Option) -> Any:
        value = self.values[option.section, option.attribute]
        return dict(sorted(value.items())) if isinstance(option.key, Keys) else value


@functools.cache
def _options() -> tuple[Option, ...]:
    return tuple(option for kind in section_types().values() for option in options_of(kind))


@functools.cache
def _declarations() -> dict[tuple[str, str], Option]:
    """Every single key by its section and its names in lower case."""
    found = {}
    for option in _options():
        if not isinstance(option.key, Keys):
            found[option.section, option.name.lower()] = option
            for alias in option.key.aliases:
                section, _, key = alias.rpartition(".")
                found[section or option.section, key.lower()] = option
    return found


@functools.cache
def _families() -> dict[str, list[Option]]:
    """The families of keys of each section."""
    found: dict[str, list[Option]] = {}
    for option in _options():
        if isinstance(option.key, Keys):
            for section in filter(None, (option.section, option.key.also)):
                found.setdefault(section, []).append(option)
    return found


@functools.cache
def _known_keys() -> dict[str, list[str]]:
    """The keys of each section, as they are written."""
    found: dict[str, list[str]] = {section: [] for section in legacy.SECTIONS}
    for option in _options():
        found.setdefault(option.section, [])
        if not isinstance(option.key, Keys):
            found[option.section].append(option.name)
            for alias in option.key.aliases:
                section, _, key = alias.rpartition(".")
                found.setdefault(section or option.section, []).append(key)
        elif option.name:
            found[option.section].append(f"{option.name}1")
    return found


def _suffix(family: Option, key: str) -> str | int | None:
    """What of ``key`` follows the family's prefix, or None where the key is none of the family."""
    rest = key[len(family.name) :]
    if not key.lower().startswith(family.name.lower()) or not rest:
        return None
    if family.suffix_kind is str:
        return rest
    return int(rest) if rest.isascii() and rest.isdigit() and len(rest) < 10 else None


def _secrets_in_use(config: Config) -> set[str]:
    """The sections whose secrets the control plane needs as it is configured."""
    uses = {
        "XMPP": config.xmpp.enabled,
        "SQL": bool(config.sql.uri),
        "LdapOverride": config.cluster_manager.data == "LdapOverride",
        "DhcpDns": "DhcpDns" in config.scheduler.hooks.values(),
    }
    return {section for section, used in uses.items() if used}


def _nearest(word: str, known: Iterable[str], likeness: float) -> str:
    """``; did you mean X?`` with the name most like ``word``, whatever its case; nothing when none is as like as ``likeness``, 0 to 1."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, 1, likeness)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""
