"""The help texts, made from the table of verbs, and the nearest known name for one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from tashi.client.verbs import PROGRAMS, VERBS, Program, Verb

BANNER = "tashi is the client program for Tashi, a cluster manager for virtual machines"
TRAILER = (
    "Additionally, all functions accept --show-<name> and --hide-<name>, which show and hide columns during table generation,\n"
    "and -o table|json|name; those that create or destroy accept --wait [--timeout <seconds>]"
)


def full_usage(examples: bool = False) -> str:
    """What all verbs are called with, or examples of them."""
    body = "".join(example_lines(verb) if examples else usage_line(verb) for verb in (*VERBS, *PROGRAMS))
    hint = "" if examples else '\nUse "--examples" to see examples, and "tashi <function> --help" to read about one\n'
    return f"{BANNER}\n\nUsage: tashi <function> [--<argument> <value>]...\n\n{body}\n{TRAILER}\n{hint}"


def verb_usage(verb: Verb | Program) -> str:
    """Everything about one verb."""
    lines = [f"{usage_line(verb)}\n\t\t{verb.help}\n"]
    if isinstance(verb, Verb):
        lines += [f"\n\t\t--{argument.name:<10} {argument.help}" for argument in verb.arguments]
        lines.append(f"\n\n{example_lines(verb)}\n{TRAILER}\n")
    return "".join(lines)


def usage_line(verb: Verb | Program) -> str:
    """One line: the verb with its arguments, those in brackets may be left out."""
    if isinstance(verb, Program):
        return f"\t{verb.name} {verb.usage}\n"
    words = [f"--{argument.name} <value>" if argument.required else f"[--{argument.name} <value>]" for argument in verb.arguments]
    return "\t" + " ".join([verb.name, *words]) + "\n"


def example_lines(verb: Verb | Program) -> str:
    """The examples of a verb as one would type them."""
    examples = verb.examples if isinstance(verb, Verb) else ()
    return "".join(f"\t\ttashi {verb.name} {example}".rstrip() + "\n" for example in examples)


def nearest(word: str, known: Iterable[str]) -> str:
    """The words "did you mean X?" after a semicolon when a known word is near, else nothing."""
    names: Sequence[str] = list(known)
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, 1, 0.65)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""
