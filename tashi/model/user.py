"""A user and the principal: who owns instances, and who is speaking just now."""

from __future__ import annotations

import msgspec


class User(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Somebody who may own instances; a higher priority is more important; ``jid`` is the bare JID that acts as this user."""

    id: int
    name: str
    priority: int = 0
    jid: str | None = None
    password_hash: str = ""
    uid_login: bool = True  # whether the user of this number on the control plane's machine acts as this user


class Principal(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who asks: shown as ``name`` in the audit trail. ``user_id`` None: nobody of ours (a trusted manager, an admin JID, a stranger).

    ``uid``: whose process it is on the control plane's machine, for those who came by its socket.
    """

    name: str
    user_id: int | None = None
    admin: bool = False
    trusted: bool = False
    jid: str | None = None
    uid: int | None = None

    def may_act_for(self, user_id: int | None) -> bool:
        """Whether this principal may create and change what the user owns."""
        return self.admin or self.trusted or (user_id is not None and user_id == self.user_id)
