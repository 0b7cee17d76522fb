r"""FETCH responses from rows of columns (RFC 3501 section 7.4.2, RFC 9051 section 7.5.2).

The strings of :mod:`.strings` can be imported from here too.

How a server uses it::

    plan = compile_items(fetch.items, uid=command.uid)           # cached, cheap
    # if plan.sets_seen: set \Seen of each batch first and render it by a plan with flags=True, for the client must hear of it
    async for rows in mailbox.fetch(folder, uids, plan.columns):
        numbers = view.sequence_numbers([row[0] for row in rows])  # columns[0] is always "uid"
        transport.writeSequence(plan.render(rows, numbers, view.flag_lists))

Items that are a column each become one ``%`` template, so a batch costs one format.  So do header fields, if nothing else is asked for:
they are cut out of all of the batch at once.  Other items with a section are cut from ``summary`` or ``header``, or from ``content`` with
the help of ``parts``, a message at a time.  They come after the others in the response, whose order is free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from fe_twisted.base.errors import ImapStatus, Theirs
from fe_twisted.protocols.imap.commands import FetchItem, Section
from fe_twisted.protocols.imap.strings import astring, flag_list, literal, mailbox_name, quoted, string
from fe_twisted.protocols.mime.parts import load
from fe_twisted.protocols.mime.section import SUMMARY, decode, fields, fields_of, find, place
from fe_twisted.protocols.mime.section import section as cut

__all__ = [
    "FetchPlan",
    "Piece",
    "UnknownEncoding",
    "Unread",
    "astring",
    "compile_items",
    "flag_list",
    "literal",
    "mailbox_name",
    "quoted",
    "string",
]

#: Items that are one column, and how it is written.
_TEMPLATES: dict[str, tuple[str, bytes]] = {
    "UID": ("uid", b"UID %d"),
    "FLAGS": ("flags", b"FLAGS %b"),
    "INTERNALDATE": ("internaldate", b'INTERNALDATE "%b"'),
    "RFC822.SIZE": ("size", b"RFC822.SIZE %d"),
    "ENVELOPE": ("envelope", b"ENVELOPE %b"),
    "BODYSTRUCTURE": ("bodystructure", b"BODYSTRUCTURE %b"),
    "BODY": ("body", b"BODY %b"),
    "MODSEQ": ("modseq", b"MODSEQ (%d)"),
    "EMAILID": ("emailid", b"EMAILID (%b)"),
    "THREADID": ("threadid", b"THREADID (T%016x)"),
}
#: The same where the column may be None or empty, which is NIL.
_NULLABLE: dict[str, tuple[str, bytes]] = {
    "SAVEDATE": ("savedate", b'SAVEDATE "%b"'),
}
#: What RFC 3501 calls equivalent, but for the name in the answer.
_EQUIVALENT = {"RFC822": Section(), "RFC822.HEADER": Section((), "HEADER"), "RFC822.TEXT": Section((), "TEXT")}
_ENCODINGS = frozenset(("7bit", "8bit", "binary", "base64", "quoted-printable"))

Row = tuple[Any, ...]
Flags = Callable[[Sequence[int], Sequence[int]], list[bytes]]


@dataclass(frozen=True, slots=True)
class Unread:
    """Octets of a large message, which are not read before it is their turn to be sent.

    :param message: what stands in the column ``content`` of such a message: a number whose lower 32 bits are its size.
    :param start, end: where in the message.
    :param make: what is sent instead of the octets themselves, made of all of them; None for the octets.
    """

    message: int
    start: int
    end: int
    make: Callable[[bytes], tuple[bytes, ...]] | None = None


_SIZE = 0xFFFFFFFF

Piece = bytes | Unread
_Write = Callable[[Row], tuple[Piece, ...]]
_Cut = Callable[[Sequence[bytes]], list[bytes]]


class UnknownEncoding(Theirs):
    """BINARY of a part whose Content-Transfer-Encoding nobody can undo (RFC 3516 section 4.3)."""

    default = "unknown content transfer encoding"
    imap = ImapStatus("NO", "UNKNOWN-CTE")


@dataclass(frozen=True, slots=True)
class FetchPlan:
    r"""How to answer one FETCH.

    :param columns: what to ask the mailbox for, in this order (names as in ``storage.mailbox.api.Column``); ``uid`` is the first.
    :param sets_seen: an item sets ``\Seen``.
    :param template: the beginning of the response, up to the first of ``writers``, or all of it.
    :param picked: where in ``(number, flags, *row)``, and behind that in the length and the octets of each of ``cuts``, the template
        finds what it needs.
    :param flags_at: where the flag mask is in the row, or None.
    :param cuts: header fields: where in the row they are cut from, and how.
    :param whole: where in the row the message as a whole is, if that is the last item and ends the response; the template ends before it.
        The other way it would be copied once more.
    :param writers: make the other items from a row.
    """

    columns: tuple[str, ...]
    sets_seen: bool
    template: bytes
    picked: tuple[int, ...]
    flags_at: int | None
    cuts: tuple[tuple[int, _Cut], ...]
    whole: int | None
    writers: tuple[_Write, ...]

    def render(self, rows: Sequence[Row], numbers: Sequence[int | None], flags: Flags) -> list[Piece]:
        r"""The untagged FETCH responses of a batch, as pieces to be sent one after the other; only octets if there are no ``writers``.

        :param rows: values of :attr:`columns`.
        :param numbers: ``numbers[i]`` is the message sequence number of ``rows[i]``; a row whose number is None is passed over.
        :param flags: ``flags(masks, uids)`` returns the whole list of each message, ``(\Seen \Recent)``; see :func:`flag_list`.
        :raises UnknownEncoding: for BINARY items only.
        """
        if None in numbers:
            rows = [row for number, row in zip(numbers, rows, strict=True) if number is not None]
            numbers = [number for number in numbers if number is not None]
        if not rows:
            return []
        columns: list[Sequence[Any]] = [numbers, (), *zip(*rows, strict=True)]
        if self.flags_at is not None:
            columns[1] = flags(columns[self.flags_at + 2], columns[2])
        for at, cut_all in self.cuts:
            found = cut_all(columns[at + 2])
            columns += [[*map(len, found)], found]
        if self.whole is not None:
            return self._whole(columns, columns[self.whole + 2])
        if not self.writers:
            values: list[Any] = [None] * (len(self.picked) * len(rows))
            for first, at in enumerate(self.picked):
                values[first :: len(self.picked)] = columns[at]
            return [self.template * len(rows) % tuple(values)]
        lines: list[Piece] = list(map(self.template.__mod__, zip(*[columns[at] for at in self.picked], strict=True)))
        if len(self.writers) == 1:
            (only,) = self.writers
            return [piece for line, row in zip(lines, rows, strict=True) for piece in (line, *only(row), b")\r\n")]
        made: list[Piece] = []
        for line, row in zip(lines, rows, strict=True):
            made.append(line)
            for write in self.writers:
                made += write(row)
                made.append(b" ")
            made[-1] = b")\r\n"
        return made

    def _whole(self, columns: list[Sequence[Any]], contents: Sequence[bytes | int]) -> list[Piece]:
        """The responses that end with the message as a whole."""
        sent: list[Piece] = [content if isinstance(content, bytes) else Unread(content, 0, content & _SIZE) for content in contents]
        columns.append([len(piece) if isinstance(piece, bytes) else piece.end for piece in sent])
        made: list[Piece] = [b")\r\n"] * (3 * len(sent))
        made[::3] = map(self.template.__mod__, zip(*[columns[at] for at in self.picked], strict=True))
        made[1::3] = sent
        return made


@lru_cache(maxsize=256)
def compile_items(
    items: tuple[FetchItem, ...], *, uid: bool = False, flags: bool = False, modseq: bool = False, uid_only: bool = False
) -> FetchPlan:
    """The plan for these items.

    :param uid: add UID unless it was asked for (UID FETCH).
    :param flags: add FLAGS likewise (when the command changes them).
    :param modseq: add MODSEQ likewise (CHANGEDSINCE, or flags with CONDSTORE on; RFC 7162 section 3.1.4).
    :param uid_only: UIDFETCH with the UID instead of FETCH with the message number (RFC 9586 section 3.3).
    """
    wanted = dict.fromkeys(items)
    for name, add in (("UID", uid), ("FLAGS", flags), ("MODSEQ", modseq)):
        if add and all(item.name != name for item in wanted):
            wanted[FetchItem(name, label=name.encode("ascii"))] = None
    columns: dict[str, int] = {"uid": 0}
    words: list[bytes] = []
    picked = [2 if uid_only else 0]  # the UID, or the sequence number
    others = [item for item in wanted if item.name not in _TEMPLATES]
    fields_only = all(map(_is_fields, others))
    whole_only = len(others) == 1 and _is_whole(others[0])
    whole: int | None = None
    cuts: list[tuple[int, _Cut]] = []
    labels: list[bytes] = []
    writers: list[_Write] = []
    for item in wanted:
        if item.name in _TEMPLATES:
            column, word = _TEMPLATES[item.name]
            at = columns.setdefault(column, len(columns))
            words.append(word)
            picked.append(1 if column == "flags" else at + 2)
        elif whole_only:
            whole = columns.setdefault("content", len(columns))
            labels.append(item.label + b" {%d}\r\n")
        elif fields_only and item.section is not None:
            cuts.append(_cut(item.section.fields, columns))
            labels.append(item.label.replace(b"%", b"%%") + b" {%d}\r\n%b")
        else:
            writers.append(_writer(item, columns))
    words += labels
    picked += range(len(columns) + 2, len(columns) + 2 + 2 * len(cuts) + whole_only)
    template = (b"* %d UIDFETCH (" if uid_only else b"* %d FETCH (") + b" ".join(words)
    if not writers and not whole_only:
        template += b")\r\n"
    elif writers and words:
        template += b" "
    return FetchPlan(
        tuple(columns),
        any(not item.peek for item in items),
        template,
        tuple(picked),
        columns.get("flags"),
        tuple(cuts),
        whole,
        tuple(writers),
    )


# -- items that are more than a column ------------------------------------------------------------


def _is_fields(item: FetchItem) -> bool:
    """Whether it is fields of the message's own header, whole."""
    section = item.section
    return section is not None and not section.path and section.text == "HEADER.FIELDS" and item.partial is None


def _is_whole(item: FetchItem) -> bool:
    """Whether it is the message, from its first octet to its last."""
    return item.name in ("BODY[]", "RFC822") and item.partial is None and (_EQUIVALENT.get(item.name) or item.section) == Section()


def _cut(names: tuple[str, ...], columns: dict[str, int]) -> tuple[int, _Cut]:
    """Where fields of these names are cut from, and how."""
    if "header" in columns or not SUMMARY.issuperset(map(str.lower, names)):
        return columns.setdefault("header", len(columns)), lambda headers: fields_of(headers, names)

    def of_summaries(summaries: Sequence[bytes]) -> list[bytes]:
        if b"" in summaries:  # of a header without an empty line that has none of these fields
            return [fields(one, names) if one else b"" for one in summaries]
        return fields_of(summaries, names, summaries=True)

    return columns.setdefault("summary", len(columns)), of_summaries


def _writer(item: FetchItem, columns: dict[str, int]) -> _Write:
    """The function that writes one item of a row; adds the columns it needs."""
    if item.name in _NULLABLE:
        column, word = _NULLABLE[item.name]
        at = columns.setdefault(column, len(columns))
        return lambda row: (word % row[at] if row[at] else item.label + b" NIL",)
    if item.name == "PREVIEW":
        preview_at = columns.setdefault("preview", len(columns))
        return lambda row: (b"PREVIEW " + string(row[preview_at]),)
    section = _EQUIVALENT.get(item.name) or item.section
    if section is None:
        raise ValueError(f"no such item: {item.name}")
    if item.name == "BINARY.SIZE[]":
        return _counted(item, _binary(section, columns))
    if item.name == "BINARY[]":
        return _sized(item, _binary(section, columns), binary=True)
    return _sized(item, _octets(section, columns), binary=False)


_Octets = Callable[[Row], bytes | Unread | None]


def _counted(item: FetchItem, octets_of: _Octets) -> _Write:
    """Writes how many octets there are."""
    label = item.label

    def write(row: Row) -> tuple[Piece, ...]:
        octets = octets_of(row)
        if not isinstance(octets, Unread):
            return (b"%b %d" % (label, len(octets or b"")),)
        make = octets.make
        if make is None:
            return (b"%b %d" % (label, octets.end - octets.start),)
        return (replace(octets, make=lambda raw: (b"%b %d" % (label, sum(map(len, make(raw)))),)),)

    return write


def _sized(item: FetchItem, octets_of: _Octets, *, binary: bool) -> _Write:
    """Writes octets as a literal (``~{n}`` for BINARY with NUL, RFC 3516), NIL when there is no such part."""
    label = item.label
    # RFC 9051 section 6.4.5: an origin beyond the end is an empty string, and octets that are not there are not sent
    origin, most = item.partial or (0, None)

    def literal_of(octets: bytes) -> tuple[bytes, ...]:
        if item.partial:
            octets = octets[origin : origin + item.partial[1]]
        tilde = b"~" if binary and b"\0" in octets else b""
        return (b"%b %b{%d}\r\n" % (label, tilde, len(octets)), octets)

    def write(row: Row) -> tuple[Piece, ...]:
        octets = octets_of(row)
        if octets is None:
            return (label + b" NIL",)
        if not isinstance(octets, Unread):
            return literal_of(octets)
        make = octets.make
        if make is not None:
            return (replace(octets, make=lambda raw: literal_of(b"".join(make(raw)))),)
        start = min(octets.start + origin, octets.end)
        end = octets.end if most is None else min(start + most, octets.end)
        # whether there is a NUL is not known before it is read; literal8 can hold any octets
        tilde = b"~" if binary else b""
        return (b"%b %b{%d}\r\n" % (label, tilde, end - start), replace(octets, start=start, end=end))

    return write


def _octets(section: Section, columns: dict[str, int]) -> _Octets:
    """What a section names, from as few columns as will do."""
    if "header" not in columns and _in_summary(section):
        summary_at = columns.setdefault("summary", len(columns))
        return lambda row: fields(row[summary_at], section.fields) if row[summary_at] else b""
    if not section.path and section.text.startswith("HEADER"):
        header_at = columns.setdefault("header", len(columns))
        return lambda row: _of_header(section, row[header_at])
    content_at = columns.setdefault("content", len(columns))
    parts_at = columns.setdefault("parts", len(columns)) if section.path or section.text else -1

    def octets_of(row: Row) -> bytes | Unread | None:
        content = row[content_at]
        if parts_at < 0:
            return content if isinstance(content, bytes) else Unread(content, 0, content & _SIZE)
        if isinstance(content, bytes):
            return cut(load(row[parts_at]), section, _reader(content))
        found = place(load(row[parts_at]), section)
        if found is None:
            return None
        if not section.fields:
            return Unread(content, *found)
        return Unread(content, *found, make=lambda raw: (fields(raw, section.fields, exclude=section.text == "HEADER.FIELDS.NOT"),))

    return octets_of


def _in_summary(section: Section) -> bool:
    return not section.path and section.text == "HEADER.FIELDS" and SUMMARY.issuperset(name.lower() for name in section.fields)


def _of_header(section: Section, header: bytes) -> bytes | None:
    if section.text == "HEADER":
        return header
    return fields(header, section.fields, exclude=section.text == "HEADER.FIELDS.NOT")


def _reader(content: bytes) -> Callable[[int, int], bytes]:
    return lambda start, end: content[start:end]


def _binary(section: Section, columns: dict[str, int]) -> _Octets:
    """A part's body with its transfer encoding undone (RFC 3516 section 4.2)."""
    if not section.path:
        return _octets(section, columns)
    content_at = columns.setdefault("content", len(columns))
    parts_at = columns.setdefault("parts", len(columns))

    def octets_of(row: Row) -> bytes | Unread | None:
        found = find(load(row[parts_at]), section.path)
        if found is None:
            return None
        part, content = found[0], row[content_at]
        if part.encoding not in _ENCODINGS:
            raise UnknownEncoding
        if isinstance(content, bytes):
            return decode(part, content[part.body : part.end])
        return Unread(content, part.body, part.end, make=lambda raw: (decode(part, raw),))

    return octets_of
