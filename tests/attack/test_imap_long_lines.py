"""Lines that never end, or that are made to be slow to read."""

from __future__ import annotations

import time

import pytest

from fe_twisted.protocols.imap.commands import BadCommand, Command
from fe_twisted.protocols.imap.parse import Limits, Parser


def test_a_long_line_is_answered_once_and_the_session_goes_on() -> None:
    """twisted.mail drops the connection at 16 KB; a set of UIDs may well be longer."""
    parser = Parser()
    parser.feed(b"a LOGIN " + b"x" * 1_000_000 + b"\r\nb NOOP\r\n")
    assert list(parser.events()) == [BadCommand("a", "line too long", "LIMIT"), Command("b", "NOOP")]


def test_an_endless_line_is_not_stored_and_is_given_up_at_last() -> None:
    parser = Parser()
    made = []
    largest = 0
    for _ in range(200):
        parser.feed(b"a " + b"x" * 100_000)
        made.extend(parser.events())
        largest = max(largest, parser.buffered)
    assert made == [BadCommand("a", "line too long", "LIMIT"), BadCommand("*", "line without end", "LIMIT", fatal=True)]
    assert largest <= 64


def test_a_line_that_comes_octet_by_octet_costs_linear_time() -> None:
    parser = Parser(Limits(line=400_000))
    parser.authenticated = True
    started = time.perf_counter()
    for _ in range(300_000):
        parser.feed(b"x")
        assert parser.next_event() is None
    assert time.perf_counter() - started < 5


def test_many_short_lines_in_one_segment_cost_linear_time() -> None:
    """LineReceiver copied the rest of the buffer for every line."""
    parser = Parser()
    parser.feed(b"a NOOP\r\n" * 100_000)
    started = time.perf_counter()
    assert sum(1 for _ in parser.events()) == 100_000
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    "line",
    [
        b'a LOGIN "' + b"\\\\" * 30_000,
        b'a LOGIN "' + b"x" * 60_000,
        b"a LOGIN " + b"{" * 60_000 + b"}",
        b"a LOGIN " + b"{1" * 30_000 + b"x}",
        b"a LOGIN {" + b"1" * 60_000 + b"x}",
        b"a FETCH 1 " + b"(" * 60_000,
        b"a FETCH 1 BODY[" + b"1." * 30_000,
        b"a FETCH 1 (" + b"FLAGS " * 10_000 + b"x",
        b"a FETCH 1 BODY[HEADER.FIELDS (" + b"x " * 30_000,
        b"a SEARCH " + b"(" * 60_000,
        b"a SEARCH " + b"NOT " * 15_000 + b"ALL",
        b"a SEARCH " + b"OR " * 20_000,
        b'a SEARCH SINCE "' + b"1-" * 30_000,
        b"a STORE 1 FLAGS (" + b"a " * 30_000,
        b"a SELECT x (A " + b"(" * 60_000,
        b'a LIST "" ' + b"*" * 60_000 + b"(",
        b"a LIST (" + b"SUBSCRIBED " * 5_000,
        b"a SELECT " + b"&AGE-" * 12_000,
        b"a SELECT " + b"&" * 60_000,
        b"a ID (" + b'"a" "b" ' * 7_000,
        b'a APPEND x "' + b" " * 60_000,
        b"a" * 60_000 + b" ",
    ],
)
def test_lines_made_to_be_slow(line: bytes) -> None:
    parser = Parser()
    parser.authenticated = True
    parser.feed(line + b"\r\nb NOOP\r\n")
    started = time.perf_counter()
    made = list(parser.events())
    assert time.perf_counter() - started < 1
    assert isinstance(made[0], BadCommand)
    assert made[1:] == [Command("b", "NOOP")]
