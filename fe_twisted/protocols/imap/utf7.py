"""Modified UTF-7 of mailbox names (RFC 3501 section 5.1.3).

Printable US-ASCII stands for itself, ``&`` is ``&-``, everything else is UTF-16BE in base64 with ``,`` for ``/`` and without padding,
between ``&`` and ``-``.  :func:`decode` takes the one shortest form only, so that a name has one spelling and ``decode`` is the
inverse of :func:`encode`.
"""

from __future__ import annotations

import binascii
import re

_ENCODE = re.compile(r"[^\x20-\x7e]+|&")
#: The class holds no ``&``, so that a name full of them is read once and not once for each.
_DECODE = re.compile(rb"&([A-Za-z0-9+,]*+)-")
_PLAIN = re.compile(rb"[\x20-\x25\x27-\x7e]*")


def encode(name: str) -> bytes:
    """The name as the wire has it.

    :raises ValueError: it holds a lone surrogate.
    """
    if name.isascii() and name.isprintable() and "&" not in name:
        return name.encode("ascii")
    return _ENCODE.sub(_shift, name).encode("ascii")


def decode(wire: bytes) -> str:
    """The name as Unicode.

    :raises ValueError: octets outside printable US-ASCII, bad base64, bad UTF-16, or a form that :func:`encode` would not give.
    """
    if b"&" not in wire:
        if not _PLAIN.fullmatch(wire):
            raise ValueError("a mailbox name holds octets outside printable US-ASCII")
        return wire.decode("ascii")
    parts: list[str] = []
    at = 0
    for match in _DECODE.finditer(wire):
        parts.append(_plain(wire[at : match.start()]))
        parts.append(_unshift(match[1]))
        at = match.end()
    parts.append(_plain(wire[at:]))
    name = "".join(parts)
    if encode(name) != wire:
        raise ValueError("a mailbox name is not in the shortest form of modified UTF-7")
    return name


def _shift(match: re.Match[str]) -> str:
    text = match[0]
    if text == "&":
        return "&-"
    coded = binascii.b2a_base64(text.encode("utf-16-be"), newline=False)
    return "&" + coded.rstrip(b"=").replace(b"/", b",").decode("ascii") + "-"


def _plain(octets: bytes) -> str:
    if not _PLAIN.fullmatch(octets):
        raise ValueError("a mailbox name holds '&' without '-', or octets outside printable US-ASCII")
    return octets.decode("ascii")


def _unshift(coded: bytes) -> str:
    if not coded:
        return "&"
    padded = coded.replace(b",", b"/") + b"=" * (-len(coded) % 4)
    return binascii.a2b_base64(padded, strict_mode=True).decode("utf-16-be")
