"""SASL PLAIN and base64 lines."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.sasl.plain import Cancelled, Plain, decode_line, parse_plain


def test_the_example_of_the_rfc() -> None:
    assert decode_line(b"AHRpbQB0YW5zdGFhZnRhbnN0YWFm") == b"\0tim\0tanstaaftanstaaf"
    assert parse_plain(b"\0tim\0tanstaaftanstaaf") == Plain(b"", b"tim", b"tanstaaftanstaaf")
    assert parse_plain(b"Ursel\0Kurt\0xipj3plmq") == Plain(b"Ursel", b"Kurt", b"xipj3plmq")
    assert parse_plain("\0zoë\0p€ss".encode()).password == "p€ss".encode()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"tim",
        b"\0tim",
        b"\0tim\0a\0b",
        b"\0\0password",
        b"\0tim\0",
        b"\0t\xff\0p",
        b"\0" + b"x" * 256 + b"\0p",
        b"\0t\0" + b"p" * 4097,
    ],
)
def test_bad_messages(message: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_plain(message)


@pytest.mark.parametrize(
    "line", [b"AHR", b"AHRp=", b"AHRp bQ==", b"AHRp\n", b"AH_-", b"====", b"QQ=", b"QR==", b"QQ==QQ==", b"\xff", b"**"]
)
def test_lines_that_are_not_strict_base64(line: bytes) -> None:
    with pytest.raises(BadSyntax):
        decode_line(line)


def test_special_lines_and_the_limit() -> None:
    assert decode_line(b"=") == b""
    assert decode_line(b"") == b""
    with pytest.raises(Cancelled):
        decode_line(b"*")
    with pytest.raises(BadSyntax, match="too long"):
        decode_line(b"QUFB" * 10, limit=39)
    assert decode_line(b"QUFB" * 10, limit=40) == b"AAA" * 10


@given(st.binary(max_size=60))
def test_base64_round_trip(octets: bytes) -> None:
    assert decode_line(base64.b64encode(octets)) == octets


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(parse_plain(b"\0tim\0secret"))
