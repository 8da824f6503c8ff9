"""Connections that are not logged in: how many a source may have, who waits, and who gives way."""

from __future__ import annotations

from twisted.internet.task import Clock

from tashi.wire.admission import A_SOURCE, IN_ALL, LOGIN_SECONDS, Admission, source_of


class Applicant:
    """A connection."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.begun = False
        self.heard = False
        self.ended = ""

    def begin(self) -> None:
        assert not self.begun
        self.begun = True

    def end(self, why: str) -> None:
        self.ended = why


class Doors:
    """An admission on a clock that only the test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.admission = Admission(self.clock)

    def arrive(self, source: str, count: int = 1) -> list[Applicant]:
        applicants = [Applicant(source) for _ in range(count)]
        for one in applicants:
            self.admission.arrive(one)
        return applicants

    def later(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)


def states(applicants: list[Applicant]) -> str:
    """One letter each: ended, begun, waiting."""
    return "".join("e" if one.ended else "b" if one.begun else "w" for one in applicants)


def test_eight_of_a_source_are_read_at_a_time() -> None:
    """A2: the ninth waits until one of the eight has logged in, and takes its place."""
    doors = Doors()
    applicants = doors.arrive("uid 1000", 20)
    assert states(applicants) == "b" * 8 + "w" * 12
    for one in applicants[:12]:
        doors.admission.leave(one)
    assert states(applicants) == "b" * 20
    for one in applicants:
        doors.admission.leave(one)
    assert doors.clock.getDelayedCalls() == []


def test_who_is_idle_gives_way() -> None:
    """A2: eight idle connections of a source keep its next one out for a second only; of thirty idle ones eight are left after it."""
    doors = Doors()
    idle = doors.arrive("10.0.0.1", 30)
    doors.later(1.5)
    assert sum(one.ended == "" for one in idle) == A_SOURCE
    doors.later(1)
    (agent,) = doors.arrive("10.0.0.1")
    assert not agent.begun
    doors.later(1.3)
    assert states([agent]) == "b"
    assert sum(one.ended == "" for one in idle) == A_SOURCE - 1


def test_a_login_that_takes_long_keeps_its_place() -> None:
    """Many hosts that log in at once, each for some seconds, do not put each other out; slow ones give way after five seconds."""
    doors = Doors()
    busy = doors.arrive("10.0.0.1", 8)
    for one in busy:
        one.heard = True
    late = doors.arrive("10.0.0.1")
    doors.later(4)
    assert states(busy) == "b" * 8
    assert states(late) == "e"
    doors.later(1.5)
    (agent,) = doors.arrive("10.0.0.1")
    doors.later(1.3)
    assert states([agent]) == "b"
    assert states(busy) == "e" + "b" * 7


def test_a_login_has_ten_seconds() -> None:
    """A2: whoever has not logged in then is closed, and no timer is left."""
    doors = Doors()
    (one,) = doors.arrive("uid 1000")
    doors.later(LOGIN_SECONDS - 0.5)
    assert states([one]) == "b"
    doors.later(1)
    assert "10 s" in one.ended
    assert len(doors.admission) == 0
    assert doors.clock.getDelayedCalls() == []


def test_a_flood_of_one_source_leaves_room_for_others() -> None:
    """A2: 64 in all; beyond that the source with the most gives one up, so an agent elsewhere always gets in."""
    doors = Doors()
    flood = doors.arrive("uid 1000", 20_000)
    assert len(doors.admission) == IN_ALL
    agents = [doors.arrive(f"10.0.0.{number}")[0] for number in range(40)]
    assert states(agents) == "b" * 40
    assert len(doors.admission) == IN_ALL
    assert sum(not one.ended for one in flood) == IN_ALL - 40


def test_a_flood_of_many_sources_lets_an_agent_in_after_a_second() -> None:
    """A2: where every source has one, the oldest gives way once it is a second old."""
    doors = Doors()
    flood = [doors.arrive(f"10.1.0.{number}")[0] for number in range(IN_ALL)]
    (early,) = doors.arrive("10.0.0.1")
    assert states([early]) == "e"
    doors.later(1.2)
    (agent,) = doors.arrive("10.0.0.1")
    assert states([agent, *flood]) == "be" + "b" * (IN_ALL - 1)


def test_a_source_is_an_address_or_what_one_subscriber_has() -> None:
    """IPv6 addresses of one /64 are one source; a mapped IPv4 address is that address."""
    assert source_of("192.0.2.7") == source_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:1%eth0") == "2001:db8::/64"
    assert source_of("2001:db8:0:1::1") != source_of("2001:db8::1")
