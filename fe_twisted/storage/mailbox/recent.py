r"""Which session a message is ``\Recent`` for (RFC 3501 section 2.3.2): the first that claims it, and no other.

A claim is known in memory at once and written to the file soon after, because a session that is told of a new message must not wait for one
more commit.  A crash in between makes the message ``\Recent`` again, which the RFC prefers to its being so for nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any, TypeVar

import apsw

from fe_twisted.base import log
from fe_twisted.protocols.imap.ranges import intersect
from fe_twisted.storage.mailbox.api import Changes, Selected
from fe_twisted.storage.mailbox.rows import FolderRow
from fe_twisted.storage.mailbox.schema import UID_MASK
from fe_twisted.storage.mailbox.view import claim_recent
from fe_twisted.storage.sqlite.writer import Writer

Claimed = TypeVar("Claimed", Selected, Changes)

#: Answers that are remembered for a caller over the link that lost its connection and asks again.
REMEMBERED = 256


class Claims:
    """The claims on one mailbox."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        #: The first UID of a folder that nobody was told of, where the file may not know it yet.
        self._unclaimed: dict[int, int] = {}
        self._writing = self._again = False
        self._answers: OrderedDict[bytes, Any] = OrderedDict()

    def row(self, row: FolderRow) -> FolderRow:
        """The row as it will be in the file."""
        return row._replace(first_recent=max(row.first_recent, self._unclaimed.get(row.id, 1)))

    def left(self, found: Claimed, folder_id: int) -> Claimed:
        """The same answer without what was claimed."""
        first = self._unclaimed.get(folder_id, 1)
        if not found.recent or first <= found.recent[0][0]:
            return found
        return replace(found, recent=intersect(found.recent, ((first, UID_MASK),)))

    def answered(self, key: bytes | None) -> Any:
        """What the call with this key was answered, or None."""
        return self._answers.get(key) if key is not None else None

    def claim(self, found: Claimed, folder_id: int, uidnext: int, key: bytes | None) -> None:
        """What is ``recent`` in the answer belongs to its caller.

        :param key: of the call, if it may be repeated.
        """
        if not found.recent:
            return
        self._unclaimed[folder_id] = max(self._unclaimed.get(folder_id, 1), uidnext)
        if key is not None:
            self._answers[key] = found
            if len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        self._again = True
        self._start()

    def _start(self) -> None:
        if self._again and not self._writing:
            self._writing, self._again = True, False
            self._writer.aside(self._write).addCallbacks(self._written, self._failed)

    def _write(self, connection: apsw.Connection) -> None:
        for folder_id, first in list(self._unclaimed.items()):
            claim_recent(connection, folder_id, first)

    def _written(self, result: None) -> None:
        self._writing = False
        self._start()

    def _failed(self, failure: Any) -> None:
        """The next claim writes this one, too."""
        self._writing = False
        log.warning("mailbox.recent", reason=str(getattr(failure.value, "reason", "") or failure.value))
