"""GETMETADATA, SETMETADATA and their response (RFC 5464), GETQUOTA and GETQUOTAROOT (RFC 9208)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fe_twisted.protocols.imap import elements
from fe_twisted.protocols.imap.grammar import MAX_NUMBER, Reader
from fe_twisted.protocols.imap.strings import astring, mailbox_name, string

#: Entries in one command.
MAX_ENTRIES = 100
#: RFC 5464 section 3.2: an entry is a path of printable US-ASCII without ``*`` and ``%``; ours have at least a name below the scope.
_ENTRY = re.compile(r"/(?:private|shared)(?:/[!-$&-)+-.0-~]+)+", re.IGNORECASE)
_MAX_ENTRY = 255
#: With DEPTH, a scope itself may be asked about: everything below it is meant.
_SCOPE = re.compile(r"/(?:private|shared)", re.IGNORECASE)
#: How options begin, which no entry does.
_OPTIONS = re.compile(rb"\([A-Za-z]")
_DEPTHS: dict[str, Literal[0, 1, -1]] = {"0": 0, "1": 1, "INFINITY": -1}


@dataclass(frozen=True, slots=True)
class GetMetadata:
    """GETMETADATA.

    :param mailbox: empty for the annotations of the server, which here are the account's.
    :param depth: 0, 1, or -1 for infinity.
    :param max_size: values of more octets are not wanted; None for any.
    """

    mailbox: str
    entries: tuple[str, ...]
    depth: Literal[0, 1, -1] = 0
    max_size: int | None = None


@dataclass(frozen=True, slots=True)
class SetMetadata:
    """SETMETADATA; a value of None removes the entry."""

    mailbox: str
    values: tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class QuotaRoot:
    """GETQUOTA."""

    root: str


def get_metadata(reader: Reader) -> GetMetadata:
    """GETMETADATA after its name; the options stand before the mailbox (section 5), or after it as in the example of section 4.2.1."""
    reader.space()
    depth: Literal[0, 1, -1] = 0
    size: int | None = None
    if reader.sees(b"("):
        depth, size = _options(reader)
        reader.space()
    mailbox = elements.mailbox(reader)
    reader.space()
    if _OPTIONS.match(reader.text, reader.at):
        depth, size = _options(reader)
        reader.space()
    start = reader.at
    entry = _entry if not depth else _entry_or_scope
    entries = reader.parenthesised(entry) if reader.sees(b"(") else (entry(reader),)
    if len(entries) > MAX_ENTRIES:
        reader.fail(f"more than {MAX_ENTRIES} entries", start)
    return GetMetadata(mailbox, tuple(dict.fromkeys(entries)), depth, size)


def _options(reader: Reader) -> tuple[Literal[0, 1, -1], int | None]:
    depth: Literal[0, 1, -1] = 0
    size: int | None = None
    start = reader.at
    for name, value in reader.parenthesised(_option):
        if name == "DEPTH" and value in _DEPTHS:
            depth = _DEPTHS[value]
        elif name == "MAXSIZE" and value.isdigit() and len(value) <= 10 and int(value) <= MAX_NUMBER:
            size = int(value)
        else:
            reader.fail("expected the options MAXSIZE number and DEPTH 0, 1 or infinity", start)
    return depth, size


def _option(reader: Reader) -> tuple[str, str]:
    name = reader.word("an option")
    reader.space()
    return name, reader.word("the value of an option")


def set_metadata(reader: Reader) -> SetMetadata:
    """SETMETADATA after its name."""
    reader.space()
    mailbox = elements.mailbox(reader)
    reader.space()
    start = reader.at
    values = reader.parenthesised(_value)
    if len(values) > MAX_ENTRIES:
        reader.fail(f"more than {MAX_ENTRIES} entries", start)
    return SetMetadata(mailbox, values)


def _value(reader: Reader) -> tuple[str, bytes | None]:
    entry = _entry(reader)
    reader.space()
    return entry, reader.literal(binary=True) if reader.sees(b"~{") else reader.nstring()


def _entry_or_scope(reader: Reader) -> str:
    return _entry(reader, scope=True)


def _entry(reader: Reader, *, scope: bool = False) -> str:
    start = reader.at
    name = reader.astring("an entry name").decode("ascii", "replace")
    if not (_ENTRY.fullmatch(name) or (scope and _SCOPE.fullmatch(name))) or len(name) > _MAX_ENTRY:
        reader.fail("expected an entry name such as /private/comment or /shared/comment", start)
    return name.lower()


def changed(mailbox: str, entries: Iterable[str], *, utf8: bool = False) -> bytes:
    """``* METADATA INBOX /shared/comment``: names of entries that have changed (RFC 5464 section 4.4.2)."""
    return b"* METADATA %b %b\r\n" % (mailbox_name(mailbox, utf8=utf8), b" ".join(astring(entry.encode()) for entry in entries))


def metadata(mailbox: str, values: Iterable[tuple[str, bytes | None]], *, utf8: bool = False) -> bytes:
    """``* METADATA "INBOX" (/private/comment "my own")``; a value with NUL is a binary literal."""
    words = []
    for entry, value in values:
        shown = b"NIL" if value is None else b"~{%d}\r\n%b" % (len(value), value) if b"\0" in value else string(value)
        words.append(astring(entry.encode("ascii")) + b" " + shown)
    name = mailbox_name(mailbox, utf8=utf8) if mailbox else b'""'
    return b"* METADATA %b (%b)\r\n" % (name, b" ".join(words))


def get_quota(reader: Reader) -> QuotaRoot:
    """GETQUOTA after its name."""
    reader.space()
    return QuotaRoot(reader.astring("a quota root").decode("utf-8", "replace"))


def quota(root: str, resources: Iterable[tuple[str, int, int]]) -> bytes:
    """``* QUOTA "" (STORAGE 10 512)``: name, usage and limit of each resource (RFC 9208 section 4.2.1)."""
    words = " ".join(f"{name} {usage} {limit}" for name, usage, limit in resources)
    return b"* QUOTA %b (%b)\r\n" % (string(root.encode()), words.encode("ascii"))


def quota_root(mailbox: str, root: str, *, utf8: bool = False) -> bytes:
    """``* QUOTAROOT INBOX ""`` (RFC 9208 section 4.2.2)."""
    return b"* QUOTAROOT %b %b\r\n" % (mailbox_name(mailbox, utf8=utf8), string(root.encode()))
