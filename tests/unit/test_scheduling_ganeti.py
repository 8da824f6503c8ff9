"""Clusters in the text format of Ganeti's htools: written, read back, and refused by line and column."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.errors import BAD_ARGUMENT, YourMistake
from tashi.model.states import HostState
from tashi.scheduling.load import HostUsage
from tashi.scheduling.snapshot import Snapshot
from tashi.scheduling.text.ganeti import read, write
from tests.builders import a_snapshot, an_instance
from tests.strategies import snapshots

UUID = "00000000-0000-0000-0000-000000000001"
SPECS = "128,1,1024,1,1,1|1,1,0,0,0,0;1073741824,1048576,1073741824,1024,1024,1024|ext,sharedfile,blockdev,drbd,plain"
WRITTEN = f"""\
default|{UUID}|preferred||

a|16384|0|10240|1048576|1048576|8|N|{UUID}|1|tashi:id:1,tashi:mhz:2000|N|0|0|1.0
b|8192|0|8192|1048576|1048576|4|Y|{UUID}|1|tashi:id:2,tashi:mhz:2000|N|0|0|1.0

tashi-1-web|4096|0|2|running|Y|a||ext|tashi:mhz:350|0|-
tashi-2-db|2048|0|1|running|Y|a||ext|tashi:reserved:500|0|-


|{SPECS}|2.5|1024.0
default|{SPECS}|2.5|1024.0
"""
OTHERS = """\
group-01|fake-uuid-01|preferred||

nodeA|4096|96|2000|200|200|4|M|fake-uuid-01
nodeB|4096|0|4096|200|200|4|N|fake-uuid-01|4||N|4|1|1.5
nodeC|?|?|?|?|?|?|Y|fake-uuid-01|4

instA1|1000|0|1|running|Y|nodeA||ext|
tashi-1-x|500|0|3|ADMIN_down|Y|nodeA|nodeB|drbd|a:b|3

"""


def a_cluster() -> Snapshot:
    snapshot = a_snapshot("a 8c 16G | web 2c 4G, db 1c 2G", "b 4c 8G", cpu_cores_over_rate=2.5)
    (web, db), b = snapshot.placed[1], snapshot.hosts[2]
    return msgspec.structs.replace(
        snapshot,
        hosts={1: snapshot.hosts[1], 2: msgspec.structs.replace(b, state=HostState.Drained)},
        placed={1: (web, msgspec.structs.replace(db, cpu_speed=500)), 2: ()},
        usage={1: HostUsage(instances={1: 350})},
    )


def test_a_cluster_as_htools_want_it() -> None:
    """The five sections: group, nodes, instances, no tags, policies; as hbal takes them."""
    assert write(a_cluster()) == WRITTEN


def test_what_is_read_is_the_cluster() -> None:
    """Sizes, numbers, speeds, usage and the over-rate come back; a host that is not in service is down."""
    found = read(WRITTEN)
    assert [(host.id, host.name, host.up) for host in found.hosts.values()] == [(1, "a", True), (2, "b", False)]
    facts = found.hosts[1].facts
    assert facts is not None and (facts.memory, facts.cores, facts.cpu_speed) == (16384, 8, 2000)
    assert [(one.id, one.name, one.cores, one.memory, one.cpu_speed, one.host_id) for one in found.placed[1]] == [
        (1, "web", 2, 4096, None, 1), (2, "db", 1, 2048, 500, 1),
    ]  # fmt: skip
    assert (found.usage[1].instances, found.placed[2], found.settings.cpu_cores_over_rate) == ({1: 350}, (), 2.5)


@given(snapshots(), st.integers(0, 99))
@settings(max_examples=40)
def test_round_trips_keep_it(snapshot: Snapshot, seed: int) -> None:
    """What was written and read is written again as it was, whatever the cluster."""
    chance = Random(seed)
    usage = {host_id: HostUsage(instances={one.id: chance.randint(0, 9) for one in group}) for host_id, group in snapshot.placed.items()}
    text = write(msgspec.structs.replace(snapshot, usage=usage))
    assert write(read(text)) == text


def test_files_of_others() -> None:
    """Older lines are shorter; names without a number get one that is free; memory is what is free and what those have that run."""
    found = read(OTHERS)
    a, b, c = found.hosts.values()
    assert a.facts is not None and b.facts is not None and c.facts is not None
    assert [(host.id, host.name, host.up) for host in (a, b, c)] == [(1, "nodeA", True), (2, "nodeB", True), (3, "nodeC", False)]
    assert (a.facts.memory, a.facts.cpu_speed, b.facts.memory, b.facts.cpu_speed, c.facts.memory) == (3000, 1000, 4096, 1500, 0)
    assert [(one.id, one.name) for one in found.placed[1]] == [(2, "instA1"), (1, "x")]
    assert found.settings.cpu_cores_over_rate == 4.0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("nodeA|4096|96|2000|", "nodeA|4096|96|2k|", "line 3, column 4 of a node: '2k' is no whole number"),
        ("|200|200|4|N|", "|200|200||N|", "line 4, column 7 of a node: '' is no whole number"),
        ("|1.5\n", "|fast\n", "line 4, column 15 of a node: 'fast' is no number"),
        ("nodeB|", "nodeA|", "line 4, column 1 of a node: 'nodeA' is named twice"),
        ("|running|Y|nodeA|", "|running|Y|nodeX|", "line 7, column 7 of an instance: 'nodeX' is no node"),
        ("instA1|1000|0|1|running|Y|nodeA||ext|", "instA1|1000", "line 7: a line of an instance has 10 columns"),
        ("\n\n", "\n", "there are 1 sections"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, words: str) -> None:
    """The line, the column and what stands there."""
    with pytest.raises(YourMistake) as caught:
        read(OTHERS.replace(old, new))
    assert caught.value.code == BAD_ARGUMENT
    assert words in caught.value.message


@given(st.lists(st.sampled_from(["a|1|2", "|", "", "x|1|1|1|1|1|1|N|g", "i|1|0|1|running|Y|x||ext|", "|||||9|"]), max_size=9))
def test_no_file_breaks_it(lines: list[str]) -> None:
    """Any file is read or refused in words."""
    try:
        read("\n".join(lines))
    except YourMistake as error:
        assert error.code == BAD_ARGUMENT


def test_a_name_that_cannot_stand_there() -> None:
    """A name that would break a line apart is refused."""
    snapshot = a_snapshot("a 8c 8G")
    with pytest.raises(YourMistake, match="cannot stand in a file"):
        write(msgspec.structs.replace(snapshot, placed={1: (an_instance(1, "a|b", host_id=1),)}))
