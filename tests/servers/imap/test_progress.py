"""Long commands: the client hears that they are worked on (RFC 9585), and never in the middle of a response."""

from __future__ import annotations

from tests.servers.imap.house import House


def test_a_long_search_tells_every_ten_seconds(house: House) -> None:
    house.fill("INBOX", 2)
    client = house.login("INBOX")
    house.threads.held = True
    client.take()
    client.send(b"s1 SEARCH BODY message\r\n")
    assert client.take() == b""
    house.clock.advance(10)
    assert client.lines() == ['* OK [INPROGRESS ("s1" NIL NIL)] still working on it']
    house.clock.advance(9)
    assert client.take() == b""
    house.clock.advance(1)
    assert len(client.lines()) == 1
    house.threads.work()
    assert client.lines() == ["* SEARCH 1 2", "s1 OK SEARCH completed"]
    house.clock.advance(30)
    assert client.take() == b""


def test_nobody_is_told_when_it_is_hidden_or_the_client_is_gone(house: House) -> None:
    house.doorman.hides = frozenset({"INPROGRESS"})
    client = house.login("INBOX")
    house.threads.held = True
    client.take()
    client.send(b"s1 SEARCH BODY message\r\n")
    house.clock.advance(25)
    assert client.take() == b""
    client.drop()
    house.clock.advance(25)
    assert client.take() == b""
