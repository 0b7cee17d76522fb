"""Literals as a weapon: lengths nobody can store, and octets that want to be taken for commands.

twisted.mail read the octets of ``{n+}`` as commands, took ``{-5}`` for a literal, and promised to store ``{99999999999}``.
"""

from __future__ import annotations

import tracemalloc

import pytest

from fe_twisted.protocols.imap.commands import BadCommand, Command, Event, NeedContinuation
from fe_twisted.protocols.imap.parse import Parser

EVIL = b"evil DELETE INBOX\r\n"


def events(data: bytes, *, authenticated: bool = True) -> list[Event]:
    parser = Parser()
    parser.authenticated = authenticated
    parser.feed(data)
    return list(parser.events())


def names(made: list[Event]) -> list[str]:
    return [event.name for event in made if isinstance(event, Command)]


@pytest.mark.parametrize("size", [b"99999999999", b"4294967296", b"18446744073709551616", b"1" + b"0" * 5000])
def test_an_absurd_synchronising_literal_gets_no_continuation(size: bytes) -> None:
    for line in (b"a LOGIN {%b}", b"a APPEND x {%b}", b"a APPEND x ~{%b}", b"a APPEND x (\\Seen) {%b}"):
        made = events(line % size + b"\r\n")
        assert [type(event) for event in made] == [BadCommand]
        assert isinstance(made[0], BadCommand) and made[0].tag == "a" and made[0].error_code == "TOOBIG" and not made[0].fatal


@pytest.mark.parametrize("size", [b"99999999999", b"1" + b"0" * 5000])
def test_an_absurd_non_synchronising_literal_ends_the_connection(size: bytes) -> None:
    made = events(b"a APPEND x {" + size + b"+}\r\n" + EVIL)
    assert [(type(event), getattr(event, "fatal", None)) for event in made] == [(BadCommand, True)]


@pytest.mark.parametrize(
    "before",
    [
        b"a FOO ",  # unknown command
        b"+ ",  # no tag
        b"a LOGIN x y ",
        b"a NOOP ",
        b"a SELECT \xff",
        b'a LOGIN "unfinished ',
        b"a FETCH 1 BODY[HEADER.FIELDS (",
        b"x" * 70_000 + b" ",  # a line over the limit
        b"a APPEND x \n",  # a line given up for its bare LF
        b"a APPEND x {3+}\r\nabc {0+}\r\n (\\Bad) ",
    ],
)
@pytest.mark.parametrize("authenticated", [False, True])
def test_the_octets_of_a_literal_are_never_commands(before: bytes, authenticated: bool) -> None:
    """Whatever is wrong with the command around it: what was announced is skipped, and the next real command is understood."""
    made = events(before + b"{%d+}\r\n" % (len(EVIL) * 3) + EVIL * 3 + b" tail\r\nz NOOP\r\n", authenticated=authenticated)
    assert names(made) == ["NOOP"]
    assert not any(isinstance(event, NeedContinuation) for event in made)


def test_the_octets_of_an_oversized_literal_are_never_commands() -> None:
    for authenticated, octets in ((False, 4_097), (True, 1_048_577)):
        evil = (EVIL * (octets // len(EVIL) + 1))[: octets - 2] + b"\r\n"
        made = events(b"a LOGIN {%d+}\r\n" % octets + evil + b" x\r\nz NOOP\r\n", authenticated=authenticated)
        assert names(made) == ["NOOP"]
        assert [event.error_code for event in made if isinstance(event, BadCommand)] == ["TOOBIG"]


@pytest.mark.parametrize("announced", [b"{-5}", b"{-5+}", b"{5", b"{5+", b"{}", b"{+}", b"{ 5}", b"{5 }", b"{5}}", b"{0x5}", b"{\xd9\xa5}"])
def test_what_is_no_announcement_is_an_error_in_one_line(announced: bytes) -> None:
    made = events(b"a LOGIN joe " + announced + b"\r\nz NOOP\r\n")
    assert [type(event) for event in made] == [BadCommand, Command]
    assert isinstance(made[0], BadCommand) and made[0].tag == "a" and not made[0].fatal


def test_a_skipped_literal_is_not_stored() -> None:
    parser = Parser()
    parser.feed(b"a LOGIN {200000000+}\r\n")
    assert isinstance(parser.next_event(), BadCommand)
    chunk = b"x" * 1_000_000
    tracemalloc.start()
    for _ in range(200):
        parser.feed(chunk)
        assert parser.next_event() is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
    parser.feed(b"\r\nb NOOP\r\n")
    assert parser.next_event() == Command("b", "NOOP")


def test_many_small_literals_cannot_grow_a_command_without_bound() -> None:
    parser = Parser()
    parser.authenticated = True
    parser.feed(b"a SEARCH")
    made: list[Event] = []
    for _ in range(20_000):
        parser.feed(b" TO {1+}\r\nx")
        made.extend(parser.events())
    assert [type(event) for event in made] == [BadCommand]
    assert parser.buffered < 1_000
