"""The configuration as its readers see it: files, their order, and what each value means."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tashi.config import Config, ConfigError, SlaClass, load, missing
from tashi.config.defaults_file import defaults_file
from tashi.config.files import Refused, parse, why_refused
from tashi.config.ldap import LdapSearch
from tashi.config.model import section_types

ROOT = Path(__file__).parents[2]
CONTROL_PLANE = ("ClusterManager", "Agent")

Loader = Callable[..., Config]


@pytest.fixture
def load_text(tmp_path: Path) -> Loader:
    """Load one private file of the given text and name, as the control plane does unless told otherwise."""

    def loader(
        text: str,
        name: str = "Tashi.cfg",
        programs: tuple[str, ...] = CONTROL_PLANE,
        mode: int = 0o600,
        environ: dict[str, str] | None = None,
    ) -> Config:
        file = tmp_path / name
        file.write_text(text)
        file.chmod(mode)
        return load(programs, environ=environ or {"HOME": str(tmp_path)}, directories=[tmp_path])

    return loader


def refusal(loader: Loader, text: str, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        loader(text, **options)
    return caught.value.message


def test_the_defaults_file_and_the_code_are_equal() -> None:
    """What `python -m tashi.config` prints is what lies in conf."""
    assert (ROOT / "conf" / "TashiDefaults.cfg").read_text() == defaults_file()


def test_the_defaults_file_changes_nothing(load_text: Loader, tmp_path: Path) -> None:
    """Loaded, the defaults file gives every section its defaults and no warning."""
    config = load_text(defaults_file(), "TashiDefaults.cfg", mode=0o644)
    plain = load(CONTROL_PLANE, environ={"HOME": str(tmp_path)}, directories=[])
    for name in section_types():
        assert getattr(config, name) == getattr(plain, name)
    assert config.warnings == plain.warnings == ()


def test_defaults() -> None:
    """With no file at all the control plane is on loopback, unlimited, without XMPP."""
    config = load(CONTROL_PLANE, environ={"HOME": "/home/alice"}, directories=[])
    assert (config.cluster_manager_service.host, config.cluster_manager_service.port) == ("127.0.0.1", 9882)
    assert (config.cluster_manager_service.max_memory, config.cluster_manager_service.max_cores) == (0, 0)
    assert not config.xmpp.enabled
    assert (config.xmpp.resource, config.xmpp.pubsub_node, config.xmpp.max_queued_commands) == ("sink", "tashi/events", 10000)
    assert (config.xmpp.layout_interval, config.xmpp.max_command_age, config.xmpp.provision_timeout) == (60.0, 300.0, 45.0)
    assert (config.scheduler.scheduler, config.scheduler.schedule_delay, config.primitive.dense_pack) == ("Primitive", 2.0, False)
    assert config.libvirt.uri == "qemu:///system"
    assert config.qemu.reserved_mem == 512
    assert config.sla_classes.classes["gold"] == SlaClass(priority=100, cpu_share=2048)


def test_state_lies_in_the_users_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without stateDir the state is in the system's place for root and in the user's data directory otherwise."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert load(CONTROL_PLANE, environ={"HOME": "/root"}, directories=[]).manager_socket == Path("/var/lib/tashi/tashi.sock")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    config = load(CONTROL_PLANE, environ={"HOME": "/home/alice"}, directories=[])
    assert config.state_dir == Path("/home/alice/.local/share/tashi")
    assert config.client_sockets == (config.state_dir / "tashi.sock", Path("/var/lib/tashi/tashi.sock"))
    config = load(CONTROL_PLANE, environ={"HOME": "/home/alice", "XDG_DATA_HOME": "/data"}, directories=[])
    assert config.share_dir == Path("/data/tashi/share")
    assert config.node_state_dir == Path("/data/tashi/node")


def test_later_files_override_earlier_ones(tmp_path: Path) -> None:
    """Directories override in their order, files within each in theirs, and $TASHI_CONF overrides all."""
    first, second, chosen = (tmp_path / name for name in ("first", "second", "chosen"))
    for directory, name, port, cores in (
        (first, "AgentDefaults.cfg", 1003, 3),
        (first, "TashiDefaults.cfg", 1001, 1),
        (first, "ClusterManager.cfg", 1002, 2),
        (first, "Agent.cfg", 1004, 4),
        (first, "NodeManager.cfg", 1005, 5),
        (second, "Tashi.cfg", 1006, 6),
    ):
        directory.mkdir(exist_ok=True)
        (directory / name).write_text(f"[ClusterManagerService]\nport = {port}\nmaxCores = {cores}\n")
    chosen.mkdir()
    (chosen / "TashiDefaults.cfg").write_text("[ClusterManagerService]\nport = 1007\n")
    environ = {"HOME": str(tmp_path)}
    assert load(CONTROL_PLANE, environ, [first]).cluster_manager_service.port == 1004
    assert load(("NodeManager",), environ, [first]).cluster_manager_service.port == 1005
    assert load(CONTROL_PLANE, environ, [first, second]).cluster_manager_service.port == 1006
    config = load(CONTROL_PLANE, environ | {"TASHI_CONF": str(chosen)}, [first, second])
    assert (config.cluster_manager_service.port, config.cluster_manager_service.max_cores) == (1007, 6)
    assert config.source("ClusterManagerService", "port") == f"{chosen}/TashiDefaults.cfg:2"
    assert config.source("ClusterManagerService", "maxCores") == f"{second}/Tashi.cfg:3"
    assert config.source("ClusterManagerService", "host") == "default"


def test_the_usual_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """./conf comes before ./etc, and ~/.tashi after both."""
    monkeypatch.chdir(tmp_path)
    for directory, name in (("conf", "a"), ("etc", "b"), ("home/.tashi", "c")):
        (tmp_path / directory).mkdir(parents=True)
        (tmp_path / directory / "Client.cfg").write_text(f"[Client]\nclusterManagerHost = {name}\n")
    home = {"HOME": str(tmp_path / "home")}
    assert load(("Client",), home).client.cluster_manager_host == "c"
    (tmp_path / "home/.tashi/Client.cfg").unlink()
    config = load(("Client",), home)
    assert config.source("Client", "clusterManagerHost") == "etc/Client.cfg:2"
    assert load(("Client",), home | {"TASHI_CONF": "conf"}).client.cluster_manager_host == "a"


def test_a_chosen_directory_must_be_there(tmp_path: Path) -> None:
    """A $TASHI_CONF that names no directory is an error, not silently nothing."""
    with pytest.raises(ConfigError, match=r"\$TASHI_CONF is /no/such, which is not a directory"):
        load(("Client",), {"TASHI_CONF": "/no/such"}, [])


def test_the_client_follows_its_environment() -> None:
    """$TASHI_CM_HOST and $TASHI_CM_PORT override every file, for the client only."""
    environ = {"TASHI_CM_HOST": "node9", "TASHI_CM_PORT": "1234"}
    config = load(("Client",), environ, [])
    assert (config.client.cluster_manager_host, config.client.cluster_manager_port) == ("node9", 1234)
    assert config.source("Client", "clusterManagerPort") == "$TASHI_CM_PORT"
    assert load(CONTROL_PLANE, environ, []).client.cluster_manager_port == 9882
    with pytest.raises(ConfigError, match=r"^\$TASHI_CM_PORT: \[Client\] clusterManagerPort: expected a whole number, 1 to 65535$"):
        load(("Client",), environ | {"TASHI_CM_PORT": "x"}, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[XMPP]\n\nmaxComandAge = 3\n", ":3: [XMPP] maxComandAge: there is no such key; did you mean maxCommandAge?"),
        ("[Primitive]\ndensPack = 3\n", ":2: [Primitive] densPack: there is no such key; did you mean densePack?"),
        ("[Servers]\nnode1 = 3\n", ":2: [Servers] node1: there is no such key: expected such as 1 = 3"),
        ("[Client]\nclusterManagerPort = 70000\n", ":2: [Client] clusterManagerPort: expected at most 65535"),
        ("[Client]\nclusterManagerPort = ٣\n", "[Client] clusterManagerPort: expected a whole number, 1 to 65535"),
        ("[Scheduler]\nloadExpression = memUsage +* 2\n", ":2: [Scheduler] loadExpression: character 11, '*': expected a number"),
        ("[Scheduler]\nscheduleDelay = -1\n", "[Scheduler] scheduleDelay: expected a number, s, at least 0.01"),
        ("[XMPP]\nlayoutInterval = nan\n", "[XMPP] layoutInterval: expected a number"),
        ("[XMPP]\nlayoutInterval = inf\n", "[XMPP] layoutInterval: expected a number"),
        ("[XMPP]\nlayoutInterval = 1e999\n", "[XMPP] layoutInterval: expected"),
        (f"[ClusterManagerService]\nmaxMemory = {'9' * 1_000_000}\n", "[ClusterManagerService] maxMemory: expected a whole number"),
        ("[ClusterManagerService]\nmaxCores = 1.5\n", "[ClusterManagerService] maxCores: expected a whole number, at least 0"),
        ("[ClusterManagerService]\ntls = maybe\n", "[ClusterManagerService] tls: expected True or False"),
        ("[XMPP]\nadmins = a@b, admin@b/Gajim\n", "[XMPP] admins: expected a bare JID such as alice@example.org, without a resource"),
        ("[XMPP]\nrecipient = a@b # gets every event\n", "[XMPP] recipient: expected a bare JID such as alice@example.org"),
        ("[XMPP]\ntrusted = slas.example, a b\n", "[XMPP] trusted: expected a bare JID such as alice@example.org, or a domain"),
        ("[XMPP]\ntls = off\n", "[XMPP] tls: expected required or insecure"),
        ("[DhcpDns]\nipRange1 = 10.0.0.9-10.0.0.1\n", "[DhcpDns] ipRange1: expected the first and last IPv4 address"),
        ("[SlaClasses]\ngold = priority+1 cpuShare=1\n", "[SlaClasses] gold: cpuShare: expected a whole number, 2 to 262144"),
        ("[SlaClasses]\ngold = shiny\n", "[SlaClasses] gold: expected words such as priority+100 or priority="),
        ("[SQL]\nuri = oracle://x\n", "[SQL] uri: expected sqlite:///path or mysql://user@host/database"),
        ("[Scheduler]\nscheduler = tashi.scheduler.ConsolidatdScheduler\n", "the nearest known is Consolidated"),
        ("port = 1\n", ":1: a key stands before the first section"),
        ("[Client]\nsocket = a\nSocket = b\n", ":3: [Client] socket is set twice"),
        ("[Client]\n[Client]\n", ":2: section [Client] begins twice"),
    ],
)
def test_a_mistake_is_told_by_file_line_and_key(load_text: Loader, tmp_path: Path, text: str, words: str) -> None:
    """What is wrong in a file is an error that says where it stands and what was expected."""
    message = refusal(load_text, text)
    assert message.startswith(f"{tmp_path}/Tashi.cfg:")
    assert words in message
    assert len(message) < 400


def test_d8_addresses_are_prepared(load_text: Loader) -> None:
    """JIDs and domains are kept in the one form in which equal ones are equal, each once."""
    config = load_text(
        "[XMPP]\ntrusted = ISM@Cell.test, ism@cell.TEST, Slas.Example.\nadmins = Admin@Cell.Test\n"
        "recipient = llms@cell.test, LLMS@cell.test\n"
    ).xmpp
    assert config.trusted == ("ism@cell.test", "slas.example")
    assert (config.admins, config.recipient) == (("admin@cell.test",), ("llms@cell.test",))


def test_all_mistakes_are_told_at_once(load_text: Loader) -> None:
    """An error has one line for each mistake."""
    assert len(refusal(load_text, "[Client]\nclusterManagerPort = 0\nsoket = x\n").splitlines()) == 2


def test_a_line_that_is_no_line_is_not_quoted(load_text: Loader, tmp_path: Path) -> None:
    """A broken line is named by number only, since it could hold a secret."""
    assert refusal(load_text, "[XMPP]\npwd hunter2\n").startswith(f"{tmp_path}/Tashi.cfg:2: is neither")
    assert "hunter2" not in refusal(load_text, "[XMPP]\npwd hunter2\n")


def test_an_unknown_section_is_a_warning(load_text: Loader, tmp_path: Path) -> None:
    """A section nobody knows has no effect, is told once, and with the name it may have meant."""
    config = load_text("[Xmpp]\nenabled = True\njid = a@b\n[Zoni]\na = 1\nb = 2\n")
    assert config.warnings == (
        f"{tmp_path}/Tashi.cfg:2: [Xmpp]: there is no such section, and it has no effect; did you mean XMPP?",
        f"{tmp_path}/Tashi.cfg:5: [Zoni]: there is no such section, and it has no effect",
    )


def test_names_of_keys_have_no_case_and_values_no_interpolation(load_text: Loader) -> None:
    """MAXMEMORY is maxMemory, a % is a %, and a comment may end a line."""
    config = load_text("[ClusterManagerService]\nMAXMEMORY = 5 ; MB\n[XMPP]\npwd = 100%(x)s;y\n[Templates]\nUbuntu-9.10 = U.img\n")
    assert config.cluster_manager_service.max_memory == 5
    assert config.xmpp.pwd == "100%(x)s;y"
    assert config.templates.images == {"Ubuntu-9.10": "U.img"}


def test_lists_and_families(load_text: Loader) -> None:
    """Lists are separated by commas or lines, families of keys become mappings in order, and an empty entry takes one away."""
    config = load_text(
        "[XMPP]\ntrusted = ism@x, example.org,\n  b@x\n[Servers]\n10 = 1\n2 = -3\n[Networks]\n0 = vmbr\n"
        "[SlaClasses]\nbronze =\ngold = priority-5 isolation=True location=ie\n[Scheduler]\nhook2 = mine.Hook\nhook1 = dhcpdns\n"
    )
    assert config.xmpp.trusted == ("ism@x", "example.org", "b@x")
    assert list(config.servers.priorities.items()) == [(2, -3), (10, 1)]
    assert config.networks.bridges == {0: "vmbr"}
    assert set(config.sla_classes.classes) == {"gold", "silver"}
    assert config.sla_classes.classes["gold"] == SlaClass(priority=-5, isolation=True, location="ie")
    assert list(config.scheduler.hooks.values()) == ["DhcpDns", "mine.Hook"]


def test_xmpp_without_a_jid_is_off_with_a_warning(load_text: Loader) -> None:
    """enabled without jid leaves XMPP off and says so."""
    config = load_text("[XMPP]\nenabled = True\n")
    assert not config.xmpp.enabled
    assert len(config.warnings) == 1
    assert "XMPP stays off, since jid is empty" in config.warnings[0]


def test_secrets_are_never_shown(load_text: Loader) -> None:
    """Neither the settings nor the printed sections hold a secret, and a program gets it as it is."""
    config = load_text(
        "[XMPP]\npwd = hunter2\n[SQL]\nuri = mysql://t:hunter2@db/tashi\npassword = hunter2\n"
        "[LdapOverride]\nldapCommand = ldapsearch -h l -w hunter2 -b dc=x uid=*\n"
        "[DhcpDns]\ndhcpSecretKey = hunter2\ndnsSecretKey = hunter2\n"
    )
    assert config.xmpp.pwd == "hunter2"
    assert "hunter2" not in repr(config)
    shown = {(section, key): value for section, key, value, _ in config.settings()}
    assert "hunter2" not in repr(shown)
    assert shown["SQL", "uri"] == "mysql://t:******@db/tashi"
    assert shown["LdapOverride", "ldapCommand"] == "ldapsearch -x -H ldap://l -b dc=x -s sub -w ****** '(uid=*)'"
    assert (shown["XMPP", "pwd"], shown["XMPP", "jid"]) == ("******", "")


def test_settings_name_every_key_once(load_text: Loader) -> None:
    """Every setting in effect is listed once with its source."""
    config = load_text("[Servers]\n7 = 1\n", mode=0o644)
    settings = list(config.settings())
    keys = [(section, key) for section, key, _, _ in settings]
    assert len(set(keys)) == len(keys) > 90
    assert ("Servers", "7", "1", config.source("Servers", "7")) in settings


def test_a_secret_others_may_read_stops_who_uses_it(load_text: Loader, tmp_path: Path) -> None:
    """The control plane refuses an exposed secret that it uses, warns of others; node and client do not care, the check warns."""
    used = "[XMPP]\nenabled = True\njid = a@b\npwd = x\n"
    assert refusal(load_text, used, mode=0o640) == (
        f"{tmp_path}/Tashi.cfg:4: [XMPP] pwd: others may read this secret: chmod 600 {tmp_path}/Tashi.cfg"
    )
    assert len(load_text(used.replace("True", "False"), mode=0o644).warnings) == 1
    assert load_text(used, mode=0o644, programs=("Client",)).warnings == ()
    assert load_text(used, mode=0o644, programs=("NodeManager",)).warnings == ()
    everything = ("ClusterManager", "Agent", "NodeManager", "Client")
    assert len(load_text(used, mode=0o644, programs=everything).warnings) == 1
    assert load_text(used, mode=0o600).warnings == ()


def test_whose_files_are_believed(load_text: Loader, tmp_path: Path) -> None:
    """A file of a stranger, one that strangers may write, or one that is no file is refused."""
    assert "chmod go-w" in refusal(load_text, "", mode=0o666)
    file = tmp_path / "plain"
    file.touch(0o664)
    status = file.stat()
    me, mine = status.st_uid, status.st_gid
    assert why_refused(status, me, mine) == ""
    file.chmod(0o664)
    stranger = os.stat_result((0o100664, 0, 0, 1, me, 77777, 0, 0, 0, 0))
    assert "can be written by others" in why_refused(stranger, me, mine)
    assert "belongs to user 77777" in why_refused(os.stat_result((0o100600, 0, 0, 1, 77777, 0, 0, 0, 0, 0)), 1000, 1000)
    assert why_refused(os.stat_result((0o100664, 0, 0, 1, 0, 0, 0, 0, 0, 0)), 1000, 1000) == ""
    assert "ordinary file" in why_refused(tmp_path.stat(), me, mine)


def test_a_pipe_or_directory_in_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    """Nothing waits for a pipe's other end."""
    os.mkfifo(tmp_path / "Tashi.cfg")
    (tmp_path / "Client.cfg").mkdir()
    with pytest.raises(ConfigError) as caught:
        load(("Client",), {}, [tmp_path])
    assert caught.value.message.count("is not an ordinary file") == 2


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    """A file in another encoding is named."""
    (tmp_path / "Tashi.cfg").write_bytes(b"[XMPP]\npwd = \xff\n")
    with pytest.raises(ConfigError, match=r"Tashi\.cfg: is not UTF-8 text"):
        load(("Client",), {}, [tmp_path])


def test_what_is_named_and_missing_is_told(load_text: Loader, tmp_path: Path) -> None:
    """Files, hook sections and hosts that are not there are told with their source, and loading goes on."""
    config = load_text(
        f"[XMPP]\ncaFile = {tmp_path}/no.pem\n[Scheduler]\nhook1 = DhcpDns\n[Client]\nclusterManagerHost = nowhere\n"
        f"[Vfs]\nprefix = {tmp_path}\n"
    )
    assert missing(config, resolves=lambda host: host != "nowhere") == (
        f"{tmp_path}/Tashi.cfg:2: [XMPP] caFile: {tmp_path}/no.pem is not there: create it or correct the path",
        f"{tmp_path}/Tashi.cfg:4: [Scheduler] hook1: section [DhcpDns] is not there: add it or remove the hook",
        f"{tmp_path}/Tashi.cfg:6: [Client] clusterManagerHost: host nowhere has no address now: correct the name,"
        " or add it to DNS or /etc/hosts",
    )


def test_the_samples_load(tmp_path: Path) -> None:
    """The samples in conf/samples are right in every word."""
    for name in ("Tashi.cfg", "ClusterManager.cfg"):
        (tmp_path / name).write_text((ROOT / "conf" / "samples" / name).read_text())
        (tmp_path / name).chmod(0o600)
    config = load(CONTROL_PLANE, {}, [tmp_path])
    assert config.warnings == ()
    assert (config.xmpp.enabled, config.xmpp.server) == (True, "xmpp.example.org:5222")


@settings(max_examples=50)
@given(st.text())
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    """No text makes the reader fail in any other way than a refusal."""
    try:
        parse("x.cfg", "[XMPP]\n" + text)
    except Refused as error:
        assert str(error).startswith("x.cfg:")


@settings(max_examples=50)
@given(st.text(alphabet="abc -xwhHbDZspzy'\"\\=*()/:,1"))
def test_any_ldap_command_is_read_or_refused_in_words(text: str) -> None:
    """A command line is understood or a ValueError says why not, and what is shown reads back as the same."""
    try:
        search = LdapSearch.parse("ldapsearch " + text)
    except ValueError as error:
        assert str(error)
    else:
        if not search.password:
            assert LdapSearch.parse(search.shown()) == search
