"""Rows as a table, as JSON and as names."""

from __future__ import annotations

import json
import random

from tashi.client.table import HOSTS, INSTANCES, as_json, as_names, as_table, columns_of

ROWS = [
    {
        "id": 10, "name": "web", "state": "Running", "userId": 1000, "user": "alice", "hostId": 1, "host": "node1", "cores": 1,
        "memory": 512, "disks": [{"uri": "tashi.img", "persistent": True}, {"uri": "b", "persistent": False}],
        "nics": [{"network": 1, "ip": "1.2.3.4", "mac": "52:54:00:00:56:78"}], "hints": {"a": "1", "b": "2"},
    },
    {
        "id": 9, "name": "x", "state": "Pending", "userId": 7, "user": None, "hostId": None, "host": None, "cores": 1,
        "memory": 128, "disks": [], "nics": [], "hints": {},
    },
]  # fmt: skip


def test_the_table_is_the_one_of_old() -> None:
    """Cells are padded to the widest, a rule of dashes stands under the header, rows are sorted by the first column."""
    assert as_table(ROWS, INSTANCES, columns_of(INSTANCES, ())) == (
        " id hostId name user  state   disk           memory cores\n"
        "---------------------------------------------------------\n"
        " 9  None   x    None  Pending None           128    1    \n"
        " 10 1      web  alice Running tashi.img:True 512    1    \n"
    )


def test_an_empty_list_has_a_header_and_a_rule() -> None:
    """No rows: the header and the rule are still there."""
    assert as_table([], INSTANCES, ["id", "name"]) == " id name\n--------\n"


def test_rows_are_sorted_by_the_column_that_stands_first() -> None:
    """Nothing comes first, then numbers as numbers, then texts."""
    table = as_table([{"notes": value} for value in ("b", 10, None, 9, "a")], HOSTS, ["notes"])
    assert [line.strip() for line in table.splitlines()[2:]] == ["None", "9", "10", "a", "b"]


def test_lists_in_a_cell_are_spelled_as_they_are_typed() -> None:
    """Disks, nics and hints are shown in the syntax of their options."""
    table = as_table(ROWS[:1], INSTANCES, ["disks", "nics", "hints"])
    assert table.splitlines()[2].split() == ["tashi.img:True,b", "1:1.2.3.4:52:54:00:00:56:78", "a=1,b=2"]


def test_a_terminal_is_never_sent_what_others_wrote_unescaped() -> None:
    """Control characters in a name or note are escaped, so that a row stays one line and moves no cursor."""
    table = as_table([{"id": 1, "notes": "a\x1b[2J\nb"}], HOSTS, ["id", "notes"])
    assert "\x1b" not in table
    assert len(table.splitlines()) == 3


def test_without_columns_nothing_but_lines_remains() -> None:
    """--hide-all leaves no cell, and does not fail."""
    assert as_table(ROWS, INSTANCES, []).strip() == ""


def test_json_is_an_array_of_all_fields() -> None:
    """JSON shows the rows as they came, whatever the columns."""
    assert json.loads(as_json(ROWS)) == ROWS
    assert json.loads(as_json([])) == []


def test_names_stand_one_on_a_line() -> None:
    """-o name is for loops in a shell."""
    assert as_names(ROWS, INSTANCES) == "web\nx\n"


def test_ten_thousand_rows_stay_in_order() -> None:
    """A long list is sorted by id as numbers."""
    ids = list(range(10_000))
    random.Random(1).shuffle(ids)
    lines = as_table([{**ROWS[0], "id": number} for number in ids], INSTANCES, ["id", "name", "nics"]).splitlines()
    assert [int(line.split()[0]) for line in lines[2:]] == sorted(ids)
