"""The categories of a request: which schemes mean what. The prefixes are configurable, the meanings are not."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

KINDS: Final = ("http://purl.org/occi/kind#", "http://schemas.ogf.org/occi/infrastructure#")
PROVIDER: Final = "http://provider.com/category#"


class Category(NamedTuple):
    """A scheme and a term; id and label mean nothing to us."""

    scheme: str
    term: str


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """The schemes that are understood, and which file a template stands for where its name is not the file's."""

    kinds: tuple[str, ...] = KINDS
    prefixes: tuple[str, ...] = (PROVIDER,)  # of templates, sla, locations, auditability, isolation
    templates: dict[str, str] = {}

    def meaning(self, category: Category) -> str | None:
        """``kind``, or one of ``templates``, ``sla``, ``locations``, ``auditability``, ``isolation``; None: not understood."""
        if category.scheme in self.kinds:
            return "kind"
        for prefix in self.prefixes:
            if category.scheme.startswith(prefix) and category.scheme[len(prefix) :] in _MEANINGS:
                return category.scheme[len(prefix) :]
        return None


_MEANINGS: Final = frozenset({"templates", "sla", "locations", "auditability", "isolation"})
