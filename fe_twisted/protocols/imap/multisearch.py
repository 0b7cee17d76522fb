"""The arguments of ESEARCH, which searches several mailboxes at once (RFC 7377)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fe_twisted.protocols.imap import elements
from fe_twisted.protocols.imap.commands import Partial
from fe_twisted.protocols.imap.grammar import Reader
from fe_twisted.protocols.imap.search import Key
from fe_twisted.protocols.imap.searchkeys import converted, return_options

Kind = Literal["SELECTED", "INBOXES", "PERSONAL", "SUBSCRIBED", "SUBTREE", "SUBTREE-ONE", "MAILBOXES"]

#: Kinds that are followed by names.
_NAMED = frozenset(("SUBTREE", "SUBTREE-ONE", "MAILBOXES"))
#: Sources, and names of one source.
MAX_SOURCES, MAX_NAMES = 100, 1_000


@dataclass(frozen=True, slots=True)
class Source:
    """Which mailboxes (RFC 5465 section 6)."""

    kind: Kind
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MultiSearch:
    """ESEARCH; without ``IN`` it is about the selected mailbox."""

    sources: tuple[Source, ...]
    program: Key
    returns: tuple[str, ...] = ("ALL",)
    partial: Partial | None = None
    unknown_charset: bool = False


def multisearch(reader: Reader) -> MultiSearch:
    """ESEARCH after its name.

    :raises BadSyntax:
    :raises UnknownCharset:
    """
    reader.space()
    sources: tuple[Source, ...] = (Source("SELECTED"),)
    if reader.text[reader.at : reader.at + 4].upper() == b"IN (":
        reader.at += 3
        start = reader.at
        sources = reader.parenthesised(_source)
        if len(sources) > MAX_SOURCES:
            reader.fail(f"more than {MAX_SOURCES} sources", start)
        reader.space()
    returns, partial = return_options(reader)
    charset = "US-ASCII"
    if reader.text[reader.at : reader.at + 8].upper() == b"CHARSET ":
        reader.at += 8
        charset = reader.astring("a charset").decode("ascii", "replace")
        reader.space()
    key, unknown = converted(reader, charset, returns)
    return MultiSearch(sources, key, returns or ("ALL",), partial, unknown)


def _source(reader: Reader) -> Source:
    start = reader.at
    word = reader.word("a source")
    for kind in get_args(Kind):
        if kind == word:
            return Source(kind, _names(reader) if kind in _NAMED else ())
    reader.fail("expected a source: " + ", ".join(get_args(Kind)).lower(), start)


def _names(reader: Reader) -> tuple[str, ...]:
    reader.space()
    start = reader.at
    names = reader.parenthesised(elements.mailbox) if reader.sees(b"(") else (elements.mailbox(reader),)
    if len(names) > MAX_NAMES:
        reader.fail(f"more than {MAX_NAMES} mailboxes", start)
    return names
