"""Annotations of the mailbox and of its folders (RFC 5464)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import apsw

from fe_twisted.base.errors import ImapStatus, LimitReached
from fe_twisted.storage.mailbox.api import SPECIAL_USE
from fe_twisted.storage.mailbox.folders import set_special_use
from fe_twisted.storage.mailbox.rows import NAMES, Outcome, aggregate, next_modseq, selectable

#: Entries in a mailbox, those of all folders together.
MAX_ENTRIES = 1_000
#: Octets of all their values together, which one command can ask for.
MAX_OCTETS = 8 * 1024 * 1024

Depth = Literal[0, 1, -1]

#: Entries and values of a folder; its special use is kept with the folder itself.
_ENTRIES = f"""WITH entries(entry, value) AS (
    SELECT entry, value FROM annotations WHERE folder_id IS :folder AND (folder_id IS NULL OR entry <> '{SPECIAL_USE}')
    UNION ALL SELECT '{SPECIAL_USE}', CAST(special_use AS BLOB) FROM folders WHERE id = :folder AND special_use <> ''
) SELECT entry, value FROM entries WHERE """


class TooManyEntries(LimitReached):
    """No room for another annotation (RFC 5464 section 4.3)."""

    default = f"too many annotations, a mailbox has room for {MAX_ENTRIES}"
    imap = ImapStatus("NO", "METADATA TOOMANY")


def get_metadata(connection: apsw.Connection, name: str, entries: Sequence[str], depth: Depth) -> list[tuple[str, bytes | None]]:
    """See :meth:`fe_twisted.storage.mailbox.api.Mailbox.get_metadata`.

    :raises NoSuchFolder:
    """
    folder = _folder(connection, name)
    found: dict[str, bytes | None] = {}
    for entry in entries:
        exact = connection.execute(_ENTRIES + "entry = :entry", {"folder": folder, "entry": entry}).fetchone()
        if exact is not None or not depth:
            found[entry] = bytes(exact[1]) if exact is not None else None
        if depth:
            below = connection.execute(
                _ENTRIES + "entry LIKE :below ESCAPE '\\' ORDER BY entry", {"folder": folder, "below": _escaped(entry) + "/%"}
            )
            for child, value in below:
                if depth < 0 or "/" not in str(child)[len(entry) + 1 :]:
                    found[str(child)] = bytes(value)
    return list(found.items())


def set_metadata(connection: apsw.Connection, name: str, values: Sequence[tuple[str, bytes | None]]) -> Outcome[None]:
    """See :meth:`fe_twisted.storage.mailbox.api.Mailbox.set_metadata`.

    :raises NoSuchFolder, SpecialUseRefused, TooManyEntries, LimitReached:
    """
    folder = _folder(connection, name)
    for entry, value in values:
        if folder is not None and entry == SPECIAL_USE:
            set_special_use(connection, folder, (value or b"").decode("ascii"))
            continue
        connection.execute("DELETE FROM annotations WHERE folder_id IS ? AND entry = ?", (folder, entry))
        if value is not None:
            connection.execute("INSERT INTO annotations(folder_id, entry, value) VALUES(?, ?, ?)", (folder, entry.lower(), value))
    entries, octets = aggregate(connection, "SELECT count(*), coalesce(sum(length(value)), 0) FROM annotations")
    if entries > MAX_ENTRIES:
        raise TooManyEntries
    if octets > MAX_OCTETS:
        raise LimitReached(f"annotations are too long, a mailbox has room for {MAX_OCTETS} octets")
    if folder is None:
        return Outcome(None, NAMES)
    return Outcome(None, {folder: next_modseq(connection, folder)})  # RFC 7162 section 3.2


def _folder(connection: apsw.Connection, name: str) -> int | None:
    """None for the mailbox as a whole, whose name is empty."""
    return selectable(connection, name).id if name else None


def _escaped(entry: str) -> str:
    return entry.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
