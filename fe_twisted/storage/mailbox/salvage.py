"""What can still be read of a mailbox file that has damaged pages.

A page that does not authenticate, or that the disk does not give, fails the statement that needs it and no other; so every statement here
stands alone, outside of a transaction, and what one of them cannot read is asked for in halves until only what lies on the page is left
out.  The octets of such a page are never looked at: nobody knows who wrote them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apsw

from fe_twisted.base.errors import DamagedFile
from fe_twisted.storage.mailbox.content import IN_PIECES, interleave, load_content, unpack
from fe_twisted.storage.mailbox.rows import FolderRow, runs, uid_of
from fe_twisted.storage.mailbox.schema import FOLDER_SHIFT, UID_MASK

#: What the disk says when it does not give what was written.  https://www.sqlite.org/rescode.html
_READ_ERRORS = frozenset({apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_CORRUPTFS})

#: How far UIDs are looked for in a folder of which nothing says how far they go, beyond the number of messages.
_BEYOND = 1000

#: Tables that the messages lie in; the others can be made of these, or can be done without.
CONTENT = ("headers", "bodies", "cuts", "attachments")
#: Tables that are made of the content of each message, with a row for each.
DERIVED = ("messages", "summaries", "fields", "texts", "orders", "previews")


def unreadable(error: Exception) -> bool:
    """Whether an error says that a page of the file is not what was written."""
    if isinstance(error, apsw.IOError):
        return getattr(error, "extendedresult", 0) in _READ_ERRORS
    return isinstance(error, apsw.CorruptError | apsw.NotADBError | DamagedFile)


class Place(NamedTuple):
    """Where a message lies, as its owner knows it.

    :param folder: its name.
    """

    folder: str
    uid: int


class Entry(NamedTuple):
    """A row of ``entries``.

    :param row: flags, modseq, day, received_at, internaldate and saved_at; None when an index alone still says where the message lies.
    """

    id: int
    message_id: int
    row: tuple[Any, ...] | None


@dataclass(slots=True)
class Salvage:
    """What could be read, but for the contents of the messages.

    :param folders: by id; one that could not be read is made up.
    :param entries: where messages lie.
    :param known: digest and EMAILID of messages by id, as far as these can be read.
    :param strays: messages whose entry is lost, so that nobody knows their folder.
    :param cuts: position and attachment of each cut by message, as an index says them when the table cannot be read; else None.
    :param uncounted: by folder, how many messages more its counter says than can be found.
    :param nameless: there may have been folders besides, of which nothing can be read; messages in them are strays.
    """

    folders: dict[int, FolderRow]
    entries: list[Entry] = field(default_factory=list)
    known: dict[int, tuple[bytes, str]] = field(default_factory=dict)
    strays: list[int] = field(default_factory=list)
    cuts: dict[int, list[tuple[int, int]]] | None = None
    uncounted: dict[str, int] = field(default_factory=dict)
    nameless: bool = False

    def place(self, entry: int) -> Place:
        """Of a key of ``entries``."""
        return Place(self.folders[entry >> FOLDER_SHIFT].name, uid_of(entry))


def between(connection: apsw.Connection, select: str, low: int, high: int) -> tuple[list[Any], list[int]]:
    """The rows of a SELECT that has ``BETWEEN ? AND ?`` in it, as far as they can be read, and the keys that nothing can be said of.

    :raises apsw.Error: something else than damage.
    """
    if low > high:
        return [], []
    try:
        return connection.execute(select, (low, high)).fetchall(), []
    except apsw.Error as error:
        if not unreadable(error):
            raise
    if low == high:
        return [], [low]
    middle = (low + high) // 2
    rows, bad = between(connection, select, low, middle)
    more, worse = between(connection, select, middle + 1, high)
    return rows + more, bad + worse


def table_of(connection: apsw.Connection, select: str) -> list[Any] | None:
    """All rows of a SELECT, or None when one of them cannot be read."""
    try:
        return connection.execute(select).fetchall()
    except apsw.Error as error:
        if not unreadable(error):
            raise
        return None


def salvage(connection: apsw.Connection) -> Salvage:
    """Read what can be read, but for the contents.

    :raises apsw.Error: something else than damage.
    """
    indexed = table_of(connection, "SELECT id, message_id FROM entries INDEXED BY entries_message")
    last = _last_message(connection, indexed)
    folders, nameless = _folders(connection, indexed)
    found = Salvage(folders, nameless=nameless)
    by_id: dict[int, Entry] = {}
    columns = "id, message_id, flags, modseq, day, received_at, internaldate, saved_at"
    unknown = nameless
    for folder in found.folders.values():
        base = folder.id << FOLDER_SHIFT
        top = folder.uidnext - 1 if folder.uidvalidity else last + _BEYOND
        top = max(top, max((uid_of(entry) for entry, _ in indexed or () if entry >> FOLDER_SHIFT == folder.id), default=0))
        rows, bad = between(connection, f"SELECT {columns} FROM entries WHERE id BETWEEN ? AND ?", base | 1, base | min(top, UID_MASK))
        by_id.update({row[0]: Entry(row[0], row[1], tuple(row[2:])) for row in rows})
        unknown = unknown or bool(bad)
        if bad and indexed is None:
            found.uncounted[folder.name] = max(0, folder.messages - len(rows))
    for entry, message_id in indexed or ():
        by_id.setdefault(entry, Entry(entry, message_id, None))
    found.entries = [by_id[entry] for entry in sorted(by_id)]
    rows, _ = between(connection, "SELECT id, digest, object_id FROM messages WHERE id BETWEEN ? AND ?", 1, last)
    found.known = {row[0]: (row[1], row[2]) for row in rows}
    if table_of(connection, "SELECT attachment_id FROM cuts ORDER BY message_id, position") is None:  # else the index would be asked
        cuts = table_of(connection, "SELECT message_id, position, attachment_id FROM cuts INDEXED BY cuts_attachment")
        found.cuts = {}
        for message_id, position, attachment in sorted(cuts or ()):
            found.cuts.setdefault(message_id, []).append((position, attachment))
    if unknown and indexed is None:
        placed = {entry.message_id for entry in found.entries}
        found.strays = _strays(connection, placed, {*found.known}, last)
    return found


def content_of(connection: apsw.Connection, found: Salvage, message_id: int) -> bytes:
    """A message, exactly as it was received.

    :raises DamagedFile: it cannot be read.
    """
    try:
        content = load_content(connection, message_id) if found.cuts is None else _put_together(connection, found.cuts, message_id)
    except apsw.Error as error:
        if not unreadable(error):
            raise
        raise DamagedFile(reason=f"message {message_id}: {error}") from error
    # Where a cut is not known the octets are others, and without a digest nobody would see it.
    known = message_id in found.known
    if (known and hashlib.sha256(content).digest() != found.known[message_id][0]) or (found.cuts is not None and not known):
        raise DamagedFile(reason=f"message {message_id} does not come out as it went in")
    return content


def _put_together(connection: apsw.Connection, cuts: dict[int, list[tuple[int, int]]], message_id: int) -> bytes:
    """The same as :func:`fe_twisted.storage.mailbox.content.load_content`, without the table of cuts.

    :raises DamagedFile: a piece is missing.
    """
    row: Any = connection.execute(
        "SELECT h.data, b.coding, b.data FROM headers h JOIN bodies b ON b.message_id = h.message_id WHERE h.message_id = ?", (message_id,)
    ).fetchone()
    if row is None:
        raise DamagedFile(reason=f"message {message_id} has no content")
    header, coding, body = row
    pieces: list[Any] = []
    for position, attachment in cuts.get(message_id, ()):
        stored: list[Any] = connection.execute("SELECT size, coding, data FROM attachments WHERE id = ?", (attachment,)).fetchall()
        pieces += [(position, *each) for each in stored]
    return b"".join(interleave(header, unpack(coding & ~IN_PIECES, body), pieces))


def damaged_trees(connection: apsw.Connection) -> list[tuple[str, str]]:
    """Tables and indexes of which a page cannot be read: the table, and the name of the index or of the table again.  Reads everything."""
    found: list[tuple[str, str]] = []
    trees: list[Any] = connection.execute(
        "SELECT type, name, tbl_name FROM sqlite_schema WHERE rootpage ORDER BY tbl_name, type DESC"
    ).fetchall()
    for kind, name, table in trees:
        try:
            connection.execute("SELECT sum(pgsize) FROM dbstat WHERE name = ?", (name,)).fetchall()
            if kind == "table":  # also the ends of long rows
                for _ in connection.execute(f'SELECT * FROM "{name}"'):
                    pass
        except apsw.Error as error:
            if not unreadable(error):
                raise
            found.append((table, name))
    return found


def unreadable_rows(connection: apsw.Connection, table: str, ids: Iterable[int]) -> list[int]:
    """Those of the messages whose row of a table cannot be read."""
    key = "id" if table == "messages" else "message_id"
    found: list[int] = []
    for message_id in ids:
        try:
            connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (message_id,)).fetchall()
        except apsw.Error as error:
            if not unreadable(error):
                raise
            found.append(message_id)
    return found


def sentence(places: Sequence[Place]) -> str:
    """Places as one reads them: ``INBOX UID 3:5,9; Sent UID 1``."""
    by_folder: dict[str, list[int]] = {}
    for place in places:
        by_folder.setdefault(place.folder, []).append(place.uid)
    return "; ".join(
        f"{folder} UID " + ",".join(f"{low}:{high}" if low < high else str(low) for low, high in runs(sorted(uids)))
        for folder, uids in by_folder.items()
    )


def _last_message(connection: apsw.Connection, indexed: list[Any] | None) -> int:
    """No message has a higher id."""
    tops = [message_id for _, message_id in indexed or ()]
    for sql in (
        "SELECT seq FROM sqlite_sequence WHERE name = 'messages'",
        "SELECT max(id) FROM messages",
        "SELECT max(message_id) FROM headers",
        "SELECT max(message_id) FROM bodies",
        "SELECT max(id) FROM messages INDEXED BY messages_size",
    ):
        tops += [row[0] or 0 for row in table_of(connection, sql) or ()]
    return max(tops, default=0)


def _folders(connection: apsw.Connection, indexed: list[Any] | None) -> tuple[dict[int, FolderRow], bool]:
    """All folders; of one that cannot be read, what an index says of its name.  One that is made up has no UIDVALIDITY.

    Also whether there may have been others.
    """
    listed = table_of(connection, "SELECT id, name FROM folders INDEXED BY sqlite_autoindex_folders_1")
    names = dict(listed or ())
    used = {entry >> FOLDER_SHIFT for entry, _ in indexed or ()}
    ends = [
        row[0] or 0
        for sql in (
            "SELECT max(id) FROM folders",
            "SELECT seq FROM sqlite_sequence WHERE name = 'folders'",
            f"SELECT max(id) >> {FOLDER_SHIFT} FROM entries",
        )
        for row in table_of(connection, sql) or ()
    ]
    last = max([*names, *used, *ends], default=0)
    rows, bad = between(connection, f"SELECT {', '.join(FolderRow._fields)} FROM folders WHERE id BETWEEN ? AND ?", 1, last)
    folders = {row[0]: FolderRow(*row) for row in rows}
    if indexed is None:
        used = {folder for folder in bad if _in_use(connection, folder)}
    taken = {*names.values(), *(folder.name for folder in folders.values())}
    for folder in sorted(({*names, *used} & {*bad}) - {*folders}):
        free = (f"Folder {folder}" + suffix for suffix in ("", *(f" ({number})" for number in range(2, len(taken) + 3))))
        name = names.get(folder) or next(name for name in free if name not in taken)
        taken.add(name)
        folders[folder] = made_up(folder, name)
    return folders, listed is None and (not last or not {*bad} <= {*folders})


def made_up(folder: int, name: str) -> FolderRow:
    """A folder of which nothing else is known; it has no UIDVALIDITY."""
    return FolderRow(folder, name, "", 1, "", 0, 1, 1, 1, 0, 0, 0, 0, 0)


def _in_use(connection: apsw.Connection, folder: int) -> bool:
    """Whether a message can be seen to lie in a folder."""
    base = folder << FOLDER_SHIFT
    return bool(table_of(connection, f"SELECT 1 FROM entries WHERE id BETWEEN {base | 1} AND {base | UID_MASK} LIMIT 1"))


def _strays(connection: apsw.Connection, placed: set[int], known: set[int], last: int) -> list[int]:
    """Messages that nothing refers to and that are not on their way out.

    :param known: those that are known to be there, though perhaps they cannot be read.
    """
    leaving = {row[0] for row in table_of(connection, "SELECT message_id FROM orphans") or ()}
    rows, _ = between(connection, "SELECT message_id FROM headers WHERE message_id BETWEEN ? AND ?", 1, last)
    return sorted({*(row[0] for row in rows), *known} - placed - leaving)
