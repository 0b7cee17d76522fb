"""The header fields that final delivery puts before a message (RFC 5321 section 4.4), and the count of those already there.

Everything comes in as arguments, the time too.  What a client could choose (its HELO name, addresses) can never begin a new line or
a comment: characters that have no business there are replaced.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from email.utils import format_datetime
from functools import lru_cache
from ipaddress import ip_address

#: A loop puts its fields at the top, so no more of a message is looked at.
HEADER_LIMIT = 1 << 20

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_NOT_IN_WORD = re.compile(r"[^A-Za-z0-9._-]")
_NOT_IN_ADDRESS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Hop:
    """One arrival of one message, for :func:`received`.

    :param helo: the name the client gave in HELO or EHLO.
    :param client: its IP address.
    :param host: our name.
    :param protocol: see :func:`protocol_name`.
    :param id: our id of the message.
    :param received_at: aware.
    :param tls: ``(version, cipher, key-exchange group)`` or None; the group may be empty.
    """

    helo: str
    client: str
    host: str
    protocol: str
    id: str
    received_at: datetime.datetime
    tls: tuple[str, str, str] | None = None


def protocol_name(*, extended: bool, tls: bool, utf8: bool) -> str:
    """The ``with`` keyword (RFC 3848, RFC 6531 section 4.3).

    :param extended: greeted with EHLO; STARTTLS and SMTPUTF8 are not to be had without.
    """
    if utf8:
        return "UTF8SMTPS" if tls else "UTF8SMTP"
    if tls:
        return "ESMTPS"
    return "ESMTP" if extended else "SMTP"


def return_path(sender: str) -> bytes:
    """``Return-Path``, with an empty sender as ``<>``."""
    return _line(f"Return-Path: <{_address(sender)}>")


def delivered_to(recipient: str) -> bytes:
    """``Delivered-To``: not of a standard, but what loop detection and sieve scripts of other systems look for."""
    return _line(f"Delivered-To: {_address(recipient)}")


def received(hop: Hop, recipient: str) -> bytes:
    """``Received`` for one recipient; others of the same transaction are never named in it (RFC 5321 section 7.2)."""
    return _line(
        f"Received: from {_name(hop.helo)} ({_literal(hop.client)})\r\n"
        f"\tby {_name(hop.host)} with {hop.protocol}{_tls(hop.tls)} id {_name(hop.id)}\r\n"
        f"\tfor <{_address(recipient)}>; {format_datetime(hop.received_at)}"
    )


def count_fields(message: bytes, name: bytes) -> int:
    """How many fields of this (lower-case) name the header has; of ``received`` that is the number of hops (RFC 5321 section 6.3)."""
    # The header ends at the first empty line, which may be the very first.
    end = 0 if message.startswith(b"\r\n") else message.find(b"\r\n\r\n", 0, HEADER_LIMIT)
    header = message[: HEADER_LIMIT if end < 0 else end]
    return (b"\r\n" + header.lower()).count(b"\r\n" + name + b":")


def _tls(tls: tuple[str, str, str] | None) -> str:
    """RFC 8314 section 4.3 for TLS 1.3, whose cipher suites OpenSSL calls by their registered names; a comment for what is older."""
    if tls is None:
        return ""
    version, cipher, group = (_NOT_IN_WORD.sub("?", part) for part in tls)
    if cipher.startswith("TLS_"):
        return f" ({version}) tls {cipher}" + (f" group {group}" if group else "")
    return f" ({' '.join(filter(None, (version, cipher, group)))})"


@lru_cache(maxsize=1024)
def _literal(client: str) -> str:
    try:
        ip = ip_address(client.partition("%")[0])
    except ValueError:
        return "unknown"
    mapped = getattr(ip, "ipv4_mapped", None)
    return f"[{mapped or ip}]" if ip.version == 4 or mapped else f"[IPv6:{ip}]"


def _name(text: str) -> str:
    return _NOT_IN_NAME.sub("?", text) or "unknown"


def _address(text: str) -> str:
    return _NOT_IN_ADDRESS.sub("?", text)


def _line(text: str) -> bytes:
    return text.encode("utf-8") + b"\r\n"
