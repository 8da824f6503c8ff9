"""The files: where they are looked for, whose word counts, and which line says what.

A file is opened once and judged by its descriptor, so that it cannot be exchanged between the judging and the reading.
"""

from __future__ import annotations

import configparser
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

DIRECTORIES = ("conf", "etc", "/usr/share/tashi", "/etc/tashi", "~/.tashi")


class Refused(Exception):
    """A file that cannot be read, or must not be believed; the text says why and what to do."""


class Assignment(msgspec.Struct, frozen=True):
    """One key of one file as it is written; ``private`` says that only the file's owner may read it."""

    file: str
    line: int
    section: str
    key: str
    text: str
    private: bool = True

    @property
    def where(self) -> str:
        """``file:line``, or the variable of the environment."""
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def place(self) -> str:
        """``file:line: [section] key``."""
        return f"{self.where}: [{self.section}] {self.key}"


def search(programs: Iterable[str], environ: Mapping[str, str], directories: Sequence[str | Path] | None = None) -> Iterator[Path]:
    """The paths to try, in the order in which later ones override earlier ones.

    A directory that would be searched twice is searched at its later place only. ``Refused``: $TASHI_CONF names no directory.
    """
    home = environ.get("HOME") or os.path.expanduser("~")
    places = [Path(home, place[2:]) if place.startswith("~/") else Path(place) for place in DIRECTORIES]
    if directories is not None:
        places = [Path(place) for place in directories]
    if chosen := environ.get("TASHI_CONF"):
        places.append(Path(chosen))
        if not places[-1].is_dir():
            raise Refused(f"$TASHI_CONF is {chosen}, which is not a directory: correct it or unset it")
    names = [f"{program}{end}" for program in ("Tashi", *programs) for end in ("Defaults.cfg", ".cfg")]
    real = [os.path.realpath(place) for place in places]
    for number, place in enumerate(places):
        if real[number] not in real[number + 1 :]:
            yield from (place / name for name in names)


def read(path: Path) -> tuple[Assignment, ...]:
    """What a file says, in its order; nothing when there is none. ``PermissionError``: the caller may not read it; else ``Refused``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except PermissionError:
        raise
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {error.strerror}") from None
    status = os.fstat(descriptor)
    if refusal := why_refused(status, os.geteuid(), os.getegid()):
        os.close(descriptor)
        raise Refused(f"{path}: {refusal}")
    with open(descriptor, encoding="utf-8-sig") as file:
        try:
            text = file.read()
        except UnicodeDecodeError:
            raise Refused(f"{path}: is not UTF-8 text: convert it") from None
    return parse(str(path), text, private=not status.st_mode & 0o077)


def why_refused(status: os.stat_result, user: int, group: int) -> str:
    """Why a file is not to be believed, or nothing. Writing by root's group and by the caller's own is no more than they may do already."""
    if not stat.S_ISREG(status.st_mode):
        return "is not an ordinary file: remove it"
    if status.st_uid not in {0, user}:
        return f"belongs to user {status.st_uid}, who is neither root nor you, and could change your settings: chown it"
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid not in {0, group}):
        return "can be written by others, who could change your settings: chmod go-w it"
    return ""


class _Name(str):
    """A key in lower case, by which it is compared, that remembers how it was written, and where."""

    written: str
    line: int


class _Parser(configparser.RawConfigParser):
    """ConfigParser without interpolation, whose keys know their line: it calls ``optionxform`` as it reads each of them."""

    line = 0

    def __init__(self) -> None:
        # A section that no file can name stands in for DEFAULT, whose keys would otherwise appear in every section.
        super().__init__(default_section="]", inline_comment_prefixes=(";",))

    def optionxform(self, optionstr: str) -> str:
        name = _Name(optionstr.lower())
        name.written, name.line = optionstr, self.line
        return name

    def numbered(self, text: str) -> Iterator[str]:
        for self.line, line in enumerate(text.splitlines(keepends=True), start=1):
            yield line


def parse(file: str, text: str, private: bool = True) -> tuple[Assignment, ...]:
    """The assignments of an INI text. ``Refused`` names the line, and never quotes it: it could hold a secret."""
    parser = _Parser()
    try:
        parser.read_file(parser.numbered(text), file)
    except configparser.MissingSectionHeaderError as error:
        raise Refused(f"{file}:{error.lineno}: a key stands before the first section: put a line such as [Client] above it") from None
    except configparser.DuplicateOptionError as error:
        raise Refused(f"{file}:{error.lineno}: [{error.section}] {error.option} is set twice in this file: keep one") from None
    except configparser.DuplicateSectionError as error:
        raise Refused(f"{file}:{error.lineno}: section [{error.section}] begins twice in this file: join them") from None
    except configparser.ParsingError as error:
        raise Refused(f"{file}:{error.errors[0][0]}: is neither [Section], key = value nor a comment: correct it") from None
    return tuple(
        Assignment(file, name.line, section, name.written, value, private)
        for section in parser.sections()
        for name, value in parser.items(section)
        if isinstance(name, _Name)
    )
