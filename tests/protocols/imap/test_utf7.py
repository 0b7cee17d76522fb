"""Modified UTF-7: RFC examples, strictness, and that both ways agree for any name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fe_twisted.protocols.imap import utf7


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("INBOX", b"INBOX"),
        ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
        ("R&D", b"R&-D"),
        ("&&", b"&-&-"),
        ("Gelöscht", b"Gel&APY-scht"),
        ("tab\there", b"tab&AAk-here"),
        ("😀", b"&2D3eAA-"),
        ("", b""),
    ],
)
def test_examples(name: str, wire: bytes) -> None:
    assert utf7.encode(name) == wire
    assert utf7.decode(wire) == name


@pytest.mark.parametrize(
    "wire",
    [
        b"R&D",  # & without -
        b"&AGE-",  # a printable letter must stand for itself
        b"&APY-&APY-",  # two shifts where one will do
        b"&2D0-",  # half a surrogate pair
        b"&AP-",  # not whole UTF-16
        b"&APYA-",  # bits left over
        b"&AP/-",  # standard base64 alphabet
        b"&!-",
        b"caf\xc3\xa9",
        b"a\x00b",
        b"a\nb",
        b"&",
    ],
)
def test_what_is_not_the_one_form_is_refused(wire: bytes) -> None:
    with pytest.raises(ValueError):
        utf7.decode(wire)


@given(st.text())
def test_round_trip(name: str) -> None:
    try:
        wire = utf7.encode(name)
    except ValueError:
        assert any(0xD800 <= ord(letter) <= 0xDFFF for letter in name)
        return
    assert wire.isascii()
    assert utf7.decode(wire) == name


@given(st.binary(max_size=40))
def test_any_octets_decode_or_are_refused(wire: bytes) -> None:
    try:
        name = utf7.decode(wire)
    except ValueError:
        return
    assert utf7.encode(name) == wire
