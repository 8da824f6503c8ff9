"""Bad commands, against a running cell: one refusal that names the fault; nothing changed, the cell alive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.conversation import Conversation, create, say

BOTH_ACCOUNTS = ("ism", "alice")
A_CATEGORY = "http://provider.com/category#"


def with_categories(*categories: Any, links: Any = None) -> str:
    body = {"hostname": "bad", "imageIdentifier": "tashi", "userId": 1000}
    return "createcompute " + json.dumps([body, list(categories), links])


def a_category(meaning: str, term: object) -> dict[str, Any]:
    return {"scheme": A_CATEGORY + meaning, "term": term}


def raw(fields: str) -> str:
    """A createcompute whose fields are JSON text as it stands."""
    return 'createcompute {"hostname":"bad","imageIdentifier":"tashi","userId":1000,' + fields + "}"


GOOD = create().partition(" ")[2]

SYNTAX = {
    "nothing": "createcompute",
    "no json": "createcompute hello",
    "half an object": "createcompute {",
    "half a list": f"createcompute [{GOOD}",
    "no value": 'createcompute {"hostname":}',
    "python": "createcompute {'hostname': 'bad'}",
    "a string": 'createcompute "bad"',
    "a number": "createcompute 7",
    "null": "createcompute null",
    "an empty list": "createcompute []",
    "four in a list": f"createcompute [{GOOD},[],[],[]]",
    "NaN": raw('"cpu_speed":NaN'),
    "Infinity": raw('"cpu_speed":Infinity'),
    "minus Infinity": raw('"memory_size":-Infinity'),
    "1e999": raw('"cpu_speed":1e999'),
    "very many digits": raw('"memory_size":' + "9" * 190_000),
    "very many places": raw('"cpu_speed":1.' + "9" * 190_000),
    "digits in what is ignored": raw('"id":' + "9" * 5000),
    "a deep list": "createcompute " + "[" * 100_000,
    "a deep list that ends": "createcompute " + "[" * 90_000 + "]" * 90_000,
    "a deep object": "createcompute " + '{"a":' * 30_000,
    "a key twice": raw('"userId":1001'),
    "a key twice, deep": raw('"hints":{"a":"1","a":"2"}'),
    "a key twice, where ignored": raw('"status":{"id":1,"id":2}'),
    "trailing data": f"createcompute {GOOD} x",
    "two arrays": f"createcompute [{GOOD}][{GOOD}]",
    "two objects": f"createcompute {GOOD}\n{GOOD}",
    "a comment": f"createcompute {GOOD} // x",
    "unicode digits": raw('"memory_size":١٢٨'),
    "a control character": 'createcompute {"hostname":"a\tb"}',
    "many: nothing": "createmanycompute",
    "many: an object": f"createmanycompute {GOOD}",
    "many: an empty list": "createmanycompute []",
    "delete: nothing": "deletecompute",
    "delete: two words": 'deletecompute "a" "b"',
    "delete: half a string": 'deletecompute "a',
    "delete: a leading zero": "deletecompute 010",
    "list: no json": "listcompute after",
    "too long": "createcompute " + " " * 200 * 1024,
    "too long in bytes": "createcompute " + "é" * 110_000,
}
FORGED_HOSTNAMES = {
    "markup": "<b>x</b>", "xml": "x'/><qemu:commandline>", "newline": "a\nb", "last newline": "a\n", "NUL": "a\0b", "escape": "a\x1b[31m",
    "64 characters": "a" * 64, "very long": "a" * 100_000, "a path": "../a", "empty": "", "a space": "a b", "first a dash": "-rf",
    "first a dot": ".a", "letters of others": "hôte", "unicode digits": "vm١", "fullwidth": "ａ", "shell": "a;reboot",
    "sql": "a' OR 1=1 --", "digits alone": "1001",
    "a surrogate": "\ud800", "right to left": "a\u202eb", "cdata": "<![CDATA[a]]>", "a number": 7, "a list": ["a"], "an object": {"a": 1},
    "true": True, "null": None,
}  # fmt: skip
PATHS = (
    "../x", "..", ".", "/", "/dev/sda", "/etc/passwd", "images/../../x", "a/b", "~/x", "~root", "tashi.img/", "./tashi", "..\\x", "C:\\x",
    'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}', "nbd:localhost:10809", "nbd://localhost/x", "rbd:pool/x",
    "http://localhost/x.img", "https://localhost/x", "ftp://localhost/x", "file:///etc/passwd", "file:x", "fat:/etc", "ssh://root@localhost/x",
    "blkdebug::tashi", "vhdx:x", "-oProxyCommand=x", "--version", "tashi\0.img", "tashi\n", "\0", "", " tashi", "tashi,readonly=off",
    "${IFS}",     "x" * 129, "x" * 150_000, "tâshi", "%2e%2e/x", "tashi:raw", 7, True, None, ["tashi"], {"uri": "tashi"},
)  # fmt: skip
NO_IMAGES = ("nothing", "trap", "trap.img", "folder", "folder.img", "tashi.img.old", "TASHI", "tashi.img.img", "con")
FIELDS = {
    "userId": (None, "1000", 1000.0, 1e3, True, [1000], -1, -1000, 10**30),
    "cpu_cores": (0, -1, "2", 1.5, 1.0, True, [1], {}, 2**63, 10**31),
    "memory_size": (0, -1, "512", "512MB", 128.0, 0.5, True, 2**31 + 1, 2**64, []),
    "cpu_speed": (0, -1, "fast", True, [], 1e9, 10**20, 1e-9, -0.0),
    "cpu_share": (0, 1, 262_145, "1024", 2.5, True),
    "disk_weight": (0, 99, 1001, "500", True),
    "net_down": (0, -1, "1000", 1.5, 2**31, True),
    "net_up": (0, -5, "fast", {}),
    "resourceId": ("", "x" * 129, "a\nb", "a\0b", "\x7f", 7, ["x"], "a\u2028b", "a\u200bb"),
    "persistent": ("yes", 1, 0, "true", []),
    "notificationUri": ("", "nobody", "mallory@elsewhere.test", "ism@cell.test/x", "<a@b>", 7, "a@b\n", "x" * 5000 + "@y", ["x@y"]),
    "hints": ([], "location=ie", 7, {"a": 1}, {"a": "b\n"}, {"": "x"}, {"__secret": "x"}, {"a\n": "x"}, {"a": "x" * 256},
              {"k" * 65: "x"}, {str(number): "x" for number in range(65)}, {"a": None}),
}  # fmt: skip
CATEGORIES = {
    "not a list": with_categories()[:-len("[], null]")] + '{"scheme":"x"}]',
    "a number": with_categories(7),
    "a string": with_categories("gold"),
    "no term": with_categories({"scheme": A_CATEGORY + "sla"}),
    "no scheme": with_categories({"term": "gold"}),
    "term a number": with_categories(a_category("sla", 1)),
    "term too long": with_categories(a_category("sla", "g" * 256)),
    "two classes": with_categories(a_category("sla", "gold"), a_category("sla", "silver")),
    "two locations": with_categories(a_category("locations", "ie"), a_category("locations", "de")),
}  # fmt: skip
REFERENCES = (
    "10.0", "1e1", "1.5", "true", "null",
    "10; drop", "10 OR 1=1", "10, 11", "١٠", "１０", "-1", "-10", "0", "+1", str(2**63), str(2**70), "9" * 30, "../../etc",
    "*", "%", "{}", '{"id":1}', "[1]", '""', '"a\\nb"', '"a\\u0000b"', f'"{"x" * 129}"', "a" * 200, "vm\nvm", "<x/>", "'vm'",
)  # fmt: skip
UNKNOWN_IDS = (
    "1000000", "vm-that-never-was", '"vm-that-never-was"', '"*"', '"%"', '"_"', '"\' OR 1=1 --"', '"x\'; DROP TABLE history; --"', "0x1",
)  # fmt: skip


def table() -> Iterator[Any]:
    """(sender, body, code, a word of the message) with a name for each."""

    def row(name: str, body: str, code: str, word: str = "", account: str = "ism") -> Any:
        return pytest.param(account, body, code, word, id=name)

    yield from (row(f"syntax, {name}", body, "bad-syntax") for name, body in SYNTAX.items())
    yield from (row(f"hostname, {name}", create(hostname=value), "bad-argument", "hostname") for name, value in FORGED_HOSTNAMES.items())
    yield from (row(f"image path {path!s:.20}", create(imageIdentifier=path), "bad-argument", "imageIdentifier") for path in PATHS)
    yield from (row(f"no image {name}", create(imageIdentifier=name), "unknown-image", name) for name in NO_IMAGES)
    for field, values in FIELDS.items():
        yield from (row(f"{field} {value!s:.20}", create(**{field: value}), "bad-argument", field) for value in values)
    yield from (row(f"category, {name}", body, "bad-argument", "Categor") for name, body in CATEGORIES.items())
    for term, code in (("../x", "bad-argument"), ("nbd:x", "bad-argument"), ("beos", "unknown-image")):
        body = with_categories(a_category("templates", term)).replace('"imageIdentifier": "tashi", ', "")
        yield row(f"template {term}", body, code, term)
    yield row("unknown sla", with_categories(a_category("sla", "platinum")), "unknown-sla", "platinum")
    yield row("unknown kind", with_categories({"scheme": "http://purl.org/occi/kind#", "term": "storage"}), "unsupported-kind", "storage")
    yield row("a link", with_categories(links=[{"target": "x"}]), "unsupported-link")
    yield row("a link within", create(links=["x"]), "unsupported-link")
    yield row("unknown user", create(userId=4242), "unknown-user", "4242")
    yield row("largest user", create(userId=2**32 - 1), "unknown-user")
    yield row("somebody else", create(userId=1001), "forbidden", "1001", "alice")
    yield row("root", create(userId=0), "forbidden", "", "alice")
    yield row("nobody", create(userId=4242), "forbidden", "", "alice")
    yield row("somebody else's VM", "deletecompute bobs", "forbidden", "1001", "alice")
    yield row("somebody else's VM by id", "deletecompute 1", "forbidden", "", "alice")
    yield row("somebody else's VM by key", 'deletecompute "key-bobs"', "unknown-id", "", "alice")
    for account in BOTH_ACCOUNTS:
        body = 'sethostconfig {"hostId":1,"elemName":"location","value":"de"}'
        yield row(f"sethostconfig of {account}", body, "forbidden", "admin", account)
    for verb in ("deletecompute", "getcompute", "explain"):
        for reference in REFERENCES:
            yield row(f"{verb} {reference:.20}", f"{verb} {reference}", "")
        yield from (row(f"{verb} {reference}", f"{verb} {reference}", "unknown-id") for reference in UNKNOWN_IDS)
    for argument in ('{"after":-1}', '{"after":"1"}', '{"after":1.5}', '{"before":1}', "[]", "7", '{"after":1,"x":2}'):
        yield row(f"listcompute {argument}", f"listcompute {argument}", "bad-argument")
    for argument in ('{"hostId":1}', '{"hostId":true,"elemName":"a","value":"b"}', '{"hostId":1,"elemName":"a b","value":"c"}',
                     '{"hostId":1,"elemName":"a","value":7}', '{"hostId":1,"elemName":"a","value":"b\\n"}', "[]"):  # fmt: skip
        yield row(f"sethostconfig {argument}", f"sethostconfig {argument}", "bad-argument", "", "admin")
    yield row("sethostconfig of no host", 'sethostconfig {"hostId":99,"elemName":"a","value":"b"}', "unknown-id", "99", "admin")
    for verb in ("frobnicate", "create", "createcompute2", "<b>", "__class__", "x" * 100_000, "крeate", "update", "/me", "eval"):
        yield row(f"verb {verb:.20}", f"{verb} {GOOD}", "unknown-verb")
    for fields in ('"cpu_share":1', '"memory_size":0', '"disk_weight":99', '"net_up":true', '"cpu_speed":-1', '"restart":"yes"'):
        yield row(f"updatecompute {fields}", f'updatecompute {{"resourceId":"key-bobs",{fields}}}', "bad-argument", fields.split('"')[1])
    yield row("updatecompute of nothing", 'updatecompute {"cpu_share":512}', "bad-argument", "resourceId")
    yield row("updatecompute of nobody", 'updatecompute {"resourceId":"nobody","cpu_share":512}', "unknown-id", "nobody")
    yield row("updatecompute of cores", 'updatecompute {"resourceId":"key-bobs","cpu_cores":2}', "not-supported-live", "cpu_cores")
    yield row("updatecompute of too much", 'updatecompute {"resourceId":"key-bobs","memory_size":4096}', "not-supported-live", "4096")
    yield row("more cores than any host", create(cpu_cores=1025), "no-suitable-host", "node1: ")
    yield row("absurdly many cores", create(cpu_cores=10_000_000), "no-suitable-host", "node1: ")
    yield row("more memory than any host", create(memory_size=2**31), "no-suitable-host", "node1: ")
    yield row("more speed than any host", create(cpu_speed=900_000, cpu_cores=1000), "no-suitable-host", "node1: ")
    yield row("a place there is not", with_categories(a_category("locations", "mars")), "no-suitable-host", "mars")
    yield row("a host there is not", create(hints={"targetHost": "node9"}), "no-suitable-host", "node9")
    many = "createmanycompute " + json.dumps([json.loads(GOOD), json.loads(create(hostname="b2", cpu_cores=1025).partition(" ")[2])])
    yield row("many, one impossible", many, "no-suitable-host", "b2")
    yield row("many, one wrong", f'createmanycompute [{GOOD},{{"hostname":"x"}}]', "bad-argument", "[1]")
    yield row("many, the same name", f"createmanycompute [{GOOD},{GOOD}]", "duplicate-hostname", "bad")
    yield row("a name that is taken", create(hostname="bobs"), "duplicate-hostname", "bobs")


@pytest.mark.parametrize(("account", "body", "code", "word"), list(table()))
def test_a_bad_command_is_refused_once(conversation: Conversation, account: str, body: str, code: str, word: str) -> None:
    """One ERROR with the code and the field in words, short and in one line; no VM more or less; the cell alive."""
    reply = conversation.after(account, lambda peer: say(peer, conversation.sink, body), True)
    assert reply is not None and reply["status"] == "ERROR"
    assert reply["code"] == code if code else reply["code"] in ("bad-argument", "bad-syntax")
    assert word in reply["message"]
    assert 10 < len(reply["message"]) < 600 and reply["message"].isprintable() and "Traceback" not in reply["message"]
    assert reply["timestamp"].endswith("Z") and len(reply["verb"]) <= 64
