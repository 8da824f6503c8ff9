"""`tashi db`: back up, restore and check the control plane's database on this machine, and accept a loss of records.

It works on the files, as the owner of the state directory or as root; no control plane needs to run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from tashi import __version__
from tashi.clocks import WallClock
from tashi.config import Config, ConfigError, load
from tashi.errors import CONFLICT, TashiError, YourMistake
from tashi.files import write_whole
from tashi.store import backups
from tashi.store.lock import lock
from tashi.store.marker import Marker
from tashi.store.sqlite_backup import back_up, manifest_of, problems, restore
from tashi.store.sqlite_file import SQLiteError, State, contents, examine, log_of, with_companions
from tashi.store.sqlite_loss import accept, set_aside

DONE, FAILED = 0, 1
_START: Final = (
    "Start the control plane: its new numbers begin above the old ones, and it publishes storeLost."
)
SECRETS: Final = ("ca.pem", "ca.key", "manager.pem", "join.secret")
"""The files of the state directory that `--with-secrets` adds. The pins of the hosts are records, and are in every backup."""

EXAMPLES: Final = """\
examples:
  tashi db backup /var/backups/tashi-monday.sqlite --with-secrets
  tashi db check /var/backups/tashi-monday.sqlite
  tashi db restore /var/backups/tashi-monday.sqlite      (stop the control plane first)
"""


def main(argv: Sequence[str]) -> int:
    """Run the command with the words after `tashi db`; return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        config = load(("ClusterManager", "Agent"))
        return int(arguments.action(config, arguments))
    except ConfigError as error:
        _say(error.message)
    except TashiError as error:
        _say(error.message)
    except SQLiteError as error:
        _say(f"the database cannot be used: {error}; `tashi db check` says more")
    except OSError as error:
        _say(f"{error.filename or 'a file'}: {error.strerror}")
    return FAILED


def _back_up(config: Config, arguments: argparse.Namespace) -> int:
    target: Path = arguments.file.absolute()
    now = WallClock().seconds()
    _expect_database(config.database)
    if target.parent.exists() and target.parent.samefile(config.state_dir):
        words = "choose another directory: a backup must survive the loss of this one"
        raise YourMistake(CONFLICT, f"{config.state_dir} holds the control plane's own files; {words}")
    secrets = {}
    if arguments.with_secrets:
        secrets = {
            name: (config.state_dir / name).read_bytes()
            for name in SECRETS
            if (config.state_dir / name).exists()
        }
    manifest = back_up(
        config.database, target, version=__version__, now=now, secrets=secrets, replace=arguments.force
    )
    shown = str(target).encode(errors="backslashreplace").decode()  # a path need not be UTF-8
    backups.note(config.state_dir, backups.LastBackup(at=now, file=shown))
    _hand_over(config)
    print(f"{shown}: cell {manifest.cell}, {manifest.commits} commits, {target.stat().st_size} bytes")
    if manifest.secrets:
        print(f"It holds secrets ({', '.join(manifest.secrets)}): keep it where only you can read it.")
    return DONE


def _restore(config: Config, arguments: argparse.Namespace) -> int:
    source: Path = arguments.file.absolute()
    _expect_database(source)
    config.state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    with contextlib.closing(lock(config.state_dir)):
        now = WallClock().seconds()
        done = restore(config.database, Marker(config.marker), source, now=now)
        if arguments.with_secrets and not done.secrets:
            _say(f"warning: {source} holds no secrets; it was made without --with-secrets")
        put = _put_back(config.state_dir, done.secrets, now) if arguments.with_secrets else []
        _hand_over(config)
    for kept in (*done.kept, *put):
        print(f"The replaced file is kept as {kept}")
    missing = [name for name in done.secrets if not (config.state_dir / name).exists()]
    if missing:
        print(
            f"The backup holds secrets that are missing here ({', '.join(missing)}): `tashi db restore --with-secrets` puts them back."
        )
    print(f"Restored {config.database}. {_START}")
    return DONE


def _check(config: Config, arguments: argparse.Namespace) -> int:
    path: Path = arguments.file.absolute() if arguments.file is not None else config.database
    _expect_database(path)
    wrong: list[str] = []
    if arguments.file is None:
        finding = examine(path, Marker(config.marker))
        wrong = [finding.problem] if finding.problem else []
    wrong += [words for words in problems(path) if words not in wrong]
    with contextlib.suppress(SQLiteError):
        found = contents(path)
        size, log = path.stat().st_size, log_of(path).stat().st_size if log_of(path).exists() else 0
        print(
            f"{path}: cell {found.cell}, {found.commits} commits, schema {found.schema}, {size} bytes, {log} in the write-ahead log"
        )
        manifest = manifest_of(path)
        if manifest is not None:
            moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(manifest.made_at))
            print(
                f"A backup made {moment} by Tashi {manifest.version}, secrets: {', '.join(manifest.secrets) or 'none'}"
            )
    for words in wrong:
        print(f"problem: {words}")
    print(f"{len(wrong)} problem{'' if len(wrong) == 1 else 's'} found" if wrong else "ok")
    return FAILED if wrong else DONE


def _accept_loss(config: Config, arguments: argparse.Namespace) -> int:
    if not config.state_dir.exists():
        raise YourMistake(CONFLICT, f"{config.state_dir} does not exist; there is nothing to accept")
    with contextlib.closing(lock(config.state_dir)):
        marker = Marker(config.marker)
        finding = examine(config.database, marker)
        if finding.state is State.WHOLE:
            wrong = problems(config.database) if finding.mark.commits else []
            if not wrong:
                commits = finding.mark.commits
                words = f"{config.database} has the {commits} commits that were expected: nothing is lost, just start"
                raise YourMistake(CONFLICT, words)
            words = f"damaged records: {'; '.join(wrong)}"
            finding = msgspec.structs.replace(finding, state=State.UNUSABLE, problem=words)
        kept = accept(config.database, marker, finding, WallClock().seconds())
        _hand_over(config)
    print(f"Accepted: {finding.problem}.")
    for path in kept:
        print(f"Kept for you to look at: {path}")
    print(f"{config.database} holds what is left. {_START}")
    return DONE


def _put_back(state_dir: Path, secrets: dict[str, bytes], now: float) -> list[Path]:
    """Write the secrets of a backup into the state directory; return where those that differed are kept."""
    kept: list[Path] = []
    for name in SECRETS:
        path = state_dir / name
        if name not in secrets or (path.exists() and path.read_bytes() == secrets[name]):
            continue
        kept += set_aside((path,), time.strftime(".replaced-%Y%m%dT%H%M%SZ", time.gmtime(now)))
        write_whole(path, secrets[name], 0o644 if name == "ca.pem" else 0o600)
    return kept


def _expect_database(path: Path) -> None:
    if not path.exists():
        raise YourMistake(CONFLICT, f"{path}: no such file; expected a SQLite database of Tashi")


def _hand_over(config: Config) -> None:
    """Give what root wrote to the owner of the state directory, whom the control plane runs as."""
    owner = config.state_dir.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    names = (*SECRETS, backups.LAST, "lock")
    for path in (
        *with_companions(config.database),
        config.marker,
        *(config.state_dir / name for name in names),
    ):
        with contextlib.suppress(FileNotFoundError):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tashi db",
        description="Back up, restore and check the control plane's SQLite database on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("backup", help="copy the database into FILE, also while the control plane runs")
    verb.add_argument("file", metavar="FILE", type=Path, help="the backup to write")
    verb.add_argument("--force", action="store_true", help="replace FILE if it exists")
    verb.add_argument(
        "--with-secrets",
        action="store_true",
        help="add the CA, its key, the server's key and the join secret",
    )
    verb.set_defaults(action=_back_up)
    verb = verbs.add_parser(
        "restore", help="put a backup in the place of the database; the control plane must not run"
    )
    verb.add_argument("file", metavar="FILE", type=Path, help="a backup, or any copy of the database")
    verb.add_argument("--with-secrets", action="store_true", help="put the secrets of the backup back, too")
    verb.set_defaults(action=_restore)
    verb = verbs.add_parser(
        "check", help="look for damage in the database, or in FILE; exit 1 if there is any"
    )
    verb.add_argument(
        "file", metavar="FILE", type=Path, nargs="?", help="a backup (default: the control plane's database)"
    )
    verb.set_defaults(action=_check)
    verb = verbs.add_parser(
        "accept-loss", help="go on with the records that are left of a lost or damaged database"
    )
    verb.set_defaults(action=_accept_loss)
    return parser


def _say(words: str) -> None:
    print(f"tashi db: {words}", file=sys.stderr)
