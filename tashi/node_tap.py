"""`twistd tashi-node`: the node agent as a plugin; what it is told stands in the configuration files."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.python import usage


class Options(usage.Options):
    """No options: see TashiDefaults.cfg, and $TASHI_CONF for a directory of your own."""

    synopsis = "[twistd options] tashi-node\n\nThe settings come from Tashi.cfg and NodeManager.cfg; `tashi config --check` shows them."


def makeService(options: Options) -> Service:
    """The agent of this machine, not yet started."""
    from twisted.internet import reactor

    from tashi.app import node_agent

    return node_agent(reactor)
