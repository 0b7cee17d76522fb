"""AUTHENTICATE with SCRAM and LOGIN, in the clear and bound to a TLS channel."""

from __future__ import annotations

import base64
from pathlib import Path

from tests.servers.imap.house import GENERATED, PASSWORD, USER, Client, House
from tests.servers.imap.scramming import ScramClient
from tests.servers.imap.tls import TlsClient, server_tls


def _begin(client: Client, scram: ScramClient, mechanism: str = "SCRAM-SHA-256") -> list[str]:
    """Up to the answer to the client's proof."""
    (challenge,) = client.ask(b"AUTHENTICATE " + mechanism.encode() + b" " + scram.first())
    assert challenge.startswith("+ ")
    client.send(scram.final(challenge[2:]) + b"\r\n")
    return client.lines()


def test_the_password_is_not_needed(house: House) -> None:
    client = house.connect()
    scram = ScramClient(USER.decode(), GENERATED)
    (verdict,) = _begin(client, scram)
    assert base64.b64decode(verdict[2:]) == scram.expected
    assert house.doorman.inside == 1
    client.send(b"\r\n")
    assert client.lines()[-1].startswith("t OK [CAPABILITY")
    assert client.ask("SELECT INBOX")[-1].startswith("t OK")


def test_without_an_initial_response(house: House) -> None:
    client = house.connect()
    scram = ScramClient(USER.decode(), GENERATED)
    assert client.ask("AUTHENTICATE SCRAM-SHA-256") == ["+ "]
    client.send(scram.first() + b"\r\n")
    (challenge,) = client.lines()
    client.send(scram.final(challenge[2:]) + b"\r\n")
    client.send(b"\r\n")
    assert client.lines()[-1].startswith("t OK")


def test_a_wrong_password_and_a_wrong_user_look_alike(house: House) -> None:
    answers = []
    for user, password in ((USER.decode(), "x" * 24), ("nobody@example.com", GENERATED)):
        (answer,) = _begin(house.connect(), ScramClient(user, password))
        answers.append(answer)
    assert answers[0] == answers[1]
    assert answers[0].startswith("t NO [AUTHENTICATIONFAILED]")
    assert house.doorman.inside == 0


def test_a_client_that_leaves_before_the_end_leaves_nothing_open(house: House) -> None:
    client = house.connect()
    _begin(client, ScramClient(USER.decode(), GENERATED))
    assert house.doorman.inside == 1
    client.drop()
    assert house.doorman.inside == 0


def test_a_client_that_does_not_believe_the_server(house: House) -> None:
    client = house.connect()
    _begin(client, ScramClient(USER.decode(), GENERATED))
    client.send(b"*\r\n")
    assert client.lines()[-1].startswith("t BAD")
    assert house.doorman.inside == 0
    assert client.ask("NOOP")[-1].startswith("t OK")


def test_cancelled_or_broken(house: House) -> None:
    client = house.connect()
    client.ask(b"AUTHENTICATE SCRAM-SHA-256 " + ScramClient("a", "b").first())
    client.send(b"*\r\n")
    assert client.lines()[-1].startswith("t BAD")
    assert client.ask(b"AUTHENTICATE SCRAM-SHA-256 " + base64.b64encode(b"n,,rubbish"))[-1].startswith("t BAD")
    client.ask(b"AUTHENTICATE SCRAM-SHA-256 " + ScramClient("a", "b").first())
    client.send(base64.b64encode(b"rubbish") + b"\r\n")
    assert client.lines()[-1].startswith("t BAD")
    other = ScramClient(USER.decode(), GENERATED, gs2="n,a=else@example.com,")
    assert client.ask(b"AUTHENTICATE SCRAM-SHA-256 " + other.first())[-1].startswith("t NO [AUTHORIZATIONFAILED]")


def test_no_binding_without_tls(house: House) -> None:
    client = house.connect()
    bound = ScramClient(USER.decode(), GENERATED, gs2="p=tls-exporter,,", channel=b"x" * 32)
    assert client.ask(b"AUTHENTICATE SCRAM-SHA-256-PLUS " + bound.first())[-1].startswith("t NO [CANNOT]")
    assert client.ask(b"AUTHENTICATE SCRAM-SHA-256 " + bound.first())[-1].startswith("t BAD")


def test_not_in_the_clear(house: House) -> None:
    client = house.connect(peer="192.0.2.1")
    assert client.ask(b"AUTHENTICATE SCRAM-SHA-256 " + ScramClient("a", "b").first())[-1].startswith("t NO [PRIVACYREQUIRED]")
    assert client.ask(b"AUTHENTICATE LOGIN")[-1].startswith("t NO [PRIVACYREQUIRED]")


def test_login(house: House) -> None:
    client = house.connect()
    assert client.ask("AUTHENTICATE LOGIN") == ["+ " + base64.b64encode(b"Username:").decode()]
    client.send(base64.b64encode(USER) + b"\r\n")
    assert client.lines() == ["+ " + base64.b64encode(b"Password:").decode()]
    client.send(base64.b64encode(PASSWORD) + b"\r\n")
    assert client.lines()[-1].startswith("t OK")


# -- SCRAM-SHA-256-PLUS over real TLS 1.3 -----------------------------------------------------------


def _client(tmp_path: Path) -> tuple[House, TlsClient, bytes]:
    house = House(tmp_path, tls=server_tls(tmp_path))
    client = TlsClient(house.factory.buildProtocol(None))
    client.take()
    client.send(b"1 STARTTLS\r\n")
    client.take()
    client.handshake()
    assert client.connection is not None
    return house, client, client.connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")


def _login(client: TlsClient, scram: ScramClient, mechanism: bytes) -> bytes:
    client.send(b"2 AUTHENTICATE " + mechanism + b" " + scram.first() + b"\r\n")
    challenge = client.take()
    if not challenge.startswith(b"+ "):
        return challenge
    client.send(scram.final(challenge[2:].decode().strip()) + b"\r\n")
    verdict = client.take()
    if verdict.startswith(b"+ "):
        assert base64.b64decode(verdict[2:]) == scram.expected
        client.send(b"\r\n")
        verdict = client.take()
    return verdict


def test_the_same_channel(tmp_path: Path) -> None:
    house, client, channel = _client(tmp_path)
    client.send(b"3 CAPABILITY\r\n")
    assert b"AUTH=SCRAM-SHA-256-PLUS" in client.take()
    scram = ScramClient(USER.decode(), GENERATED, gs2="p=tls-exporter,,", channel=channel)
    assert _login(client, scram, b"SCRAM-SHA-256-PLUS").startswith(b"2 OK")
    client.wire.protocol.connectionLost()
    house.close()


def test_somebody_in_between(tmp_path: Path) -> None:
    house, client, channel = _client(tmp_path)
    scram = ScramClient(USER.decode(), GENERATED, gs2="p=tls-exporter,,", channel=channel[::-1])
    assert _login(client, scram, b"SCRAM-SHA-256-PLUS").startswith(b"2 NO [AUTHENTICATIONFAILED]")
    client.wire.protocol.connectionLost()
    house.close()


def test_somebody_took_plus_out_of_the_list(tmp_path: Path) -> None:
    house, client, _ = _client(tmp_path)
    client.send(b"3 CAPABILITY\r\n")
    client.take()
    scram = ScramClient(USER.decode(), GENERATED, gs2="y,,")
    assert _login(client, scram, b"SCRAM-SHA-256").startswith(b"2 NO [AUTHENTICATIONFAILED]")
    assert _login(client, ScramClient(USER.decode(), GENERATED), b"SCRAM-SHA-256").startswith(b"2 OK")
    client.wire.protocol.connectionLost()
    house.close()
