"""Files written for the original and for its SLA extension load as they stand and take effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tashi.config import Config, LdapSearch, load
from tashi.config.ldap import Secret
from tashi.config.legacy import part_named
from tashi.config.values import AddressRange

DATA = Path(__file__).parent / "data" / "config"
EVERYTHING = ("ClusterManager", "Agent", "NodeManager", "Client")


def load_as(directory: Path, programs: tuple[str, ...] = EVERYTHING, **files: str) -> Config:
    for program, name in files.items():
        path = directory / f"{program}.cfg"
        path.write_text((DATA / name).read_text())
        path.chmod(0o600)
    return load(programs, {"HOME": str(directory)}, [directory])


@pytest.mark.parametrize("programs", [EVERYTHING, ("ClusterManager", "Agent"), ("NodeManager",), ("Client",)])
def test_the_sla_extensions_sample_takes_effect(tmp_path: Path, programs: tuple[str, ...]) -> None:
    """Users, XMPP, scheduler and servers are as the sample says; the one warning is of the empty jid."""
    config = load_as(tmp_path, programs, Tashi="sla_extension.cfg")
    ldap = config.ldap_override
    assert (ldap.base_data, ldap.fetch_threshold, ldap.name_key, ldap.id_key, ldap.priority_key) == (
        "SQL", 3600.0, "uid", "uidNumber", "gidNumber",
    )  # fmt: skip
    assert ldap.ldap_command == LdapSearch(host="localhost", base="dc=xlab,dc=si")
    assert (config.xmpp.enabled, config.xmpp.jid, config.xmpp.recipient) == (False, "", ())
    scheduler = config.scheduler
    assert (scheduler.scheduler, dict(scheduler.hooks), scheduler.schedule_delay) == ("Consolidated", {"1": "DhcpDns"}, 2.0)
    assert (scheduler.auto_migrations, scheduler.auto_powering, scheduler.reschedule_after_start) == (True, True, False)
    assert (scheduler.cpu_cores_over_rate, scheduler.cpu_speed_over_rate, scheduler.optimal_consolidation) == (1.0, 2.0, False)
    assert (scheduler.guaranteed_servers, scheduler.minimal_vm_memory) == (3, 64)
    assert scheduler.load_expression == "memUsage + coresUsage * 512 + cpuUsage"
    assert config.servers.priorities == {1: 3, 2: 2, 3: 1, 4: 4}
    assert [warning.split(": ", 1)[1] for warning in config.warnings] == [
        "[XMPP] enabled: XMPP stays off, since jid is empty: set jid and pwd"
    ]


@pytest.mark.parametrize("programs", [EVERYTHING, ("ClusterManager", "Agent")])
def test_the_clusters_sample_takes_effect(tmp_path: Path, programs: tuple[str, ...]) -> None:
    """LDAP, times, hosts, the share, dense packing, DHCP and DNS are as the sample says; what has no successor is told."""
    config = load_as(tmp_path, programs, Tashi="on_a_cluster.cfg", Agent="on_a_cluster_agent.cfg")
    assert config.cluster_manager.data == "LdapOverride"
    assert (config.cluster_manager_service.allow_decayed, config.cluster_manager_service.allow_mismatched_versions) == (60.0, True)
    assert config.ldap_override.ldap_command == LdapSearch(
        host="1.2.3.4",
        base="ou=ABC,dc=abcd,dc=abcd,dc=abc",
        bind_dn="cn=abcd,cn=Abcde,dc=abcd,dc=abcd,dc=abc",
        password=Secret("AbCdef1G"),
        filter="(msSFU30LoginShell=*)",
    )
    assert config.client.cluster_manager_host == config.node_manager_service.cluster_manager_host == "merkabah"
    assert config.share_dir == Path("/mnt/merkabah/tashi")
    assert (config.node_manager_service.stats_interval, config.node_manager_service.call_timeout) == (15.0, 3600.0)
    assert config.qemu.migrate_timeout == 3600.0
    assert config.scheduler.dense_pack
    dns = config.dhcp_dns
    assert dns.dns_key_file == "/root/cluster-admin/scripts/Kmerkabah.+157+36480.private"
    assert (dns.dns_server, dns.dns_domain, dns.dns_expire) == ("172.16.0.5 53", "bigdata.research.intel-research.net", 60)
    assert (dns.dhcp_server, dns.dhcp_key_name, str(dns.dhcp_secret_key)) == ("172.16.0.5", "merkabah", "ABcdEf12GhIJKLmnOpQrsT==")
    assert dns.reverse_dns
    assert dns.ip_ranges == {
        999: AddressRange("172.16.192.1", "172.16.255.254"),
        1001: AddressRange("172.16.1.10", "172.16.1.19"),
    }
    assert [warning.split(": ")[1] for warning in config.warnings] == ["[Qemu] useMigrateArgument", "[handlers]"]


def test_the_originals_own_defaults_load(tmp_path: Path) -> None:
    """Every section and key of the original is known; what has no successor is told once, each time with what to do."""
    config = load_as(tmp_path, TashiDefaults="original.cfg")
    assert config.cluster_manager_service.host == "localhost"
    assert (config.cluster_manager_service.max_memory, config.cluster_manager_service.max_cores) == (8192, 8)
    assert (config.cluster_manager.data, config.node_manager.vmm, config.node_manager.dfs) == ("SQL", "Libvirt", "Vfs")
    assert config.sql.uri == "mysql://root@clustermanager/tashi"
    assert not [warning for warning in config.warnings if "no such" in warning]
    assert len([warning for warning in config.warnings if "GangliaPublisher" in warning or "publisher:" in warning]) == 2
    assert all(": " in warning and any(word in warning for word in ("remove", "register", "set ", "leave")) for warning in config.warnings)


def test_old_and_new_names_of_an_option_are_one(tmp_path: Path) -> None:
    """Of two names of one option the later line counts."""
    (tmp_path / "TashiDefaults.cfg").write_text("[Scheduler]\ndensePack = False\ncpuSpeedOverRate = 1\n")
    (tmp_path / "Tashi.cfg").write_text("[Primitive]\ndensePack = True\nhook1 = DhcpDns\n[Scheduler]\ncpuSpeedOvercommit = 2\n")
    config = load(("ClusterManager", "Agent"), {}, [tmp_path])
    assert config.scheduler.dense_pack
    assert config.scheduler.cpu_speed_over_rate == 2
    assert config.scheduler.hooks == {"1": "DhcpDns"}
    assert config.source("Scheduler", "densePack") == f"{tmp_path}/Tashi.cfg:2"
    assert config.source("Scheduler", "hook1") == f"{tmp_path}/Tashi.cfg:3"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tashi.scheduler.PrimitiveScheduler", "Primitive"),
        ("tashi.scheduler.BalancedScheduler", "Balanced"),
        ("consolidated", "Consolidated"),
        ("tashi.clustermanager.data.Pickled", "SQL"),
        ("tashi.agents.DhcpDns", "DhcpDns"),
        ("tashi.nodemanager.vmcontrol.Qemu", "Libvirt"),
        ("their.own.Scheduler", "their.own.Scheduler"),
    ],
)
def test_dotted_names_name_todays_parts(old: str, new: str) -> None:
    """An old dotted name stands for today's part without a word, and a stranger's name for a plug-in."""
    assert (part_named(old).name, part_named(old).advice) == (new, "")


def test_a_part_without_successor_leaves_the_default(tmp_path: Path) -> None:
    """A hook that is gone is left out, with advice."""
    (tmp_path / "Tashi.cfg").write_text("[Scheduler]\nhook1 = tashi.agents.MauiWiki\n")
    config = load(("ClusterManager",), {}, [tmp_path])
    assert config.scheduler.hooks == {}
    assert "the Maui interface is gone" in config.warnings[0]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ldapsearch -H ldaps://dir.example.org:1636 -b 'ou=A B,dc=x'", {"host": "dir.example.org", "port": 1636, "security": "ldaps",
                                                                        "base": "ou=A B,dc=x"}),
        ("/usr/bin/ldapsearch -LLL -ZZ -h d -p 1389 -s one -y /etc/pw (uid=*) cn uid", {"host": "d", "port": 1389, "security": "starttls",
                                                                                    "scope": "one", "password_file": "/etc/pw",
                                                                                    "filter": "(uid=*)"}),
    ],
)  # fmt: skip
def test_ldapsearch_is_read(command: str, expected: dict[str, object]) -> None:
    """Host, port, security, base, scope, password file and filter are found wherever they stand."""
    search = LdapSearch.parse(command)
    assert {name: getattr(search, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("rm -rf /", "expected an ldapsearch command"),
        ("ldapsearch -b 'x", "quotation mark"),
        ("ldapsearch -W -b x", "-W needs"),
        ("ldapsearch -Y GSSAPI", "-Y needs"),
        ("ldapsearch -H ldapi:///", "expected -H ldap://"),
        ("ldapsearch -p x", "expected -p"),
        ("ldapsearch -H ''", "expected -H ldap://"),
        ("ldapsearch -b", "-b, or its argument is missing"),
    ],
)
def test_what_cannot_be_read_from_ldapsearch_is_refused(command: str, words: str) -> None:
    """A command that cannot be obeyed is refused in words."""
    with pytest.raises(ValueError, match=words):
        LdapSearch.parse(command)
