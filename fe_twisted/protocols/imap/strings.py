"""Strings, names and flag lists as the wire has them (RFC 3501 sections 4 and 9)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fe_twisted.protocols.imap import utf7
from fe_twisted.protocols.imap.grammar import ATOM_CHARS

_QUOTABLE = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*")
_ASTRING = re.compile(rb"[" + ATOM_CHARS + rb"\]]+")
_SPECIAL = re.compile(rb'(["\\])')
#: Longest string that is still quoted; a literal is as good and cheaper to read above it.
_QUOTED_OCTETS = 4_096


def quoted(text: str | bytes) -> bytes:
    """A quoted string; ``str`` is written as UTF-8.

    :raises ValueError: it holds NUL, CR or LF, which cannot be quoted; :func:`string` can.
    """
    octets = text.encode("utf-8") if isinstance(text, str) else text
    if b"\r" in octets or b"\n" in octets or b"\0" in octets:
        raise ValueError("NUL, CR and LF cannot stand in a quoted string")
    return b'"' + _SPECIAL.sub(rb"\\\1", octets) + b'"'


def literal(octets: bytes) -> bytes:
    """``{5}`` CR LF and the octets."""
    return b"{%d}\r\n%b" % (len(octets), octets)


def string(octets: bytes) -> bytes:
    """A quoted string where that is possible and short, else a literal."""
    if len(octets) <= _QUOTED_OCTETS and _QUOTABLE.fullmatch(octets):
        return quoted(octets)
    return literal(octets)


def astring(octets: bytes) -> bytes:
    """An atom where possible, else as :func:`string`.  NIL is quoted, lest a client take it for nothing."""
    if _ASTRING.fullmatch(octets) and octets.upper() != b"NIL":
        return octets
    return string(octets)


def mailbox_name(name: str, *, utf8: bool = False) -> bytes:
    """A mailbox name: in modified UTF-7, or in UTF-8 when the client has enabled that (RFC 9051 section 5.1, RFC 6855).

    :raises ValueError: it holds a lone surrogate, or (with ``utf8``) NUL, CR or LF.
    """
    if not utf8:
        return astring(utf7.encode(name))
    octets = name.encode("utf-8")
    return astring(octets) if octets.isascii() else quoted(octets)


def flag_list(flags: Iterable[str]) -> bytes:
    r"""``(\Seen $Forwarded)``, in the order given."""
    return ("(" + " ".join(flags) + ")").encode("ascii")
