"""`tashi plan`: what the scheduler would do now, step by step, moves that only better things included; --apply lets it be done.

With --from nobody is asked: the plan is made here, for the cluster in a file. The exit code is 1 when the plan breaks a rule.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from tashi.client.cell import Row, connect
from tashi.client.clusters import read_file
from tashi.client.process import run_to_end
from tashi.client.snapshot import complain, told
from tashi.client.table import visible
from tashi.errors import BAD_ARGUMENT, YourMistake


def main(argv: Sequence[str]) -> int:
    """Print the plan that these words ask for; the exit code."""
    parser = _parser()
    asked = parser.parse_args(argv)
    if asked.file is None:
        if asked.settings:
            parser.error("--set changes the settings of a file; name it with --from")
        return told(lambda: run_to_end(lambda reactor: ask(asked.apply, asked.output, reactor)), verb="plan")
    if asked.apply:
        parser.error("--apply is for the cluster that runs, not for one in a file; leave out one of --from and --apply")
    return told(lambda: _plan_here(asked.file, asked.settings, asked.output))


def _plan_here(path: str, settings: Sequence[str], output: str) -> int:
    from tashi.policy_plugins import policy_named
    from tashi.scheduling import policies
    from tashi.scheduling.text.words import plan_as_rows, plan_in_words

    snapshot = read_file(path)
    wanted = dict(map(_setting, settings))
    snapshot = msgspec.structs.replace(snapshot, settings=msgspec.structs.replace(snapshot.settings, **wanted), rebalance=True)
    name = snapshot.settings.policy
    plan, problems = policies.ask(policy_named(name), name, snapshot)
    _print({"lines": plan_in_words(plan, snapshot), "actions": plan_as_rows(plan, snapshot)}, output)
    for problem in problems:
        complain(f"this plan breaks a rule: {problem}")
    return 1 if problems else 0


async def ask(apply: bool, output: str, reactor: Any, socket: str | None = None) -> int:
    """Print the plan that the control plane makes, behind this socket or the configured one; the exit code."""
    async with connect(reactor, socket=socket) as cell:
        _print(await cell.plan(apply), output)
    return 0


def _print(plan: Row, output: str) -> None:
    if output == "json":
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(plan), indent=1).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{visible(line)}\n" for line in plan["lines"]))


def _setting(text: str) -> tuple[str, Any]:
    from tashi.scheduling.text.grammar import SETTING_NAMES, Malformed, did_you_mean, setting

    name, sign, value = text.partition("=")
    if not sign:
        raise YourMistake(BAD_ARGUMENT, f"--set {text} has no value; write --set NAME=VALUE, such as scheduler=Balanced")
    try:
        return setting(name, value)
    except KeyError:
        raise YourMistake(BAD_ARGUMENT, f"--set: there is no setting {name}{did_you_mean(name, SETTING_NAMES.values())}") from None
    except Malformed as error:
        raise YourMistake(BAD_ARGUMENT, f"--set: {name} is {value}, which {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tashi plan",
        description="Prints what the scheduler would do now, a step a line, what that gains, and why something waits.",
        epilog="examples: `tashi plan --apply`, `tashi plan --from cluster.txt --set scheduler=Consolidated`",
    )
    parser.add_argument("--apply", action="store_true", help="do it, moves included whatever autoMigrations says (administrators)")
    parser.add_argument(
        "--from", dest="file", metavar="FILE", help="plan here for the cluster in this file (-: stdin), which `tashi snapshot` or you wrote"
    )
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE",
        help="with --from: another value of a setting, such as scheduler=Balanced; may be repeated",
    )  # fmt: skip
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="words, or JSON with lines and actions")
    return parser
