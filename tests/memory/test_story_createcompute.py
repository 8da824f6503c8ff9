"""The story of one createcompute, from the message that asks for a machine to the reply that it runs.

Everything here is the real thing but for four: the clock moves only when the story says so, the rows of the database lie in
memory, the XMPP server is a list of what was sent, and the host is a FakeAgent that notes its orders and does as it is told.
"""

from __future__ import annotations

import json

from occi.categories import Vocabulary
from occi.sink import Sink
from tashi.model.orders import Destroy, Start
from tashi.xmpp.grammar import IncomingMessage
from tests.small_cell import FakeAgent, SmallCell

MESSAGE = """createcompute [
    {"hostname": "tizzy0", "imageIdentifier": "tashi", "userId": 1000, "cpu_cores": 1, "memory_size": 512, "resourceId": "order-4711"},
    [{"scheme": "http://provider.com/category#locations", "term": "ie"}],
    []
]"""


def test_the_story_of_a_createcompute() -> None:
    """A message becomes a wish, the wish a plan, the plan an order, the order a machine, and the machine a reply."""
    # A cell with two hosts. Only the second is in Ireland.
    node1, node2 = FakeAgent("node1"), FakeAgent("node2")
    cell = SmallCell(hosts=[node1, node2], admins=frozenset({"admin@example.org"}))
    sink = Sink(cell.clock, cell.manager.commands, max_command_age=300, max_queued=100, notifiable=(), vocabulary=Vocabulary())
    admin = cell.manager.commands.identify("admin@example.org")
    assert admin is not None
    cell.call(admin, "setHostConfig", hostId="node2", elemName="location", value="ie")

    # The manager of somebody's service agreements asks for a machine. It is registered as trusted, so it may ask for any user.
    sink.received(_from_ism("stanza-1", MESSAGE))

    # At once there is a wish, and nothing else: no acknowledgement that could be taken for the answer.
    assert cell.state("tizzy0") == "Pending"
    assert cell.replies == []

    # A moment later it is planned, written down, and the host in Ireland is told. Nothing was said before it was on the disk.
    cell.settle()
    assert cell.state("tizzy0") == "Activating"
    assert node1.orders == []
    (order,) = node2.orders
    assert isinstance(order, Start)
    assert (order.name, order.memory, order.disks[0].uri) == ("tizzy0", 512, "tashi.img")
    assert cell.replies == []

    # The host starts the machine and says so. That is the outcome: one reply, to where the message came from.
    cell.work()
    assert cell.state("tizzy0") == "Running"
    (row,) = [row for row in cell.outgoing if row.to]
    assert (row.to, row.thread, row.stanza_type) == ("ism@example.org/laptop", "thread-1", "chat")
    reply = json.loads(row.body)
    assert (reply["status"], reply["resources"], reply["ids"], reply["host"]) == ("OK", ["tizzy0"], [1], "node2")
    assert (reply["verb"], reply["resourceId"], reply["state"]) == ("createcompute", "order-4711", "Running")

    # Whoever listens has heard what happened, in order and without a gap.
    assert cell.actions() == ["created", "placed", "stateChanged"]
    assert [event["seq"] for event in cell.all_events] == list(range(1, len(cell.all_events) + 1))
    assert "ism@example.org createcompute order-4711: OK" in [event["description"] for event in cell.events]

    # The reply was lost, or so it seems: the same is asked again under the same resourceId. It is the same machine.
    sink.received(_from_ism("stanza-2", MESSAGE))
    cell.work()
    assert [again["ids"] for again in cell.replies] == [[1], [1]]
    assert node2.domains == {1: order.generation}

    # In the end it is deleted, and the reply comes when it is gone.
    sink.received(_from_ism("stanza-3", 'deletecompute "order-4711"'))
    cell.settle()
    assert isinstance(node2.orders[0], Destroy)
    assert len(cell.replies) == 2
    cell.work()
    assert (node2.domains, cell.state("tizzy0")) == ({}, "none")
    assert (cell.replies[2]["status"], cell.replies[2]["verb"], cell.replies[2]["ids"]) == ("OK", "deletecompute", [1])


def _from_ism(stanza: str, body: str) -> IncomingMessage:
    return IncomingMessage(
        sender="ism@example.org", sender_full="ism@example.org/laptop", type="chat", body=body, id=stanza, thread="thread-1"
    )
