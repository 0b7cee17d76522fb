"""STARTTLS injection: what a man in the middle puts behind STARTTLS in the clear must not be run inside TLS (CVE-2011-0411)."""

from __future__ import annotations

import datetime

import pytest

from fe_twisted.app.certificates import create_certificate
from fe_twisted.servers.tls import ServerTLS
from tests.servers.smtp.tls import TLSClient
from tests.servers.smtp.world import World


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTLS:
    folder = tmp_path_factory.mktemp("tls")
    create_certificate(folder / "c.pem", folder / "k.pem", "mx.example.com", datetime.datetime.now(datetime.UTC))
    return ServerTLS(folder / "c.pem", folder / "k.pem")


INJECTED = b"EHLO evil\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<hello@example.com>\r\nDATA\r\nx\r\n.\r\n"


@pytest.mark.parametrize("injected", [INJECTED, b"NOOP\r\n", b"MAIL FROM:<evil@exam", b"BDAT 100000\r\n", b"\r\n"])
def test_injected_commands_are_forgotten(tls: ServerTLS, injected: bytes) -> None:
    """One answer to STARTTLS in the clear, none inside TLS, nothing stored, and no half command left."""
    world = World(tls=tls)
    client = TLSClient(world)
    assert "250-STARTTLS\r\n" in client.clear(b"EHLO x\r\n")
    assert client.clear(b"STARTTLS\r\n" + injected) == "220 2.0.0 ready to start TLS\r\n"
    client.handshake()
    assert client.send(b"") == ""
    assert client.send(b"NOOP\r\n") == "250 2.0.0 ok\r\n"
    assert world.mailboxes.stored == []


def test_injected_behind_a_slow_command(tls: ServerTLS) -> None:
    """Also when STARTTLS had to wait in the buffer together with what was injected."""
    world = World(tls=tls)
    world.directory.slow = True
    client = TLSClient(world)
    client.clear(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<hello@example.com>\r\nRSET\r\nSTARTTLS\r\n" + INJECTED)
    world.directory.answer()
    assert client.clear(b"").endswith("220 2.0.0 ready to start TLS\r\n")
    client.handshake()
    assert client.send(b"") == ""
    assert world.mailboxes.stored == []
    assert world.directory.waiting == []


def test_the_session_begins_anew(tls: ServerTLS) -> None:
    """Greeting and envelope from before the handshake are gone (RFC 3207 section 4.2); STARTTLS is offered once."""
    world = World(tls=tls)
    client = TLSClient(world)
    client.clear(b"EHLO x\r\nSTARTTLS\r\n")
    client.handshake()
    assert client.send(b"MAIL FROM:<a@example.org>\r\n").startswith("503 ")
    assert "STARTTLS" not in client.send(b"EHLO y\r\n")
    assert client.send(b"STARTTLS\r\n").startswith("503 ")


def test_no_starttls_inside_a_transaction(tls: ServerTLS) -> None:
    """The envelope cannot be carried over."""
    client = TLSClient(World(tls=tls))
    client.clear(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\n")
    assert client.clear(b"STARTTLS\r\n").startswith("503 ")


def test_trace_names_the_tls_session(tls: ServerTLS) -> None:
    """A message through TLS says so, with version, cipher and the hybrid key exchange."""
    world = World(tls=tls)
    client = TLSClient(world)
    client.clear(b"EHLO x\r\nSTARTTLS\r\n")
    client.handshake()
    got = client.send(b"EHLO mail.example.org\r\nMAIL FROM:<>\r\nRCPT TO:<hello@example.com>\r\nDATA\r\nx\r\n.\r\n")
    assert got.endswith("250 2.0.0 accepted as c0ffee-1\r\n")
    received = world.mailboxes.stored[0][1].decode()
    group = client.tls.get_group_name()
    assert "from mail.example.org ([192.0.2.7])\r\n" in received
    assert f" with ESMTPS (TLS1.3) tls {client.tls.get_cipher_name()} group {group} id c0ffee-1\r\n" in received
