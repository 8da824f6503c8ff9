"""Lets wokkel 18 be imported on a current Twisted: every module of this room that uses wokkel imports this one first.

wokkel 18.0.0 (2018) is its newest release. It takes from ``twisted.python.compat`` names that Twisted has dropped or deprecated,
and ``twisted.python.constants``, which became the package constantly. When a wokkel is released that imports by itself, this
module and the lines that import it can go.
"""

from __future__ import annotations

import importlib.util
import sys


def install() -> None:
    """Put the names where wokkel looks for them; in the place of deprecated functions too, which would warn at every use."""
    import constantly
    import twisted.python
    from twisted.python import compat

    names = {
        "_PY3": True,
        "unicode": str,
        "StringType": str,
        "iteritems": lambda mapping: iter(mapping.items()),
        "itervalues": lambda mapping: iter(mapping.values()),
    }
    for name, value in names.items():
        setattr(compat, name, value)
    if importlib.util.find_spec("twisted.python.constants") is None:
        sys.modules["twisted.python.constants"] = constantly
        twisted.python.constants = constantly  # type: ignore[attr-defined]


install()
