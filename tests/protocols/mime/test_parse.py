"""The part tree and everything else that is stored beside a message."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.imap.commands import Section
from fe_twisted.protocols.mime import Part, dump, load, parse, section


def shape(part: Part) -> object:
    """The types, nested."""
    return (part.type, *map(shape, part.children)) if part.children else part.type


def bodies(content: bytes) -> list[bytes]:
    """The bodies of the root's children."""
    return [content[child.body : child.end] for child in parse(content).root.children]


def check_tree(part: Part) -> None:
    """Header before body, children inside the body, in order and apart from each other."""
    assert 0 <= part.start <= part.body <= part.end
    position = part.body
    for child in part.children:
        assert position <= child.start
        assert child.end <= part.end
        position = child.end
        check_tree(child)


_PIECES = [b"--b", b"--", b"\r\n", b"\n", b"\r", b" ", b"a: b", b"Content-Type: multipart/x; boundary=b", b"\0", b"\xff"]


@given(st.binary(max_size=300) | st.lists(st.sampled_from(_PIECES)).map(b"".join))
@settings(max_examples=800, deadline=None)
def test_any_octets_are_a_message(content: bytes) -> None:
    message = parse(content)
    root = message.root
    assert (root.start, root.end, root.body) == (0, len(content), message.header_size)
    assert message.size == len(content)
    check_tree(root)
    assert load(dump(root)) == root

    def fetch(text: str) -> bytes:
        found = section(root, Section((), text), lambda start, end: content[start:end])
        assert found is not None
        return found

    assert fetch("") == content
    assert fetch("HEADER") + fetch("TEXT") == content
    for value in (message.subject, message.text, message.message_id, *message.references, *[value for _, value in message.headers]):
        value.encode()


@pytest.mark.parametrize(
    ("content", "header_size"),
    [
        (b"", 0),
        (b"\r\nbody", 2),
        (b"\nbody", 1),
        (b"A: b", 4),
        (b"A: b\r\n", 6),
        (b"A: b\r\n\r\n", 8),
        (b"A: b\n\nbody", 6),
        (b"A: b\n\r\nbody", 7),
        (b"A: b\r\n \r\n\r\nbody", 11),
        (b"no field at all\r\n\r\nbody", 0),
        (b"From x@y Mon Jan  1 00:00:00 2024\nA: b\n\nbody", 40),
        (b"A: b\rC: d\r\rbody", 15),
    ],
)
def test_where_the_header_ends(content: bytes, header_size: int) -> None:
    assert parse(content).header_size == header_size


MULTIPART = b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n"


@pytest.mark.parametrize(
    ("boundary", "body", "expected"),
    [
        (b"b", b"--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n", [b"one", b"two"]),
        (b"b", b"--b\n\none\n--b\n\ntwo\n--b--\n", [b"one", b"two"]),
        (b"b", b"pre\r\n--b\r\n\r\none\r\n\r\n--b--epi\r\n--b--\r\nepi\r\n--b\r\nno", [b"one\r\n\r\n--b--epi"]),
        (b"b", b"--b\r\n\r\nnever closed", [b"never closed"]),
        (b"b", b"--b", [b""]),
        (b"b", b"--b\r\n--b\r\n\r\none\r\n--b\r\n--b--", [b"one"]),
        (b"b", b"--b\r\n--b\r\n--b--", [b""]),
        (b"b", b"--b\r\n\r\n\r\n--b--", [b""]),
        (b"b", b"--b  \t\r\n\r\none\r\n--b-- \r\n", [b"one"]),
        (b"b", b"--b\r\n\r\none\r\n--bc\r\nx\r\n --b\r\ny--b\r\n--b--", [b"one\r\n--bc\r\nx\r\n --b\r\ny--b"]),
        (b'"b c"', b"--b c\r\n\r\none\r\n--b c--", [b"one"]),
        (b'"b "', b"--b\r\n\r\none\r\n--b--", [b"one"]),
        (b"b.*", b"--bx\r\n--b.*\r\n\r\none\r\n--b.*--", [b"one"]),
        (b"b", b"--b\r\nA: header only\r\n--b--", [b""]),
        (b"b", b"--b\r\nno header, no empty line\r\n--b--", [b"no header, no empty line"]),
    ],
)
def test_parts_between_delimiters(boundary: bytes, body: bytes, expected: list[bytes]) -> None:
    """The line break before a delimiter belongs to it; anything but white space after it makes it text."""
    assert bodies(MULTIPART % boundary + body) == expected


def test_many_lines_that_nearly_are_delimiters_do_not_hide_the_real_ones() -> None:
    junk = b"--bx\r\n" * 200
    assert bodies(MULTIPART % b"b" + junk + b"--b\r\n\r\none\r\n" + junk + b"--b\r\n\r\ntwo\r\n--b--\r\n") == [
        b"one\r\n" + junk[:-2],
        b"two",
    ]


def test_a_boundary_may_be_the_beginning_of_another() -> None:
    content = (
        MULTIPART % b"foo" + b"--foo\r\n" + MULTIPART % b"foobar" + b"--foobar\r\n\r\none\r\n--foobar--\r\n--foo\r\n\r\ntwo\r\n--foo--"
    )
    assert shape(parse(content).root) == ("multipart/mixed", ("multipart/mixed", "text/plain"), "text/plain")


def test_the_outer_delimiter_ends_an_inner_multipart_that_is_not_closed() -> None:
    content = MULTIPART % b"out" + b"--out\r\n" + MULTIPART % b"in" + b"--in\r\n\r\none\r\n--out\r\n\r\ntwo\r\n--in\r\nthree\r\n--out--"
    root = parse(content).root
    assert shape(root) == ("multipart/mixed", ("multipart/mixed", "text/plain"), "text/plain")
    assert content[root.children[1].body : root.children[1].end] == b"two\r\n--in\r\nthree"


def test_the_same_boundary_inside_and_outside_belongs_to_the_outside() -> None:
    content = MULTIPART % b"b" + b"--b\r\n" + MULTIPART % b"b" + b"--b\r\n\r\none\r\n--b--\r\n"
    assert shape(parse(content).root) == ("multipart/mixed", ("multipart/mixed", "text/plain"), "text/plain")


def test_what_a_part_says_of_itself() -> None:
    content = (
        MULTIPART % b"b" + b"--b\r\nContent-Type: TEXT/Html; charset=Big5; name=n.html\r\nContent-Transfer-Encoding: Base64 (x)\r\n"
        b"Content-Disposition: ATTACHMENT; filename==?utf-8?q?=C3=A4?=\r\n\r\n--b--"
    )
    part = parse(content).root.children[0]
    assert (part.type, part.encoding, part.charset, part.filename, part.attachment) == ("text/html", "base64", "Big5", "ä", True)


def test_header_fields_are_decoded_in_order() -> None:
    message = parse(
        b"SUBJECT: =?utf-8?q?gr=C3=BCn?=\r\n und blau\r\nTo: a@b\r\nX-Y:  z \r\nto: c@d\r\n"
        b"From: gr\xc3\xbcn <e@f>\r\nCc: g\r\nBcc: h\r\n\r\n"
    )
    assert message.headers == (
        ("subject", "grün und blau"),
        ("to", "a@b"),
        ("x-y", "z"),
        ("to", "c@d"),
        ("from", "grün <e@f>"),
        ("cc", "g"),
        ("bcc", "h"),
    )
    assert (message.subject, message.to, message.sender, message.cc, message.bcc) == ("grün und blau", "a@b\nc@d", "grün <e@f>", "g", "h")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"References: <a@b>\r\n <c@d> <a@b>\r\nIn-Reply-To: <x@y>", ("<a@b>", "<c@d>")),
        (b"References: nothing useful\r\nIn-Reply-To: Your message <x@y> of today", ("<x@y>",)),
        (b"Subject: none", ()),
    ],
)
def test_references(header: bytes, expected: tuple[str, ...]) -> None:
    assert parse(header + b"\r\n\r\n").references == expected


def test_message_id_and_date() -> None:
    message = parse(b"Message-ID:\r\n <a@b> \r\nDate: Fri, 21 Nov 1997 09:55:06 -0600\r\n\r\n")
    assert message.message_id == "<a@b>"
    assert message.sent == datetime.datetime(1997, 11, 21, 15, 55, 6, tzinfo=datetime.UTC)
    assert parse(b"").sent is None
    assert parse(b"").message_id == ""


def test_attachments_are_the_exact_octets_of_large_leaves() -> None:
    """Text is one only when it says so; what is attached inside an attached message counts."""
    large = b"A" * 4096

    def part(header: bytes, body: bytes) -> bytes:
        return b"--b\r\n" + header + b"\r\n\r\n" + body + b"\r\n"

    inner = b"Content-Type: image/png\r\n\r\n" + large.replace(b"A", b"C")
    content = (
        MULTIPART % b"b"
        + part(b"Content-Type: text/plain", large)
        + part(b"Content-Type: text/plain\r\nContent-Disposition: attachment", large.replace(b"A", b"B"))
        + part(b"Content-Type: image/png", large[1:])
        + part(b"Content-Type: message/rfc822", inner)
        + b"--b--"
    )
    found = parse(content).attachments
    assert [content[offset : offset + length] for offset, length in found] == [b"B" * 4096, b"C" * 4096]
