"""`tashi sandbox`: brings a cell up and stays with it, or leaves it running (--detach); `tashi sandbox down` ends it.

`kill`, `boot`, `cut`, `heal` and `power` are for one of its hosts.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from tashi.sandbox import cell
from tashi.sandbox.configuration import parse_setting
from tashi.sandbox.faults import FAULTS
from tashi.sandbox.layout import DOMAIN, Layout
from tashi.sandbox.problem import SandboxProblem

DONE, FAILED = 0, 1
HELP = """\
what to do (up when nothing is said):
  up    start what is missing of the cell: it may be new, damaged, or asked to have more hosts
  down  end the cell; its directory stays, and the next `up` goes on from there
  kill  cut the power of --host NAME: all on it ends at once, and nobody is told
  boot  power --host NAME on again
  cut   cut the link between --host NAME and the rest of the cell
  heal  mend that link
  power say whether --host NAME is on or off

examples:
  tashi sandbox --hosts 3 --memory 2048 --detach     three hosts with libvirt and QEMU, left running
  tashi sandbox kill --host node2                    what becomes of its machines?
  tashi sandbox --hypervisor test --hosts 50         a large cell that runs no real machines
"""


def main(argv: Sequence[str]) -> int:
    """Run the command with the words after `tashi sandbox`; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if (arguments.action in FAULTS) != (arguments.host is not None):
        parser.error(f"--host NAME goes with {', '.join(FAULTS)}, and with nothing else")
    directory = arguments.state_dir.resolve()
    try:
        with stopped_by_signals():
            if arguments.action in FAULTS:
                FAULTS[arguments.action](directory, arguments.host)
            elif arguments.action == "down":
                cell.take_down(directory)
            elif arguments.detach:
                tell = (lambda text: None) if arguments.quiet else say
                print(summary(bring_up(wish_of(arguments), tell)), flush=True)
            else:
                with running_cell(wish_of(arguments)) as layout, contextlib.suppress(KeyboardInterrupt):
                    print(summary(layout), flush=True)
                    stay(layout)
    except SandboxProblem as problem:
        say(str(problem))
        return FAILED
    except KeyboardInterrupt:
        say("interrupted")
        return 128 + signal.SIGINT
    return DONE


def wish_of(arguments: argparse.Namespace) -> cell.Wish:
    """What the command line asks for."""
    return cell.Wish(
        directory=arguments.state_dir.resolve(),
        hosts=arguments.hosts,
        hypervisor=arguments.hypervisor,
        cores=arguments.cores,
        memory=arguments.memory,
        settings=tuple(arguments.settings),
    )


def bring_up(wish: cell.Wish, tell: cell.Tell) -> Layout:
    """Start what is missing of the cell; one that cannot be brought up from nothing leaves nothing."""
    was_there = cell.is_running(wish.directory)
    try:
        return cell.bring_up(wish, tell)
    except BaseException:
        if not was_there:
            with signals_ignored():
                cell.take_down(wish.directory)
        raise


@contextlib.contextmanager
def running_cell(wish: cell.Wish) -> Iterator[Layout]:
    """A cell that runs as long as the block; whatever ends the block, the cell is taken down."""
    layout = bring_up(wish, say)
    try:
        yield layout
    finally:
        with signals_ignored():
            say("stopping ...")
            cell.take_down(wish.directory)


def stay(layout: Layout) -> None:
    """Return when the cell is taken down by somebody else; a signal ends it sooner, with KeyboardInterrupt."""
    while layout.cell_file.exists():
        time.sleep(0.5)


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Let nothing disturb the block: a second Ctrl-C must not leave half a cell."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def summary(layout: Layout) -> str:
    """What a person needs to use the cell."""
    return "\n".join(
        (
            f"The cell in {layout.directory} is ready: {len(layout.host_names())} {layout.identity.hypervisor} host(s).",
            f"  XMPP     127.0.0.1:{layout.identity.xmpp_port}, domain {DOMAIN}, sink tashi@{DOMAIN}/sink; accounts in {layout.cell_file}",
            f"  client   TASHI_CONF={layout.conf} tashi getInstances",
            f"  logs     {layout.log}",
        )
    )


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tashi sandbox",
        description="A whole cell on this machine, private to one directory.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", nargs="?", choices=["up", "down", *FAULTS], default="up", help="see below")
    parser.add_argument("--host", metavar="NAME", help="the host to kill, boot, cut, heal or ask about, such as node2")
    parser.add_argument("--state-dir", type=Path, default=Path(".cell"), metavar="DIR", help="where the cell lives (default: ./.cell)")
    parser.add_argument("--hosts", type=_positive, metavar="N", help="how many hosts (default: those it has, or 1)")
    parser.add_argument("--hypervisor", choices=["qemu", "test"], help="real machines, or libvirt's simulation (default: qemu)")
    parser.add_argument("--cores", type=_positive, metavar="C", help="cores that each host offers (default: all; test hosts: 1024)")
    parser.add_argument("--memory", type=_positive, metavar="MB", help="memory that each host offers (default: all; test hosts: 1 TiB)")
    parser.add_argument(
        "--set", dest="settings", type=_setting, action="append", default=[], metavar="Section.key=value", help="a configuration value"
    )
    parser.add_argument("--detach", action="store_true", help="return when the cell is ready, and leave it running")
    parser.add_argument("--quiet", action="store_true", help="with --detach: say nothing on the way")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def _setting(text: str) -> tuple[str, str, str]:
    try:
        return parse_setting(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
