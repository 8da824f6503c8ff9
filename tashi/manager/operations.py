"""What operators change: hosts and users. Each is one function within a transaction of the caller's."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Callable
from typing import Final

import msgspec

from tashi.errors import BAD_ARGUMENT, CONFLICT, FORBIDDEN, UNKNOWN_USER, YourMistake
from tashi.manager import draining
from tashi.manager.cluster import Transaction
from tashi.manager.lifecycle import end
from tashi.manager.lookup import the_host, the_user
from tashi.model.events import audit_record, host_action
from tashi.model.host import Host
from tashi.model.jid import comparable, prepare_bare
from tashi.model.names import shown
from tashi.model.states import WITHOUT_POWER, HostState, InstanceState
from tashi.model.user import Principal, User

_ELEMENT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_USER_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
FIRST_DRAWN_USER: Final = 100_000
"""The lowest number that is drawn for a user: above those that a machine gives to people and services."""


def require_admin(who: Principal, verb: str) -> None:
    """YourMistake(forbidden) unless who asks is an admin."""
    if not who.admin:
        raise YourMistake(FORBIDDEN, f"{verb} is for admins, and {who.name} is none; on the control plane's machine user 0 is")


def set_host_config(tx: Transaction, who: Principal, host: int | str, name: str, value: str) -> Host:
    """Set one element of a host's configuration, such as location = ie; an empty value removes it."""
    require_admin(who, "setHostConfig")
    found = the_host(tx.cluster, host)
    if not isinstance(name, str) or not _ELEMENT.fullmatch(name):
        raise YourMistake(BAD_ARGUMENT, f"elemName is {shown(name)}; use a letter, then letters, digits and '_'")
    if not isinstance(value, str) or len(value) > 1024 or not value.isprintable():
        raise YourMistake(BAD_ARGUMENT, f"value is {shown(value)}; use at most 1024 printable characters")
    config = {**found.config, name: value}
    if not value:
        del config[name]
    after = msgspec.structs.replace(found, config=config)
    tx.put_host(after)
    tx.tell(host_action("configSet", after, f"{name} = {value}"))
    return after


def set_host_state(tx: Transaction, who: Principal, host: int | str, state: str) -> Host:
    """Let a host take instances again (Normal), or none (Drained); those that it has stay. Of one that is off: when it is on again."""
    require_admin(who, "setHostState")
    found = the_host(tx.cluster, host)
    wanted = {one.name.lower(): one for one in (HostState.Normal, HostState.Drained)}.get(state.lower())
    if wanted is None:
        raise YourMistake(BAD_ARGUMENT, f"{state} is not a valid host state; use Normal or Drained")
    if found.state is HostState.VersionMismatch and wanted is HostState.Normal:
        raise YourMistake(CONFLICT, f"the agent of {found.name} has another version than the control plane; upgrade it first")
    if found.state in WITHOUT_POWER:
        after = msgspec.structs.replace(found, state_when_on=wanted)
    else:
        after = msgspec.structs.replace(found, state=wanted, draining=False)
    tx.put_host(after)
    return after


def drain_host(tx: Transaction, who: Principal, host: int | str) -> Host:
    """Have a host emptied: it takes nothing new, and what runs there moves elsewhere."""
    require_admin(who, "drainHost")
    return draining.begin(tx, the_host(tx.cluster, host))


def unregister_host(tx: Transaction, who: Principal, host: int | str) -> tuple[Host, int]:
    """Forget a host that is down; return it, and how many instances its record still has.

    While it has any that nobody has asked to destroy, the record stays, and only the secret and the machine of its agent are forgotten: an
    agent that was installed anew, also on another machine, joins under the same name. What the host was still to clear away, or to end, is
    done with it.
    """
    require_admin(who, "unregisterHost")
    found = the_host(tx.cluster, host)
    if found.up:
        raise YourMistake(CONFLICT, f"host {found.name} is up; stop its agent first, and wait until the host is down")
    count = 0
    for number in sorted(tx.cluster.errands.get(found.id, ())):
        instance = tx.cluster.instances[number]
        instance = msgspec.structs.replace(instance, residue=tuple(one for one in instance.residue if one.host_id != found.id))
        tx.put_instance(instance)
        if instance.host_id == found.id and instance.state is InstanceState.Destroying:
            end(tx, instance, f"its host {found.name} was unregistered")
        elif found.id in instance.rooms:
            count += 1
    if count:
        tx.put_host(msgspec.structs.replace(found, secret_hash="", identity=None))
    else:
        tx.remove_host(found.id)
    tx.tell(host_action("unregistered", found, f"its agent may join anew; it keeps {count} instances" if count else ""))
    return found, count


def register_user(
    tx: Transaction,
    who: Principal,
    name: str,
    password: str | None,
    priority: int,
    user_id: int | None,
    jid: str | None,
    first_free: Callable[[int], int],
) -> User:
    """A user who may own instances. The same call with the same content again changes nothing.

    Without ``user_id`` a number is drawn that ``first_free`` (the machine's users) leaves free. It is nobody's uid at
    that moment, and whoever gets that uid later does not act as the user.
    """
    require_admin(who, "registerUser")
    if not isinstance(name, str) or not _USER_NAME.fullmatch(name):
        raise YourMistake(BAD_ARGUMENT, f"name is {shown(name)}; use letters, digits, '_', '.' or '-', at most 64")
    if name.isdigit():
        raise YourMistake(BAD_ARGUMENT, f"name is {shown(name)}, which reads like an id; use a name with a letter in it")
    if password is not None and not isinstance(password, str):
        raise YourMistake(BAD_ARGUMENT, "passwd is no text; leave it out for a user without one")
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > 10**9:
        raise YourMistake(BAD_ARGUMENT, f"priority is {shown(priority)}; use a whole number, higher for more important")
    if user_id is not None and (isinstance(user_id, bool) or not isinstance(user_id, int) or not 0 <= user_id < 2**32):
        raise YourMistake(BAD_ARGUMENT, f"userId is {shown(user_id)}; use a whole number from 0 to {2**32 - 1}")
    if jid is not None:
        jid = _prepared(jid)
    users = tx.cluster.users
    for other in users.values():
        acts_as = other.jid and comparable(other.jid)
        if other.name == name and (user_id in (None, other.id)) and (other.priority, acts_as) == (priority, jid):
            if password and not _is_password(password, other.password_hash):
                raise YourMistake(CONFLICT, f"user {name} has another password; unregister that user first")
            if user_id is None or other.uid_login:
                return other
            registered = msgspec.structs.replace(other, uid_login=True)  # the number was drawn, and is now asked for
            tx.put_user(registered)
            tx.tell(audit_record(who.name, "registeruser", f"{name} ({other.id})", "OK"))
            return registered
        if other.name == name or other.id == user_id:
            raise YourMistake(CONFLICT, f"user {other.name} ({other.id}) is registered already; unregister that one first")
        if jid is not None and acts_as == jid:
            raise YourMistake(CONFLICT, f"{jid} acts as user {other.name} already")
    number = _drawn_number(tx, first_free) if user_id is None else user_id
    user = User(
        id=number, name=name, priority=priority, jid=jid, password_hash=_hashed(password), uid_login=user_id is not None
    )
    tx.put_user(user)
    tx.tell(audit_record(who.name, "registeruser", f"{name} ({number})", "OK"))
    return user


def _drawn_number(tx: Transaction, first_free: Callable[[int], int]) -> int:
    number = tx.next_id("user", least=FIRST_DRAWN_USER)
    while (free := first_free(number)) != number or free in tx.cluster.users:
        number = tx.next_id("user", least=free)
    return number


def _prepared(jid: object) -> str:
    try:
        return prepare_bare(jid if isinstance(jid, str) else "")
    except ValueError as error:
        raise YourMistake(BAD_ARGUMENT, f"jid is {shown(jid)}; {error}") from None


def unregister_user(tx: Transaction, who: Principal, reference: int | str) -> User:
    """Forget a user who has no instances. The user's persistent disks belong to nobody afterwards, whoever is given the number."""
    require_admin(who, "unregisterUser")
    user = the_user(tx.cluster, reference)
    if user.id == 0:
        raise YourMistake(BAD_ARGUMENT, "user 0 is the cell's own admin and stays")
    owned = sum(instance.user_id == user.id for instance in tx.cluster.instances.values())
    if owned:
        raise YourMistake(CONFLICT, f"user {user.name} has {owned} instances; destroy them first")
    for disk in tx.cluster.disks.values():
        if disk.user_id == user.id:
            tx.put_disk(msgspec.structs.replace(disk, user_id=None))
    tx.remove_user(user.id)
    tx.tell(audit_record(who.name, "unregisteruser", f"{user.name} ({user.id})", "OK"))
    return user


def the_user_who_asks(tx_users: dict[int, User], who: Principal) -> User:
    """The user record of who asks; YourMistake(unknown-user) when there is none."""
    user = tx_users.get(who.user_id) if who.user_id is not None else None
    if user is None:
        number = who.user_id if who.uid is None else who.uid
        raise YourMistake(
            UNKNOWN_USER,
            f"{who.name} is not registered; an administrator does it with `tashi registerUser --name NAME --userId {number}`",
        )
    return user


def _hashed(password: str | None) -> str:
    if not password:
        return ""
    return _scrypt(password, os.urandom(16))


def _is_password(password: str, password_hash: str) -> bool:
    _, _, rest = password_hash.partition("$")
    salt = rest.partition("$")[0]
    return bool(salt) and hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)), password_hash)


def _scrypt(password: str, salt: bytes) -> str:
    return f"scrypt${salt.hex()}${hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1).hex()}"
