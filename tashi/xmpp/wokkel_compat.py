"""Lets wokkel 18 be imported on a current Twisted: every module of this room that uses wokkel imports this one first.

wokkel 18.0.0 (2018) is its newest release. It takes from ``twisted.python.compat`` names that Twisted has dropped or is about to
drop, and ``twisted.python.constants``, which became the package constantly. When a wokkel is released that imports by itself,
this module and the lines that import it can go.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings


def install() -> None:
    """Put the missing names where wokkel looks for them; what Twisted still has is left alone."""
    import constantly
    import twisted.python
    from twisted.python import compat

    substitutes = {
        "_PY3": True,
        "unicode": str,
        "StringType": str,
        "iteritems": lambda mapping: iter(mapping.items()),
        "itervalues": lambda mapping: iter(mapping.values()),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name, substitute in substitutes.items():
            if not hasattr(compat, name):
                setattr(compat, name, substitute)
    if "twisted.python.constants" not in sys.modules and importlib.util.find_spec("twisted.python.constants") is None:
        sys.modules["twisted.python.constants"] = constantly
        twisted.python.constants = constantly  # type: ignore[attr-defined]


install()
