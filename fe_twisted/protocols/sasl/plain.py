"""SASL PLAIN and the base64 lines that SASL exchanges use (skeleton of the interface)."""

from __future__ import annotations

from typing import NamedTuple

from fe_twisted.base.errors import BadSyntax


class Plain(NamedTuple):
    """Who logs in; valid UTF-8 without NUL.  ``authzid`` is empty when the client left it out."""

    authzid: bytes
    authcid: bytes
    password: bytes


class Cancelled(BadSyntax):
    """The client sent ``*`` instead of an answer."""

    default = "authentication cancelled"


def decode_line(line: bytes, *, limit: int = 12_288) -> bytes:
    """The octets of one base64 line; ``=`` is the empty initial response (RFC 4959).

    :raises Cancelled: for ``*``.
    :raises BadSyntax: not strict base64, or longer than ``limit``.
    """
    raise NotImplementedError


def parse_plain(message: bytes) -> Plain:
    """The parts of a decoded PLAIN message (RFC 4616).

    :raises BadSyntax:
    """
    raise NotImplementedError
