"""Events as their readers get them."""

from __future__ import annotations

import json

from tashi.errors import TIMEOUT, YourMistake
from tashi.model import replies
from tashi.model.events import audit_record, fqdn, host_action, seal, timestamp, vm_action
from tests.builders import a_host, an_instance


def test_a_timestamp_is_utc_with_milliseconds() -> None:
    """Time is told as ISO 8601 in UTC."""
    assert timestamp(1_800_000_000.25) == "2027-01-15T08:00:00.250Z"


def test_every_event_has_the_common_fields() -> None:
    """Type, source, timestamp, seq and description stand in every event."""
    instance = an_instance(12, "web", resource_id="r1")
    for event in (
        vm_action("created", instance, None, "Pending", "", None),
        host_action("registered", a_host()),
        audit_record("ism@example.org", "createcompute", "r1", "OK"),
    ):
        told = json.loads(seal(event, 7, "tashi-abc", 0.0))
        assert (told["source"], told["seq"], told["timestamp"]) == ("tashi-abc", 7, "1970-01-01T00:00:00.000Z")
        assert told["type"] in ("vmAction", "hostAction", "auditRecord")
        assert told["description"]


def test_an_action_says_who_from_where_to_where() -> None:
    """A vmAction names the instance, both states, the host and the reason, for programs and for people."""
    event = vm_action("stateChanged", an_instance(12, "web", resource_id="r1"), "Activating", "Running", "seen", "node3")
    assert event["description"] == "web (12) stateChanged: Activating -> Running on node3 (seen)"
    assert (event["id"], event["resourceId"], event["from"], event["to"], event["host"]) == (12, "r1", "Activating", "Running", "node3")


def test_a_sub_domain_is_part_of_the_name() -> None:
    """An instance with a sub-domain is reached there."""
    assert fqdn(an_instance(1, "web", hints={"subDomain": "shop"})) == "web.shop"


def test_a_good_reply_names_what_there_is() -> None:
    """The reply of a create carries the names and ids that the sender's program looks for."""
    body = json.loads(replies.ok("createcompute", [an_instance(12, "web", host_id=3, resource_id="r1")], "node3", 0.0))
    assert body == {
        "status": "OK", "resources": ["web"], "verb": "createcompute", "resourceId": "r1", "ids": [12], "provisioningSystemId": 12,
        "state": "Running", "host": "node3", "timestamp": "1970-01-01T00:00:00.000Z",
    }  # fmt: skip


def test_an_error_reply_has_words_and_a_token() -> None:
    """The reply of a failure carries a message for people and a code for programs."""
    body = json.loads(replies.error("createcompute", YourMistake(TIMEOUT, "too late"), "r1", 0.0))
    assert body == {
        "status": "ERROR", "message": "too late", "code": "timeout", "verb": "createcompute", "resourceId": "r1",
        "timestamp": "1970-01-01T00:00:00.000Z",
    }  # fmt: skip
