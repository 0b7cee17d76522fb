"""Literals that are announced to fill the server's memory, or to make it read text as commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.imap.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


@pytest.mark.parametrize("size", ["99999999999", "4294967296", "18446744073709551616", "52428801"])
def test_a_message_that_is_too_large_is_refused_before_it_is_sent(house: House, size: str) -> None:
    client = house.login()
    (answer,) = client.ask(f"APPEND INBOX {{{size}}}")
    assert answer.startswith("t NO [TOOBIG]")
    assert client.ask("NOOP") == ["t OK NOOP completed"]


@pytest.mark.parametrize("size", ["99999999999", "1000000"])
def test_before_login_no_large_literal_is_taken(house: House, size: str) -> None:
    client = house.connect()
    (answer,) = client.ask(f"LOGIN {{{size}}}")
    assert answer.startswith("t BAD [TOOBIG]")
    assert client.ask("NOOP") == ["t OK NOOP completed"]


def test_octets_of_a_refused_literal_are_never_commands(house: House) -> None:
    client = house.login()
    text = b"x CREATE Evil\r\n" * 8000
    client.take()
    client.send(b"a SELECT {%d+}\r\n%b\r\nb NOOP\r\n" % (len(text), text))
    assert [line.split()[:2] for line in client.lines()] == [["a", "BAD"], ["b", "OK"]]
    client.ask('LIST "" Evil')
    assert client.ask('LIST "" Evil') == ["t OK LIST completed"]


def test_a_refused_message_of_60_mb_takes_no_memory(house: House) -> None:
    client = house.login()
    client.take()
    size = 60 * 1024 * 1024
    client.send(b"a APPEND INBOX {%d+}\r\n" % size)
    piece = b"b CREATE Evil\r\n" * 4096
    for _ in range(size // len(piece)):
        client.send(piece)
        assert client.protocol._parser.buffered < 65_536
    client.send(b"x" * (size % len(piece)) + b"\r\nc NOOP\r\n")
    assert [line.split()[:2] for line in client.lines()] == [["a", "NO"], ["c", "OK"]]


@pytest.mark.parametrize("announced", [b"{-5}", b"{+5}", b"{5", b"5}", b"{}", b"{ 5}", b"{5-}"])
def test_what_is_no_literal_is_no_literal(house: House, announced: bytes) -> None:
    client = house.login()
    client.take()
    client.send(b"a SELECT " + announced + b"\r\nb NOOP\r\n")
    lines = client.lines()
    assert lines[0].startswith(("a BAD", "a NO"))
    assert lines[-1] == "b OK NOOP completed"


def test_many_literals_in_one_command_are_bounded(house: House) -> None:
    client = house.login("INBOX")
    client.take()
    client.send(b"a SEARCH" + b" SUBJECT {65536+}\r\n" + b"x" * 65_536)
    for _ in range(200):
        client.send(b" SUBJECT {65536+}\r\n" + b"x" * 65_536)
    client.send(b"\r\nb NOOP\r\n")
    assert [line.split()[:2] for line in client.lines()] == [["a", "BAD"], ["b", "OK"]]


def test_a_line_without_end_is_given_up(house: House) -> None:
    client = house.connect()
    client.take()
    for _ in range(200):
        client.send(b"x" * 65_536)
        assert client.protocol._parser.buffered < 200_000
    lines = client.lines()
    assert lines[-1].startswith("* BYE")
    assert client.closing
