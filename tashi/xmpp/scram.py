"""Logging in: SCRAM with SHA-512, SHA-256 or SHA-1, the strongest that the server offers; PLAIN inside verified TLS only.

The server's signature is checked, so a server that does not know the password cannot pretend that the login succeeded.
DIGEST-MD5 and ANONYMOUS are never used. There is no channel binding: TLS 1.3 would need tls-exporter, which neither scramp nor
Prosody 0.12 has. When Twisted learns SCRAM, this module can go.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from scramp import ScramClient, ScramException
from twisted.python.failure import Failure
from twisted.words.protocols.jabber import sasl, sasl_mechanisms
from twisted.words.xish.domish import Element
from zope.interface import implementer

PREFERRED: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1")


class LoginRefused(sasl.SASLError):
    """The exchange failed; the words say why."""


@implementer(sasl_mechanisms.ISASLMechanism)
class Scram:
    """One SCRAM exchange; ``verified`` once the server has proved that it knows the password."""

    def __init__(self, name: str, user: str, password: str, nonce: str | None = None) -> None:
        self.name = name
        self.verified = False
        self._client = ScramClient([name], user, password, c_nonce=nonce)
        self._challenges = 0

    def getInitialResponse(self) -> bytes:
        """The client's first message."""
        return self._client.get_client_first().encode()

    def getResponse(self, challenge: bytes) -> bytes:
        """The answer to a challenge; LoginRefused when the challenge is wrong."""
        self._challenges += 1
        if self._challenges > 1:  # some servers send their signature as a challenge, before an empty success
            self.finish(challenge)
            return b""
        try:
            self._client.set_server_first(challenge.decode())
            return self._client.get_client_final().encode()
        except (ScramException, UnicodeDecodeError) as error:
            raise LoginRefused(f"the server's challenge is not acceptable: {error}") from error

    def finish(self, final: bytes) -> None:
        """Check the server's signature; LoginRefused when it is wrong or absent."""
        if self.verified and not final:
            return
        try:
            self._client.set_server_final(final.decode())
        except (ScramException, UnicodeDecodeError) as error:
            raise LoginRefused(f"the server did not prove that it knows the password: {error}") from error
        self.verified = True


def choose_mechanism(offered: Collection[str], *, encrypted: bool) -> str:
    """The name of the best mechanism; SASLNoAcceptableMechanism when there is none that may be used."""
    for name in (*PREFERRED, "PLAIN") if encrypted else PREFERRED:
        if name in offered:
            return name
    raise sasl.SASLNoAcceptableMechanism(f"the server offers {', '.join(sorted(offered)) or 'nothing'}")


class Login(sasl.SASLInitiatingInitializer):
    """The step of setting up a stream that logs in; ``encrypted`` says that verified TLS is below it."""

    encrypted = False
    mechanism: Any

    def setMechanism(self) -> None:
        """Choose among what the server offers."""
        account = self.xmlstream.authenticator
        name = choose_mechanism(sasl.get_mechanisms(self.xmlstream), encrypted=self.encrypted)
        if name == "PLAIN":
            self.mechanism = sasl_mechanisms.Plain(None, account.jid.user, account.password)
        else:
            self.mechanism = Scram(name, account.jid.user, account.password)

    def onChallenge(self, element: Element) -> None:
        """Answer a challenge, or give up."""
        try:
            response = self.mechanism.getResponse(sasl.fromBase64(str(element)))
        except (sasl.SASLError, ScramException):
            self._give_up()
        else:
            self.sendResponse(response or b"")

    def onSuccess(self, success: Element) -> None:
        """Go on only with a server that has proved itself."""
        try:
            if isinstance(self.mechanism, Scram):
                self.mechanism.finish(sasl.fromBase64(str(success)))
        except sasl.SASLError:
            self._give_up()
        else:
            super().onSuccess(success)

    def _give_up(self) -> None:
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            deferred.errback(Failure())
