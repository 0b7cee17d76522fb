"""Commands that stand in the clear behind STARTTLS must not be carried out inside TLS (CVE-2011-0411).

An attacker on the path can put them there; run after the handshake, they would act in the victim's session.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.imap.house import House
from tests.servers.imap.tls import TlsClient, server_tls


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, tls=server_tls(tmp_path), plaintext_login_from_loopback=False)
    yield house
    for protocol in tuple(house.factory.live):
        protocol.connectionLost()
    house.close()


def client_of(house: House) -> TlsClient:
    client = TlsClient(house.factory.buildProtocol(None))
    assert b"STARTTLS LOGINDISABLED" in client.take()
    return client


def test_starttls_works_and_changes_what_is_offered(house: House) -> None:
    client = client_of(house)
    client.send(b"1 STARTTLS\r\n")
    assert client.take().startswith(b"1 OK ")
    client.handshake()
    client.send(b"2 CAPABILITY\r\n")
    offered = client.take().partition(b"\r\n")[0].split()
    assert offered[:2] == [b"*", b"CAPABILITY"]
    assert {b"AUTH=PLAIN", b"AUTH=SCRAM-SHA-256", b"AUTH=SCRAM-SHA-256-PLUS"} <= set(offered)
    assert not {b"STARTTLS", b"LOGINDISABLED", b"LITERAL+", b"UIDPLUS"} & set(offered)
    client.send(b"3 STARTTLS\r\n")
    assert client.take() == b"3 BAD TLS is on already\r\n"
    client.send(b"4 LOGIN hello@example.com secret\r\n")
    after = client.take()
    assert after.startswith(b"4 OK [CAPABILITY IMAP4rev1 ")
    assert b" LITERAL+ " in after


@pytest.mark.parametrize(
    "injected",
    [
        b"2 LOGIN hello@example.com secret\r\n3 CAPABILITY\r\n",
        b"2 NOOP\r\n",
        b"2 LOGIN hello@example.com {6}\r\n",
        b"2 LOGIN hello@example.com {6+}\r\n",
        b"2 NOO",
        b"\r\n\r\n\r\n",
    ],
)
def test_what_follows_starttls_in_its_segment_is_thrown_away(house: House, injected: bytes) -> None:
    client = client_of(house)
    client.send(b"1 STARTTLS\r\n" + injected)
    assert client.take() == b"1 OK begin TLS negotiation now\r\n"
    client.handshake()
    assert client.take() == b""
    client.send(b"x NOOP\r\n")
    assert client.take() == b"x OK NOOP completed\r\n"
    assert house.doorman.asked == 0


def test_what_was_pipelined_before_starttls_is_answered_before_it(house: House) -> None:
    client = client_of(house)
    client.send(b"1 NOOP\r\n2 STARTTLS\r\n3 LOGIN hello@example.com secret\r\n")
    assert client.take() == b"1 OK NOOP completed\r\n2 OK begin TLS negotiation now\r\n"


def test_the_password_is_refused_in_the_clear_though_tls_is_possible(house: House) -> None:
    client = client_of(house)
    client.send(b"1 LOGIN hello@example.com secret\r\n")
    assert client.take().startswith(b"1 NO [PRIVACYREQUIRED]")
    assert house.doorman.asked == 0
