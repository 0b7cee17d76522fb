"""Content-Transfer-Encoding undone (RFC 2045 section 6), for any octets."""

from __future__ import annotations

import binascii
import re

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_OTHERS = bytes(set(range(256)) - set(_ALPHABET))
#: White space at the end of a line was put there on the way (RFC 2045 section 6.7, rule 3).
_TRAILING = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n|\Z)")


def decode(name: str, raw: bytes) -> bytes:
    """The octets that were encoded; unchanged for 7bit, 8bit, binary and unknown encodings.

    :param name: lower-case encoding, as in :class:`~fe_twisted.protocols.mime.parts.Part`.
    """
    if name == "base64":
        return base64(raw)
    if name == "quoted-printable":
        return binascii.a2b_qp(_TRAILING.sub(b"", raw))
    return raw


def base64(raw: bytes) -> bytes:
    """As much as can be read: octets outside the alphabet, wrong padding and a lone last character are passed over."""
    try:
        return binascii.a2b_base64(raw)
    except binascii.Error:
        clean = raw.partition(b"=")[0].translate(None, _OTHERS)
        if len(clean) % 4 == 1:
            clean = clean[:-1]
        return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4))
