"""`twistd tashi`: the control plane as a plugin; what it is told stands in the configuration files."""

from __future__ import annotations

from typing import ClassVar

from twisted.application.service import Service
from twisted.python import usage


class Options(usage.Options):
    """Settings stand in files: see TashiDefaults.cfg, and $TASHI_CONF for a directory of your own."""

    optFlags: ClassVar = [["accept-loss", None, "Start once with the records that are left, when the database has lost some."]]

    synopsis = "[twistd options] tashi\n\nThe settings come from Tashi.cfg and ClusterManager.cfg; `tashi config --check` shows them."


def makeService(options: Options) -> Service:
    """The whole control plane, not yet started."""
    from twisted.internet import reactor

    from tashi.app import control_plane

    return control_plane(reactor, accept_loss=bool(options["accept-loss"]))
