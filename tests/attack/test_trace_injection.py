"""Header injection: nothing that a client chooses (HELO name, addresses) can add a field or a clause to the header we write."""

from __future__ import annotations

import datetime
import email
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.smtp import trace
from tests.servers.smtp.world import World

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "name",
    [
        b"x\rInjected: 1",
        b"x\nInjected: 1",
        b"x (trusted.example [127.0.0.1])",
        b"x)by(y",
        b"x;Thu",
        b"x\x00y",
        b"x\x0by",
        b"x\ty",
        b"\xc3\xa9\xe2\x80\xa8",
        b"<x>",
        b'"x"',
    ],
)
def test_helo_with_what_no_name_has(name: bytes) -> None:
    """It is refused, and without a greeting there is no mail."""
    world = World()
    wire = world.connect()
    wire.read()
    got = wire.send(b"EHLO " + name + b"\r\n")
    assert got[:4] in ("500 ", "501 ")
    assert wire.send(b"MAIL FROM:<a@example.org>\r\n").startswith("503 ")


@pytest.mark.parametrize(
    "address",
    [b'"a\rX: y"@example.org', b'"a\nX: y"@example.org', b'"a\x00b"@example.org', b"a\xe2\x80\xa8b@example.org", b"a\x85@example.org"],
)
def test_addresses_with_line_ends(address: bytes) -> None:
    """Neither MAIL nor RCPT takes them, with or without SMTPUTF8."""
    for mail in (b"MAIL FROM:<" + address + b"> SMTPUTF8\r\n", b"MAIL FROM:<" + address + b">\r\n"):
        wire = World().connect()
        wire.send(b"EHLO x\r\n")
        assert wire.send(mail)[:1] == "5"
    wire = World().connect()
    wire.send(b"EHLO x\r\nMAIL FROM:<> SMTPUTF8\r\n")
    assert wire.send(b"RCPT TO:<" + address + b">\r\n").splitlines()[0][:1] == "5"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=20))
def test_builders_write_one_field_each(helo: str, address: str, cipher: str) -> None:
    """Whatever is handed in, each builder gives one field, and Received has the clauses it should have and no comment more."""
    hop = trace.Hop(helo, "192.0.2.1", "mx.example.com", "ESMTPS", "id-1", NOW, ("TLS1.2", cipher, ""))
    for line in (trace.return_path(address), trace.delivered_to(address), trace.received(hop, address)):
        message = email.message_from_bytes(line + b"Subject: x\r\n\r\n", policy=email.policy.compat32)
        assert len(message.keys()) == 2
        assert b"\r" not in line.replace(b"\r\n", b"")
        assert b"\n" not in line.replace(b"\r\n", b"")
    head = trace.received(hop, "a@example.com")
    assert head.count(b"(") == head.count(b")") == 2
    assert head.count(b" from ") + head.count(b"\tby ") + head.count(b"\tfor ") == 3


def test_a_reply_is_never_split() -> None:
    """What a client sent and a reply repeats cannot begin a new line."""
    wire = World().connect()
    wire.send(b"EHLO x\r\n")
    got = wire.send("MAIL FROM:<a@b> SIZE=1 SIZE\u2028=1\r\n".encode())
    assert got.count("\r\n") == 1
