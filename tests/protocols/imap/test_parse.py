"""The parser's stream side: cutting, literals, limits, and what the server may do between two events."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.imap import parse
from fe_twisted.protocols.imap.commands import BadCommand, Command, ContinuationLine, Event, Login, NeedContinuation
from fe_twisted.protocols.imap.fetch import single
from fe_twisted.protocols.imap.parse import Limits, Parser

SMALL = Limits(
    line=60,
    literal=20,
    literals=30,
    append=40,
    appends=70,
    line_before_login=30,
    literal_before_login=10,
    answer=25,
    discard=200,
    endless=300,
)


def run(chunks: Iterable[bytes], limits: Limits = SMALL, *, authenticated: bool = True) -> list[Event]:
    parser = Parser(limits)
    parser.authenticated = authenticated
    made: list[Event] = []
    for chunk in chunks:
        parser.feed(chunk)
        made.extend(parser.events())
    return made


def shown(events: Iterable[Event]) -> list[str]:
    """Events in short: ``a1 NOOP``, ``a1 BAD [CODE] text``, ``+5``, ``=line``."""
    made = []
    for event in events:
        match event:
            case Command():
                made.append(f"{event.tag} {event.name}")
            case BadCommand():
                code = f" [{event.error_code}]" if event.error_code else ""
                made.append(f"{event.tag} {'BYE' if event.fatal else 'NO' if event.refused else 'BAD'}{code} {event.text}")
            case NeedContinuation():
                made.append(f"+{event.size}")
            case ContinuationLine():
                made.append(f"={event.line!r}")
    return made


# -- the command that comes most ------------------------------------------------------------------

FETCHES = st.builds(
    lambda *parts: b"".join(parts),
    st.sampled_from([b"a1 ", b"+ ", b"", b"A.b ", b"a  "]),
    st.sampled_from([b"UID ", b"uid ", b"", b"UID  "]),
    st.sampled_from([b"FETCH ", b"fetch ", b"FETCHES ", b"STORE "]),
    st.sampled_from([b"1", b"0", b"007", b"4294967295", b"4294967296", b"99999999999", b"1:2", b"*", b"$"]),
    st.sampled_from([b" ", b"", b"  "]),
    st.sampled_from(
        [b"FLAGS", b"(FLAGS UID)", b"ALL", b"BODY.PEEK[]", b"BODY[1.TEXT]<0.5>", b"(FLAGS", b"X", b"", b"\x00", b"\xff", b"BODY[" * 200]
    ),
    st.sampled_from([b"", b" ", b" (CHANGEDSINCE 7)", b" (CHANGEDSINCE 7 VANISHED)", b" (PARTIAL 1:5)", b"}", b"{"]),
)


@given(FETCHES)
def test_the_short_way_to_read_fetch_reads_the_same(line: bytes) -> None:
    whole = run([line + b"\r\n"], Limits())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parse, "single", lambda text: None)
        assert run([line + b"\r\n"], Limits()) == whole
    command = single(line)
    assert command is None or [command] == whole


def test_the_short_way_is_taken() -> None:
    assert single(b"a1 UID FETCH 7 (FLAGS BODY.PEEK[])") is not None
    assert single(b"a1 fetch 7 BODY.PEEK[HEADER.FIELDS (DATE)]") is not None


# -- cutting --------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        b"a NOOP\r\n",
        b"b LOGIN x y\r\n",
        b"c LOGIN {1}\r\nx {3+}\r\ny\r\n\r\n",
        b"d APPEND x {12+}\r\nz9 LOGOUT\r\n\r\n\r\n",
        b"e APPEND x {50+}\r\n" + b"q NOOP\r\n" * 6 + b"12\r\n",
        b"f APPEND x {50}\r\n",
        b"g LOGIN {21+}\r\n" + b"y NOOP\r\n" * 2 + b"12345 {5+}\r\nabcde\r\n",
        b"h " + b"x" * 70 + b"\r\n",
        b"i " + b"x" * 70 + b" {7+}\r\nABCDEFG tail\r\n",
        b"j NOOP\nk NOOP\r\n",
        b"l NOOP\n{3+}\r\nabc\r\n",
        b"m LOGIN {9999999}\r\n",
        b"x" * 70 + b"{" + b"0" * 80 + b"5+}\r\n",
        b"n FETCH 1 (FLAGS)\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"{5+}\r\n",
        b"\0",
        b"o SEARCH CHARSET x ALL\r\n",
        b" {2+}\r\n",
        b"z" * 301,
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=8), st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_the_same_events_however_it_is_cut(pieces: list[bytes], cuts: list[int], authenticated: bool) -> None:
    stream = b"".join(pieces)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    whole = run([stream], authenticated=authenticated)
    assert run((stream[a:b] for a, b in itertools.pairwise(bounds)), authenticated=authenticated) == whole
    assert run((stream[n : n + 1] for n in range(len(stream))), authenticated=authenticated) == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=30), PIECES), max_size=10))
def test_any_octets_give_documented_events_and_bounded_storage(chunks: list[bytes]) -> None:
    parser = Parser(SMALL)
    parser.authenticated = True
    for chunk in chunks:
        parser.feed(chunk)
        for event in parser.events():
            assert isinstance(event, Command | BadCommand | NeedContinuation)
        assert parser.buffered <= max(SMALL.line + 1, SMALL.append, 64)


# -- lines ----------------------------------------------------------------------------------------


def test_pipelined_commands_and_empty_lines() -> None:
    assert shown(run([b"a NOOP\r\nb CAPABILITY\r\n\r\nc LOGOUT\r\n"])) == [
        "a NOOP",
        "b CAPABILITY",
        "* BAD expected a tag at octet 1",
        "c LOGOUT",
    ]


@pytest.mark.parametrize(
    "line", [b"+ NOOP", b"a+b NOOP", b"* NOOP", b"(a NOOP", b"\xff NOOP", b'"a" NOOP', b"\0 NOOP", b" a NOOP", b"{5 NOOP"]
)
def test_what_is_no_tag_is_answered_untagged(line: bytes) -> None:
    assert shown(run([line + b"\r\n"])) == ["* BAD expected a tag at octet 1"]


def test_a_tag_alone() -> None:
    assert shown(run([b"a\r\n"])) == ["a BAD expected a command at octet 3"]


def test_a_bare_lf_is_answered_at_once_and_swallows_up_to_crlf() -> None:
    assert shown(run([b"a NOOP\n"])) == ["a BAD bare LF: lines must end in CR LF"]
    assert shown(run([b"a NOOP\nb NOOP\nc NOOP\r\nd NOOP\r\n"])) == ["a BAD bare LF: lines must end in CR LF", "d NOOP"]


def test_a_bare_cr_is_part_of_the_line() -> None:
    assert shown(run([b"a NOOP\rb NOOP\r\n"])) == ["a BAD expected a command at octet 3"]
    assert shown(run([b'a LOGIN "x\ry" z\r\n'])) == ["a BAD expected a quoted string at octet 9"]


def test_line_limit_is_exact() -> None:
    fits = b"a LOGIN " + b"x" * 50 + b" y"
    assert len(fits) == SMALL.line
    assert shown(run([fits + b"\r\nb NOOP\r\n"])) == ["a LOGIN", "b NOOP"]
    assert shown(run([fits + b"y\r\nb NOOP\r\n"])) == ["a BAD [LIMIT] line too long", "b NOOP"]


def test_the_line_limit_counts_all_lines_of_a_command() -> None:
    parts = b"a SEARCH " + b"TO {0+}\r\n " * 6 + b"ALL\r\nb NOOP\r\n"
    assert shown(run([parts])) == ["a BAD [LIMIT] line too long", "b NOOP"]


def test_a_long_line_has_no_tag_when_it_has_no_space() -> None:
    assert shown(run([b"x" * 62])) == ["* BAD [LIMIT] line too long"]


def test_small_limits_before_login() -> None:
    line = b"a LOGIN " + b"x" * 30 + b" y\r\n"
    assert shown(run([line], authenticated=False)) == ["a BAD [LIMIT] line too long"]
    assert shown(run([line])) == ["a LOGIN"]
    assert shown(run([b"a LOGIN {11}\r\n"], authenticated=False)) == ["a BAD [TOOBIG] literal larger than 10 octets"]
    assert shown(run([b"a APPEND x {11}\r\n"], authenticated=False)) == ["a BAD [TOOBIG] literal larger than 10 octets"]
    assert shown(run([b"a LOGIN {6+}\r\n123456 {5}\r\n"], authenticated=False)) == ["a BAD [TOOBIG] literal larger than 10 octets"]


def test_a_line_without_end_is_fatal() -> None:
    events = shown(run([b"a " + b"x" * 100, b"x" * 200, b"y NOOP\r\n", b"b NOOP\r\n"]))
    assert events == ["a BAD [LIMIT] line too long", "* BYE [LIMIT] line without end"]


# -- literals -------------------------------------------------------------------------------------


def test_a_synchronising_literal_waits() -> None:
    parser = Parser()
    parser.feed(b"a LOGIN {3}\r\n")
    assert list(parser.events()) == [NeedContinuation(3)]
    parser.feed(b"joe {2}\r\n")
    assert list(parser.events()) == [NeedContinuation(2)]
    parser.feed(b"pw")
    assert list(parser.events()) == []
    parser.feed(b"\r\n")
    assert list(parser.events()) == [Command("a", "LOGIN", False, Login(b"joe", b"pw"))]


def test_a_zero_literal_still_gets_its_continuation() -> None:
    assert shown(run([b"a LOGIN joe {0}\r\n", b"\r\n"])) == ["+0", "a LOGIN"]


def test_a_refused_synchronising_literal_ends_the_command() -> None:
    assert shown(run([b"a LOGIN {21}\r\n", b"b NOOP\r\n"])) == ["a BAD [TOOBIG] literal larger than 20 octets", "b NOOP"]
    assert shown(run([b"a APPEND x {41}\r\nb NOOP\r\n"])) == ["a NO [TOOBIG] message larger than 40 octets", "b NOOP"]


def test_a_refused_non_synchronising_literal_is_passed_over_with_its_command() -> None:
    assert shown(run([b"a LOGIN {24+}\r\nz NOOP\r\nz NOOP\r\nz NOOP\r\n pass {8+}\r\nz NOOP\r\n\r\nb NOOP\r\n"])) == [
        "a BAD [TOOBIG] literal larger than 20 octets",
        "b NOOP",
    ]


def test_a_sync_literal_in_a_command_that_was_given_up_is_not_waited_for() -> None:
    assert shown(run([b"a LOGIN {21+}\r\n" + b"x" * 21 + b" {5}\r\nb NOOP\r\n"])) == [
        "a BAD [TOOBIG] literal larger than 20 octets",
        "b NOOP",
    ]


def test_totals_of_literals() -> None:
    twenty = b"{20+}\r\n" + b"x" * 20
    assert shown(run([b"a LOGIN " + twenty + b" {10+}\r\n1234567890\r\n"])) == ["a LOGIN"]
    assert shown(run([b"a LOGIN " + twenty + b" {11+}\r\n12345678901\r\nb NOOP\r\n"])) == [
        "a BAD [TOOBIG] literal larger than 20 octets",
        "b NOOP",
    ]
    forty = b" {40+}\r\n" + b"x" * 40
    assert shown(run([b"a APPEND x" + forty + b" {30+}\r\n" + b"x" * 30 + b"\r\n"])) == ["a APPEND"]
    assert shown(run([b"a APPEND x" + forty + b" {31+}\r\n" + b"x" * 31 + b"\r\n"])) == ["a NO [TOOBIG] message larger than 40 octets"]


def test_the_mailbox_literal_of_append_is_no_message() -> None:
    assert shown(run([b"a APPEND {21}\r\n"])) == ["a BAD [TOOBIG] literal larger than 20 octets"]
    assert shown(run([b"a APPEND {1}\r\nx {40}\r\n" + b"y" * 40 + b"\r\n"])) == ["+1", "+40", "a APPEND"]


@pytest.mark.parametrize("size", [b"201", b"99999999999", b"9" * 30, b"9" * 45])
def test_a_non_synchronising_literal_beyond_all_bounds_is_fatal(size: bytes) -> None:
    assert shown(run([b"a LOGIN {" + size + b"+}\r\nb NOOP\r\n", b"c NOOP\r\n"])) == ["a BYE [TOOBIG] literal too large to be passed over"]


def test_a_literal_for_an_unknown_command_is_refused_before_it_is_sent() -> None:
    assert shown(run([b"a FOO {5}\r\nb NOOP\r\n"])) == ["a BAD unknown command FOO", "b NOOP"]
    assert shown(run([b"a FOO {8+}\r\nx NOOP\r\n\r\nb NOOP\r\n"])) == ["a BAD unknown command FOO", "b NOOP"]
    assert shown(run([b"+ {8+}\r\nx NOOP\r\n\r\nb NOOP\r\n"])) == ["* BAD expected a tag at octet 1", "b NOOP"]


def test_leading_zeros_of_a_length() -> None:
    assert shown(run([b"a LOGIN {" + b"0" * 30 + b"3+}\r\njoe x\r\n"])) == ["a LOGIN"]


def test_the_hook_may_refuse_a_literal() -> None:
    asked: list[tuple[str, int]] = []

    def accept(name: str, size: int) -> BadCommand | None:
        asked.append((name, size))
        return BadCommand("", "no such mailbox", "TRYCREATE", refused=True) if size == 7 else None

    parser = Parser(accept_literal=accept)
    parser.authenticated = True
    parser.feed(b"a append x {7}\r\nb APPEND x {7+}\r\nc NOOP\r\n\r\nd APPEND x {2+}\r\nhi\r\n")
    assert shown(parser.events()) == ["a NO [TRYCREATE] no such mailbox", "b NO [TRYCREATE] no such mailbox", "d APPEND"]
    assert asked == [("APPEND", 7), ("APPEND", 7), ("APPEND", 2)]


# -- between two events ---------------------------------------------------------------------------


def test_discard_after_starttls() -> None:
    """What came in the same segment as STARTTLS is never read (CVE-2011-0411)."""
    parser = Parser()
    parser.feed(b"a STARTTLS\r\nb LOGIN evil evil\r\nc LOGIN {5}\r\nx")
    assert shown([parser.next_event()]) == ["a STARTTLS"]
    parser.discard()
    assert parser.buffered == 0
    assert parser.next_event() is None
    parser.feed(b"d NOOP\r\n")
    assert shown(parser.events()) == ["d NOOP"]


@pytest.mark.parametrize("before", [b"a LOGIN {5}\r\nx", b"a LOGIN {9999+}\r\nx", b"a " + b"x" * 9000, b"a b\n"])
def test_discard_in_any_state(before: bytes) -> None:
    parser = Parser()
    parser.feed(before)
    list(parser.events())
    parser.discard()
    parser.feed(b"d NOOP\r\n")
    assert shown(parser.events()) == ["d NOOP"]


def test_stop_and_resume() -> None:
    parser = Parser()
    parser.feed(b"a NOOP\r\nb NOOP\r\n")
    assert shown([parser.next_event()]) == ["a NOOP"]
    parser.stop()
    parser.feed(b"c NOOP\r\n")
    assert parser.next_event() is None
    assert parser.buffered == 16
    parser.resume()
    assert shown(parser.events()) == ["b NOOP", "c NOOP"]


def test_expected_lines() -> None:
    parser = Parser(SMALL)
    parser.feed(b"a IDLE\r\nDONE\r\nb NOOP\r\n")
    assert shown([parser.next_event()]) == ["a IDLE"]
    parser.expect_line()
    assert shown(parser.events()) == ["=b'DONE'", "b NOOP"]
    parser.expect_line()
    parser.feed(b"x {5+}\r\n\r\n")
    assert shown(parser.events()) == ["=b'x {5+}'", "* BAD expected a tag at octet 1"]


def test_expected_lines_have_a_limit_of_their_own() -> None:
    for line, expected in (
        (b"x" * 25 + b"\r\n", "=" + repr(b"x" * 25)),
        (b"x" * 26 + b"\r\n", "* BAD [LIMIT] line too long"),
        (b"tag DONE\nrest\r\n", "* BAD bare LF: lines must end in CR LF"),
    ):
        parser = Parser(SMALL)
        parser.expect_line()
        parser.feed(line + b"b NOOP\r\n")
        assert shown(parser.events()) == [expected, "b NOOP"]


def test_login_between_two_events_raises_the_limits() -> None:
    parser = Parser(SMALL)
    parser.feed(b"a LOGIN x y\r\nb APPEND x {20}\r\n")
    assert shown([parser.next_event()]) == ["a LOGIN"]
    parser.authenticated = True
    assert shown(parser.events()) == ["+20"]


def test_nothing_comes_after_a_fatal_event() -> None:
    parser = Parser(SMALL)
    parser.feed(b"a LOGIN {999+}\r\n")
    assert shown(parser.events()) == ["a BYE [TOOBIG] literal too large to be passed over"]
    parser.feed(b"b NOOP\r\n")
    assert parser.next_event() is None
    assert parser.buffered == 0
