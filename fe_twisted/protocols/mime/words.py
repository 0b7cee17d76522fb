"""Encoded words in header fields (RFC 2047), read the way their many broken writers meant them."""

from __future__ import annotations

import binascii
import re

from fe_twisted.protocols.mime import charset, encoding

_WORD = re.compile(r"=\?([^?\s]{1,80})\?([bBqQ])\?([^?]*+)\?=")


def decode(value: bytes) -> str:
    """The text of an unfolded field value; octets above 127 are read as UTF-8 (RFC 6532) or else Windows-1252."""
    if value.isascii() and b"=?" not in value and b"\0" not in value:
        return value.decode("ascii")  # nearly every field
    text = charset.decode(value)
    return _decode_words(text) if "=?" in text else text


def _decode_words(text: str) -> str:
    out: list[str] = []
    position = 0
    pending: list[bytes] = []  # octets of adjacent words in one charset: some writers cut characters in two
    pending_charset = ""
    for word in _WORD.finditer(text):
        between = text[position : word.start()]
        name = word[1].partition("*")[0]  # RFC 2231 section 5: charset*language
        if pending_charset and (name != pending_charset or (between and not between.isspace())):
            out.append(charset.decode(b"".join(pending), pending_charset))
            pending, pending_charset = [], ""
            if between.isspace():  # RFC 2047 section 6.2: white space between two words is not shown
                between = ""
        if not pending_charset:
            out.append(between)
        raw = word[3].encode("utf-8", "replace")
        pending.append(encoding.base64(raw) if word[2] in "bB" else binascii.a2b_qp(raw, header=True))
        pending_charset = name
        position = word.end()
    if pending_charset:
        out.append(charset.decode(b"".join(pending), pending_charset))
    out.append(text[position:])
    return "".join(out)
