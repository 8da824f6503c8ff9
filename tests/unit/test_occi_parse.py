"""The argument of each verb: what the sample message means, and that whatever is wrong is told by name and changes nothing."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occi.categories import Vocabulary
from occi.parse import Creation, digest, parse_create, parse_create_many, parse_host_setting, parse_list, parse_reference, parse_update
from tashi.errors import BAD_ARGUMENT, BAD_SYNTAX, CODES, CONFLICT, DUPLICATE_HOSTNAME, UNSUPPORTED_KIND, UNSUPPORTED_LINK, YourMistake
from tashi.model.instance import Disk, InstanceSpec, InstanceUpdate, Resources
from tashi.xmpp.grammar import parse_body

SAMPLE = (
    'createcompute [{"class":"eu.slasoi.infrastructure.model.infrastructure.Compute","id":1,"cpu_speed":null,"boot_'
    'vol_type":null,"status":{"class":"Status","id":2},"provisionRequest":{"class":"ProvisionRequest","id":1},"imag'
    'eIdentifier":"tashi","userId":1000,"memory_size":512,"hostname":"tizzy@NUMBER@","provisioningSystemId":null,"links":n'
    'ull,"type":"occi_compute","memory_reliability":null,"memory_speed":null,"resourceId":"a626bbb4-6c92-4f0e-a117-'
    'ae11ec502a6e@NUMBER@","cpu_cores":1,"categories":[{"class":"Category","id":9},{"class":"Category","id":8},{"class":"C'
    'ategory","id":1},{"class":"Category","id":11},{"class":"Category","id":13}],"cpu_arch":null},[{"class":"eu.sla'
    'soi.infrastructure.model.Category","id":null,"scheme":"http://purl.org/occi/kind#","term":"compute","label":"C'
    'ompute Resource"},{"class":"eu.slasoi.infrastructure.model.Category","id":13,"scheme":"http://provider.com/cat'
    'egory#templates","term":"ubuntu-9.10","label":"Ubuntu Linux 9.10"},{"class":"eu.slasoi.infrastructure.model.Ca'
    'tegory","id":null,"scheme":"http://provider.com/category#sla","term":"gold","label":"SLA@SOI Gold SLA"},{"clas'
    's":"eu.slasoi.infrastructure.model.Category","id":null,"scheme":"http://provider.com/category#locations","term'
    '":"ie","label":"Ireland"}],[]]'
)
"""The message of the original's script, byte for byte; it put the loop's number where @NUMBER@ stands."""

WORDS = Vocabulary(templates={"ubuntu-9.10": "ubuntu.img"})
LEAST = {"hostname": "vm1", "imageIdentifier": "tashi", "userId": 1000}


def create(compute: object = None, categories: object = (), **fields: object) -> InstanceSpec:
    """The specification of a Compute with these fields, and these (scheme, term) categories."""
    value = [{**LEAST, **fields} if compute is None else compute, [{"scheme": scheme, "term": term} for scheme, term in categories]]
    return parse_create(json.dumps(value), WORDS, lambda jid: jid == "ism@example.org").specs[0]


def refusal(text: str) -> YourMistake:
    """What createcompute says of this argument."""
    with pytest.raises(YourMistake) as caught:
        parse_create(text, WORDS)
    assert caught.value.code in CODES
    return caught.value


def refused(**fields: object) -> YourMistake:
    """What createcompute says of a Compute with these fields."""
    return refusal(json.dumps({**LEAST, **fields}))


def test_sample() -> None:
    """The original's own message means a machine of 512 MB for user 1000, in Ireland, under the gold agreement."""
    verb, argument = parse_body(SAMPLE.replace("@NUMBER@", "7"))
    creation = parse_create(argument, WORDS)
    assert verb == "createcompute"
    assert creation.unknown == ()
    assert creation.specs == (
        InstanceSpec(
            name="tizzy7",
            user_id=1000,
            disks=(Disk(uri="tashi"),),
            cores=1,
            memory=512,
            hints={"location": "ie"},
            sla="gold",
            resource_id="a626bbb4-6c92-4f0e-a117-ae11ec502a6e7",
        ),
    )


def test_shorter_forms() -> None:
    """A bare Compute, and lists without links or categories, mean the same as the whole triple."""
    least = json.dumps(LEAST)
    forms = [least, f"[{least}]", f"[{least},[]]", f"[{least},[],[]]", f"[{least},null,null]"]
    assert len({parse_create(form, WORDS).content for form in forms}) == 1


def test_defaults() -> None:
    """What is absent or null has its default."""
    spec = create(cpu_cores=None, memory_size=None, cpu_speed=None, hints=None, resourceId=None, links=None, persistent=None)
    assert spec == InstanceSpec(name="vm1", user_id=1000, disks=(Disk(uri="tashi"),))


def test_every_field() -> None:
    """Each field arrives where it belongs."""
    spec = create(
        cpu_cores=2, memory_size=1024, cpu_speed=2.3, cpu_share=2048, disk_weight=500, net_down=1000, net_up=500, persistent=True,
        notificationUri="ISM@example.org", hints={"targetHost": "node3"}, resourceId="r 1",
    )  # fmt: skip
    assert spec == InstanceSpec(
        name="vm1", user_id=1000, disks=(Disk(uri="tashi", persistent=True),), cores=2, memory=1024, cpu_speed=2300, cpu_share=2048,
        disk_weight=500, net_down=1000, net_up=500, notification_uri="ism@example.org", hints={"targetHost": "node3"}, resource_id="r 1",
    )  # fmt: skip


@pytest.mark.parametrize(("said", "megahertz"), [(2.3, 2300), (99, 99_000), (100, 100), (2300, 2300), (0.001, 1), (2266.7, 2267)])
def test_cpu_speed(said: float, megahertz: int) -> None:
    """A speed below 100 is GHz, from there on MHz."""
    assert create(cpu_speed=said).cpu_speed == megahertz


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("hostname", name) for name in ("", "-a", "a b", "a/b", "a\n", "a\x00", "ä", "a" * 64, "<b/>", "a'/>", 7, ["a"], True)],
        *[("imageIdentifier", name) for name in ("../x", "/dev/sda", "json:{}", "nbd:h:1", ".x", "a\x00", "", "a..b", "x" * 129, 7, {})],
        *[("userId", value) for value in ("1000", 1000.0, True, -1, 2**32, [])],
        *[("cpu_cores", value) for value in (0, -1, 1.0, "1", True, 2**40)],
        *[("memory_size", value) for value in (0, -5, 512.0, "512", False, 2**31 + 1)],
        *[("cpu_speed", value) for value in (0, -1, "2", True, 1e9, 0.0001, [2])],
        *[("resourceId", value) for value in ("", "x" * 129, "a\nb", 7, "\ud800", {})],
        *[("cpu_share", value) for value in (1, 262_145, 5.0)],
        *[("disk_weight", value) for value in (99, 1001)],
        *[("net_down", value) for value in (0, -1, "1000")],
        *[("net_up", value) for value in (0, 2**31)],
        *[(field, value) for field in ("disk_iops", "disk_bytes") for value in (0, -1, "1", 1.5, 10**15 + 1)],
        *[("persistent", value) for value in ("true", 1)],
        *[("notificationUri", value) for value in ("x@example.org", "ism@example.org/r", "example.org", 7, "a@b@c")],
        *[("hints", value) for value in ("x", [], {"a": 1}, {"": "x"}, {"__reserved": "x"}, {"a": "b\nc"}, {"a": "x" * 256})],
        ("hints", {str(number): "x" for number in range(65)}),
    ],
)
def test_wrong_fields(field: str, value: object) -> None:
    """A wrong value is a bad argument, and the words name the field."""
    mistake = refused(**{field: value})
    assert (mistake.code, field in mistake.message) == (BAD_ARGUMENT, True)
    assert mistake.message.isprintable() and len(mistake.message) < 300


@pytest.mark.parametrize("field", ["hostname", "userId", "imageIdentifier"])
def test_missing_fields(field: str) -> None:
    """What is needed and missing is named."""
    mistake = refused(**{field: None})
    assert (mistake.code, mistake.message.startswith(f"{field} is missing")) == (BAD_ARGUMENT, True)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[1", "}{", "{'hostname': 'x'}", "[] []", '{"hostname":"a"} x', "NaN", '{"memory_size": -Infinity}',
        '{"a": 1, "a": 2}', '{"memory_size": ' + "9" * 1_000_000 + "}", '{"cpu_speed": 1e999}', '{"cpu_speed": 1.' + "1" * 100_000 + "}",
        "[" * 100_000, '{"a":' * 20_000, "[]", "[1,2,3,4]", '"text"', "7", "null", '{"hints": {"a": "1", "a": "1"}}',
        "{" + ",".join(f'"{number}":1' for number in range(20_000)) + ',"0":1}',
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_broken_json(text: str) -> None:
    """What is not one strict JSON value of the right shape is bad syntax, at once and in few words."""
    mistake = refusal(text)
    assert (mistake.code, len(mistake.message) < 300) == (BAD_SYNTAX, True)


def test_compute_that_is_none() -> None:
    """The first part must be an object."""
    assert "Compute" in refusal("[7]").message
    assert "Compute" in refusal("[null, []]").message


def test_image_by_template() -> None:
    """Without imageIdentifier the templates category names the image; with it the category gives way."""
    templates = "http://provider.com/category#templates"
    assert create({"hostname": "a", "userId": 1}, [(templates, "ubuntu-9.10")]).disks == (Disk(uri="ubuntu.img"),)
    assert create({"hostname": "a", "userId": 1}, [(templates, "debian")]).disks == (Disk(uri="debian"),)
    assert create(categories=[(templates, "debian")]).disks == (Disk(uri="tashi"),)


def test_categories() -> None:
    """Location, auditability and isolation become hints; the SLA class is kept by name."""
    prefix = "http://provider.com/category#"
    spec = create(
        categories=[(prefix + "locations", "ie"), (prefix + "auditability", "yes"), (prefix + "isolation", "x"), (prefix + "sla", "gold")]
    )
    assert (spec.hints, spec.sla) == ({"auditability": "True", "isolation": "True", "location": "ie"}, "gold")
    assert create(categories=[(prefix + "isolation", "false")]).hints == {"isolation": "False"}


def test_other_prefixes() -> None:
    """The prefixes are a matter of configuration."""
    words = Vocabulary(prefixes=("urn:us#",), kinds=("urn:kind",))
    creation = parse_create(
        json.dumps([LEAST, [{"scheme": "urn:us#sla", "term": "gold"}, {"scheme": "urn:kind", "term": "compute"}]]), words
    )
    assert (creation.specs[0].sla, creation.unknown) == ("gold", ())


@pytest.mark.parametrize(
    ("categories", "code", "word"),
    [
        ([("http://purl.org/occi/kind#", "storage")], UNSUPPORTED_KIND, "storage"),
        ([("http://schemas.ogf.org/occi/infrastructure#", "network")], UNSUPPORTED_KIND, "network"),
        ([("http://provider.com/category#sla", "gold"), ("http://provider.com/category#sla", "silver")], BAD_ARGUMENT, "sla"),
        ([("http://provider.com/category#locations", "ie"), ("http://provider.com/category#locations", "de")], BAD_ARGUMENT, "locations"),
        ([("http://provider.com/category#sla", "")], BAD_ARGUMENT, "term"),
        ([("http://provider.com/category#sla", "a\nb")], BAD_ARGUMENT, "term"),
        ([(7, "gold")], BAD_ARGUMENT, "scheme"),
    ],
)
def test_wrong_categories(categories: list[tuple[str, str]], code: str, word: str) -> None:
    """Another kind, two terms for one thing, and what is no category, are refused by name."""
    with pytest.raises(YourMistake) as caught:
        create(categories=categories)
    assert (caught.value.code, word in caught.value.message) == (code, True)


def test_hint_against_category() -> None:
    """A hint and a category that disagree are refused; the same said twice is fine."""
    ireland = [("http://provider.com/category#locations", "ie")]
    assert create(categories=ireland, hints={"location": "ie"}).hints == {"location": "ie"}
    with pytest.raises(YourMistake, match=r"hints\.location"):
        create(categories=ireland, hints={"location": "de"})


def test_links() -> None:
    """Links are not supported, wherever they stand."""
    assert refusal(json.dumps([LEAST, [], [{"target": "x"}]])).code == UNSUPPORTED_LINK
    assert refused(links=["x"]).code == UNSUPPORTED_LINK


def test_unknown_words() -> None:
    """Unknown keys and schemes are ignored, and handed on to be logged."""
    value = [{**LEAST, "colour": "red", "class": "java.lang.Runtime"}, [{"scheme": "urn:other", "term": "x"}]]
    assert parse_create(json.dumps(value), WORDS).unknown == ("urn:other", "colour")


def test_digest() -> None:
    """What is ignored does not make a request another one; what matters does."""
    plain = parse_create(json.dumps(LEAST), WORDS).content
    assert parse_create(json.dumps({**LEAST, "id": 7, "status": {"id": 2}, "cpu_cores": 1, "colour": "red"}), WORDS).content == plain
    assert parse_create(json.dumps({**LEAST, "memory_size": 129}), WORDS).content != plain


def test_many() -> None:
    """createmanycompute takes bare Computes and triples side by side."""
    second = {**LEAST, "hostname": "vm2"}
    creation = parse_create_many(json.dumps([LEAST, [second, [{"scheme": "http://provider.com/category#sla", "term": "gold"}]]]), WORDS)
    assert [(spec.name, spec.sla) for spec in creation.specs] == [("vm1", None), ("vm2", "gold")]
    assert len(creation.content) == 2


@pytest.mark.parametrize(
    ("value", "code", "word"),
    [
        ([], BAD_SYNTAX, "at least one"),
        (LEAST, BAD_SYNTAX, "list"),
        ([LEAST, {**LEAST, "hostname": "b", "memory_size": 0}], BAD_ARGUMENT, "[1].memory_size"),
        ([LEAST, LEAST], DUPLICATE_HOSTNAME, "vm1"),
        ([{**LEAST, "resourceId": "r"}, {**LEAST, "hostname": "b", "resourceId": "r"}], CONFLICT, "resourceId"),
        ([LEAST, 7], BAD_SYNTAX, "[1]."),
    ],
)
def test_wrong_many(value: object, code: str, word: str) -> None:
    """One wrong Compute refuses them all, and the words say which."""
    with pytest.raises(YourMistake) as caught:
        parse_create_many(json.dumps(value), WORDS)
    assert (caught.value.code, word in caught.value.message) == (code, True)


@pytest.mark.parametrize(
    ("text", "reference"),
    [("10", 10), ('"10"', "10"), ('"a b"', "a b"), ("tizzy0", "tizzy0"), ("a626bbb4-6c92.x_1", "a626bbb4-6c92.x_1"), ('"10.5"', "10.5")],
)
def test_references(text: str, reference: int | str) -> None:
    """A JSON integer is an id; a JSON string or a bare word is a resourceId or hostname."""
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "-1", "+1", "010", "1.5", "10.0", "1e1", "true", "null", "10; drop", "10 11",
        "१०", "[10]", '{"id": 10}', '"', '""', "9" * 5000, "a/b", "*", "' or 1", '"a\\nb"',
    ],
)  # fmt: skip
def test_wrong_references(text: str) -> None:
    """Nothing else names an instance."""
    with pytest.raises(YourMistake):
        parse_reference(text)


def test_list() -> None:
    """A page begins after an id, or at the beginning."""
    assert [parse_list(text) for text in ("", "{}", '{"after": 12}', '{"after": null}')] == [0, 0, 12, 0]
    for text in ("12", "[]", '{"after": "12"}', '{"after": -1}', '{"before": 1}'):
        with pytest.raises(YourMistake):
            parse_list(text)


def test_host_setting() -> None:
    """A host is named by id or name, and both words are single lines."""
    setting = parse_host_setting('{"hostId": 2, "elemName": "location", "value": "ie"}')
    assert (setting.host, setting.name, setting.value) == (2, "location", "ie")
    assert parse_host_setting('{"hostId": "node1", "elemName": "a", "value": ""}').host == "node1"
    for text in ('{"hostId": 2}', '{"hostId": 0, "elemName": "a", "value": "b"}', '{"hostId": 1, "elemName": "", "value": "b"}',
                 '{"hostId": 1, "elemName": "a", "value": true}', '{"hostId": 1, "elemName": "a", "value": "b\\n"}', "[]"):  # fmt: skip
        with pytest.raises(YourMistake):
            parse_host_setting(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*LEAST, "hints", "links", "cpu_speed", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_anything(value: object) -> None:
    """Whatever JSON comes, it is a creation whose record survives its own codec, or a mistake with a code."""
    try:
        creation = parse_create(json.dumps(value), WORDS)
    except YourMistake as mistake:
        assert mistake.code in CODES and mistake.message
    else:
        assert isinstance(creation, Creation)
        (spec,) = creation.specs
        assert msgspec.json.decode(msgspec.json.encode(spec), type=InstanceSpec) == spec
        assert creation.content == (digest(spec),)


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    """No text gets past the parsers with another exception than a mistake of the sender's."""
    for parse in (lambda t: parse_create(t, WORDS), lambda t: parse_create_many(t, WORDS), parse_reference, parse_list, parse_host_setting):
        try:
            parse(text)
        except YourMistake as mistake:
            assert mistake.code in CODES


def test_update() -> None:
    """An update says what shall be another, in a createcompute's words; null and absent are as it is."""
    assert parse_update('{"resourceId": "k"}', WORDS) == InstanceUpdate(resource_id="k")
    assert parse_update('{"resourceId": "k", "restart": true}', WORDS) == InstanceUpdate(resource_id="k", restart=True)
    text = (
        '[{"resourceId": "k", "cpu_share": 512, "cpu_speed": 1.5, "memory_size": 64, "disk_weight": null, "net_down": 800, "links": null,'
        '"cpu_cores": 1, "imageIdentifier": "tashi", "hostname": "web"}, [{"scheme": "http://provider.com/category#sla", "term": "gold"}]]'
    )
    assert parse_update(text, WORDS) == InstanceUpdate(
        resource_id="k", name="web", cores=1, image="tashi", sla="gold",
        resources=Resources(cpu_share=512, cpu_speed=1500, memory=64, net_down=800),
    )  # fmt: skip


def test_update_ends_limits() -> None:
    """0 in an update is the end of a limit."""
    ends = dict.fromkeys(("cpu_speed", "disk_iops", "disk_bytes", "net_down", "net_up"), 0)
    assert parse_update(json.dumps({"resourceId": "k"} | ends), WORDS).resources == Resources(**ends)


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("", "bad-syntax", "argument"),
        ("[]", "bad-syntax", "argument"),
        ("[7]", "bad-syntax", "argument"),
        ("{}", "bad-argument", "resourceId"),
        ('{"resourceId": 7}', "bad-argument", "resourceId"),
        ('{"resourceId": "k", "cpu_share": 1}', "bad-argument", "cpu_share"),
        ('{"resourceId": "k", "cpu_share": 262145}', "bad-argument", "cpu_share"),
        ('{"resourceId": "k", "memory_size": 0}', "bad-argument", "memory_size"),
        ('{"resourceId": "k", "disk_weight": 1001}', "bad-argument", "disk_weight"),
        ('{"resourceId": "k", "net_up": "8"}', "bad-argument", "net_up"),
        ('{"resourceId": "k", "cpu_speed": true}', "bad-argument", "cpu_speed"),
        ('{"resourceId": "k", "cpu_speed": 0.0001}', "bad-argument", "cpu_speed"),
        ('{"resourceId": "k", "disk_iops": -1}', "bad-argument", "disk_iops"),
        ('{"resourceId": "k", "disk_bytes": 1e3}', "bad-argument", "disk_bytes"),
        ('{"resourceId": "k", "cpu_cores": 0}', "bad-argument", "cpu_cores"),
        ('{"resourceId": "k", "restart": 1}', "bad-argument", "restart"),
        ('[{"resourceId": "k"}, [], [7]]', "unsupported-link", "links"),
    ],
)
def test_wrong_updates(text: str, code: str, field: str) -> None:
    """Each mistake in an update has its code, and names its field."""
    with pytest.raises(YourMistake) as caught:
        parse_update(text, WORDS)
    assert caught.value.code == code
    assert field in caught.value.message
