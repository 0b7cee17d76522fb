r"""What one session has been told of its selected folder: the only place where message sequence numbers and ``\Recent`` exist."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import cast

from fe_twisted.base.errors import BadSyntax, UidRequired
from fe_twisted.protocols.imap.commands import SAVED, SequenceSet
from fe_twisted.protocols.imap.ranges import UidList, intersect, resolve, subtract, union
from fe_twisted.protocols.imap.render import flag_list
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.storage.mailbox.api import FIRST_KEYWORD_BIT, SYSTEM_FLAGS, Changes, Mailbox, Selected, Stored

#: Rendered flag masks that are remembered; a folder uses few.
_MOST_RENDERED = 256


class View:
    r"""A selected folder as the client knows it.

    It lags behind the folder: messages that others expunged keep their numbers until the client may be told (:attr:`gone`).

    :ivar modseq: what the client has been told is the folder's state at this modseq.
    :ivar gone: UIDs that are expunged and still have a number here.
    :ivar recent: UIDs that are ``\Recent`` in this session.
    :ivar keywords: how many keywords of the mailbox the client has seen in a FLAGS response.
    :ivar saved: the result of the last SEARCH RETURN (SAVE), which ``$`` stands for (RFC 5182).
    :ivar low_told: the client was sent a HIGHESTMODSEQ below what it has seen, because EXPUNGE responses wait.
    """

    __slots__ = (
        "_held",
        "_mailbox",
        "_rendered",
        "folder_id",
        "gone",
        "has_recent",
        "keywords",
        "low_told",
        "modseq",
        "name",
        "read_only",
        "recent",
        "saved",
        "uid_only",
        "uidnext",
        "uids",
    )

    def __init__(self, mailbox: Mailbox, selected: Selected, *, read_only: bool, has_recent: bool = True, uid_only: bool = False) -> None:
        r""":param has_recent: the client knows the flag ``\Recent``, which IMAP4rev2 has no more.
        :param uid_only: there are no message sequence numbers for the client (RFC 9586).
        """
        self.uid_only = uid_only
        self._held = 0
        self.has_recent = has_recent
        self.low_told = False
        self.saved: Ranges = ()
        self._mailbox = mailbox
        self._rendered: dict[int, bytes] = {}
        self.folder_id = selected.folder_id
        self.name = selected.name
        self.read_only = read_only
        self.uids = UidList(selected.uids)
        self.uidnext = selected.status.uidnext
        self.modseq = selected.status.highestmodseq
        self.recent: Ranges = selected.recent if has_recent else ()
        self.gone: Ranges = ()
        self.keywords = 0

    def addressed(self, messages: SequenceSet, *, uid: bool) -> Ranges:
        """The UIDs that a command names.

        UIDs that are not there are passed over (RFC 3501 section 6.4.8).  Of sequence numbers at least one must exist; a range that only
        ends too high is cut off, and ``*`` in an empty folder means nothing, because clients ask like that.

        :raises BadSyntax: no such message number.
        :raises UidRequired: there are no message numbers.
        """
        if messages == SAVED:
            return self.kept()
        if not uid and self.uid_only:
            raise UidRequired
        if uid:
            return self.uids.known(resolve(messages, self.uids.last))
        numbers = resolve(messages, len(self.uids), clamp=True)
        if not numbers and any(first is not None and second is not None for first, second in messages):
            raise BadSyntax("no message has such a number")
        return self.uids.uids(numbers)

    def kept(self) -> Ranges:
        """What ``$`` stands for: the saved result without what the client was told is gone."""
        return self.uids.known(self.saved)

    @property
    def told(self) -> int:
        """The modseq up to which the client was told everything, also what was expunged (RFC 7162 section 3.2)."""
        return self._held if self.gone else self.modseq

    def flags(self, mask: int, uid: int) -> bytes:
        r"""``(\Seen $Forwarded \Recent)`` for the wire."""
        return self.flag_lists((mask,), (uid,))[0]

    def flag_lists(self, masks: Sequence[int], uids: Sequence[int]) -> list[bytes]:
        """The same of many messages, whose UIDs ascend."""
        rendered = self._rendered
        made = list(map(rendered.get, masks))
        if None in made:
            for mask in {*masks}.difference(rendered):
                rendered[mask] = flag_list(self.names(mask))
            made = [rendered[mask] for mask in masks]
            if len(rendered) > _MOST_RENDERED:
                rendered.clear()
        lists = cast("list[bytes]", made)
        if self.recent and uids[-1] >= self.recent[0][0]:
            for low, high in intersect(self.recent, ((uids[0], uids[-1]),)):
                first, behind = bisect_left(uids, low), bisect_right(uids, high)
                lists[first:behind] = [flags[:-1] + (b" \\Recent)" if len(flags) > 2 else b"\\Recent)") for flags in lists[first:behind]]
        return lists

    def names(self, mask: int) -> list[str]:
        """The flags of a mask by name."""
        system = [name for name, bit in SYSTEM_FLAGS.items() if mask & bit]
        keywords = mask >> FIRST_KEYWORD_BIT
        if not keywords:
            return system
        return system + [name for number, name in enumerate(self._mailbox.keywords()) if keywords >> number & 1]

    def recent_count(self) -> int:
        r"""How many messages are ``\Recent`` here."""
        return sum(high - low + 1 for low, high in self.recent)

    def learn(self, changes: Changes) -> list[tuple[int, int, int]]:
        """Take in what happened, except that messages which are gone keep their numbers until :meth:`forget`.

        :returns: ``(uid, mask, modseq)`` of the messages whose flags the client has to be told.
        """
        if not self.gone:
            self._held = self.modseq
        self.gone = union(self.gone, self.uids.known(changes.vanished))
        news = [row for row in changes.changed if row[0] in self.uids]
        self.uids.append(uid for uid, _, _ in changes.added if uid > self.uids.last)
        if self.has_recent:
            self.recent = union(self.recent, self.uids.known(changes.recent))
        self.uidnext = max(self.uidnext, changes.uidnext)
        self.modseq = changes.modseq
        return news

    def forget(self) -> list[int]:
        """Let go of the messages that are gone; returns the numbers for EXPUNGE responses, in order."""
        if not self.gone:
            return []
        numbers = self.uids.remove(self.gone)
        self.recent = subtract(self.recent, self.gone)
        self.gone = ()
        return numbers

    def remember_own(self, stored: Stored) -> None:
        """Flag changes that this session made, and whose answer tells them, need not be read and told again.

        Unless others changed the folder just before, unseen by this session: the flags may then hold theirs, too, and all are told.
        """
        if stored.taken == self.modseq + 1:
            self.modseq = stored.taken
