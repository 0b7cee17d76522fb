"""The tree of folders: CREATE, DELETE, RENAME, LIST, SUBSCRIBE (RFC 3501 section 6.3, RFC 9051 section 6.3).

All functions take the writing connection inside a transaction, or any connection where they only read.
"""

from __future__ import annotations

import time

import apsw

from fe_twisted.base.errors import AlreadyExists, HasChildren, LimitReached, NoSuchFolder, Refused, SpecialUseRefused
from fe_twisted.base.ids import object_id
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox.api import Folder, FolderStatus
from fe_twisted.storage.mailbox.messages import move_entries, remove_entries
from fe_twisted.storage.mailbox.rows import (
    INBOX,
    NAMES,
    SEPARATOR,
    FolderRow,
    Outcome,
    canonical,
    folder_named,
    folder_rows,
    selectable,
)
from fe_twisted.storage.mailbox.schema import UID_MASK

#: More folders than any person has; a client that loops cannot fill the file with names.
MAX_FOLDERS = 10_000
#: As Dovecot's 255 octets per level (the limit of most file systems), and a depth that no person uses up.
MAX_LEVEL_OCTETS = 255
MAX_LEVELS = 50

ALL_UIDS: Ranges = ((1, UID_MASK),)

#: What a new mailbox starts with (RFC 6154).
STANDARD_FOLDERS: tuple[tuple[str, str], ...] = (
    (INBOX, ""),
    ("Drafts", "\\Drafts"),
    ("Sent", "\\Sent"),
    ("Archive", "\\Archive"),
    ("Junk", "\\Junk"),
    ("Trash", "\\Trash"),
)


def list_folders(connection: apsw.Connection) -> list[Folder]:
    """INBOX first, then by name."""
    rows = folder_rows(connection)
    subscribed = {str(name) for (name,) in connection.execute("SELECT name FROM subscriptions")}
    parents = {prefix for row in rows for prefix in _parents(row.name)}
    found = [
        Folder(
            id=row.id,
            name=row.name,
            selectable=bool(row.selectable),
            subscribed=row.name in subscribed,
            special_use=row.special_use,
            has_children=row.name in parents,
            object_id=row.object_id,
        )
        for row in rows
    ]
    found.sort(key=lambda folder: (folder.name != INBOX, folder.name))
    return found


def status_of(row: FolderRow) -> FolderStatus:
    """The counters of a row."""
    return FolderStatus(
        name=row.name,
        messages=row.messages,
        recent=max(0, _recent_count(row)),
        unseen=row.unseen,
        deleted=row.deleted,
        size=row.octets,
        uidnext=row.uidnext,
        uidvalidity=row.uidvalidity,
        highestmodseq=row.modseq,
        object_id=row.object_id,
    )


def _recent_count(row: FolderRow) -> int:
    # An upper bound that is exact unless new mail was expunged before any session saw it.
    return min(row.uidnext - row.first_recent, row.messages)


def create_folder(connection: apsw.Connection, name: str, special_use: str = "") -> Outcome[str]:
    """Make a folder and its missing parents; the value is its object id.

    A name that was left behind by DELETE becomes a new folder with a new UIDVALIDITY.

    :raises AlreadyExists, Refused, SpecialUseRefused, LimitReached:
    """
    name = canonical(name.rstrip(SEPARATOR))
    _check_name(name)
    existing = folder_named(connection, name)
    if existing is not None and existing.selectable:
        raise AlreadyExists("mailbox already exists")
    _check_special_use(connection, special_use)
    made = _make_parents(connection, name)
    made.append(_insert(connection, name, special_use))
    return Outcome(made[-1].object_id, {row.id: row.modseq for row in made} | NAMES)


def set_special_use(connection: apsw.Connection, folder_id: int, special_use: str) -> None:
    """Give a folder a special use, or take it away with an empty string.

    :raises SpecialUseRefused: another folder has it.
    """
    _check_special_use(connection, special_use, besides=folder_id)
    connection.execute("UPDATE folders SET special_use = ? WHERE id = ?", (special_use, folder_id))


def _check_special_use(connection: apsw.Connection, special_use: str, *, besides: int = 0) -> None:
    if special_use and connection.execute("SELECT 1 FROM folders WHERE special_use = ? AND id <> ?", (special_use, besides)).get:
        raise SpecialUseRefused(f"another mailbox is {special_use} already")


def _make_parents(connection: apsw.Connection, name: str) -> list[FolderRow]:
    return [_insert(connection, parent, "") for parent in _parents(name) if folder_named(connection, parent) is None]


def _insert(connection: apsw.Connection, name: str, special_use: str) -> FolderRow:
    if int(connection.execute("SELECT count(*) FROM folders").get) >= MAX_FOLDERS:
        raise LimitReached(f"too many mailboxes, there is room for {MAX_FOLDERS}")
    connection.execute("DELETE FROM folders WHERE name = ? AND NOT selectable", (name,))
    connection.execute(
        "INSERT INTO folders(name, object_id, selectable, special_use, uidvalidity) VALUES(?, ?, 1, ?, ?)",
        (name, object_id(), special_use, _next_uidvalidity(connection)),
    )
    return selectable(connection, name)


def _next_uidvalidity(connection: apsw.Connection) -> int:
    """Larger than any before in this mailbox, so that a name used again never gets an old one (RFC 9051 section 2.3.1.1)."""
    last = connection.execute("SELECT value FROM meta WHERE name = 'last_uidvalidity'").get
    value = max(int(last or 0) + 1, int(time.time()) & 0x7FFFFFFF)
    connection.execute("INSERT OR REPLACE INTO meta(name, value) VALUES('last_uidvalidity', ?)", (value,))
    return value


def delete_folder(connection: apsw.Connection, name: str) -> Outcome[None]:
    """Remove a folder and its messages; with children it stays as a name that cannot be selected.

    :raises NoSuchFolder, Refused:
    """
    row = folder_named(connection, name)
    if row is None:
        raise NoSuchFolder()
    if row.name == INBOX:
        raise Refused("INBOX cannot be deleted")
    children = _children(connection, row.name)
    if not row.selectable and children:
        raise HasChildren
    remove_entries(connection, row.id, ALL_UIDS)
    connection.execute("DELETE FROM folders WHERE id = ?", (row.id,))
    if children:
        connection.execute(
            "INSERT INTO folders(name, object_id, selectable, uidvalidity) VALUES(?, ?, 0, ?)",
            (row.name, object_id(), _next_uidvalidity(connection)),
        )
    _prune(connection, row.name)
    return Outcome(None, {row.id: 0} | NAMES)


def _prune(connection: apsw.Connection, name: str) -> None:
    """Forget parents that were only kept for children that are gone now."""
    for parent in reversed(_parents(name)):
        row = folder_named(connection, parent)
        if row is None or row.selectable or _children(connection, parent):
            return
        connection.execute("DELETE FROM folders WHERE id = ?", (row.id,))


def rename_folder(connection: apsw.Connection, old: str, new: str) -> Outcome[None]:
    """Give a folder and everything below it a new name.

    :raises NoSuchFolder, AlreadyExists, Refused:
    """
    row = folder_named(connection, old)
    if row is None:
        raise NoSuchFolder()
    new = canonical(new.rstrip(SEPARATOR))
    _check_name(new)
    if folder_named(connection, new) is not None:
        raise AlreadyExists("a mailbox of the new name already exists")
    if row.name == INBOX:
        return _rename_inbox(connection, row, new)
    if new.startswith(row.name + SEPARATOR):
        raise Refused("a mailbox cannot be moved below itself")
    for child in _children(connection, row.name):
        _check_name(new + child.name[len(row.name) :])
    made = _make_parents(connection, new)
    for child in (row, *_children(connection, row.name)):
        connection.execute("UPDATE folders SET name = ? WHERE id = ?", (new + child.name[len(row.name) :], child.id))
    _prune(connection, row.name)
    return Outcome(None, {parent.id: parent.modseq for parent in made} | NAMES)


def _rename_inbox(connection: apsw.Connection, inbox: FolderRow, new: str) -> Outcome[None]:
    """RFC 3501 section 6.3.5: the messages move to a new folder, INBOX stays, empty, and so do its children."""
    made = create_folder(connection, new)
    moved = move_entries(connection, inbox, ALL_UIDS, selectable(connection, new))
    return Outcome(None, made.modseqs | moved.modseqs)


def set_subscribed(connection: apsw.Connection, name: str, subscribed: bool) -> Outcome[None]:
    """SUBSCRIBE, UNSUBSCRIBE; the name need not exist.

    :raises LimitReached:
    """
    name = canonical(name.rstrip(SEPARATOR))
    if not subscribed:
        connection.execute("DELETE FROM subscriptions WHERE name = ?", (name,))
        return Outcome(None, NAMES)
    _check_name(name)
    if int(connection.execute("SELECT count(*) FROM subscriptions").get) >= MAX_FOLDERS:
        raise LimitReached(f"too many subscriptions, there is room for {MAX_FOLDERS}")
    connection.execute("INSERT OR IGNORE INTO subscriptions(name) VALUES(?)", (name,))
    return Outcome(None, NAMES)


def _children(connection: apsw.Connection, name: str) -> list[FolderRow]:
    prefix = name + SEPARATOR
    return [row for row in folder_rows(connection) if row.name.startswith(prefix)]


def _parents(name: str) -> list[str]:
    levels = name.split(SEPARATOR)
    return [SEPARATOR.join(levels[:count]) for count in range(1, len(levels))]


def _check_name(name: str) -> None:
    levels = name.split(SEPARATOR)
    if len(levels) > MAX_LEVELS:
        raise Refused(f"mailbox name has more than {MAX_LEVELS} levels")
    for level in levels:
        if not level:
            raise Refused("mailbox name has an empty level")
        if len(level.encode("utf-8", "surrogatepass")) > MAX_LEVEL_OCTETS:
            raise Refused(f"a level of the mailbox name has more than {MAX_LEVEL_OCTETS} octets")
        if any(not character.isprintable() for character in level) or any("\ud800" <= character <= "\udfff" for character in level):
            raise Refused("mailbox name has a control character")
        if any(wildcard in level for wildcard in "%*"):
            raise Refused("mailbox name has a wildcard")
