"""The message sink: one message in, one command or read for the cluster manager, and never a conversation.

-> createcompute, createmanycompute, updatecompute, reprovisioncompute, deletecompute, sethostconfig
                                                                    <- one final message, later, from the outbox
-> getcompute, listcompute, explain, help, whoami                   <- one message, at once, without a trace
-> anything else                                                    <- one refusal; strangers and empty messages: nothing
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from secrets import token_hex
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from occi import render
from occi.categories import Vocabulary
from occi.parse import (
    Creation,
    parse_create,
    parse_create_many,
    parse_host_setting,
    parse_list,
    parse_reference,
    parse_update,
    resource_id_in,
)
from tashi.clocks import Clock
from tashi.errors import BUSY, EXPIRED, FORBIDDEN, INTERNAL, UNKNOWN_VERB, OurFault, TashiError, YourMistake
from tashi.interfaces import ICommands
from tashi.model.jid import comparable
from tashi.model.names import shown
from tashi.model.request import Origin
from tashi.model.user import Principal
from tashi.xmpp.grammar import IncomingMessage, is_silent, parse_body

REMEMBERED_WORDS: Final = 1000
_ABOUT_ONE: Final = frozenset({"createcompute", "updatecompute", "reprovisioncompute"})

_log = Logger()


class Sink:
    """Takes messages from the XMPP door by ``received``; ``reply(message, body)`` is how it answers reads."""

    def __init__(
        self,
        wall: Clock,
        commands: ICommands,
        *,
        max_command_age: float,
        max_queued: int,
        notifiable: Collection[str],
        vocabulary: Vocabulary,
        reply: Callable[[IncomingMessage, str], None] = lambda message, body: None,
    ) -> None:
        self.reply = reply
        self._wall = wall
        self._commands = commands
        self._max_command_age = max_command_age
        self._max_queued = max_queued
        self._notifiable = frozenset(map(comparable, notifiable))
        self._vocabulary = vocabulary
        self._unknown_words: set[str] = set()
        self._changes: dict[str, Callable[[Principal, Origin, str], None]] = {
            "createcompute": self._create,
            "createmanycompute": self._create_many,
            "deletecompute": self._delete,
            "updatecompute": self._update,
            "reprovisioncompute": self._update,
            "sethostconfig": self._set_host_config,
        }

    def received(self, message: IncomingMessage) -> None:
        """Deal with one message; whatever is wrong with it or with us is told to its sender and goes no further."""
        if is_silent(message.body):
            return
        verb, argument, error = "", "", None
        try:
            verb, argument = parse_body(message.body)
        except YourMistake as mistake:
            error = mistake
        who = self._commands.identify(message.sender)
        if who is None:
            self._commands.refuse_stranger(message.sender, verb if verb in render.VERBS else "")
        elif verb in render.READS:
            Deferred.fromCoroutine(self._read(who, message, verb, argument)).addErrback(
                lambda failure: _log.failure("a read from {jid} could not be answered", failure, jid=message.sender)
            )
        else:
            self._change(who, message, verb, argument, error)

    def _change(self, who: Principal, message: IncomingMessage, verb: str, argument: str, error: TashiError | None) -> None:
        origin = Origin(
            sender=message.sender,
            reply_to=message.sender_full,
            stanza_type=message.type,
            thread=message.thread,
            stanza_id=message.id,
            verb=verb[:64],
            fingerprint=hashlib.sha256(message.body.encode("utf-8", "surrogatepass")).hexdigest(),
        )
        try:
            if error is not None:
                raise error
            self._admit(who, message, verb)
            self._changes[verb](who, origin, argument)
        except YourMistake as mistake:
            self._refuse(who, origin, message, mistake, resource_id_in(argument) if verb in _ABOUT_ONE else None)
        except Exception:
            self._refuse(who, origin, message, self._our_fault(message))

    def _refuse(self, who: Principal, origin: Origin, message: IncomingMessage, error: TashiError, resource_id: str | None = None) -> None:
        try:
            self._commands.refuse(who, origin, error, resource_id)
        except Exception:  # the outbox is out of order: say it at once, or the sender waits for nothing
            self.reply(message, render.refusal(origin.verb, self._wall.seconds(), self._our_fault(message)))

    def _admit(self, who: Principal, message: IncomingMessage, verb: str) -> None:
        """YourMistake when this command is not to be looked at."""
        if verb not in self._changes:
            if verb in render.NOT_YET:
                raise YourMistake(UNKNOWN_VERB, f"{verb} is not available in this version; send help for the verbs that are")
            raise YourMistake(UNKNOWN_VERB, f"there is no verb {shown(verb)}; send help for the verbs there are")
        self._check_age(message)
        if self._commands.queued(message.sender) >= self._max_queued:
            raise YourMistake(BUSY, f"{self._max_queued} of your commands wait for their outcome already; send this one again later")
        if verb in render.FOR_ADMINS and not who.admin:
            raise YourMistake(FORBIDDEN, f"{verb} is for admins; ask one")

    def _check_age(self, message: IncomingMessage) -> None:
        if message.delayed_at is None:
            return
        age = self._wall.seconds() - message.delayed_at
        if age > self._max_command_age:
            raise YourMistake(
                EXPIRED, f"the command was {age:.0f} s on its way, more than {self._max_command_age:g} s; nothing was done, send it again"
            )

    # ---- changes

    def _create(self, who: Principal, origin: Origin, argument: str) -> None:
        self._ask_for(who, origin, parse_create(argument, self._vocabulary, self._may_be_notified_of(origin)))

    def _create_many(self, who: Principal, origin: Origin, argument: str) -> None:
        self._ask_for(who, origin, parse_create_many(argument, self._vocabulary, self._may_be_notified_of(origin)))

    def _ask_for(self, who: Principal, origin: Origin, creation: Creation) -> None:
        for word in creation.unknown:
            if word not in self._unknown_words and len(self._unknown_words) < REMEMBERED_WORDS:
                self._unknown_words.add(word)
                _log.info("{word} in a request means nothing here and is ignored, first sent by {jid}", word=shown(word), jid=origin.sender)
        self._commands.create(who, origin, creation.specs, creation.content)

    def _delete(self, who: Principal, origin: Origin, argument: str) -> None:
        self._commands.delete(who, origin, parse_reference(argument))

    def _update(self, who: Principal, origin: Origin, argument: str) -> None:
        self._commands.update(who, origin, parse_update(argument, self._vocabulary))

    def _set_host_config(self, who: Principal, origin: Origin, argument: str) -> None:
        setting = parse_host_setting(argument)
        self._commands.set_host_config(who, origin, setting.host, setting.name, setting.value)

    def _may_be_notified_of(self, origin: Origin) -> Callable[[str], bool]:
        def may_be_notified(jid: str) -> bool:
            return jid == origin.sender or jid in self._notifiable or jid.partition("@")[2] in self._notifiable

        return may_be_notified

    # ---- reads

    async def _read(self, who: Principal, message: IncomingMessage, verb: str, argument: str) -> None:
        try:
            self._check_age(message)
            data = await self._look_up(who, verb, argument)
            body = render.answer(verb, self._wall.seconds(), **data)
            if len(body.encode()) > render.MAX_REPLY:
                raise ValueError(f"an answer to {verb} of {len(body)} characters")
        except YourMistake as mistake:
            body = render.refusal(verb, self._wall.seconds(), mistake)
        except Exception:
            body = render.refusal(verb, self._wall.seconds(), self._our_fault(message))
        self.reply(message, body)

    async def _look_up(self, who: Principal, verb: str, argument: str) -> dict[str, Any]:
        if verb == "help":
            return {"message": render.help_text(who)}
        if verb == "whoami":
            return {"message": render.whoami_text(who)}
        if verb == "listcompute":
            return self._commands.list(who, parse_list(argument))
        if verb == "explain":
            return {"message": render.explanation(await self._commands.explain(who, parse_reference(argument)))}
        return await self._commands.get(who, parse_reference(argument))

    def _our_fault(self, message: IncomingMessage) -> OurFault:
        """Log the exception being handled; the sender gets a number to ask about."""
        number = token_hex(4)
        _log.failure("error {number} in a message from {jid}", number=number, jid=message.sender)
        return OurFault(
            INTERNAL, f"a fault of ours stopped the command; look whether it took effect, and tell the operator the number {number}"
        )
