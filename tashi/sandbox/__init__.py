"""The cell in a box: one whole Tashi cell on one machine, for `make run`, the tests and the benchmarks alike.

XMPP server, control plane, node agents and their libvirt hosts, all private to one state directory.
"""
