"""Encoded words, charsets and parameters: what people write in names, subjects and file names."""

from __future__ import annotations

import email.header

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fe_twisted.protocols.mime import charset, parameters, words


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"plain", "plain"),
        (b"=?iso-8859-1?q?caf=E9?=", "café"),
        (b"=?UTF-8?B?R3LDvMOfZQ==?= and more", "Grüße and more"),
        (b"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
        (b"=?utf-8?q?a_b?=", "a b"),
        (b"=?utf-8*en?q?colour?=", "colour"),
        (b"=?utf-8?b?w6Q?=", "ä"),
        (b"=?utf-8?q?=C3?= =?utf-8?q?=A4?=", "ä"),
        (b"=?iso-8859-1?q?=E4?= =?koi8-r?q?=C1?=", "äа"),
        (b"=?utf-8?q?with space?=", "with space"),
        (b"=?gb2312?b?xOO6ww==?=", "你好"),
        (b"=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=", "日本"),
        (b"=?ks_c_5601-1987?b?x9GxuQ==?=", "한국"),
        (b"=?x-nobody-knows?q?=E9?=", "é"),
        (b"=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
        (b"=?utf-8?q?unfinished", "=?utf-8?q?unfinished"),
        ("schon Grüße".encode(), "schon Grüße"),
        (b"caf\xe9", "café"),
        (b"nul\0", "nul\ufffd"),
    ],
)
def test_decoded(value: bytes, expected: str) -> None:
    assert words.decode(value) == expected


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs", "Cc")), max_size=60), st.sampled_from(["utf-8", "iso-2022-jp", "koi8-r"]))
@settings(max_examples=200, deadline=None)
def test_reads_what_the_standard_library_writes(text: str, name: str) -> None:
    text = " ".join(text.encode(name, "ignore").decode(name).split())
    folded = email.header.Header(text, name).encode()
    if "=?" in folded and "=?" not in text:
        assert words.decode(folded.replace("\n", "").encode()) == text


@given(
    st.binary(max_size=100),
    st.text(max_size=20) | st.sampled_from(["utf-7", "utf-16", "punycode", "zlib", "idna", "hex", "utf-8\0", "cp932"]),
)
@settings(max_examples=400, deadline=None)
def test_any_octets_in_any_charset_give_text_that_can_be_stored(raw: bytes, name: str) -> None:
    text = charset.decode(raw, name)
    text.encode("utf-8")
    assert "\0" not in text


def test_half_a_surrogate_pair_in_utf_7_becomes_a_replacement_character() -> None:
    assert charset.decode(b"a+2AA-b", "utf-7") == "a\ufffdb"


def test_codecs_that_are_no_charsets_are_not_used() -> None:
    assert [charset.codec(name) for name in ("zlib", "rot13", "punycode", "idna", "unicode_escape", "hex", "bz2", "no-such")] == [""] * 8


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"text/plain", (b"text", b"plain", [])),
        (b'Text/HTML; Charset="utf-8" ;', (b"Text", b"HTML", [(b"Charset", b"utf-8")])),
        (b"text/plain; charset=us-ascii (Plain text)", (b"text", b"plain", [(b"charset", b"us-ascii")])),
        (b"image/gif; name=a (1).gif", (b"image", b"gif", [(b"name", b"a (1).gif")])),
        (rb'a/b; x="q;\"\\"; y=', (b"a", b"b", [(b"x", rb'q;"' + b"\\"), (b"y", b"")])),
        (b'a/b; x="never closed', (b"a", b"b", [(b"x", b"never closed")])),
        (b"a/b;;; x = y ; novalue; z=1", (b"a", b"b", [(b"x", b"y"), (b"z", b"1")])),
        (b"text / plain", (b"text", b"plain", [])),
        (b"text", None),
        (b"text/", None),
        (b"/plain", None),
        (b"text/plain/more", None),
        (b"", None),
    ],
)
def test_content_type(value: bytes, expected: object) -> None:
    assert parameters.media_type(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'attachment; filename="a.pdf"', "a.pdf"),
        (b'attachment; filename="=?utf-8?q?=C3=A4.pdf?="', "ä.pdf"),
        (b"attachment; filename*=utf-8''%C3%A4%20b.pdf", "ä b.pdf"),
        (b"attachment; filename=fallback.pdf; filename*=utf-8''%C3%A4.pdf", "ä.pdf"),
        (b"attachment; filename*1*=%A4; filename*0*=utf-8''%C3; filename*2=\".pdf\"", "ä.pdf"),
        (b"attachment; filename*0=one; filename*1=two", "onetwo"),
        (b"attachment; filename*0*=iso-8859-1'de'%E4", "ä"),
        (b"attachment; filename*=no-quotes%20here", "no-quotes here"),
        (b"attachment", ""),
    ],
)
def test_file_names(value: bytes, expected: str) -> None:
    """RFC 2231 pieces in any order, and what is sent instead of them."""
    found = parameters.disposition(value)
    assert found is not None
    assert parameters.decoded(found[1], b"filename") == expected
