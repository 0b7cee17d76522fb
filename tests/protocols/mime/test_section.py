"""BODY[section] by the part tree."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.imap.commands import Section
from fe_twisted.protocols.mime import decode, fields, parse, section
from fe_twisted.protocols.mime.section import SUMMARY, fields_of, summary


def fetch(content: bytes, path: tuple[int, ...] = (), text: str = "", names: tuple[str, ...] = ()) -> bytes | None:
    return section(parse(content).root, Section(path, text, names), lambda start, end: content[start:end])


HEADER = b"From: a@b\r\nSubject: one\r\n two\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
PART_1_HEADER = b"Content-Type: text/plain\r\n\r\n"
INNER_HEADER = b"Subject: inner\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n"
INNER_BODY = b"--c\r\n\r\nalpha\r\n--c\r\nX: y\r\n\r\nbeta\r\n--c--\r\n"
PART_2_HEADER = b"Content-Type: message/rfc822\r\n\r\n"
SIMPLE = b"Subject: s\r\n\r\nsimple body"
BODY = b"--b\r\n" + PART_1_HEADER + b"first\r\n--b\r\n" + PART_2_HEADER + INNER_HEADER + INNER_BODY
BODY += b"\r\n--b\r\n" + PART_2_HEADER + SIMPLE + b"\r\n--b--\r\n"
MESSAGE = HEADER + BODY


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ((), "", MESSAGE),
        ((), "HEADER", HEADER),
        ((), "TEXT", BODY),
        ((1,), "", b"first"),
        ((1,), "MIME", PART_1_HEADER),
        ((1,), "HEADER", None),
        ((1,), "TEXT", None),
        ((1, 1), "", None),
        ((2,), "", INNER_HEADER + INNER_BODY),
        ((2,), "MIME", PART_2_HEADER),
        ((2,), "HEADER", INNER_HEADER),
        ((2,), "TEXT", INNER_BODY),
        ((2, 1), "", b"alpha"),
        ((2, 1), "MIME", b"\r\n"),
        ((2, 2), "", b"beta"),
        ((2, 2), "MIME", b"X: y\r\n\r\n"),
        ((2, 3), "", None),
        ((3,), "", SIMPLE),
        ((3, 1), "", b"simple body"),
        ((3, 1), "MIME", b"Subject: s\r\n\r\n"),
        ((3, 1, 1), "", None),
        ((3, 2), "", None),
        ((4,), "", None),
        ((0,), "", None),
    ],
)
def test_sections(path: tuple[int, ...], text: str, expected: bytes | None) -> None:
    """RFC 9051 section 6.4.5.1."""
    assert fetch(MESSAGE, path, text) == expected


def test_a_message_that_is_no_multipart_has_one_part() -> None:
    assert fetch(SIMPLE, (1,)) == b"simple body"
    assert fetch(SIMPLE, (1,), "MIME") == b"Subject: s\r\n\r\n"
    assert fetch(SIMPLE, (2,)) is None


def test_a_message_that_is_one_attached_message() -> None:
    content = b"Content-Type: message/rfc822\r\n\r\n" + SIMPLE
    assert fetch(content, (1,)) == SIMPLE
    assert fetch(content, (1,), "HEADER") == b"Subject: s\r\n\r\n"
    assert fetch(content, (1, 1)) == b"simple body"


def test_header_fields_of_the_message_and_of_an_attached_one() -> None:
    assert fetch(MESSAGE, (), "HEADER.FIELDS", ("SUBJECT", "X")) == b"Subject: one\r\n two\r\n\r\n"
    assert fetch(MESSAGE, (2,), "HEADER.FIELDS", ("subject",)) == b"Subject: inner\r\n\r\n"
    assert fetch(MESSAGE, (2,), "HEADER.FIELDS.NOT", ("subject",)) == INNER_HEADER.replace(b"Subject: inner\r\n", b"")
    assert fetch(MESSAGE, (1,), "HEADER.FIELDS", ("subject",)) is None


FIELDS = b"A: 1\r\nbb:2\r\n\t3\r\nSubject : x\r\nA:\r\nAB: no\r\njunk\r\n\r\n"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a",), b"A: 1\r\nA:\r\n\r\n"),
        (("BB", "a"), b"A: 1\r\nbb:2\r\n\t3\r\nA:\r\n\r\n"),
        (("subject",), b"Subject : x\r\n\r\n"),
        (("nope",), b"\r\n"),
        (("a.*",), b"\r\n"),
        (("^", "]-", "\\", "ü", ""), b"\r\n"),
        ((), b"\r\n"),
    ],
)
def test_fields_keep_their_octets_and_order(names: tuple[str, ...], expected: bytes) -> None:
    assert fields(FIELDS, names) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a",), b"bb:2\r\n\t3\r\nSubject : x\r\nAB: no\r\njunk\r\n\r\n"),
        (("A", "bb", "subject", "ab"), b"junk\r\n\r\n"),
        (("nope",), FIELDS),
        ((), FIELDS),
    ],
)
def test_all_other_fields(names: tuple[str, ...], expected: bytes) -> None:
    assert fields(FIELDS, names, exclude=True) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", b"\r\n"),
        (b"\r\n", b"\r\n"),
        (b"\n", b"\r\n"),
        (b"A: 1", b"A: 1\r\n"),
        (b"A: 1\r\n", b"A: 1\r\n"),
        (b"B: 1\r\n", b""),
        (b"A: 1\nB: 2\n\n", b"A: 1\n\r\n"),
        (b"B: 2\nA: 1\n 2\n\r\n", b"A: 1\n 2\n\r\n"),
    ],
)
def test_there_is_an_empty_line_at_the_end_if_the_header_has_one(header: bytes, expected: bytes) -> None:
    assert fields(header, ("a",)) == expected
    assert fields(header, ("b",), exclude=True) == expected


_line = st.tuples(st.sampled_from(["A", "b", "Sub"]), st.sampled_from([" x", "", " y\r\n z", "\ty\r\n\t\r\n q"]))


@given(st.lists(_line, max_size=8), st.sets(st.sampled_from(["a", "B", "sub", "c"])))
@settings(max_examples=300, deadline=None)
def test_fields_and_the_others_together_are_the_header(lines: list[tuple[str, str]], names: set[str]) -> None:
    header = b"".join(f"{name}:{value}\r\n".encode() for name, value in lines) + b"\r\n"
    lower = {name.lower() for name in names}

    def only(wanted: bool) -> bytes:
        return b"".join(f"{name}:{value}\r\n".encode() for name, value in lines if (name.lower() in lower) is wanted) + b"\r\n"

    assert fields(header, tuple(names)) == only(True)
    assert fields(header, tuple(names), exclude=True) == only(False)


_LINES = st.one_of(
    st.tuples(
        st.sampled_from([*sorted(SUMMARY), "X-Other", "received"]), st.sampled_from([":", " :", "\t:", ""]), st.text("ab \t:", max_size=4)
    ),
    st.tuples(st.sampled_from([" ", "\t", ""]), st.just(""), st.text("ab:", max_size=4)),
)


@given(
    lines=st.lists(st.tuples(_LINES, st.sampled_from(["\r\n", "\n"])), max_size=12),
    end=st.sampled_from(["\r\n", "\n", "", "X"]),
    names=st.sets(st.sampled_from(sorted(SUMMARY))),
)
def test_what_is_in_the_summary_need_not_be_looked_for_in_the_header(
    lines: list[tuple[tuple[str, str, str], str]], end: str, names: set[str]
) -> None:
    """For the header of any message, also of one that ends in it."""
    content = ("".join("".join(line) + ending for line, ending in lines) + end).encode()
    message = parse(content)
    header = content[: message.header_size]
    short = summary(header)
    assert (fields(short, names) if short else b"") == fields(header, names)
    assert (summary(short) if short else b"") == short  # an empty one says that there is none of them, and is not looked into


_MESSAGES = st.tuples(
    st.lists(st.tuples(_LINES, st.sampled_from(["\r\n", "\r\n", "\n"])), max_size=6), st.sampled_from(["\r\n", "\r\n", "\n", ""])
)


@given(messages=st.lists(_MESSAGES, max_size=6), names=st.sets(st.sampled_from([*sorted(SUMMARY), "x-other", "REPLY-TO"])))
@settings(max_examples=300, deadline=None)
def test_fields_of_many_headers_are_those_of_each(
    messages: list[tuple[list[tuple[tuple[str, str, str], str]], str]], names: set[str]
) -> None:
    contents = [("".join("".join(line) + ending for line, ending in lines) + end).encode() for lines, end in messages]
    headers = [content[: parse(content).header_size] for content in contents]
    wanted = tuple(names)
    assert fields_of(headers, wanted) == [fields(header, wanted) for header in headers]
    wanted = tuple(name for name in names if name.lower() in SUMMARY)
    summaries = [summary(header) for header in headers]
    assert fields_of(summaries, wanted, summaries=True) == [fields(one, wanted) for one in summaries]


def test_fields_of_what_is_no_header() -> None:
    two = b"A: 1\r\n\r\nA: 2\r\n\r\n"
    assert fields_of([two, b"B: 1\r\n\r\n"], ("a",)) == [b"A: 1\r\nA: 2\r\n\r\n", b"\r\n"]


@pytest.mark.parametrize(
    ("encoding", "raw", "expected"),
    [
        ("7bit", b"as is", b"as is"),
        ("base64", b"aGVs\r\nbG8=\r\n", b"hello"),
        ("BASE64", b"aGVsbG8", b"hello"),
        ("base64", b"aGV!sb\0G8=", b"hello"),
        ("base64", b"aGVsbG8=junk", b"hello"),
        ("base64", b"a", b""),
        ("base64", b"aGVsb", b"hel"),
        ("quoted-printable", b"a=3Db=\r\nc=C3=A4", b"a=bc\xc3\xa4"),
        ("quoted-printable", b"=zz=", b"=zz"),
        ("quoted-printable", b"a \t\r\nb = \r\nc  ", b"a\r\nb c"),
        ("x-unknown", b"=3D", b"=3D"),
    ],
)
def test_transfer_encodings(encoding: str, raw: bytes, expected: bytes) -> None:
    root = parse(b"Content-Transfer-Encoding: %b\r\n\r\n%b" % (encoding.encode(), raw)).root
    assert decode(root, raw) == expected


@given(st.sampled_from(["base64", "quoted-printable", "7bit"]), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_octets_can_be_decoded(encoding: str, raw: bytes) -> None:
    root = parse(b"Content-Transfer-Encoding: %b\r\n\r\n" % encoding.encode()).root
    assert len(decode(root, raw)) <= len(raw)
