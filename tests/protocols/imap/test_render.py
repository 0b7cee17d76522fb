"""FETCH responses, octet for octet, made from rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fe_twisted.protocols.imap.commands import Command, Fetch, FetchItem
from fe_twisted.protocols.imap.parse import Parser
from fe_twisted.protocols.imap.render import FetchPlan, UnknownEncoding, compile_items, flag_list
from fe_twisted.protocols.mime.parts import Part, dump
from fe_twisted.protocols.mime.section import summary

HEADER = b"From: joe@example.com\r\nSubject: one\r\n two\r\nTo: a\r\n\r\n"
FIRST = b"\r\nhello"
SECOND = b"Content-Transfer-Encoding: base64\r\n\r\naGkAeW91"
BODY = b"--b\r\n" + FIRST + b"\r\n--b\r\n" + SECOND + b"\r\n--b--\r\n"
CONTENT = HEADER + BODY
_FIRST = len(HEADER) + 5
_SECOND = _FIRST + len(FIRST) + 7
ROOT = Part(
    0,
    len(HEADER),
    len(CONTENT),
    "multipart/mixed",
    children=(
        Part(_FIRST, _FIRST + 2, _FIRST + len(FIRST), "text/plain"),
        Part(_SECOND, _SECOND + SECOND.index(b"aGk"), _SECOND + len(SECOND), "text/plain", "base64"),
    ),
)
VALUES: dict[str, Any] = {
    "uid": 7,
    "flags": 1,
    "modseq": 12,
    "size": len(CONTENT),
    "internaldate": b"17-Jul-1996 02:44:25 -0700",
    "savedate": b"18-Jul-1996 02:44:25 -0700",
    "envelope": b"(NIL)",
    "bodystructure": b"(BS)",
    "body": b"(B)",
    "header": HEADER,
    "summary": summary(HEADER),
    "content": CONTENT,
    "parts": dump(ROOT),
    "emailid": b"M1",
    "threadid": 0x1234,
}


def items(text: bytes) -> tuple[FetchItem, ...]:
    parser = Parser()
    parser.feed(b"a FETCH 1 " + text + b"\r\n")
    event = parser.next_event()
    assert isinstance(event, Command) and isinstance(event.arguments, Fetch), event
    return event.arguments.items


def flags(masks: Sequence[int], uids: Sequence[int]) -> list[bytes]:
    return [flag_list((["\\Seen"] if mask & 1 else []) + (["\\Recent"] if uid == 7 else [])) for mask, uid in zip(masks, uids, strict=True)]


def rendered(plan: FetchPlan, number: int = 3) -> bytes:
    return b"".join(plan.render([tuple(VALUES[column] for column in plan.columns)], [number], flags))


def answer(text: bytes, **options: bool) -> bytes:
    return rendered(compile_items(items(text), **options))


ENCLOSED = [
    (b"UID", b"UID 7"),
    (b"FLAGS", b"FLAGS (\\Seen \\Recent)"),
    (b"(FLAGS UID)", b"FLAGS (\\Seen \\Recent) UID 7"),
    (b"FAST", b'FLAGS (\\Seen \\Recent) INTERNALDATE "17-Jul-1996 02:44:25 -0700" RFC822.SIZE %d' % len(CONTENT)),
    (b"(ENVELOPE BODY BODYSTRUCTURE)", b"ENVELOPE (NIL) BODY (B) BODYSTRUCTURE (BS)"),
    (b"(MODSEQ EMAILID THREADID SAVEDATE)", b'MODSEQ (12) EMAILID (M1) THREADID (T0000000000001234) SAVEDATE "18-Jul-1996 02:44:25 -0700"'),
    (b"BODY[]", b"BODY[] {%d}\r\n%b" % (len(CONTENT), CONTENT)),
    (b"RFC822", b"RFC822 {%d}\r\n%b" % (len(CONTENT), CONTENT)),
    (b"(BODY.PEEK[HEADER] UID)", b"UID 7 BODY[HEADER] {%d}\r\n%b" % (len(HEADER), HEADER)),
    (b"RFC822.HEADER", b"RFC822.HEADER {%d}\r\n%b" % (len(HEADER), HEADER)),
    (b"BODY[TEXT]", b"BODY[TEXT] {%d}\r\n%b" % (len(BODY), BODY)),
    (b"RFC822.TEXT", b"RFC822.TEXT {%d}\r\n%b" % (len(BODY), BODY)),
    (b"BODY[HEADER.FIELDS (subject X)]", b"BODY[HEADER.FIELDS (subject X)] {22}\r\nSubject: one\r\n two\r\n\r\n"),
    (b"BODY[HEADER.FIELDS.NOT (subject from)]", b"BODY[HEADER.FIELDS.NOT (subject from)] {9}\r\nTo: a\r\n\r\n"),
    (
        b"BODY[HEADER.FIELDS (SUBJECT From)]",
        b"BODY[HEADER.FIELDS (SUBJECT From)] {%d}\r\n" % len(HEADER.replace(b"To: a\r\n", b"")) + HEADER.replace(b"To: a\r\n", b""),
    ),
    (
        b'(BODY[HEADER.FIELDS (To)] UID BODY[HEADER.FIELDS ("X%d" TO)])',
        b'UID 7 BODY[HEADER.FIELDS (To)] {9}\r\nTo: a\r\n\r\n BODY[HEADER.FIELDS ("X%d" TO)] {9}\r\nTo: a\r\n\r\n',
    ),
    (b"BODY[HEADER.FIELDS (X)]", b"BODY[HEADER.FIELDS (X)] {2}\r\n\r\n"),
    (b"BODY[1]", b"BODY[1] {5}\r\nhello"),
    (b"BODY[1.MIME]", b"BODY[1.MIME] {2}\r\n\r\n"),
    (b"BODY[2]", b"BODY[2] {8}\r\naGkAeW91"),
    (b"BODY[3]", b"BODY[3] NIL"),
    (b"BODY[1.1]", b"BODY[1.1] NIL"),
    (b"BODY[1.HEADER]", b"BODY[1.HEADER] NIL"),
    (b"BODY[1]<1.3>", b"BODY[1]<1> {3}\r\nell"),
    (b"BODY[1]<3.999>", b"BODY[1]<3> {2}\r\nlo"),
    (b"BODY[1]<5.1>", b"BODY[1]<5> {0}\r\n"),
    (b"BODY[1]<9223372036854775807.9223372036854775807>", b"BODY[1]<9223372036854775807> {0}\r\n"),
    (b"BODY[3]<0.9>", b"BODY[3]<0> NIL"),
    (b"BODY[]<0.6>", b"BODY[]<0> {6}\r\nFrom: "),
    (b"BODY[HEADER.FIELDS (To)]<0.2>", b"BODY[HEADER.FIELDS (To)]<0> {2}\r\nTo"),
    (b"(BODY[1] UID BODY[2])", b"UID 7 BODY[1] {5}\r\nhello BODY[2] {8}\r\naGkAeW91"),
    (b"BINARY[1]", b"BINARY[1] {5}\r\nhello"),
    (b"BINARY.PEEK[2]", b"BINARY[2] ~{6}\r\nhi\0you"),
    (b"BINARY[2]<0.2>", b"BINARY[2]<0> {2}\r\nhi"),
    (b"BINARY.SIZE[2]", b"BINARY.SIZE[2] 6"),
    (b"BINARY[4]", b"BINARY[4] NIL"),
    (b"BINARY.SIZE[4]", b"BINARY.SIZE[4] 0"),
    (b"BINARY[]", b"BINARY[] {%d}\r\n%b" % (len(CONTENT), CONTENT)),
]


@pytest.mark.parametrize(("asked", "expected"), ENCLOSED)
def test_items(asked: bytes, expected: bytes) -> None:
    assert answer(asked) == b"* 3 FETCH (" + expected + b")\r\n"


def test_fields_of_many_messages_are_those_of_each() -> None:
    headers = [HEADER, b"", b"X: y\r\n", b"\r\n", b"X: y\r\n\r\n", b"subject: z\n\r\n", b"To: q"]
    for text in (b"BODY.PEEK[HEADER.FIELDS (Subject to)]", b"BODY.PEEK[HEADER.FIELDS (X to)]"):
        for some in (headers, [HEADER, b"X: y\r\n\r\n", b"From: x\r\n\r\n"]):
            for plan in (compile_items(items(text)), compile_items(items(b"(" + text + b" UID)"))):
                values = [(number, summary(header) if "summary" in plan.columns else header) for number, header in enumerate(some)]
                each = b"".join([piece for row in values for piece in plan.render([row], [row[0] + 1], flags) if isinstance(piece, bytes)])
                assert (
                    b"".join([piece for piece in plan.render(values, range(1, len(some) + 1), flags) if isinstance(piece, bytes)]) == each
                )


def test_items_may_be_added() -> None:
    assert answer(b"UID", uid=True, flags=True, modseq=True) == b"* 3 FETCH (UID 7 FLAGS (\\Seen \\Recent) MODSEQ (12))\r\n"
    assert answer(b"BODY.PEEK[1]", uid=True) == b"* 3 FETCH (UID 7 BODY[1] {5}\r\nhello)\r\n"


@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        (b"(FLAGS UID)", ("uid", "flags")),
        (b"ENVELOPE", ("uid", "envelope")),
        (b"BODY.PEEK[HEADER.FIELDS (Date MESSAGE-ID)]", ("uid", "summary")),
        (b"BODY.PEEK[HEADER.FIELDS (DATE X-OTHER)]", ("uid", "header")),
        (b"(BODY.PEEK[HEADER.FIELDS.NOT (DATE)] BODY.PEEK[HEADER])", ("uid", "header")),
        (b"(BODY.PEEK[HEADER] BODY.PEEK[HEADER.FIELDS (DATE)])", ("uid", "header")),
        (b"(BODY.PEEK[] RFC822.SIZE)", ("uid", "content", "size")),
        (b"BODY.PEEK[1.MIME]", ("uid", "content", "parts")),
    ],
)
def test_as_few_columns_as_will_do(asked: bytes, columns: tuple[str, ...]) -> None:
    assert compile_items(items(asked)).columns == columns


@pytest.mark.parametrize(
    ("asked", "sets"),
    [
        (b"BODY[]", True),
        (b"BODY.PEEK[]", False),
        (b"(UID BODY[1])", True),
        (b"RFC822", True),
        (b"RFC822.TEXT", True),
        (b"RFC822.HEADER", False),
        (b"FULL", False),
        (b"BINARY[1]", True),
        (b"BINARY.PEEK[1]", False),
        (b"BINARY.SIZE[1]", False),
    ],
)
def test_what_sets_seen(asked: bytes, sets: bool) -> None:
    assert compile_items(items(asked)).sets_seen is sets


def test_rows_that_the_session_does_not_know_are_passed_over() -> None:
    plan = compile_items(items(b"(UID FLAGS)"))
    rows = [(1, 0), (2, 1), (7, 0)]
    assert plan.render(rows, [1, None, 2], flags) == [b"* 1 FETCH (UID 1 FLAGS ())\r\n* 2 FETCH (UID 7 FLAGS (\\Recent))\r\n"]
    bodies = compile_items(items(b"BODY.PEEK[]"))
    pieces = bodies.render([(1, b"a"), (2, b"b"), (7, b"c")], [1, None, 2], flags)
    assert b"".join(pieces) == b"* 1 FETCH (BODY[] {1}\r\na)\r\n* 2 FETCH (BODY[] {1}\r\nc)\r\n"
    assert plan.render([], [], flags) == []


def test_a_large_body_is_not_copied() -> None:
    content = bytes(1_000_000)
    plan = compile_items(items(b"BODY.PEEK[]"))
    assert any(piece is content for piece in plan.render([(1, content)], [1], flags))


def test_an_encoding_that_nobody_knows() -> None:
    root = Part(0, 0, 5, "multipart/mixed", children=(Part(0, 0, 5, "text/plain", "x-uuencode"),))
    plan = compile_items(items(b"BINARY.PEEK[1]"))
    row = {"uid": 1, "content": b"hello", "parts": dump(root)}
    with pytest.raises(UnknownEncoding):
        plan.render([tuple(row[column] for column in plan.columns)], [1], flags)


def test_plans_are_kept() -> None:
    assert compile_items(items(b"(FLAGS UID)")) is compile_items(items(b"(FLAGS UID)"))
