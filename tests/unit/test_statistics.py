"""Rates of use: what two samples of counters say."""

from __future__ import annotations

import msgspec
import pytest

from tashi.model.host import HostFacts
from tashi.model.orders import Observation, Report, Seen
from tashi.model.statistics import Counters, InstanceUse, Sample, Statistics, Use, pages_of, statistics_between
from tashi.wire.codec import PAGE_BYTES, decode, encode
from tests.builders import an_instance

MB = 2**20
FIRST = Counters(
    life=3, cpu=10**9, memory=50 * MB, resident=60 * MB, read=1000, written=2000, reads=10, writes=20, received=0, sent=125_000
)
SECOND = Counters(
    life=3, cpu=6 * 10**9, memory=52 * MB, resident=61 * MB, read=11_000, written=2000, reads=15, writes=21, received=12_500, sent=250_000
)


def between(first: Counters, second: Counters, seconds: float = 10.0) -> InstanceUse | None:
    """The use of one instance from the first to the second."""
    statistics = statistics_between(Sample(at=5.0, domains={7: first}), Sample(at=5.0 + seconds, domains={7: second}), 10.0)
    assert statistics is not None and statistics.host is None
    return statistics.instances[0] if statistics.instances else None


def test_rates() -> None:
    """Each counter's growth is told a second, in the unit of its rate; memory is what it is now."""
    assert between(FIRST, SECOND) == InstanceUse(
        instance_id=7, cpu=50.0, memory=52, resident=61, read=1000, write=0, read_ops=0, write_ops=0, rx=10, tx=100
    )
    assert between(FIRST, SECOND, 1.0) == InstanceUse(
        instance_id=7, cpu=500.0, memory=52, resident=61, read=10_000, write=0, read_ops=5, write_ops=1, rx=100, tx=1000
    )


@pytest.mark.parametrize("name", ["cpu", "read", "sent"])
def test_a_counter_that_goes_backwards_has_no_rate(name: str) -> None:
    """After a migration or a reset nothing is told of what began anew, and of the rest it is."""
    use = between(FIRST, msgspec.structs.replace(SECOND, **{name: 0}))
    assert use is not None
    rate = {"sent": "tx"}.get(name, name)
    assert getattr(use, rate) is None
    assert {getattr(use, other) for other in ("cpu", "read", "tx") if other != rate} <= {50.0, 1000, 100}


def test_a_domain_started_anew_has_no_rates() -> None:
    """Even if its counters are higher than those of the domain before it."""
    assert between(FIRST, msgspec.structs.replace(SECOND, life=4)) == InstanceUse(instance_id=7, memory=52, resident=61)


def test_what_is_missing_is_not_known() -> None:
    """A value that was not told in one of the samples is None; an instance of which nothing is known is not told of."""
    assert between(FIRST, Counters(life=3, cpu=6 * 10**9)) == InstanceUse(instance_id=7, cpu=50.0)
    assert between(Counters(life=3), Counters(life=3)) is None
    assert between(Counters(life=3, read=0), Counters(life=3, read=0)) == InstanceUse(instance_id=7, read=0)


def test_come_and_gone() -> None:
    """Of a domain that has come there is what it holds, of one that has gone nothing."""
    statistics = statistics_between(Sample(at=1.0, domains={1: FIRST}), Sample(at=2.0, domains={2: FIRST}), 10.0)
    assert statistics == Statistics(interval=10.0, seconds=1.0, instances=(InstanceUse(instance_id=2, memory=50, resident=60),))


def test_the_machine() -> None:
    """The machine's processor time counts all of its cores."""
    first, second = Counters(cpu=0), Counters(cpu=3 * 10**9, memory=100 * MB)
    statistics = statistics_between(Sample(at=0.0, machine=first), Sample(at=2.0, machine=second), 2.0)
    assert statistics == Statistics(interval=2.0, seconds=2.0, host=Use(cpu=150.0, memory=100))


@pytest.mark.parametrize("at", [5.0, 4.0, 1e6])
def test_no_time_no_rates(at: float) -> None:
    """Two samples of one moment, out of order or days apart say nothing."""
    assert statistics_between(Sample(at=5.0), Sample(at=at), 10.0) is None


def test_pages() -> None:
    """Ten thousand instances at their worst come in pages that the wire carries beside as many observations; the host is told once."""
    worst = dict.fromkeys(Use.__struct_fields__, 2**61) | {"cpu": 99999.9}
    uses = tuple(InstanceUse(instance_id=10**6 + number, **worst) for number in range(10_000))  # type: ignore[arg-type]
    parts = pages_of(Statistics(interval=10.0, seconds=10.0, host=Use(cpu=1.0), instances=uses), 1000)
    assert [part.host for part in parts] == [Use(cpu=1.0)] + [None] * 9
    assert tuple(use for part in parts for use in part.instances) == uses
    facts = HostFacts(memory=1, cores=1, cpu_speed=1, version="1")
    resources = an_instance(1).resources
    seen = tuple(
        Observation(instance_id=10**6 + number, generation=1, seen=Seen.RUNNING, reason="r" * 40, done=True, adapted=resources)
        for number in range(1000)
    )
    text = encode(Report(facts=facts, observations=seen, statistics=parts[0]))
    assert len(text) < PAGE_BYTES
    assert decode(text, Report).statistics == parts[0]


def test_an_empty_page() -> None:
    """A host without instances still tells of itself."""
    statistics = Statistics(interval=10.0, seconds=10.0, host=Use(cpu=1.0))
    assert pages_of(statistics, 1000) == [statistics]
