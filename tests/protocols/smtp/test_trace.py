"""Trace fields."""

from __future__ import annotations

import datetime

import pytest

from fe_twisted.protocols.smtp import trace

ZONE = datetime.timezone(datetime.timedelta(hours=-5))
HOP = trace.Hop("mail.example.org", "2001:db8::1", "mx.example.com", "ESMTP", "abc-1", datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=ZONE))


def test_fields() -> None:
    assert trace.return_path("") == b"Return-Path: <>\r\n"
    assert trace.return_path('"a b"@example.org') == b'Return-Path: <"a b"@example.org>\r\n'
    assert trace.delivered_to("ü@example.com") == "Delivered-To: ü@example.com\r\n".encode()
    assert trace.received(HOP, "a@example.com") == (
        b"Received: from mail.example.org ([IPv6:2001:db8::1])\r\n"
        b"\tby mx.example.com with ESMTP id abc-1\r\n"
        b"\tfor <a@example.com>; Fri, 02 Jan 2026 03:04:05 -0500\r\n"
    )


@pytest.mark.parametrize(
    ("client", "literal"),
    [
        ("192.0.2.1", b"([192.0.2.1])"),
        ("::ffff:192.0.2.1", b"([192.0.2.1])"),
        ("fe80::1%eth0", b"([IPv6:fe80::1])"),
        ("/run/x", b"(unknown)"),
    ],
)
def test_client_address(client: str, literal: bytes) -> None:
    hop = trace.Hop("x", client, "y", "SMTP", "z", HOP.received_at)
    assert literal in trace.received(hop, "a@b")


@pytest.mark.parametrize(
    ("tls", "clause"),
    [
        (None, b"with ESMTP id"),
        (("TLS1.3", "TLS_AES_256_GCM_SHA384", "X25519MLKEM768"), b"with ESMTP (TLS1.3) tls TLS_AES_256_GCM_SHA384 group X25519MLKEM768 id"),
        (("TLS1.3", "TLS_AES_256_GCM_SHA384", ""), b"with ESMTP (TLS1.3) tls TLS_AES_256_GCM_SHA384 id"),
        (("TLS1.2", "ECDHE-RSA-AES256-GCM-SHA384", "x25519"), b"with ESMTP (TLS1.2 ECDHE-RSA-AES256-GCM-SHA384 x25519) id"),
    ],
)
def test_tls(tls: tuple[str, str, str] | None, clause: bytes) -> None:
    """RFC 8314 section 4.3."""
    hop = trace.Hop("x", "192.0.2.1", "y", "ESMTP", "z", HOP.received_at, tls)
    assert clause in trace.received(hop, "a@b")


def test_protocol_name() -> None:
    """RFC 3848 and RFC 6531."""
    assert trace.protocol_name(extended=False, tls=False, utf8=False) == "SMTP"
    assert trace.protocol_name(extended=True, tls=False, utf8=False) == "ESMTP"
    assert trace.protocol_name(extended=True, tls=True, utf8=False) == "ESMTPS"
    assert trace.protocol_name(extended=True, tls=False, utf8=True) == "UTF8SMTP"
    assert trace.protocol_name(extended=True, tls=True, utf8=True) == "UTF8SMTPS"


@pytest.mark.parametrize(
    ("message", "hops"),
    [
        (b"", 0),
        (b"\r\nReceived: x\r\n", 0),
        (b"Received: x\r\nRECEIVED: y\r\n\tReceived: z\r\nX-Received: q\r\nreceived:\r\n\r\nReceived: body\r\n", 3),
        (b"Received: x", 1),
        (b"Subject: x\r\n\r\nReceived: x\r\n\r\n", 0),
    ],
)
def test_count(message: bytes, hops: int) -> None:
    """Only the header counts, in any case, without folded lines and other names."""
    assert trace.count_fields(message, b"received") == hops
