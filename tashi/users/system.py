"""The users of the control plane's own machine, as its name service knows them: passwd, LDAP or whatever it
is set to."""

from __future__ import annotations

import pwd


def first_free_uid(least: int) -> int:
    """Return the lowest number from ``least`` on that no user of this machine has at this moment."""
    listed = {user.pw_uid for user in pwd.getpwall()}
    number = least
    while number in listed or _is_known(number):
        number += 1
    return number


def _is_known(uid: int) -> bool:
    """Whether the name service knows this user, which it may without listing it."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
