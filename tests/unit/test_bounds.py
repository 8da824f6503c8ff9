"""What crosses a process boundary is bounded, at both ends; what an honest agent reads from its machine always passes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occi.json_text import parse_json
from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.manager.arguments import DEEPEST, check_bounds
from tashi.model.bounds import LARGEST, LONGEST_TEXT, LONGEST_XML, MOST_ITEMS, cut
from tashi.model.host import HostFacts
from tashi.model.instance import Nic, Resources
from tashi.model.orders import NodeLogin, Observation, Offer, Order, Pause, Report, Seen
from tashi.model.questions import Answer
from tashi.model.statistics import InstanceUse, Statistics
from tashi.node.domain.xml import read_mark
from tashi.node.sendable import encoded_report, facts_within_bounds, read_orders
from tashi.store.tables import from_text
from tashi.wire.codec import decode, encode
from tests.builders import a_host, some_facts

FACTS = {"memory": 1024, "cores": 4, "cpuSpeed": 1000, "version": "1"}
SEEN = {"instanceId": 1, "generation": 1, "seen": "running"}
HUGE = 10**400


def refused(text: bytes | str, kind: Any) -> bool:
    """Whether this is no message of that kind."""
    try:
        decode(text, kind)
    except YourMistake as mistake:
        assert mistake.code == BAD_ARGUMENT
        return True
    return False


@pytest.mark.parametrize(
    "facts",
    [
        {"cores": HUGE}, {"cores": 4097}, {"cores": 0}, {"cores": -1}, {"cores": 1.5}, {"memory": HUGE}, {"memory": 2**31 + 1},
        {"memory": -1},
        {"cpuSpeed": HUGE}, {"cpuSpeed": -1}, {"version": "x" * 64}, {"hypervisor": "x" * 64}, {"fqdn": "x" * 1025}, {"mac": "x" * 64},
        {"networks": [4096]}, {"networks": [-1]}, {"networks": [0] * 10_001}, {"memory": None},
    ],
)  # fmt: skip
def test_facts_out_of_bounds_are_no_report(facts: dict[str, Any]) -> None:
    """A5: 10^400 cores and the like are refused where the report is read, and never reach a scheduler."""
    assert not refused(json.dumps({"facts": FACTS}), Report)
    assert refused(json.dumps({"facts": FACTS | facts}), Report)


@pytest.mark.parametrize(
    "observation",
    [
        {"reason": "x" * 400_000}, {"reason": "x" * (LONGEST_TEXT + 1)}, {"refused": "x" * 2000}, {"instanceId": -1}, {"instanceId": 2**63},
        {"generation": HUGE}, {"generation": -1}, {"progress": 101}, {"progress": -1}, {"at": 1e300}, {"at": -1},
        {"nics": [{"network": -1}]}, {"nics": [{"ip": "x" * 1025}]}, {"nics": [{}] * (MOST_ITEMS + 1)},
        {"offer": {"type": "offer", "domain": "x" * (LONGEST_XML + 1)}}, {"offer": {"type": "offer", "domain": "", "address": "x" * 1025}},
        {"adapted": {"memory": -1}}, {"adapted": {"memory": HUGE}},
    ],
)  # fmt: skip
def test_observations_out_of_bounds_are_no_report(observation: dict[str, Any]) -> None:
    """A5: a reason of 400,000 characters and the like are refused where the report is read."""
    assert refused(json.dumps({"facts": FACTS, "observations": [SEEN | observation]}), Report)


@pytest.mark.parametrize(
    "text",
    [
        '{"facts": %s, "observations": [{"instanceId": 1, "generation": 1, "seen": "running", "at": NaN}]}',
        '{"facts": %s, "observations": [{"instanceId": 1, "generation": 1, "seen": "running", "at": 1e999}]}',
        '{"facts": %s, "observations": [{"instanceId": 1, "generation": 1, "seen": "running", "reason": "\\ud800"}]}',
        '{"facts": %s, "page": 0}', '{"facts": %s, "pages": 100001}',
        '{"facts": %s, "statistics": {"interval": 1, "seconds": 1e999}}',
        '{"facts": %s, "statistics": {"interval": 1, "seconds": 1, "instances": [{"instanceId": 1, "cpu": 1e7}]}}',
        '{"facts": %s, "observations": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
)  # fmt: skip
def test_reports_that_are_none(text: str) -> None:
    """A5, D14: NaN, infinity, half characters, deep nesting and pages without end are refused in one way."""
    assert refused(text % json.dumps(FACTS), Report)
    assert refused(json.dumps({"facts": FACTS, "observations": [SEEN] * (MOST_ITEMS + 1)}), Report)


def test_logins_and_answers_are_bounded() -> None:
    """What an agent says at its login, and what it answers, has bounds too."""
    assert refused(json.dumps({"name": "h", "secret": "s" * 1025}), NodeLogin)
    assert refused(json.dumps({"type": "vncOpen", "host": "h", "port": 70_000, "password": "p"}), Answer)
    assert refused(json.dumps({"type": "refused", "code": "c", "message": "x" * 1025}), Answer)


@given(
    st.builds(
        HostFacts,
        memory=st.integers(), cores=st.integers(), cpu_speed=st.integers(), version=st.text(), fqdn=st.text(),
        hypervisor=st.text(min_size=60), networks=st.lists(st.integers(-5, 5000)).map(tuple), mac=st.text(),
    )
)  # fmt: skip
def test_the_facts_of_any_machine_can_be_sent(facts: HostFacts) -> None:
    """Whatever libvirt says of a machine is clamped and cut so that the report is taken."""
    sent = facts_within_bounds(facts)
    assert decode(encode(sent), HostFacts) == sent


def test_an_honest_report_is_never_refused() -> None:
    """An observation that passes a bound is sent in part; the others, and the life sign, arrive as they are."""
    good = Observation(instance_id=1, generation=1, seen=Seen.RUNNING)
    bad = [
        Observation(instance_id=2, generation=1, seen=Seen.FAILED, reason="x" * 400_000),
        Observation(instance_id=3, generation=HUGE, seen=Seen.RUNNING, nics=(Nic(mac="x" * 5000),)),
        Observation(instance_id=4, generation=2, seen=Seen.RUNNING, done=True, offer=Offer(domain="x" * (LONGEST_XML + 1))),
        Observation(instance_id=5, generation=2, seen=Seen.RUNNING, done=True, adapted=Resources(memory=-7)),
        Observation(instance_id=HUGE, generation=2, seen=Seen.RUNNING),
        Observation(instance_id=6, generation=2, seen=Seen.GONE, reason="\ud800"),
    ]
    use = Statistics(interval=1, seconds=1, instances=(InstanceUse(instance_id=-1),))
    report: Report = decode(encoded_report(Report(facts=some_facts(cores=10**6), observations=(good, *bad), statistics=use)), Report)
    assert report.observations[0] == good
    assert [one.instance_id for one in report.observations] == [1, 2, 3, 4, 5, 6]
    assert report.observations[1].reason.endswith("…")
    assert report.observations[3].refused == report.observations[4].refused == "its outcome is out of bounds"
    assert report.observations[5].reason == "?"
    assert (report.facts.cores, report.statistics) == (4096, None)
    whole = Report(facts=some_facts(), observations=(good,))
    assert encoded_report(whole) == encode(whole)


def test_one_bad_order_does_not_keep_the_others() -> None:
    """An agent carries out the orders that it can read, and leaves out one that is out of bounds."""
    good = Pause(instance_id=1, generation=1, uuid="u")
    orders: list[Order] = [good, Pause(instance_id=2, generation=HUGE, uuid="u"), Pause(instance_id=3, generation=1, uuid="u")]
    assert read_orders(encode(orders)) == [good, orders[2]]


def test_a_mark_out_of_bounds_is_none() -> None:
    """A domain whose metadata was edited to an impossible number is not ours, and does not stop the host's report."""
    mark = '<t:instance xmlns:t="urn:x" cell="c" id="{}" generation="{}" name="n"/>'
    assert read_mark(mark.format(1, 2)) is not None
    assert read_mark(mark.format(HUGE, 2)) is None
    assert read_mark(mark.format(1, HUGE)) is None


def test_text_is_cut_with_an_ellipsis() -> None:
    """A reason that is too long keeps its beginning; half characters become question marks."""
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab…"
    assert cut("\ud800") == "?"


def test_an_older_database_with_impossible_facts_loads() -> None:
    """A host whose facts were stored before they were bounded is loaded without them."""
    host = a_host(1)
    row = json.loads(encode(host))
    row["facts"]["cores"] = HUGE
    loaded = from_text("hosts", json.dumps(row), 1)
    assert loaded == msgspec.structs.replace(host, facts=None)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"ids": [1] * 200_000}, "ids has 200000"), ({"name": "x" * 1025}, "name has 1025"), ({"instance": HUGE}, "instance"),
        ({"instance": -(2**63) - 5}, "instance"), ({"hints": {str(number): "" for number in range(10_001)}}, "hints has 10001"),
        ({"a": [[[[[[[[[1]]]]]]]]]}, "nested"), ({"instances": [{"name": "x" * 2000}]}, "name has 2000"), ({"data": "x" * 8193}, "data"),
        ({"x" * 600_000: 1}, "no argument"), ({"instances": [{"\x1b[31m": 1}]}, "no argument"), ({"hints": {"k" * 65: ""}}, "no argument"),
    ],
)  # fmt: skip
def test_arguments_of_a_verb_are_bounded(arguments: dict[str, Any], word: str) -> None:
    """A3, D14: lists, texts, numbers and depth of any argument have bounds, and the refusal names the field."""
    with pytest.raises(YourMistake, match=word) as raised:
        check_bounds(arguments)
    assert raised.value.code == BAD_ARGUMENT
    assert len(raised.value.message) < 300


def test_what_is_refused_is_not_repeated_at_length() -> None:
    """A5: the words about a malformed message are short and printable, whatever it holds."""
    for value in ("x" * 600_000, "\x1b[31m\n" * 1000):
        with pytest.raises(YourMistake) as raised:
            decode(json.dumps({"facts": FACTS, "observations": [SEEN | {"seen": value}]}), Report)
        assert len(raised.value.message) < 400
        assert raised.value.message.isprintable()


def test_arguments_within_their_bounds_pass() -> None:
    """Ten thousand elements, 1,024 characters and what is typed into a console are taken."""
    nested: Any = 1
    for _ in range(DEEPEST - 2):
        nested = [nested]
    check_bounds({"ids": list(range(MOST_ITEMS)), "name": "x" * LONGEST_TEXT, "data": "x" * 8192, "instance": LARGEST, "deep": nested})


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (r'{"notificationUri": "a\ud800@b"}', "notificationUri"), (r'[{"hints": {"a": ["\udc00"]}}]', "a is"), (r'{"\ud800": 1}', "half"),
        ('"\ud800"', "half"),
    ],
)  # fmt: skip
def test_half_a_character_is_refused_by_its_field(text: str, word: str) -> None:
    """D14: a lone surrogate anywhere in a message is a mistake of the sender, not an internal error."""
    with pytest.raises(YourMistake, match=word) as raised:
        parse_json(text)
    assert raised.value.code == BAD_ARGUMENT
    assert raised.value.message.isascii()


def test_whole_characters_pass() -> None:
    """A surrogate pair is one character."""
    assert parse_json(r'["\ud83d\ude00"]') == ["😀"]
