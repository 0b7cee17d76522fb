"""Hostile sizes: depth, number of parts, number of fields, length of everything.  Nothing is timed; the bounds are in what comes out."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from fe_twisted.protocols.imap.commands import Section
from fe_twisted.protocols.mime import Part, dump, entity, fields, load, parse, section
from fe_twisted.protocols.mime import text as texts

MEGABYTE = 1024 * 1024


def walk(root: Part) -> Iterator[tuple[Part, int]]:
    """All parts with their depth, without recursion."""
    waiting = [(root, 0)]
    while waiting:
        part, depth = waiting.pop()
        yield part, depth
        waiting.extend((child, depth + 1) for child in part.children)


def depth(root: Part) -> int:
    return max(level for _, level in walk(root))


def nested_multiparts(levels: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(levels)) + b"\r\nneedle"


@pytest.mark.parametrize(
    "content",
    [nested_multiparts(1000), b"Content-Type: message/rfc822\r\n\r\n" * 1000 + b"Subject: needle\r\n\r\n"],
    ids=["multipart", "message"],
)
def test_a_thousand_levels_are_cut_and_need_little_of_the_stack(content: bytes) -> None:
    """Also from within a deep call: a third of the usual recursion limit must do for everything."""
    before = sys.getrecursionlimit()
    frames = len(list(_frames()))
    sys.setrecursionlimit(frames + 350)
    try:
        message = parse(content)
        again = load(dump(message.root))
    finally:
        sys.setrecursionlimit(before)
    assert again == message.root
    assert depth(message.root) in (entity.MAX_DEPTH, entity.MAX_DEPTH + 1)
    assert message.bodystructure.count(b"(") == message.bodystructure.count(b")")
    deepest = max(walk(message.root), key=lambda pair: pair[1])[0]
    assert deepest.end == len(content)
    assert deepest.children == ()


def _frames() -> Iterator[object]:
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def test_levels_up_to_the_limit_are_all_there() -> None:
    content = nested_multiparts(90)
    path = (1,) * 90
    assert section(parse(content).root, Section(path), lambda start, end: content[start:end]) == b"needle"


def test_more_parts_than_the_limit_are_one_last_part() -> None:
    part = b"--b\r\n\r\nx\r\n"
    content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 30_000 + b"--b--\r\n"
    message = parse(content)
    children = message.root.children
    assert len(children) == entity.MAX_PARTS
    assert content[children[0].body : children[0].end] == b"x"
    assert children[-1].end == len(content)
    assert len(message.bodystructure) < MEGABYTE
    assert load(dump(message.root)) == message.root


def test_delimiters_without_anything_between_them_count_too() -> None:
    content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * 30_000 + b"\r\nneedle\r\n--b--\r\n"
    (child,) = parse(content).root.children
    assert child.end == len(content)
    assert child.start == content.index(b"--b") + entity.MAX_PARTS * len(b"--b\r\n")


def test_nested_parts_beyond_the_limit_are_bounded_too() -> None:
    inner = b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" + b"--c\r\n\r\nx\r\n" * 3 + b"--c--\r\n"
    content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + inner * 10_000
    assert sum(1 for _ in walk(parse(content).root)) <= entity.MAX_PARTS + 2 * entity.MAX_DEPTH


def test_a_hundred_thousand_header_lines() -> None:
    header = b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"Subject: needle\r\n\r\n"
    message = parse(header + b"body")
    assert len(message.headers) == 100_001
    assert message.subject == "needle"
    assert fields(header, ("subject",)) == b"Subject: needle\r\n\r\n"
    assert fields(header, ("x-5",), exclude=True) == header.replace(b"X-5: y\r\n", b"")


def test_a_hundred_thousand_continuation_lines() -> None:
    header = b"Subject: a\r\n" + b" b\r\n" * 100_000 + b"\r\n"
    message = parse(header)
    assert message.subject.startswith("a b b")
    assert len(message.envelope) < entity.MAX_FIELD + 200
    assert fields(header, ("subject",)) == header


def test_headers_beyond_the_limit_are_kept_but_not_read() -> None:
    header = b"A: b\r\n" * (MEGABYTE + 1) + b"Subject: too late\r\n\r\n"
    message = parse(header)
    assert message.header_size == len(header)
    assert len(message.headers) <= entity.MAX_HEADERS // 6 + 1
    assert message.subject == ""


def test_fifty_megabytes_of_text() -> None:
    line = b"The quick brown fox jumps over the lazy dog.\r\n"
    count = 50 * MEGABYTE // len(line)
    message = parse(b"Subject: x\r\n\r\n" + line * count)
    assert message.body == b'("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" %d %d)' % (count * len(line), count)
    assert len(message.text) == texts.MAX_TEXT


def test_fifty_megabytes_of_an_attachment() -> None:
    body = b"QUJD" * (50 * MEGABYTE // 4)
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    message = parse(head + body + b"\r\n--b--\r\n")
    assert message.attachments == ((len(head), len(body)),)
    assert message.text == ""


def test_the_scan_is_bounded_when_every_level_reads_the_whole_message() -> None:
    """A hundred multiparts, each of which looks for its own delimiter through 8 MB that hold none: after some levels the rest is text."""
    content = nested_multiparts(100) + b"x\n" * (4 * MEGABYTE)
    root = parse(content).root
    assert entity.MAX_SCAN_FACTOR <= depth(root) <= entity.MAX_SCAN_FACTOR + 3


@pytest.mark.parametrize(
    "value",
    [b"(" * 10, b'"', b"<", b"@,", b"a@b,", b"=?utf-8?q?a?=", b"=?a?q?", b";a=", b"\\", b"<a@b> ", b"  ", b": "],
)
@pytest.mark.parametrize("name", [b"From", b"Subject", b"Content-Type: a/b", b"Content-Disposition: x", b"References", b"Date"])
def test_a_megabyte_in_one_field_is_cut_in_what_is_rendered(name: bytes, value: bytes) -> None:
    message = parse(b"%b: %b\r\n\r\n" % (name, value * (MEGABYTE // len(value))))
    assert len(message.envelope) < 12 * entity.MAX_FIELD
    assert len(message.bodystructure) < 2 * entity.MAX_FIELD
    assert sum(len(text) for _, text in message.headers) <= entity.MAX_FIELD
