"""The arguments of APPEND and REPLACE (RFC 9051 section 6.3.12, RFC 3502, RFC 3516, RFC 4469, RFC 6855, RFC 8508)."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from fe_twisted.base.errors import BadSyntax, ImapStatus, Theirs
from fe_twisted.protocols.imap import elements
from fe_twisted.protocols.imap.commands import Append, AppendMessage, MessageUrl, Replace, Section
from fe_twisted.protocols.imap.fetch import read_section
from fe_twisted.protocols.imap.grammar import MAX_NUMBER, MAX_NUMBER64, Reader

#: Parts that one CATENATE may have.
MAX_PARTS = 1_000
_MAX_URL = 4_096

#: RFC 5092 section 6.2: ``/INBOX;UIDVALIDITY=785799047/;UID=113330/;SECTION=1.5.9/;PARTIAL=0.100``, or without a mailbox.
_URL = re.compile(
    r"/(?:(?P<mailbox>[^;/?#][^;?#]*?)(?:;UIDVALIDITY=(?P<validity>[1-9][0-9]{0,9}))?/)?"
    r";UID=(?P<uid>[1-9][0-9]{0,9})"
    r"(?:/;SECTION=(?P<section>[^;?#]+?))?"
    r"(?:/;PARTIAL=(?P<origin>[0-9]{1,18})(?:\.(?P<octets>[0-9]{1,18}))?)?",
    re.IGNORECASE,
)


class EmptyMessage(Theirs):
    """APPEND of nothing: how a client of RFC 3502 gives up half way."""

    default = "an empty message is not stored"


class BadUrl(Theirs):
    """CATENATE of what is not here (RFC 4469 section 5).

    :param url: as the client wrote it.
    """

    def __init__(self, url: str) -> None:
        super().__init__("no such message or part")
        shown = "".join([character if " " < character < "\x7f" and character not in "[]" else "?" for character in url[:_MAX_URL]])
        self.imap = ImapStatus("NO", f"BADURL {shown}")  # type: ignore[misc]  # the code names the URL of this error


def append(reader: Reader) -> Append:
    """APPEND after its name: one message or several."""
    reader.space()
    name = elements.mailbox(reader)
    messages: list[AppendMessage] = []
    while not messages or not reader.ended():
        reader.space()
        messages.append(_message(reader))
    return Append(name, tuple(messages))


def replace(reader: Reader) -> Replace:
    """REPLACE after its name: one message for one."""
    reader.space()
    number = None if reader.take(b"*") else reader.number(MAX_NUMBER, 1)
    reader.space()
    name = elements.mailbox(reader)
    reader.space()
    return Replace(number, name, _message(reader))


def _message(reader: Reader) -> AppendMessage:
    flags: frozenset[str] = frozenset()
    moment = None
    if reader.sees(b"("):
        flags = elements.flag_list(reader)
        reader.space()
    if reader.sees(b'"'):
        moment = elements.date_time(reader)
        reader.space()
    if reader.text[reader.at : reader.at + 10].upper() == b"CATENATE (":
        reader.at += 9
        start = reader.at
        parts = reader.parenthesised(_part)
        if len(parts) > MAX_PARTS:
            reader.fail(f"more than {MAX_PARTS} parts", start)
        return AppendMessage(b"", flags, moment, parts)
    if reader.text[reader.at : reader.at + 6].upper() == b"UTF8 (":  # RFC 6855 section 4
        reader.at += 6
        content = reader.literal(binary=True)
        reader.expect(b")")
    else:
        content = reader.literal(binary=True)
    if not content:
        raise EmptyMessage
    return AppendMessage(content, flags, moment)


def _part(reader: Reader) -> bytes | MessageUrl:
    """``TEXT {5}`` or ``URL "/INBOX/;UID=5"``."""
    start = reader.at
    kind = reader.word("TEXT or URL")
    reader.space()
    if kind == "TEXT":
        return reader.literal(binary=True)
    if kind != "URL":
        reader.fail("expected TEXT or URL", start)
    return url(reader.astring("a URL").decode("utf-8", "replace"))


def url(text: str) -> MessageUrl:
    """A URL of a message of one's own, from the root of this server (RFC 5092 section 6.2).

    :raises BadUrl: any other, or a section that is none.
    """
    found = _URL.fullmatch(text) if len(text) <= _MAX_URL else None
    if found is None:
        raise BadUrl(text)
    try:
        mailbox = unquote_to_bytes(found["mailbox"] or "").decode("utf-8")
    except UnicodeDecodeError:
        raise BadUrl(text) from None
    uid, validity = int(found["uid"]), int(found["validity"]) if found["validity"] else None
    partial = None
    if found["origin"]:
        partial = int(found["origin"]), int(found["octets"]) if found["octets"] else None
    if uid > MAX_NUMBER or (validity or 0) > MAX_NUMBER or (partial and partial[0] > MAX_NUMBER64):
        raise BadUrl(text)
    section = _section(text, found["section"]) if found["section"] else None
    return MessageUrl(text, mailbox, validity, uid, section, partial)


def _section(text: str, section: str) -> Section:
    reader = Reader(unquote_to_bytes(section))
    try:
        made = read_section(reader)
        reader.end()
    except BadSyntax:
        raise BadUrl(text) from None
    return made
