"""Relaying: nobody may use us to reach an address that is not ours, however it is written."""

from __future__ import annotations

import pytest

from tests.servers.smtp.world import World


@pytest.mark.parametrize(
    "recipient",
    [
        "victim@elsewhere.example",
        "@example.com:victim@elsewhere.example",
        "@elsewhere.example:victim@elsewhere.example",
        "victim%elsewhere.example@example.com",
        "elsewhere.example!victim@example.com",
        "victim@elsewhere.example@example.com",
        '"victim@elsewhere.example"@example.com',
        '"victim@elsewhere.example"',
        "victim%elsewhere.example",
        "victim@[192.0.2.1]",
        "victim@[127.0.0.1]",
        "victim@[IPv6:::1]",
        "hello@example.com@elsewhere.example",
        "hello@example.com.elsewhere.example",
        "hello@sub.example.com",
        "hello@xample.com",
        "hello@example.com%00.elsewhere.example",
        "hello@example.com,victim@elsewhere.example",
        "hello@example.com> <victim@elsewhere.example",
    ],
)
@pytest.mark.parametrize("sender", ["spam@elsewhere.example", "hello@example.com", ""])
def test_refused(recipient: str, sender: str) -> None:
    """550 (or a syntax error), and DATA has nobody to go to; a sender of ours opens nothing."""
    world = World()
    wire = world.connect("127.0.0.1")
    wire.send(f"EHLO localhost\r\nMAIL FROM:<{sender}>\r\n".encode())
    wire.read()
    got = wire.send(f"RCPT TO:<{recipient}>\r\n".encode())
    assert got[:3] in ("550", "553", "501", "555")
    assert wire.send(b"DATA\r\n").startswith("503 ")
    assert world.mailboxes.stored == []
