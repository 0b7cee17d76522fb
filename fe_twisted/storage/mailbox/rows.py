"""How rows are addressed: a folder's row, its next modseq, and the span of entry ids that a range of UIDs covers."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import apsw

from fe_twisted.base.errors import NoSuchFolder
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox.schema import FOLDER_SHIFT, UID_MASK

T = TypeVar("T")

#: Among the modseqs of an :class:`Outcome`: names, subscriptions or annotations have changed.
NAMES: dict[int, int] = {0: 0}

INBOX = "INBOX"
SEPARATOR = "/"


@dataclass(slots=True)
class Outcome(Generic[T]):
    """What a change returns: its value, and the new modseq of every folder that it touched (0: the folder is gone)."""

    value: T
    modseqs: dict[int, int] = field(default_factory=dict)


class FolderRow(NamedTuple):
    """A row of ``folders``."""

    id: int
    name: str
    object_id: str
    selectable: int
    special_use: str
    uidvalidity: int
    uidnext: int
    modseq: int
    first_recent: int
    messages: int
    unseen: int
    deleted: int
    octets: int
    logged_since: int


_COLUMNS = ", ".join(FolderRow._fields)


def canonical(name: str) -> str:
    """INBOX in upper case, also as the first level (RFC 9051 section 5.1); every other name is as it is."""
    first, separator, rest = name.partition(SEPARATOR)
    return INBOX + separator + rest if first.upper() == INBOX else name


def folder_named(connection: apsw.Connection, name: str) -> FolderRow | None:
    """The row of this name, selectable or not."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM folders WHERE name = ?", (canonical(name),)).fetchone()
    return FolderRow(*row) if row else None


def selectable(connection: apsw.Connection, name: str, missing: type[NoSuchFolder] | type[Exception] = NoSuchFolder) -> FolderRow:
    """The row of a folder that can hold messages.

    :param missing: what to raise when there is none: TryCreate for the target of APPEND, COPY and MOVE.
    :raises NoSuchFolder: or ``missing``.
    """
    row = folder_named(connection, name)
    if row is None or not row.selectable:
        raise missing()
    return row


def folder_of(connection: apsw.Connection, folder_id: int) -> FolderRow | None:
    """The row of this id, or None when it was deleted."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM folders WHERE id = ? AND selectable", (folder_id,)).fetchone()
    return FolderRow(*row) if row else None


def folder_rows(connection: apsw.Connection) -> list[FolderRow]:
    """All rows by name."""
    return [FolderRow(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM folders ORDER BY name")]


def entry_id(folder_id: int, uid: int) -> int:
    """The primary key of a message in a folder."""
    return folder_id << FOLDER_SHIFT | uid


def uid_of(entry: int) -> int:
    """The UID inside a primary key."""
    return entry & UID_MASK


def spans(folder_id: int, uids: Ranges) -> Iterator[tuple[int, int]]:
    """The ranges as pairs of primary keys, for ``BETWEEN``."""
    base = folder_id << FOLDER_SHIFT
    for first, last in uids:
        yield base | min(first, UID_MASK), base | min(last, UID_MASK)


def runs(uids: Iterable[int]) -> Ranges:
    """Ascending UIDs as ranges."""
    out: list[tuple[int, int]] = []
    first = last = -1
    for uid in uids:
        if uid == last + 1 and last >= 0:
            last = uid
            continue
        if last >= 0:
            out.append((first, last))
        first = last = uid
    if last >= 0:
        out.append((first, last))
    return tuple(out)


def aggregate(connection: apsw.Connection, sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...]:
    """The one row of a statement that always has one, such as ``SELECT count(*)``."""
    return tuple(next(connection.execute(sql, parameters)))


def next_modseq(connection: apsw.Connection, folder_id: int) -> int:
    """Take the folder's next modseq."""
    value = connection.execute("UPDATE folders SET modseq = modseq + 1 WHERE id = ? RETURNING modseq", (folder_id,)).get
    return int(value)


def count_again(connection: apsw.Connection, folder_id: int, *, messages: int, octets: int, unseen: int, deleted: int) -> None:
    """Add the differences to the folder's counters."""
    connection.execute(
        "UPDATE folders SET messages = messages + ?, octets = octets + ?, unseen = unseen + ?, deleted = deleted + ? WHERE id = ?",
        (messages, octets, unseen, deleted, folder_id),
    )


def iso(moment: datetime.datetime) -> str:
    """ISO 8601 UTC with seconds: ``2026-11-22T10:21:54Z``; sorts like time does.

    :param moment: aware.
    """
    try:
        utc = moment.astimezone(datetime.UTC)
    except OverflowError:  # year 1 or 9999 with a zone that leads out of the calendar
        utc = moment.replace(tzinfo=datetime.UTC)
    return f"{utc.year:04d}-{utc.month:02d}-{utc.day:02d}T{utc.hour:02d}:{utc.minute:02d}:{utc.second:02d}Z"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def imap_date(moment: datetime.datetime) -> bytes:
    """RFC 9051 ``date-time`` without its quotes, in the zone of the moment: ``17-Jul-1996 02:44:25 -0700``."""
    offset = moment.utcoffset() or datetime.timedelta()
    minutes = int(offset.total_seconds() // 60)
    sign = "-" if minutes < 0 else "+"
    hours, rest = divmod(abs(minutes), 60)
    return (
        f"{moment.day:2d}-{_MONTHS[moment.month - 1]}-{moment.year:04d}"
        f" {moment.hour:02d}:{moment.minute:02d}:{moment.second:02d} {sign}{hours:02d}{rest:02d}"
    ).encode()


def imap_date_of_iso(text: str) -> bytes:
    """What :func:`iso` made, as :func:`imap_date` writes it."""
    return imap_date(datetime.datetime.fromisoformat(text))
