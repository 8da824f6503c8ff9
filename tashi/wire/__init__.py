"""Perspective Broker: one port and one socket, one JSON string a call, nothing for those who have not logged in."""
