"""The arguments of FETCH (RFC 3501 section 6.4.5, RFC 7162 section 3.1.4, RFC 3516, RFC 8474, RFC 8514, RFC 8970)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from fe_twisted.base.errors import BadSyntax
from fe_twisted.protocols.imap.commands import Command, Fetch, FetchItem, Partial, Section
from fe_twisted.protocols.imap.elements import partial, sequence_set
from fe_twisted.protocols.imap.grammar import MAX_NUMBER, MAX_NUMBER64, TAG, Reader
from fe_twisted.protocols.imap.strings import astring

_FAST = ("FLAGS", "INTERNALDATE", "RFC822.SIZE")
_MACROS = {"FAST": _FAST, "ALL": (*_FAST, "ENVELOPE"), "FULL": (*_FAST, "ENVELOPE", "BODY")}

#: Items that are a name alone, and whether they leave ``\Seen`` as it is.
_SIMPLE = {
    "FLAGS": True,
    "UID": True,
    "INTERNALDATE": True,
    "RFC822.SIZE": True,
    "ENVELOPE": True,
    "BODYSTRUCTURE": True,
    "BODY": True,
    "MODSEQ": True,
    "EMAILID": True,
    "THREADID": True,
    "SAVEDATE": True,
    "PREVIEW": True,
    "RFC822.HEADER": True,
    "RFC822": False,
    "RFC822.TEXT": False,
}
_SECTIONED = ("BODY", "BODY.PEEK", "BINARY", "BINARY.PEEK", "BINARY.SIZE")

_NAME = re.compile(rb"[A-Za-z0-9.]++")
_PART = re.compile(rb"[0-9]++")
_PARTIAL = re.compile(rb"<([0-9]{1,19})\.([0-9]{1,19})>")
#: Deepest part number, and the longest attribute text worth keeping.
_DEPTH = 100
_CACHED_TEXT = 512

_SINGLE = re.compile(rb"(" + TAG + rb") (UID )?FETCH ([1-9][0-9]{0,9}) ([^\r]{1,%d})" % _CACHED_TEXT, re.IGNORECASE)


def fetch(reader: Reader) -> Fetch:
    """FETCH after its name."""
    return _fetch(reader, uid=False)


def uid_fetch(reader: Reader) -> Fetch:
    """UID FETCH after its name."""
    return _fetch(reader, uid=True)


def _fetch(reader: Reader, *, uid: bool) -> Fetch:
    reader.space()
    messages = sequence_set(reader)
    reader.space()
    if reader.at + _CACHED_TEXT >= len(reader.text) and reader.used == len(reader.literals):
        items, modifiers = _cached(reader)
    else:
        items, modifiers = _rest(reader)
    if modifiers.vanished and not uid:
        raise BadSyntax("VANISHED is for UID FETCH only")  # RFC 7162 section 3.2.6
    if modifiers.partial and not uid:
        raise BadSyntax("PARTIAL is for UID FETCH only")  # RFC 9394 section 3.3
    return Fetch(messages, items, *modifiers)


def single(text: bytes) -> Command | None:
    """The command, if it is FETCH or UID FETCH of one message by its number, without modifiers and without a mistake; None for all others.

    It gives what :func:`fetch` gives.  Clients open messages one after the other, so this is the command that comes most.

    :param text: a whole command without literals.
    """
    found = _SINGLE.fullmatch(text)
    if found is None:
        return None
    try:
        items, modifiers = _parsed(found[4])
    except BadSyntax:
        return None
    number = int(found[3])
    if modifiers != _NO_MODIFIERS or number > MAX_NUMBER:
        return None
    return Command(found[1].decode("ascii"), "FETCH", found[2] is not None, Fetch(((number, number),), items))


class _Modifiers(NamedTuple):
    """What may follow the items in parentheses."""

    changed_since: int | None = None
    vanished: bool = False
    partial: Partial | None = None


_NO_MODIFIERS = _Modifiers()

_Rest = tuple[tuple[FetchItem, ...], _Modifiers]


def _cached(reader: Reader) -> _Rest:
    text = reader.text[reader.at :]
    try:
        made = _parsed(text)
    except BadSyntax:
        return _rest(reader)  # again, for an error that counts octets from the start of the command
    reader.at = len(reader.text)
    return made


@lru_cache(maxsize=512)
def _parsed(text: bytes) -> _Rest:
    """Clients ask for the same few attribute lists all day long."""
    reader = Reader(text)
    made = _rest(reader)
    reader.end()
    return made


def _rest(reader: Reader) -> _Rest:
    items = _items(reader)
    return items, _modifiers(reader) if reader.take(b" ") else _NO_MODIFIERS


def _items(reader: Reader) -> tuple[FetchItem, ...]:
    if reader.sees(b"("):
        return tuple(dict.fromkeys(reader.parenthesised(item)))  # an item asked for twice is answered once
    macro = _MACROS.get(_peeked_name(reader))
    if macro:
        reader.match(_NAME, "a data item")
        return tuple(FetchItem(name, label=name.encode("ascii")) for name in macro)
    return (item(reader),)


def _peeked_name(reader: Reader) -> str:
    found = _NAME.match(reader.text, reader.at)
    return found[0].upper().decode("ascii") if found else ""


def item(reader: Reader) -> FetchItem:
    """One data item, such as ``BODY.PEEK[HEADER.FIELDS (DATE)]``; no macro."""
    start = reader.at
    name = reader.match(_NAME, "a data item to fetch")[0].upper().decode("ascii")
    if name in _SECTIONED and reader.take(b"["):
        return _sectioned(reader, name)
    if name == "PREVIEW" and reader.text[reader.at : reader.at + 2] == b" (":
        _preview_modifiers(reader)
    if name in _SIMPLE:
        return FetchItem(name, peek=_SIMPLE[name], label=name.encode("ascii"))
    reader.fail(f"unknown data item {name[:32]}", start)


def _preview_modifiers(reader: Reader) -> None:
    """``(LAZY)`` (RFC 8970 section 3.1) changes nothing here: a preview is made when the message is stored."""
    reader.space()
    start = reader.at
    if any(word != "LAZY" for word in reader.parenthesised(lambda inner: inner.word("a PREVIEW modifier"))):
        reader.fail("unknown PREVIEW modifier", start)


def _sectioned(reader: Reader, name: str) -> FetchItem:
    binary = name.startswith("BINARY")
    section = Section(_path(reader)) if binary else read_section(reader)
    reader.expect(b"]")
    partial = None if name == "BINARY.SIZE" else _partial(reader)
    base = name.removesuffix(".PEEK")
    label = base.encode("ascii") + b"[" + _section_label(section) + b"]"
    if partial:
        label += b"<%d>" % partial[0]
    return FetchItem(base + "[]", section, name not in ("BODY", "BINARY"), partial, label)


def read_section(reader: Reader) -> Section:
    """``1.2.HEADER.FIELDS (DATE)``: what stands between the brackets."""
    path = _path(reader)
    if path and not reader.take(b"."):
        return Section(path)
    if not path and reader.sees(b"]"):
        return Section()
    start = reader.at
    text = reader.match(_NAME, "a section")[0].upper().decode("ascii")
    if text in ("HEADER.FIELDS", "HEADER.FIELDS.NOT"):
        reader.space()
        return Section(path, text, reader.parenthesised(_field))
    if text in ("HEADER", "TEXT") or (text == "MIME" and path):
        return Section(path, text)
    reader.fail("expected HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT, or after a part number MIME", start)


def _path(reader: Reader) -> tuple[int, ...]:
    path: list[int] = []
    while _PART.match(reader.text, reader.at):
        path.append(reader.number(MAX_NUMBER, 1))
        if len(path) > _DEPTH:
            reader.fail("part number too deep")
        if not reader.sees(b".") or not reader.text[reader.at + 1 : reader.at + 2].isdigit():
            break
        reader.at += 1
    return tuple(path)


def _field(reader: Reader) -> str:
    """A header field name: printable US-ASCII without colon or space (RFC 5322 section 2.2)."""
    start = reader.at
    name = reader.astring("a header field name")
    if not name or any(not 33 <= octet <= 126 or octet == 58 for octet in name):
        reader.fail("not a header field name", start)
    return name.decode("ascii")


def _partial(reader: Reader) -> tuple[int, int] | None:
    if not reader.sees(b"<"):
        return None
    start = reader.at
    found = reader.match(_PARTIAL, "<origin.octets>")
    origin, octets = int(found[1]), int(found[2])
    if not octets or origin > MAX_NUMBER64 or octets > MAX_NUMBER64:
        reader.fail("expected <origin.octets> with at least one octet", start)
    return origin, octets


def _section_label(section: Section) -> bytes:
    words = [str(number) for number in section.path]
    if section.text:
        words.append(section.text)
    label = ".".join(words).encode("ascii")
    if section.fields:
        label += b" (" + b" ".join(astring(name.encode("ascii")) for name in section.fields) + b")"
    return label


def _modifiers(reader: Reader) -> _Modifiers:
    """``(CHANGEDSINCE 7 VANISHED PARTIAL -1:-9)``, in any order (RFC 7162 sections 3.1.4.1 and 3.2.6, RFC 9394 section 3.3)."""
    start = reader.at
    made = _Modifiers()
    reader.expect(b"(")
    while True:
        word = reader.word("a FETCH modifier")
        if word == "CHANGEDSINCE" and made.changed_since is None:
            reader.space()
            made = made._replace(changed_since=reader.number(MAX_NUMBER64, 1))
        elif word == "VANISHED" and not made.vanished:
            made = made._replace(vanished=True)
        elif word == "PARTIAL" and made.partial is None:
            reader.space()
            made = made._replace(partial=partial(reader))
        else:
            reader.fail("unknown or repeated FETCH modifier", start)
        if reader.take(b")"):
            break
        reader.space()
    if made.vanished and made.changed_since is None:
        reader.fail("VANISHED needs CHANGEDSINCE", start)
    return made
