"""The text that is searched."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.mime import fold, parse, visible
from fe_twisted.protocols.mime import text as texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello  World", "hello world"),
        ("one\r\n two\tthree", "one two three"),
        (" edge ", " edge "),
        ("Straße", "strasse"),
        ("e\u0301", "é"),
        ("\u00a0", " "),
        ("", ""),
        ("\r\n", " "),
    ],
)
def test_fold(text: str, expected: str) -> None:
    assert fold(text) == expected


@given(st.text(max_size=80))
@settings(max_examples=400, deadline=None)
def test_folding_twice_changes_nothing_more(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(st.sampled_from("ab \n\t\u3000\x1f\u0301"), max_size=60), st.integers(1, 9))
def test_a_long_text_folds_like_a_short_one(text: str, step: int) -> None:
    whole = fold(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "_STEP", step)
        assert fold(text) == whole


def test_folding_every_character_twice_changes_nothing_more_and_composition_does_not_matter() -> None:
    for code in range(0x20000):  # above that are ideographs without case, and nothing
        if not 0xD800 <= code <= 0xDFFF:
            folded = fold(chr(code))
            assert fold(folded) == folded, hex(code)
            if code < 0x2000:
                assert fold(unicodedata.normalize("NFD", chr(code))) == folded, hex(code)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>One</p><p>Two</p>", "One Two"),
        ("f<b>o</b><SPAN class='x'>o</SPAN>bar", "foobar"),
        ("a<br/>b<hr>c", "a b c"),
        ("<style>p{color:red}</style>shown<script>if (a<b) hide()</script>", "shown"),
        ("<STYLE>x</STYLE >a<template>b</template>c", "a c"),
        ("a<!-- no <p> -->b", "ab"),
        ("a<!-- never closed", "a"),
        ("a<script>never closed", "a"),
        (
            "&lt;tag&gt; &amp;amp; &auml;&#228;&#xE4;&nbsp;&unknown; &#0;&#xD800;&#9999999; AT&T",
            "<tag> &amp; äää &unknown; \ufffd\ufffd\ufffd AT&T",
        ),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ('<a href="https://example.com/?a=1&amp;b=2">link</a> x', "link x https://example.com/?a=1&b=2"),
        ("<a class=y href='u'>1</a><A HREF=u>2</A><a name=z>3</a>", "123 u"),
    ],
)
def test_visible_text_of_html(html: str, expected: str) -> None:
    assert " ".join(visible(html).split()) == expected


def test_html_is_read_the_same_in_steps_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    html = "a<p>b<b>c</b>d<style>e<f></style>g<a href=h>i</a>&auml;<!-- j -->k" * 3
    whole = visible(html)
    for step in range(1, 40):
        monkeypatch.setattr(texts, "_STEP", step)
        assert visible(html) == whole


@given(st.text(alphabet="<>!-/ abp&;#x1\"'=hrefscriptyl", max_size=80))
@settings(max_examples=400, deadline=None)
def test_any_html_gives_text(html: str) -> None:
    visible(html).encode()


MESSAGE = b"""Subject: outer
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Stra=DFe is lo=
ng
--b
Content-Type: text/html; charset=koi8-r
Content-Transfer-Encoding: base64

PHA+8NLJ18XUPC9wPg==
--b
Content-Type: application/pdf; name="x.pdf"
Content-Disposition: attachment; filename*=utf-8''Rechnung%20M%C3%A4rz.pdf

not text
--b
Content-Type: message/rfc822

From: Inner <inner@example.org>
Subject: =?utf-8?q?t=C3=AEtle?=
Received: not looked for

inner body
--b--
epilogue
"""


def test_all_parts_give_their_text() -> None:
    text = fold(parse(MESSAGE).text)
    for wanted in ("strasse is long", "привет", "rechnung märz.pdf", "inner <inner@example.org>", "tîtle", "inner body"):
        assert wanted in text
    for unwanted in ("outer", "not text", "epilogue", "received", "<p>"):
        assert unwanted not in text


def test_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first characters are kept, and file names find no place once it is full."""
    monkeypatch.setattr(texts, "MAX_TEXT", 10)
    part = b"--b\n\n1234567\n"
    assert parse(b"Content-Type: multipart/mixed; boundary=b\n\n" + part * 5).text == "1234567\n12"


def test_reading_is_bounded_even_when_nothing_of_it_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_READ", 1000)
    assert "late" not in parse(b"Content-Type: text/html\n\n" + b"<p>" * 500 + b"late").text
