"""ENVELOPE, BODYSTRUCTURE and BODY, octet for octet."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.mime import parse
from fe_twisted.protocols.mime.render import string

PLAIN_US = b'("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" %d %d)'


def crlf(text: str) -> bytes:
    return text.encode().replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b"NIL"),
        (b"", b'""'),
        (b"a b", b'"a b"'),
        (b'say "x" \\', rb'"say \"x\" \\"'),
        (b"tab\there", b'"tab\there"'),
        (b"caf\xc3\xa9", b"{5}\r\ncaf\xc3\xa9"),
        (b"a\rb", b"{3}\r\na\rb"),
        (b"a\0b", b"{3}\r\na?b"),
        (b"x" * 1000, b'"' + b"x" * 1000 + b'"'),
        (b"x" * 1001, b"{1001}\r\n" + b"x" * 1001),
    ],
)
def test_strings(value: bytes | None, expected: bytes) -> None:
    assert string(value) == expected


def test_envelope_of_the_standard() -> None:
    """The message behind the example of RFC 3501 section 8."""
    message = crlf(
        "Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\n"
        "From: Terry Gray <gray@cac.washington.edu>\n"
        "Subject: IMAP4rev1 WG mtg summary and minutes\n"
        "To: imap@cac.washington.edu\n"
        "cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\n"
        "Message-Id: <B27397-0100000@cac.washington.edu>\n"
        "MIME-Version: 1.0\n"
        "Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\n\n" + "body\n" * 92
    )
    parsed = parse(message)
    gray = b'(("Terry Gray" NIL "gray" "cac.washington.edu"))'
    assert parsed.envelope == (
        b'("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev1 WG mtg summary and minutes" ' + b"%b %b %b" % (gray, gray, gray) + b" "
        b'((NIL NIL "imap" "cac.washington.edu")) ((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU"))'
        b' NIL NIL "<B27397-0100000@cac.washington.edu>")'
    )
    assert parsed.body == b'("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 552 92)'
    assert parsed.bodystructure == b'("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 552 92 NIL NIL NIL NIL)'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"),
        ("Subject:\nTo: ", b'(NIL "" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        ("From: a@b\nSender:\nReply-To: ,", b'(NIL NIL ((NIL NIL "a" "b")) ((NIL NIL "a" "b")) ((NIL NIL "a" "b")) NIL NIL NIL NIL NIL)'),
        (
            "From: a@b\nSender: c@d\nReply-To: e@f",
            b'(NIL NIL ((NIL NIL "a" "b")) ((NIL NIL "c" "d")) ((NIL NIL "e" "f")) NIL NIL NIL NIL NIL)',
        ),
        ("To: a@b\nTo: c@d", b'(NIL NIL NIL NIL NIL ((NIL NIL "a" "b")(NIL NIL "c" "d")) NIL NIL NIL NIL)'),
        ("To: g: a@b;", b'(NIL NIL NIL NIL NIL ((NIL NIL "g" NIL)(NIL NIL "a" "b")(NIL NIL NIL NIL)) NIL NIL NIL NIL)'),
        ("To: <@x,@y:a@b>", b'(NIL NIL NIL NIL NIL ((NIL "@x,@y" "a" "b")) NIL NIL NIL NIL)'),
        ('To: "open <a@b>\nTo: c@d', b'(NIL NIL NIL NIL NIL ((NIL NIL "open <a@b>,c@d" "")) NIL NIL NIL NIL)'),
        ("Bcc: nobody", b'(NIL NIL NIL NIL NIL NIL NIL ((NIL NIL "nobody" "")) NIL NIL)'),
        ("Subject: one\n\ttwo\n  three", b'(NIL "one\ttwo  three" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        ("Subject: =?utf-8?q?raw?=", b'(NIL "=?utf-8?q?raw?=" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        ("Subject: gr\u00fcn", b"(NIL {5}\r\ngr\xc3\xbcn NIL NIL NIL NIL NIL NIL NIL NIL)"),
        ("Subject: one\nSubject: two", b'(NIL "one" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        ("SUBJECT : spaced\nIn-Reply-To: <a@b> <c@d>", b'(NIL "spaced" NIL NIL NIL NIL NIL NIL "<a@b> <c@d>" NIL)'),
    ],
)
def test_envelopes(header: str, expected: bytes) -> None:
    assert parse(crlf(header + "\n\nbody")).envelope == expected


def test_a_multipart_has_its_children_its_subtype_and_its_extension_data() -> None:
    message = crlf(
        'Content-Type: Multipart/Mixed; Boundary="=_b"; x=1\n'
        "Content-Language: en, fr\n"
        "Content-Location: http://example.org/\n\n"
        "preamble\n"
        "--=_b\n"
        "Content-Type: text/plain; charset=utf-8; Format=flowed\n"
        "Content-ID: <one@example.org>\n"
        "Content-Description: first\n\tpart\n"
        "Content-Transfer-Encoding: Quoted-Printable\n\n"
        "one\ntwo\n\n"
        "--=_b\n"
        'Content-Type: image/PNG; name="a \\"b\\".png"\n'
        "Content-Transfer-Encoding: base64\n"
        "Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==\n"
        "Content-Disposition: attachment; filename*0*=utf-8''a; filename*1=b\n"
        "Content-Language: de\n\n"
        "AAAA\n"
        "--=_b--\n"
        "epilogue\n"
    )
    parsed = parse(message)
    assert parsed.bodystructure == (
        b'(("text" "plain" ("charset" "utf-8" "Format" "flowed") "<one@example.org>" "first\tpart" "Quoted-Printable" 10 2 NIL NIL NIL NIL)'
        b'("image" "PNG" ("name" "a \\"b\\".png") NIL NIL "base64" 4 "Q2hlY2sgSW50ZWdyaXR5IQ=="'
        b' ("attachment" ("filename*" "utf-8\'\'ab")) "de" NIL)'
        b' "Mixed" ("Boundary" "=_b" "x" "1") NIL ("en" "fr") "http://example.org/")'
    )
    assert parsed.body == (
        b'(("text" "plain" ("charset" "utf-8" "Format" "flowed") "<one@example.org>" "first\tpart" "Quoted-Printable" 10 2)'
        b'("image" "PNG" ("name" "a \\"b\\".png") NIL NIL "base64" 4) "Mixed")'
    )


def test_an_attached_message_has_its_envelope_structure_and_lines() -> None:
    inner = "From: a@b\nSubject: inner\n\nx\ny\n"
    message = crlf("Content-Type: message/rfc822\nContent-Disposition: inline\n\n" + inner)
    a = b'((NIL NIL "a" "b"))'
    expected = (
        b'("message" "rfc822" NIL NIL NIL "7BIT" %d (NIL "inner" %b %b %b NIL NIL NIL NIL NIL)'
        b' ("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 6 2' % (len(crlf(inner)), a, a, a)
    )
    assert parse(message).body == expected + b") 5)"
    assert parse(message).bodystructure == expected + b' NIL NIL NIL NIL) 5 NIL ("inline" NIL) NIL NIL)'


def test_parts_of_a_digest_are_messages_unless_they_say_otherwise() -> None:
    """RFC 2046 section 5.1.5."""
    message = crlf(
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: x\n\nbody\n--b\nContent-Type: text/plain\n\nplain\n--b\n"
        "Content-Type: broken\n\nbroken\n--b--\n"
    )
    assert parse(message).body == (
        b'(("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 18 (NIL "x" NIL NIL NIL NIL NIL NIL NIL NIL)'
        b' ("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 4 0) 2)'
        b'("text" "plain" NIL NIL NIL "7BIT" 5 0)("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 6 0) "digest")'
    )


@pytest.mark.parametrize("header", ["A: b", "Content-Type: text", "Content-Type:", "Content-Type: ;charset=x", "Content-Type: \x00/\x01"])
def test_no_content_type_or_a_broken_one_is_plain_text_in_ascii(header: str) -> None:
    """RFC 2045 section 5.2."""
    assert parse(crlf("X: y\n" + header + "\n\nabc\n")).body == PLAIN_US % (5, 1)


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("multipart/mixed", "no boundary\n", "no boundary\n"),
        ('multipart/mixed; boundary=""', "--\nempty\n", "--\nempty\n"),
        ("multipart/mixed; boundary=b", "never used\n", "never used\n"),
        ("multipart/mixed; boundary=b", "closed at once\n--b--\n", "closed at once\n--b--\n"),
        ("multipart/mixed; boundary=b", "", ""),
    ],
)
def test_a_multipart_without_parts_has_its_whole_body_as_text(content_type: str, body: str, text: str) -> None:
    """The grammar wants at least one part, and a reader wants to see what was sent."""
    parsed = parse(crlf(f"Content-Type: {content_type}\n\n{body}"))
    assert parsed.body == b"(" + PLAIN_US % (len(crlf(text)), text.count("\n")) + b' "mixed")'
    assert parsed.text == crlf(text).decode()


@pytest.mark.parametrize("encoding", ["base64", "Quoted-Printable"])
def test_an_encoded_attached_message_is_a_leaf_that_clients_can_read(encoding: str) -> None:
    """RFC 2045 section 6.4 forbids it; MESSAGE RFC822 without an envelope would be outside the grammar."""
    parsed = parse(crlf(f"Content-Type: message/rfc822\nContent-Transfer-Encoding: {encoding}\n\nU3ViamVjdDogeA==\n"))
    assert parsed.root.children == ()
    assert parsed.body == b'("APPLICATION" "OCTET-STREAM" NIL NIL NIL "%b" 18)' % encoding.encode()


def test_other_messages_are_basic_types() -> None:
    parsed = parse(crlf("Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n"))
    assert parsed.body == b'("message" "delivery-status" NIL NIL NIL "7BIT" 23)'


_STRING = re.compile(rb'"(?:[^"\\\r\n\x80-\xff\0]|\\["\\])*"')
_LITERAL = re.compile(rb"\{(\d+)\}\r\n")


def read(data: bytes, position: int = 0) -> tuple[object, int]:
    """An independent reader of what the renderer writes: nested lists of strings, numbers and None."""
    if data[position : position + 1] == b"(":
        items: list[object] = []
        position += 1
        while data[position : position + 1] != b")":
            item, position = read(data, position)
            items.append(item)
            if data[position : position + 1] == b" ":
                position += 1
        return items, position + 1
    if literal := _LITERAL.match(data, position):
        end = literal.end() + int(literal[1])
        assert b"\0" not in data[literal.end() : end]
        return data[literal.end() : end], end
    if quoted := _STRING.match(data, position):
        return quoted[0], quoted.end()
    atom = re.compile(rb"NIL|\d+").match(data, position)
    assert atom, data[position : position + 40]
    return (None if atom[0] == b"NIL" else int(atom[0])), atom.end()


def check_body(body: object, extended: bool) -> None:
    """The shape that RFC 9051 section 9 gives body."""
    assert isinstance(body, list)
    if isinstance(body[0], list):
        count = next(index for index, item in enumerate(body) if not isinstance(item, list))
        for child in body[:count]:
            check_body(child, extended)
        assert len(body) == count + (5 if extended else 1)
        return
    kind = (body[0] + b"/" + body[1]).replace(b'"', b"").lower()
    assert isinstance(body[6], int)
    length = 7
    if kind in (b"message/rfc822", b"message/global"):
        assert len(body[7]) == 10
        check_body(body[8], extended)
        length = 10
    elif kind.startswith(b"text/"):
        length = 8
    assert len(body) == length + (4 if extended else 0)


_pieces = st.sampled_from(
    [
        b"Content-Type: multipart/mixed; boundary=b\r\n",
        b"Content-Type: multipart/digest; boundary=bb\n",
        b"Content-Type: message/rfc822\r\n",
        b"Content-Type: text/html; charset=x; name*=a'b'c\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b'Content-Disposition: attachment; filename="\xff\\"\0"\r\n',
        b"Content-Language: a, b\r\n",
        b"From: a <b@c>, g: d@e;\r\n",
        b"To: \xe4 (\r\n",
        b'Subject: "x\r\n\ty\\\r\n',
        b"\r\n",
        b"\n",
        b"--b\r\n",
        b"--bb\n",
        b"--b--\r\n",
        b"--bb--",
        b"text \r\n",
        b"\0",
    ]
)


@given(st.lists(_pieces, max_size=25).map(b"".join) | st.binary(max_size=200))
@settings(max_examples=600, deadline=None)
def test_any_message_gives_what_the_grammar_allows(content: bytes) -> None:
    parsed = parse(content)
    envelope, end = read(parsed.envelope)
    assert end == len(parsed.envelope)
    assert isinstance(envelope, list)
    assert len(envelope) == 10
    for rendered, extended in ((parsed.bodystructure, True), (parsed.body, False)):
        structure, end = read(rendered)
        assert end == len(rendered)
        check_body(structure, extended)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a*0=x; a*1=y; b=z", b'"a" "xy" "b" "z"'),
        ("b=z; A*1=y; a*0=x", b'"b" "z" "A" "xy"'),
        ("a*0*=utf-8'en'%20x; a*1=50%; a*2*=%21", b'"a*" "utf-8\'en\'%20x50%25%21"'),
        ("a*=utf-8''x", b'"a*" "utf-8\'\'x"'),
        ("a*0=x; a*2=y", b'"a*0" "x" "a*2" "y"'),
        ("a*1=x", b'"a*1" "x"'),
        ("a*00=x; a*=y", b'"a*00" "x" "a*" "y"'),
        ("a*0=x; a*0=y; a*1=z", b'"a" "xz"'),
    ],
)
def test_pieces_of_a_parameter_are_put_together(given: str, shown: bytes) -> None:
    """RFC 2231 section 6; a value whose pieces are not all there is shown as it is."""
    parsed = parse(crlf(f"Content-Type: image/png; {given}\n\n"))
    assert parsed.body.startswith(b'("image" "png" (' + shown + b") NIL"), parsed.body


def test_comments_are_no_languages() -> None:
    """RFC 3282 section 2."""
    parsed = parse(crlf("Content-Language: en (English), , fr(French)\n\n"))
    assert parsed.bodystructure.endswith(b' ("en" "fr") NIL)')
