"""`tashi plan --from` and `tashi snapshot --from`: a cluster in a file, planned on and converted with no control plane."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tashi.client.command import main
from tashi.scheduling.plan import Place, Plan
from tashi.scheduling.policies import POLICIES
from tashi.scheduling.text.reading import read
from tests.clusters import CLUSTERS

WHY = "Primitive: 0 instances there before, the only host that fits"
CYCLE = str(CLUSTERS / "primitive-cycle.txt")


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A file with one host and one instance that waits."""
    path = tmp_path / "cluster.txt"
    path.write_text("host node1 2c 2G\nvm web 1c 1G\n")
    return path


def test_the_plan_for_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """The plan is printed a step a line, just as the expected one."""
    assert main(["plan", "--from", CYCLE]) == 0
    assert capsys.readouterr() == ((CLUSTERS / "primitive-cycle.plan").read_text(), "")


def test_a_plan_for_programs(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON it has the lines, and the actions as data."""
    assert main(["plan", "--from", str(cluster), "-o", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["actions"] == [{"action": "place", "instance": "web", "instanceId": 1, "host": "node1", "hostId": 1, "why": WHY}]
    assert plan["lines"] == [f"place web on node1: {WHY}"]


def test_settings_of_a_file_can_be_overridden(capsys: pytest.CaptureFixture[str]) -> None:
    """--set plans on the same cluster with another setting."""
    assert main(["plan", "--from", CYCLE, "--set", "densePack=yes", "--set", "cpuCoresOverRate=2"]) == 0
    assert capsys.readouterr().out.startswith("place a on node3: Primitive densePack")


@pytest.mark.parametrize(
    ("text", "words", "problem"),
    [
        ("host node1 2c 2G", ["--set", "scheduler=Primitiv"], "scheduler = Primitiv is no policy; installed are Balanced"),
        ("host node1 2c 2G", ["--set", "densPack=1"], "--set: there is no setting densPack; did you mean densePack?"),
        ("host node1 2c 2G", ["--set", "densePack=so"], "--set: densePack is so, which is neither True nor False"),
        ("host node1 2c 2G", ["--set", "densePack"], "--set densePack has no value; write --set NAME=VALUE"),
        ("host node1 2c 2x", [], "cluster.txt: line 1, character 15: 2x is no size such as 8c"),
        ("\xff", [], "byte 1 is no UTF-8"),
    ],
)
def test_mistakes_are_told(text: str, words: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake in the file or in the words is one line on stderr and nothing on stdout."""
    path = tmp_path / "cluster.txt"
    path.write_bytes(text.encode("latin-1"))
    assert main(["plan", "--from", str(path), *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert problem in err


@pytest.mark.parametrize("words", [["--apply", "--from", CYCLE], ["--set", "densePack=1"], ["--form", "x"]])
def test_words_that_do_not_go_together(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A file is never applied, and only a file's settings are changed."""
    with pytest.raises(SystemExit) as ended:
        main(["plan", *words])
    assert ended.value.code == 2
    assert "tashi plan: error: " in capsys.readouterr().err


def test_a_plan_that_breaks_a_rule(cluster: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan of a policy that breaks a rule is shown, its faults are told, and the exit code says so."""
    monkeypatch.setattr("tashi.policy_plugins.POLICIES", {**POLICIES, "Mad": lambda _: Plan(actions=(Place(instance_id=1, host_id=9),))})
    assert main(["plan", "--from", str(cluster), "--set", "scheduler=Mad"]) == 1
    out, err = capsys.readouterr()
    assert out == "place web on (9)\n"
    assert err == "this plan breaks a rule: instance 1 is sent to host 9, which there is not\n"


def test_another_package_s_policy(cluster: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy of an installed package plans for a file as for a cell; when it fails that is told in words."""
    site = cluster.parent
    (site / "idlers.py").write_text("from tashi.scheduling.plan import Plan\ndef idle(snapshot): return Plan()\ndef bad(snapshot): 1 / 0\n")
    about = site / "idlers-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: idlers\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[tashi.policies]\nIdle = idlers:idle\nBad = idlers:bad\n")
    monkeypatch.syspath_prepend(site)
    assert main(["plan", "--from", str(cluster), "--set", "scheduler=Idle"]) == 0
    assert capsys.readouterr().out == "nothing to do\n"
    assert main(["plan", "--from", str(cluster), "--set", "scheduler=Bad"]) == 1
    assert capsys.readouterr().err == "the policy Bad failed: ZeroDivisionError: division by zero\n"


def test_no_such_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read is named, with the reason."""
    assert main(["snapshot", "--from", "/no/such/file"]) == 1
    assert capsys.readouterr().err == "cannot read /no/such/file: No such file or directory\n"


def test_what_a_person_wrote_as_a_program_writes_it(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is printed with everything that it left unsaid, and means the same."""
    assert main(["snapshot", "--from", str(cluster)]) == 0
    text = capsys.readouterr().out
    assert "host 1 node1 2c 2G 2000MHz\n" in text
    assert read(text) == read(cluster.read_text())


def test_a_file_for_htools_and_back(cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--to ganeti writes a file for htools, which is recognised when it is read; what it cannot hold is told."""
    with cluster.open("a") as file:
        file.write("vm db 1c 512M on node1\n")
    assert main(["snapshot", "--from", str(cluster), "--to", "ganeti"]) == 0
    out, err = capsys.readouterr()
    assert err == "1 that wait for a place are left out: the format has no word for them\n"
    data = tmp_path / "cluster.data"
    data.write_text(out)
    assert main(["snapshot", "--from", str(data)]) == 0
    snapshot = read(capsys.readouterr().out)
    assert [(one.id, one.name, one.cores, one.memory) for one in snapshot.placed[1]] == [(2, "db", 1, 512)]
    data.write_text(out.replace("|512|", "|much|"))
    assert main(["plan", "--from", str(data)]) == 1
    assert capsys.readouterr().err.startswith(f"{data}: line ")


def test_a_cluster_from_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """- is stdin."""
    monkeypatch.setattr("sys.stdin", io.StringIO("host node1 2c 2G\nvm web 1c 1G\n"))
    assert main(["plan", "--from", "-"]) == 0
    assert capsys.readouterr().out.startswith("place web on node1")


@pytest.mark.parametrize("verb", ["plan", "snapshot"])
def test_the_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help says what there is."""
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert "--from FILE" in capsys.readouterr().out


def test_a_load_expression_that_is_none_is_said_where_it_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """A --set that no policy understands is told with its character, and in nobody's Python."""
    assert main(["plan", "--from", str(CLUSTERS / "balanced.txt"), "--set", "loadExpression=memUsage +* 2"]) == 1
    told = capsys.readouterr().err
    assert "[Scheduler] loadExpression: character 11, '*': expected" in told and "YourMistake" not in told
