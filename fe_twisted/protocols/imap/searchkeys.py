"""The arguments of SEARCH (RFC 3501 section 6.4.4, RFC 4731, RFC 5032, RFC 5182, RFC 7162 section 3.1.5, RFC 8514)."""

from __future__ import annotations

import re
from collections.abc import Callable

from fe_twisted.base.errors import BadSyntax, UnknownCharset
from fe_twisted.protocols.imap import charsets, elements
from fe_twisted.protocols.imap.commands import SAVED, Partial, Search
from fe_twisted.protocols.imap.grammar import MAX_NUMBER, MAX_NUMBER64, Reader
from fe_twisted.protocols.imap.regex import compiled
from fe_twisted.protocols.imap.search import (
    All,
    And,
    Body,
    Compare,
    Date,
    DateOf,
    EmailId,
    Flag,
    Header,
    Key,
    Modseq,
    Not,
    Or,
    Recent,
    Regex,
    Saved,
    Sequence,
    Size,
    Text,
    ThreadId,
    UidSequence,
    Within,
)

#: How deep NOT, OR and parentheses may be nested; deeper programs are no one's honest question.
MAX_DEPTH = 100
#: Most keys in one program.
MAX_KEYS = 5_000

#: How a sequence set begins, which no name of a key does.
_SET_STARTS = frozenset(b"%c" % octet for octet in b"0123456789*$")
#: RFC 8474 section 7.
_OBJECT_ID = re.compile(rb"[A-Za-z0-9_-]{1,255}(?![A-Za-z0-9_-])")
#: Those of threads, as FETCH answers them: 63 bits.
_THREAD_ID = re.compile(rb"T[0-7][0-9a-f]{15}")
_REGEX_FIELDS = ("TEXT", "BODY", "SUBJECT", "FROM", "TO", "CC", "BCC")
_RETURNS = frozenset(("MIN", "MAX", "ALL", "COUNT", "SAVE"))


def search(reader: Reader) -> Search:
    """SEARCH and UID SEARCH after the name.

    :raises BadSyntax: the program is not well-formed, or a text is not valid in its charset.
    :raises UnknownCharset: to be answered ``NO [BADCHARSET (…)]``.
    """
    reader.space()
    options, partial = return_options(reader)
    charset = None
    if reader.text[reader.at : reader.at + 8].upper() == b"CHARSET ":
        reader.at += 8
        charset = reader.astring("a charset").decode("ascii", "replace").upper()
        reader.space()
    key, unknown = converted(reader, charset or "US-ASCII", options)
    return Search(key, charset, options, partial, unknown_charset=unknown)


def converted(reader: Reader, charset: str, options: tuple[str, ...] | None) -> tuple[Key, bool]:
    """:func:`program` with texts in ``charset``, and whether that is one that we cannot convert.

    It is told in this way where ``options`` have SAVE: a SEARCH that is refused leaves an empty result (RFC 5182 section 2.1), which only
    the session can do.

    :raises UnknownCharset: else.
    """
    try:
        codec = charsets.codec(charset)
    except UnknownCharset:
        if "SAVE" not in (options or ()):
            raise
        reader.at, reader.used = len(reader.text), len(reader.literals)
        return All(), True
    return program(reader, codec), False


def program(reader: Reader, codec: str) -> Key:
    """One or more keys up to the end, as one; ``codec`` is Python's name for the charset of their texts."""
    keys = _Program(reader, codec).keys(0)
    return keys[0] if len(keys) == 1 else And(keys)


def returns(reader: Reader) -> tuple[str, ...] | None:
    """``RETURN (MIN MAX)`` and a space where there are no pages (SORT), None when there is no RETURN."""
    start = reader.at
    options, partial = return_options(reader)
    if partial is not None:  # RFC 9394 section 3.1 is about SEARCH; of SORT only RFC 5267 speaks, which is not announced
        reader.fail("PARTIAL is for SEARCH only", start)
    return options


def return_options(reader: Reader) -> tuple[tuple[str, ...] | None, Partial | None]:
    """``RETURN (MIN PARTIAL 1:100)`` and a space: the options, and the page; None for both when there is no RETURN."""
    if reader.text[reader.at : reader.at + 7].upper() != b"RETURN ":
        return None, None
    reader.at += 7
    start = reader.at
    options = reader.parenthesised(_return_option, empty=True)
    pages = [page for _, page in options if page is not None]
    if len(pages) + sum(name == "ALL" for name, _ in options) > 1:  # RFC 9394 section 3.1
        reader.fail("expected at most one of ALL and PARTIAL", start)
    reader.space()
    names = tuple(dict.fromkeys(name for name, _ in options)) or ("ALL",)  # RFC 4731 section 3.1: () is (ALL)
    return names, pages[0] if pages else None


def _return_option(reader: Reader) -> tuple[str, Partial | None]:
    start = reader.at
    option = reader.word("a RETURN option")
    if option == "PARTIAL":
        reader.space()
        return option, elements.partial(reader)
    if option not in _RETURNS:
        reader.fail("expected the RETURN options MIN, MAX, ALL, COUNT, SAVE, and PARTIAL for searching", start)
    return option, None


class _Program:
    """Reads the keys of one SEARCH."""

    def __init__(self, reader: Reader, codec: str) -> None:
        self.reader = reader
        self.codec = codec
        self.read = 0

    def keys(self, depth: int) -> tuple[Key, ...]:
        """One or more keys, all of which must match."""
        made = [self.key(depth)]
        while self.reader.take(b" "):
            made.append(self.key(depth))
        return tuple(made)

    def key(self, depth: int) -> Key:
        """One key, however complicated."""
        reader = self.reader
        self.read += 1
        if depth > MAX_DEPTH:
            reader.fail(f"search keys nested deeper than {MAX_DEPTH}")
        if self.read > MAX_KEYS:
            reader.fail(f"more than {MAX_KEYS} search keys")
        if reader.take(b"("):
            keys = self.keys(depth + 1)
            reader.expect(b")")
            return keys[0] if len(keys) == 1 else And(keys)
        if reader.text[reader.at : reader.at + 1] in _SET_STARTS:
            items = elements.sequence_set(reader)
            return Saved() if items is SAVED else Sequence(items)
        start = reader.at
        name = reader.word("a search key")
        if name == "NOT":
            reader.space()
            return Not(self.key(depth + 1))
        if name == "OR":
            reader.space()
            left = self.key(depth + 1)
            reader.space()
            return Or(left, self.key(depth + 1))
        if name in _CONSTANT:
            return _CONSTANT[name]
        if name in _ARGUMENT:
            reader.space()
            return _ARGUMENT[name](self)
        reader.fail(f"unknown search key {name[:32]}", start)

    def text(self) -> str:
        """A string to look for, decoded from the charset."""
        start = self.reader.at
        octets = self.reader.astring("a string to look for")
        try:
            return octets.decode(self.codec)
        except (ValueError, UnicodeError):
            self.reader.fail("the string is not valid in its charset", start)


# -- keys that stand alone ------------------------------------------------------------------------


_CONSTANT: dict[str, Key] = {
    "ALL": All(),
    "ANSWERED": Flag("\\Answered"),
    "DELETED": Flag("\\Deleted"),
    "DRAFT": Flag("\\Draft"),
    "FLAGGED": Flag("\\Flagged"),
    "SEEN": Flag("\\Seen"),
    "UNANSWERED": Not(Flag("\\Answered")),
    "UNDELETED": Not(Flag("\\Deleted")),
    "UNDRAFT": Not(Flag("\\Draft")),
    "UNFLAGGED": Not(Flag("\\Flagged")),
    "UNSEEN": Not(Flag("\\Seen")),
    "RECENT": Recent(),
    "NEW": And((Recent(), Not(Flag("\\Seen")))),
    "OLD": Not(Recent()),
    "SAVEDATESUPPORTED": All(),
}


# -- keys with arguments --------------------------------------------------------------------------


def _keyword(program: _Program) -> Key:
    return Flag(program.reader.atom("a keyword"))


def _header(program: _Program) -> Key:
    start = program.reader.at
    octets = program.reader.astring("a header field name")
    if not octets or any(not 33 <= octet <= 126 or octet == 58 for octet in octets):
        program.reader.fail("not a header field name", start)
    program.reader.space()
    return Header(octets.decode("ascii").lower(), program.text())


def _uid(program: _Program) -> Key:
    items = elements.sequence_set(program.reader)
    return Saved() if items is SAVED else UidSequence(items)


def _modseq(program: _Program) -> Key:
    reader = program.reader
    if reader.sees(b'"'):  # RFC 7162 section 3.1.5: the entry may be ignored where all flags share one mod-sequence, as here
        reader.quoted()
        reader.space()
        if reader.word("priv, shared or all") not in ("PRIV", "SHARED", "ALL"):
            reader.fail("expected priv, shared or all")
        reader.space()
    return Modseq(reader.number(MAX_NUMBER64))


def _email_id(program: _Program) -> Key:
    return EmailId(program.reader.match(_OBJECT_ID, "an object id")[0].decode("ascii"))


def _thread_id(program: _Program) -> Key:
    found = program.reader.match(_OBJECT_ID, "an object id")[0]
    return ThreadId(int(found[1:], 16) if _THREAD_ID.fullmatch(found) else 0)


def _size(compare: Compare) -> Callable[[_Program], Key]:
    return lambda program: Size(compare, program.reader.number(MAX_NUMBER64))


def _field(name: str) -> Callable[[_Program], Key]:
    return lambda program: Header(name, program.text())


def _date(of: DateOf, compare: Compare) -> Callable[[_Program], Key]:
    return lambda program: Date(of, compare, elements.date(program.reader))


def _within(younger: bool) -> Callable[[_Program], Key]:
    return lambda program: Within(younger, program.reader.number(MAX_NUMBER, 1))


def _regex(program: _Program) -> Key:
    """``X-REGEX SUBJECT "pattern"``; whether it is a pattern is found out here, so that the answer is BAD."""
    start = program.reader.at
    name = program.reader.word("a field to match")
    if name not in _REGEX_FIELDS:
        program.reader.fail(f"expected one of {', '.join(_REGEX_FIELDS)}", start)
    program.reader.space()
    start = program.reader.at
    pattern = program.text()
    try:
        compiled(pattern)
    except BadSyntax as error:
        program.reader.fail(error.public, start)
    return Regex(name.lower(), pattern)


_ARGUMENT: dict[str, Callable[[_Program], Key]] = {
    "KEYWORD": _keyword,
    "UNKEYWORD": lambda program: Not(_keyword(program)),
    "BODY": lambda program: Body(program.text()),
    "TEXT": lambda program: Text(program.text()),
    "HEADER": _header,
    "UID": _uid,
    "MODSEQ": _modseq,
    "EMAILID": _email_id,
    "THREADID": _thread_id,
    "X-REGEX": _regex,
    "LARGER": _size(Compare.LARGER),
    "SMALLER": _size(Compare.BEFORE),
    "YOUNGER": _within(True),
    "OLDER": _within(False),
    **{name.upper(): _field(name) for name in ("from", "to", "cc", "bcc", "subject")},
    **{
        prefix + word: _date(of, compare)
        for prefix, of in (("", DateOf.INTERNAL), ("SENT", DateOf.SENT), ("SAVED", DateOf.SAVED))
        for word, compare in (("BEFORE", Compare.BEFORE), ("ON", Compare.ON), ("SINCE", Compare.SINCE))
    },
}
