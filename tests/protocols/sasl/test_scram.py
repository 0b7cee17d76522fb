"""SCRAM-SHA-256: the example of RFC 7677, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.sasl import scram

# RFC 7677 section 3
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SIGNATURE = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

SALTED = hashlib.pbkdf2_hmac("sha256", b"pencil", SALT, 4096)
CLIENT_KEY = hmac.digest(SALTED, b"Client Key", "sha256")
STORED_KEY = hashlib.sha256(CLIENT_KEY).digest()
SERVER_KEY = hmac.digest(SALTED, b"Server Key", "sha256")


def exchange(first: bytes = FIRST) -> scram.Exchange:
    return scram.Exchange(scram.client_first(first), SERVER_NONCE, SALT, 4096)


def test_the_example_of_the_standard() -> None:
    begun = exchange()
    assert begun.challenge() == CHALLENGE
    answer = begun.answer(FINAL, b"")
    assert answer is not None
    assert scram.client_key(answer, STORED_KEY) == CLIENT_KEY
    assert scram.server_signature(answer, SERVER_KEY) == SIGNATURE


def test_another_password_is_no_proof() -> None:
    answer = exchange().answer(FINAL, b"")
    assert answer is not None
    assert scram.client_key(answer, hashlib.sha256(b"other").digest()) is None
    forged = exchange().answer(FINAL[:-44] + base64.b64encode(bytes(32)), b"")
    assert forged is not None
    assert scram.client_key(forged, STORED_KEY) is None


@pytest.mark.parametrize(
    "final",
    [
        FINAL.replace(b"hNlF$k0", b"hNlF$k1"),  # not our nonce
        FINAL.replace(b",r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", b",r=rOprNGfwEbeRWgbNEkqO"),
        FINAL.replace(b"c=biws", b"c=eSws"),  # another GS2 header than the first time
        FINAL[:-44] + b"AAAA",  # a proof of another length
    ],
)
def test_an_answer_to_another_question(final: bytes) -> None:
    assert exchange().answer(final, b"") is None


def test_channel_binding_is_compared() -> None:
    first = b"p=tls-exporter,,n=user,r=abc"
    assert scram.client_first(first).binding == "tls-exporter"
    bound = base64.b64encode(b"p=tls-exporter,," + b"\x01" * 32).decode()
    final = f"c={bound},r=abc{SERVER_NONCE},p={base64.b64encode(bytes(32)).decode()}".encode()
    assert exchange(first).answer(final, b"\x01" * 32) is not None
    assert exchange(first).answer(final, b"\x02" * 32) is None
    assert exchange(first).answer(final, b"") is None


def test_names_are_unescaped() -> None:
    first = scram.client_first("y,a=x=2Cy,n=j=C3=BC".replace("=C3=BC", "\u00fc").encode() + b"=3D@x,r=abc,x=later")
    assert (first.flag, first.authzid, first.name, first.nonce) == ("y", "x,y", "j\u00fc=@x", "abc")
    assert first.gs2 == "y,a=x=2Cy,"


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n=user,r=abc",
        b"x,,n=user,r=abc",
        b"n,,n=,r=abc",
        b"n,,n=user,r=",
        b"n,,m=must,n=user,r=abc",
        b"n,,n=us=er,r=abc",
        b"n,,n=us=2cer,r=abc",
        b"n,,n=user,r=a b",
        b"n,,n=us\0er,r=abc",
        b"n,,n=\xff,r=abc",
        b"n,,n=" + b"x" * 300 + b",r=abc",
        b"n,,n=user,r=" + b"x" * 300,
        b"p=,,n=user,r=abc",
    ],
)
def test_first_messages_that_are_none(first: bytes) -> None:
    with pytest.raises(BadSyntax):
        scram.client_first(first)


@pytest.mark.parametrize(
    "final", [b"", b"c=biws,r=x", b"r=x,c=biws,p=AAAA", b"c=biws,r=x,p=A", b"c=b*ws,r=x,p=AAAA", b"c=biws,r=x,p=AAAA,z=1", b"\xff"]
)
def test_second_messages_that_are_none(final: bytes) -> None:
    with pytest.raises(BadSyntax):
        exchange().answer(final, b"")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_octets(first: bytes, final: bytes) -> None:
    for call in (lambda: scram.client_first(first), lambda: scram.client_first(b"n,,n=" + first), lambda: exchange().answer(final, b"")):
        try:
            call()
        except BadSyntax:
            continue
