"""The first words of a message (RFC 8970)."""

from __future__ import annotations

import email.message
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.mime.parse import parse
from fe_twisted.protocols.mime.preview import MAX_PREVIEW


def _html(text: str, plain: str | None = None) -> bytes:
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["Subject"] = "x"
    if plain is not None:
        message.set_content(plain)
        message.add_alternative(text, subtype="html")
    else:
        message.set_content(text, subtype="html")
    return message.as_bytes()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ""),
        (b"Subject: 1\r\n\r\n", ""),
        (b"Subject: 1\r\n\r\n \t\r\n\r\nHello\r\n world  \r\n", "Hello world"),
        (b"Subject: 1\r\n\r\n> old\r\nnew\r\n-- \r\nJane\r\n", "new"),
        (b"Content-Type: multipart/encrypted; boundary=x\r\n\r\n--x\r\n\r\nVersion: 1\r\n--x--\r\n", ""),
        (b"Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nnotes", ""),
        (b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZQ==\r\n", "Gr\u00fc\u00dfe"),
        (b"Subject: 1\r\n\r\na\x00b\x1b[31m\x7f", "a\ufffdb [31m"),
        (_html("<p>only</p>"), "only"),
        (_html("<p>markup</p>", "plain words\n"), "plain words"),
        (_html("<p>markup</p>", "\n"), "markup"),
    ],
)
def test_the_beginning_of_the_text(content: bytes, expected: str) -> None:
    assert parse(content).preview == expected


def test_no_more_than_two_hundred_characters() -> None:
    assert parse(b"Subject: 1\r\n\r\n" + b"word " * 100_000).preview == ("word " * 40).strip()
    assert parse(b"Subject: 1\r\n\r\n" + b"x" * 1_000_000).preview == "x" * MAX_PREVIEW


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=400), st.sampled_from([b"", b"Content-Type: text/html\r\n\r\n", b"Content-Type: text/plain; charset=utf-16\r\n\r\n"])
)
def test_any_octets_give_one_printable_line(body: bytes, head: bytes) -> None:
    preview = parse(head + body).preview
    assert len(preview) <= MAX_PREVIEW
    assert preview.isprintable()
    assert preview == " ".join(preview.split())
    preview.encode("utf-8")
