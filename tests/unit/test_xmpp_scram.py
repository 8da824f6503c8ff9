"""Logging in: the example exchanges of the RFCs, and servers that cheat."""

from __future__ import annotations

import pytest
from twisted.words.protocols.jabber.sasl import SASLNoAcceptableMechanism

from tashi.xmpp.scram import LoginRefused, Scram, choose_mechanism

SHA1 = (  # RFC 5802, section 5
    "SCRAM-SHA-1",
    "fyko+d2lbbFgONRv9qkxdawL",
    b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
    b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
    b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
)
SHA256 = (  # RFC 7677, section 3
    "SCRAM-SHA-256",
    "rOprNGfwEbeRWgbNEkqO",
    b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)


@pytest.mark.parametrize("exchange", [SHA1, SHA256], ids=["SHA-1", "SHA-256"])
def test_examples(exchange: tuple[str, str, bytes, bytes, bytes, bytes]) -> None:
    """The exchange is the standard's, byte for byte, and ends with a server that is verified."""
    name, nonce, first, challenge, final, signature = exchange
    scram = Scram(name, "user", "pencil", nonce)
    assert scram.getInitialResponse() == first
    assert scram.getResponse(challenge) == final
    assert not scram.verified
    scram.finish(signature)
    assert scram.verified


def test_signature_as_challenge() -> None:
    """A server may send its signature before an empty success."""
    name, nonce, _, challenge, _, signature = SHA1
    scram = Scram(name, "user", "pencil", nonce)
    scram.getInitialResponse()
    scram.getResponse(challenge)
    assert scram.getResponse(signature) == b""
    scram.finish(b"")
    assert scram.verified


@pytest.mark.parametrize("signature", [b"", b"v=", b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAA=", b"e=other-error", b"\xff", b"nonsense"])
def test_server_without_the_password(signature: bytes) -> None:
    """A server that does not prove that it knows the password is refused."""
    name, nonce, _, challenge, _, _ = SHA1
    scram = Scram(name, "user", "pencil", nonce)
    scram.getInitialResponse()
    scram.getResponse(challenge)
    with pytest.raises(LoginRefused):
        scram.finish(signature)
    assert not scram.verified


@pytest.mark.parametrize(
    "challenge",
    [
        b"r=other,s=QSXCR+Q6sek8bf92,i=4096",  # not our nonce
        b"r=fyko+d2lbbFgONRv9qkxdawL,s=QSXCR+Q6sek8bf92,i=4096",  # adds nothing to it
        b"r=fyko+d2lbbFgONRv9qkxdawL3,s=QSXCR+Q6sek8bf92,i=1",  # next to no work for a thief
        b"r=fyko+d2lbbFgONRv9qkxdawL3,s=QSXCR+Q6sek8bf92,i=99999999999",  # work for ever
        b"", b"\xff", b"m=ext,r=x",
    ],
)  # fmt: skip
def test_wrong_challenge(challenge: bytes) -> None:
    """A challenge that is not the standard's is refused."""
    scram = Scram("SCRAM-SHA-1", "user", "pencil", "fyko+d2lbbFgONRv9qkxdawL")
    scram.getInitialResponse()
    with pytest.raises(LoginRefused):
        scram.getResponse(challenge)


def test_choice() -> None:
    """The strongest is chosen; PLAIN only inside TLS and last; MD5 and nobody never."""
    everything = {"PLAIN", "DIGEST-MD5", "ANONYMOUS", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS"}
    assert choose_mechanism(everything, encrypted=True) == "SCRAM-SHA-256"
    assert choose_mechanism({"SCRAM-SHA-1", "PLAIN"}, encrypted=False) == "SCRAM-SHA-1"
    assert choose_mechanism({"PLAIN", "DIGEST-MD5"}, encrypted=True) == "PLAIN"
    for offered, encrypted in (({"PLAIN"}, False), ({"DIGEST-MD5", "ANONYMOUS"}, True), (set(), True)):
        with pytest.raises(SASLNoAcceptableMechanism):
            choose_mechanism(offered, encrypted=encrypted)
