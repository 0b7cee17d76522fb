"""SASL PLAIN (RFC 4616) and the base64 lines that every SASL exchange over IMAP, POP3 and SMTP uses."""

from __future__ import annotations

import binascii
from typing import NamedTuple

from fe_twisted.base.errors import BadSyntax


class Plain(NamedTuple):
    """Who logs in: valid UTF-8 without NUL, ``authcid`` and ``password`` not empty.

    ``authzid``, whom the user wants to act as, is empty when the client left it out.
    """

    authzid: bytes
    authcid: bytes
    password: bytes

    def __repr__(self) -> str:
        return "Plain(…)"


class Cancelled(BadSyntax):
    """The client sent ``*`` instead of an answer (RFC 9051 section 6.2.2, RFC 4954 section 4)."""

    default = "authentication cancelled"


def decode_line(line: bytes, *, limit: int = 12_288) -> bytes:
    """The octets of one base64 line without its CR LF; ``=`` is the empty initial response (RFC 4959 section 3).

    :param limit: most octets of the line (RFC 4954 section 4 asks for 12,288).
    :raises Cancelled: for ``*``.
    :raises BadSyntax: longer than ``limit``, or not base64 as RFC 4648 section 4 has it: padding in full, no other character.
    """
    if line == b"*":
        raise Cancelled
    if line == b"=":
        return b""
    if len(line) > limit:
        raise BadSyntax("authentication response too long")
    try:
        octets = binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error as error:
        raise BadSyntax("authentication response is not base64", reason=str(error)) from None
    # strict_mode takes no notice of bits that are left over in the last character
    if binascii.b2a_base64(octets, newline=False) != line:
        raise BadSyntax("authentication response is not base64", reason="bits left over")
    return octets


def parse_plain(message: bytes) -> Plain:
    """The parts of a decoded PLAIN message, ``[authzid] NUL authcid NUL passwd`` (RFC 4616 section 2).

    :raises BadSyntax: other than two NULs, an empty user name or password, a part longer than 255 octets (password: 4,096), or not UTF-8.
    """
    parts = message.split(b"\0", 3)
    if len(parts) != 3:
        raise BadSyntax("PLAIN needs authorization identity, user name and password, with NUL between them")
    made = Plain(*parts)
    if not made.authcid or not made.password:
        raise BadSyntax("PLAIN needs a user name and a password")
    if max(len(made.authzid), len(made.authcid)) > 255 or len(made.password) > 4_096:
        raise BadSyntax("PLAIN: user name or password too long")
    try:
        message.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSyntax("PLAIN: user name and password must be UTF-8") from None
    return made
