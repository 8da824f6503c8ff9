"""Sends messages the way the first scripts did: xmpppy, one account, no waiting for an answer. Bodies come as JSON on stdin."""

import json
import sys

import xmpp

domain, host, port, username, password, recipient = sys.argv[1:]
client = xmpp.Client(domain, debug=[])
client.connect(server=(host, int(port)))
client.auth(username, password, "test-botty")
client.sendInitPresence()
for body in json.load(sys.stdin):
    message = xmpp.Message(recipient, body)
    message.setAttr("type", "chat")
    client.send(message)
client.disconnect()
