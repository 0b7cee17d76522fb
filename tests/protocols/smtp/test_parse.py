"""The SMTP parser: the same bytes cut anywhere give the same events, and text never becomes commands."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.base.errors import BareNewline, MessageTooLarge
from fe_twisted.protocols.smtp.parse import (
    Bad,
    BadCommand,
    Chunk,
    Command,
    CommandTooLong,
    Content,
    End,
    Parser,
    TextLineTooLong,
)

SMALL = {"command_line": 40, "text_line": 20, "message": 60}


def run(pieces: Iterable[bytes], **limits: int) -> list[object]:
    """Feed the pieces as a server would (DATA is always accepted) and return the events, with content joined and errors as their class."""
    parser = Parser(**limits)
    events: list[object] = []
    kept = b""
    for piece in pieces:
        parser.feed(piece)
        while (event := parser.next_event()) is not None:
            match event:
                case Content(data):
                    assert data
                    kept += data
                case End(error, last):
                    events.append(("end", type(error) if error else kept, last))
                    kept = b""
                case Bad(error, fatal):
                    events.append(("bad", type(error), fatal))
                case Command(verb, argument):
                    events.append((verb, argument))
                    if verb == "DATA":
                        parser.begin_text()
                case Chunk(size, last):
                    events.append(("BDAT", size, last))
    return events


def octets(data: bytes) -> list[bytes]:
    """Cut into single octets."""
    return [data[i : i + 1] for i in range(len(data))]


def all_the_same(data: bytes, **limits: int) -> list[object]:
    """The events of ``data``, after a check that one piece, single octets and every cut in two give the same."""
    whole = run([data], **limits)
    assert run(octets(data), **limits) == whole
    for cut in range(1, len(data)):
        assert run([data[:cut], data[cut:]], **limits) == whole, cut
    return whole


def test_commands() -> None:
    """Verbs are upper-cased, spaces around the argument go, the argument is otherwise left alone."""
    assert all_the_same(b"ehlo mx.example.org\r\nMAIL FROM:<a@b> SIZE=1 \r\nnoop\r\n") == [
        ("EHLO", b"mx.example.org"),
        ("MAIL", b"FROM:<a@b> SIZE=1"),
        ("NOOP", b""),
    ]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"\r\n", BadCommand),
        (b"NO\x00OP\r\n", BadCommand),
        (b"NO\rOP\r\n", BadCommand),
        (b"\xffOOP\r\n", BadCommand),
        (b"NOOP\nQUIT\r\n", BadCommand),
        (b"NOOP\n\r\n", BadCommand),
        (b"NOOP\rQUIT\r\n", BadCommand),
        (b"NOOP \x1b\r\n", BadCommand),
        (b"N" * 50 + b"\r\n", CommandTooLong),
        (b"N" * 50 + b"\nQUIT\r\n", CommandTooLong),
        (b"NOOP " + b"\r" * 50 + b"\r\n", CommandTooLong),
    ],
)
def test_a_bad_line_is_one_error_and_nothing_of_it_is_run(line: bytes, error: type) -> None:
    """One event for the bad line, and the next line is read as usual."""
    assert all_the_same(line + b"RSET\r\n", **SMALL) == [("bad", error, False), ("RSET", b"")]


def test_a_bare_line_feed_is_answered_at_once() -> None:
    """A person with netcat, who sends LF only, hears of it without ever sending a CR LF."""
    assert run([b"HELO x\n"]) == [("bad", BadCommand, False)]


def test_command_line_limit_counts_cr_lf() -> None:
    """40 octets pass, 41 do not."""
    assert all_the_same(b"N" * 38 + b"\r\n", **SMALL) == [("N" * 38, b"")]
    assert all_the_same(b"N" * 39 + b"\r\n", **SMALL) == [("bad", CommandTooLong, False)]


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"..a\r\n...\r\n.\r\n", b".a\r\n..\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a.\r\n.b.\r\n.\r\n", b"a.\r\nb.\r\n"),
        (b"a\x00b\xff\r\n.\r\n", b"a\x00b\xff\r\n"),
    ],
)
def test_text(text: bytes, content: bytes) -> None:
    """Dot-unstuffing exactly as RFC 5321 section 4.5.2 says; any octets otherwise; what follows is a command."""
    assert all_the_same(b"DATA\r\n" + text + b"QUIT\r\n") == [
        ("DATA", b""),
        ("end", content, True),
        ("QUIT", b""),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"a\nb",
        b"a\rb",
        b"a\n.\nb",
        b"a\n.\r\nb",
        b"a\r\n.\nb",
        b"a\r\n.\rb",
        b"a\r.\r\nb",
        b"a\r\r\nb",
        b"\n",
        b"\r",
        b"a\n\rb",
        b"\n.",
        b"a\r\n\n.",
        b"a\r\n.\r",
        b"a\r\n.\n",
    ],
)
def test_bare_newlines_refuse_the_message_and_never_end_it(text: bytes) -> None:
    """The text is read to CR LF . CR LF, nothing of it is a command, and the error is BareNewline."""
    data = b"DATA\r\n" + text + b"\r\nQUIT\r\n.\r\nNOOP\r\n"
    assert all_the_same(data) == [("DATA", b""), ("end", BareNewline, True), ("NOOP", b"")]


def test_too_long_a_line_in_text() -> None:
    """20 octets with CR LF pass, 21 do not, wherever the line stands."""
    for before in (b"", b"x\r\n", b"x\r\n" * 6):
        good = before + b"y" * 18 + b"\r\n"
        assert all_the_same(b"DATA\r\n" + good + b".\r\n", **SMALL)[1] == ("end", good, True)
        for after in (b"", b"\r\nz"):
            bad = before + b"y" * 19 + after + b"\r\n.\r\nNOOP\r\n"
            assert all_the_same(b"DATA\r\n" + bad, **SMALL)[1:] == [("end", TextLineTooLong, True), ("NOOP", b"")]


def test_too_large_a_message() -> None:
    """60 octets pass, more are read to the end and refused, more than four times the limit end the connection."""
    line = b"x" * 13 + b"\r\n"
    assert all_the_same(b"DATA\r\n" + line * 4 + b".\r\n", **SMALL)[1] == ("end", line * 4, True)
    assert all_the_same(b"DATA\r\n" + line * 5 + b".\r\nNOOP\r\n", **SMALL)[1:] == [
        ("end", MessageTooLarge, True),
        ("NOOP", b""),
    ]
    assert all_the_same(b"DATA\r\n" + line * 17 + b".\r\nNOOP\r\n", **SMALL)[1:] == [("bad", MessageTooLarge, True)]


def test_stuffed_dots_do_not_count() -> None:
    """The size of a message is without the dots of transparency (RFC 1870 section 5)."""
    text = b"..234567890123\r\n" * 4
    assert all_the_same(b"DATA\r\n" + text + b".\r\n", **SMALL)[1] == ("end", text.replace(b"..", b"."), True)


def test_flaw_is_known_early() -> None:
    """A server can let go of what it kept before the end of the text."""
    parser = Parser()
    parser.begin_text()
    parser.feed(b"good line\r\nbad\nline\r\nmore")
    while parser.next_event():
        pass
    assert parser.flawed
    parser.feed(b"x" * 70_000)
    assert parser.next_event() is None
    assert parser.buffered < 5


def test_chunks() -> None:
    """BDAT content is taken by count: no dots, no terminator, a CR LF may be cut between two chunks."""
    data = b"BDAT 8\r\n.\r\nQUIT\rbdat 3 last\r\n\n.\rRSET\r\n"
    assert run([data])[:2] == [("BDAT", 8, False), ("end", b".\r\nQUIT\r", False)]
    assert all_the_same(b"BDAT 5\r\n.\r\n.\rbdat 3 LAST\r\n\n..NOOP\r\n") == [
        ("BDAT", 5, False),
        ("end", b".\r\n.\r", False),
        ("BDAT", 3, True),
        ("end", b"\n..", True),
        ("NOOP", b""),
    ]
    assert all_the_same(b"BDAT 0\r\nBDAT 0 LAST\r\n") == [
        ("BDAT", 0, False),
        ("end", b"", False),
        ("BDAT", 0, True),
        ("end", b"", True),
    ]


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"BDAT 2 LAST\r\na\r", BareNewline),
        (b"BDAT 2 LAST\r\na\n", BareNewline),
        (b"BDAT 3 LAST\r\na\nb", BareNewline),
        (b"BDAT 21 LAST\r\n" + b"x" * 21, TextLineTooLong),
        (b"BDAT 61 LAST\r\n" + b"x" * 61, MessageTooLarge),
    ],
)
def test_flaws_in_chunks(data: bytes, end: type) -> None:
    """The chunk is read to its end, whatever is wrong with it."""
    assert all_the_same(data + b"NOOP\r\n", **SMALL)[1:] == [("end", end, True), ("NOOP", b"")]


def test_a_carriage_return_at_the_end_of_a_chunk_waits_for_the_next() -> None:
    """CR | LF is a line end, CR | x is not."""
    assert all_the_same(b"BDAT 1\r\n\rBDAT 1 LAST\r\nx")[2:] == [("BDAT", 1, True), ("end", BareNewline, True)]


@pytest.mark.parametrize("argument", [b"", b"x", b"-1", b"1 2", b"1 LAST x", b"1" * 21, b"\xb2", b"+1", b"99999999999"])
def test_a_chunk_of_unknown_or_senseless_size_is_fatal(argument: bytes) -> None:
    """What follows cannot be told from commands, so nothing more is read."""
    events = all_the_same(b"BDAT " + argument + b"\r\nQUIT\r\n")
    assert len(events) == 1
    assert events[0][0] == "bad"  # type: ignore[index]
    assert events[0][2] is True  # type: ignore[index]


def test_clear_forgets_what_is_buffered() -> None:
    """After STARTTLS nothing that came before the handshake is left."""
    parser = Parser()
    parser.feed(b"STARTTLS\r\nRSET\r\nMAIL")
    assert parser.next_event() == Command("STARTTLS", b"")
    assert parser.clear() == 10
    assert parser.next_event() is None
    parser.feed(b"EHLO x\r\n")
    assert parser.next_event() == Command("EHLO", b"x")


ALPHABET = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b".", b"\r\n.\r\n", b"DATA\r\n", b"BDAT 4\r\n", b"BDAT 3 LAST\r\n", b"x", b"NOOP\r\n", b"y" * 9]
    ),
    max_size=40,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(ALPHABET, st.lists(st.integers(0, 200), max_size=8))
def test_any_bytes_at_any_cut(data: bytes, cuts: list[int]) -> None:
    """Hypothesis: hostile mixtures, cut at random places, against one piece and single octets."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    whole = run([data], **SMALL)
    assert run(pieces, **SMALL) == whole
    assert run(octets(data), **SMALL) == whole


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab.\x00é", max_size=12).map(str.encode), max_size=8))
def test_any_text_survives_stuffing(lines: list[bytes]) -> None:
    """What a correct client stuffs comes out byte for byte."""
    content = b"".join(line + b"\r\n" for line in lines)
    stuffed = re.sub(rb"(?m)^\.", b"..", content)
    assert run([b"DATA\r\n", stuffed + b".\r\n"])[1:] == [("end", content, True)]
