r"""The open mailbox as everything above sees it: no SQL, no file, no sequence numbers.

One object stands for one alias's mailbox and is shared by all sessions of that alias in this process.  It speaks in
UIDs; message sequence numbers, ``\\Recent`` and what a client has been told belong to the session.

Changes are never pushed with content: a watcher hears «folder F is at modseq M» and asks :meth:`Mailbox.changes` for what
lies between its own modseq and that.  Since UIDs, modseqs and the expunge log are written in the transaction of the change
itself, the answer is exact, also after a reconnect, and it is the same over a network link.

All coroutines may finish at once or wait for a thread or a peer; a caller must not assume either.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from fe_twisted.protocols.imap.search import Key, Ranges
from fe_twisted.protocols.imap.sort import Algorithm, Criterion, Threads

#: Bits of the system flags in a message's flag mask; keyword ``n`` of :meth:`Mailbox.keywords` is bit ``n + 5``.
SEEN, ANSWERED, FLAGGED, DELETED, DRAFT = 1, 2, 4, 8, 16
SYSTEM_FLAGS: dict[str, int] = {
    "\\Seen": SEEN,
    "\\Answered": ANSWERED,
    "\\Flagged": FLAGGED,
    "\\Deleted": DELETED,
    "\\Draft": DRAFT,
}
FIRST_KEYWORD_BIT = 5
#: SQLite integers are signed 64 bit, so bits 5 … 62 are keywords.
MAX_KEYWORDS = 58
#: Characters of one of them: every process that has the mailbox open is told all of them together.
MAX_KEYWORD = 255

#: Octets of a message above which its content is read in pieces.
LARGE = 1024 * 1024

#: What :meth:`Mailbox.fetch` can return of a message.  All text is ``bytes`` ready for the wire.
#:
#: ``uid`` int · ``flags`` int mask · ``modseq`` int · ``size`` int (RFC822.SIZE) · ``internaldate`` bytes such as
#: ``17-Jul-1996 02:44:25 -0700`` · ``savedate`` the same form · ``envelope`` bytes ``(…)`` · ``bodystructure`` bytes ``(…)`` with extension
#: data · ``body`` bytes ``(…)`` without · ``header`` bytes, the header with its final empty line · ``summary`` bytes,
#: those fields of it that :data:`fe_twisted.protocols.mime.section.SUMMARY` names · ``content`` bytes, the whole message as
#: received · ``parts`` bytes, see :func:`fe_twisted.protocols.mime.parts.load` · ``emailid`` bytes · ``threadid`` int ·
#: ``preview`` bytes, UTF-8 (RFC 8970).
#:
#: The ``content`` of a message of more than :data:`LARGE` octets is an int instead: the number that :meth:`Mailbox.octets` knows it by,
#: whose lower 32 bits are its size.
Column = Literal[
    "uid",
    "flags",
    "modseq",
    "size",
    "internaldate",
    "savedate",
    "envelope",
    "bodystructure",
    "body",
    "header",
    "summary",
    "content",
    "parts",
    "emailid",
    "threadid",
    "preview",
]

#: One row, its values in the order of the columns that were asked for.
Row = tuple[Any, ...]


#: The annotation of a folder that is its special use (RFC 6154 section 4).
SPECIAL_USE = "/private/specialuse"


@dataclass(frozen=True, slots=True)
class Folder:
    r"""One name in the hierarchy.  ``name`` is Unicode with ``/`` as separator; INBOX is always upper case.

    :param selectable: False for a name that exists only as the parent of others (``\\NonExistent``) or was deleted with children.
    :param special_use: ``\\Sent`` and so on (RFC 6154), or an empty string.
    """

    id: int
    name: str
    selectable: bool
    subscribed: bool
    special_use: str
    has_children: bool
    object_id: str


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """Counters of a folder (RFC 9051 section 6.3.11); ``size`` in octets."""

    name: str
    messages: int
    recent: int
    unseen: int
    deleted: int
    size: int
    uidnext: int
    uidvalidity: int
    highestmodseq: int
    object_id: str


@dataclass(frozen=True, slots=True)
class Quota:
    """What a mailbox uses and how much it can hold (RFC 9208); octets as RFC822.SIZE counts them, each copy on its own."""

    octets: int
    octets_limit: int
    messages: int
    messages_limit: int


@dataclass(frozen=True, slots=True)
class Selected:
    r"""What SELECT needs, taken in one transaction.

    :param uids: the UIDs of all messages, as ranges.
    :param recent: UIDs that are ``\\Recent`` for this session; when claimed, no other session gets them (RFC 3501 section 2.3.2).
    :param first_unseen: the lowest UID without ``\\Seen``, or 0.
    """

    folder_id: int
    name: str
    status: FolderStatus
    uids: Ranges
    recent: Ranges
    first_unseen: int


@dataclass(frozen=True, slots=True)
class Changes:
    r"""What happened in a folder after a modseq.

    :param modseq: the folder's modseq that this answer brings the caller to.
    :param added: ``(uid, flags, modseq)`` of messages with a UID at or above the caller's UIDNEXT, ascending.
    :param changed: ``(uid, flags, modseq)`` of older messages whose flags changed, ascending.
    :param vanished: UIDs expunged since, and perhaps some that were expunged before.
    :param recent: those of ``added`` that are ``\\Recent`` for the caller.
    :param exists: False when the folder itself was deleted; the session must then end its selected state.
    """

    modseq: int
    uidnext: int
    added: Sequence[tuple[int, int, int]]
    changed: Sequence[tuple[int, int, int]]
    vanished: Ranges
    recent: Ranges
    exists: bool = True


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be stored.

    :param content: the bytes as received, any bytes at all.
    :param flags: system flags and keywords by name.
    :param internaldate: aware; its zone is kept.  None means now, UTC.
    :param delivery_id: 16 bytes; a message with an id that was stored before is not stored again (it is then reported with UID 0).
    """

    content: bytes
    flags: frozenset[str] = frozenset()
    internaldate: datetime.datetime | None = None
    delivery_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Where new messages went, in the order given (RFC 4315 section 3)."""

    uidvalidity: int
    uids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Copied:
    """Which messages went where: ``source[i]`` became ``target[i]`` (RFC 4315 section 3).

    :param modseq: of the source folder, after a MOVE took them away.
    """

    uidvalidity: int
    source: Sequence[int]
    target: Sequence[int]
    modseq: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """The outcome of STORE.

    :param changed: ``(uid, flags, modseq)`` of every message addressed that is still there, whether its flags changed or not.
    :param modified: UIDs that failed the UNCHANGEDSINCE test (RFC 7162 section 3.1.3).
    :param taken: the modseq that this very STORE took for the messages that it changed, or 0 when it changed none.
    """

    modseq: int
    changed: Sequence[tuple[int, int, int]]
    modified: Ranges = field(default=())
    taken: int = 0


@dataclass(frozen=True, slots=True)
class Expunged:
    """UIDs that are gone, and the folder's modseq after it."""

    modseq: int
    uids: Ranges


Watcher = Callable[[int, int], None]


class Mailbox(Protocol):
    """One alias's mailbox, open."""

    #: The 24-hex name of the file.
    id: str

    def keywords(self) -> tuple[str, ...]:
        """All keywords of the mailbox in the order of their bits; grows only, no I/O."""

    def modseq(self, folder_id: int) -> int:
        """The folder's modseq as last committed; no I/O, so a session may ask after every command.  0 for a folder that is gone."""

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call ``watcher(folder_id, modseq)`` in the reactor after each commit that changed a folder.  Returns a function that stops it.

        ``watcher(0, 0)`` is called when names, subscriptions or annotations may have changed.
        """

    async def folders(self) -> list[Folder]:
        """All names, INBOX first, then sorted; parents that only exist through children included."""

    async def subscriptions(self) -> list[str]:
        """All subscribed names, also those that no longer exist (RFC 3501 section 6.3.9)."""

    async def status(self, name: str) -> FolderStatus:
        """:raises NoSuchFolder: if it is not there or not selectable."""

    async def select(self, name: str, *, claim_recent: bool) -> Selected:
        """:raises NoSuchFolder: if it is not there or not selectable."""

    async def changes(self, folder_id: int, since: int, uidnext: int, *, claim_recent: bool) -> Changes:
        """What happened after modseq ``since``; messages with a UID of at least ``uidnext`` count as added."""

    async def vanished(self, folder_id: int, since: int) -> Ranges:
        """UIDs that were expunged after modseq ``since``, all there ever were for 0 (RFC 7162).

        If that is long ago there may be some that were expunged before; never one that is there.
        """

    async def create(self, name: str, special_use: str = "") -> str:
        """Make a folder and its missing parents; returns its object id.

        :raises AlreadyExists, Refused, LimitReached:
        """

    async def delete(self, name: str) -> None:
        """Remove a folder with its messages; one with children stays as a name that cannot be selected.

        :raises NoSuchFolder, Refused: INBOX cannot be deleted.
        """

    async def rename(self, old: str, new: str) -> None:
        """Rename a folder and everything below it; renaming INBOX moves its messages to a new folder (RFC 3501 section 6.3.5).

        :raises NoSuchFolder, AlreadyExists, Refused:
        """

    async def subscribe(self, name: str, subscribed: bool) -> None:
        """SUBSCRIBE or UNSUBSCRIBE; the name need not exist."""

    def fetch(self, folder_id: int, uids: Ranges, columns: Sequence[Column], *, changed_since: int = 0) -> AsyncIterator[list[Row]]:
        """Rows in UID order, in batches bounded by rows and by octets.  UIDs that are not there are passed over."""

    def fetch_one(self, folder_id: int, uid: int, columns: Sequence[Column]) -> list[Row] | None:
        """The row of one message, where that takes no waiting; None where it does, and :meth:`fetch` is to be asked.

        The list is empty if there is no such message.

        Opening one message after the other is what clients do most, and to wait for what is there already costs more than to read it.
        """

    async def octets(self, message: int, start: int, end: int) -> bytes:
        """A stretch of a large message, ``content[start:end]``; fewer octets only where the message ends.

        :param message: what :meth:`fetch` gave as its ``content``.
        :raises NoSuchMessage: it was expunged everywhere, and removed, meanwhile.
        """

    async def append(self, name: str, messages: Sequence[NewMessage]) -> Appended:
        """All of them or none, durable when it returns.

        :raises TryCreate: no such folder.
        """

    async def replace(self, folder_id: int, uid: int, name: str, message: NewMessage) -> Appended:
        """Store a message and remove another, both or none, durable when it returns (RFC 8508).

        :param folder_id, uid: what is removed.
        :param name: the folder of the new message.
        :raises TryCreate: no such folder.
        :raises NoSuchMessage: what was to be replaced is not there.
        """

    async def store(
        self,
        folder_id: int,
        uids: Ranges,
        action: Literal["add", "remove", "replace"],
        flags: frozenset[str],
        *,
        unchanged_since: int | None = None,
    ) -> Stored:
        """Change flags.

        :raises LimitReached: too many keywords.
        """

    async def copy(self, folder_id: int, uids: Ranges, target: str) -> Copied:
        """Copy with flags and internal date, all or none.

        :raises TryCreate: no such target.
        """

    async def move(self, folder_id: int, uids: Ranges, target: str) -> Copied:
        """Copy and remove in one transaction (RFC 6851).

        :raises TryCreate: no such target.
        """

    async def expunge(self, folder_id: int, uids: Ranges | None) -> Expunged:
        r"""Remove the messages with ``\Deleted``, of ``uids`` only if given (RFC 4315 section 2.1)."""

    async def search(self, folder_id: int, program: Key) -> list[int]:
        """UIDs that match, ascending.  The program may hold no key that only a session can resolve."""

    async def sort(self, folder_id: int, program: Key, criteria: Sequence[Criterion]) -> list[int]:
        """UIDs that match, ordered by the criteria, the first before the second and so on; equal messages by UID (RFC 5256 section 3).

        :param program: as for :meth:`search`.
        """

    async def thread(self, folder_id: int, program: Key, algorithm: Algorithm) -> Threads:
        """The messages that match, as threads (RFC 5256 section 3).

        :param program: as for :meth:`search`.
        """

    async def quota(self) -> Quota:
        """What is used, and the limits that there are."""

    async def deleted_octets(self, name: str) -> int:
        r"""Octets of the messages with ``\Deleted`` in a folder (RFC 9208 section 4.1.4)."""

    async def get_metadata(self, name: str, entries: Sequence[str], depth: Literal[0, 1, -1]) -> list[tuple[str, bytes | None]]:
        """Annotations (RFC 5464).

        :param name: of a folder, or an empty string for those of the mailbox as a whole.
        :param entries: in lower case, such as ``/private/comment``.
        :param depth: 0 for these entries alone, None for those that are not there; 1 with those just below, -1 with all below.
        :raises NoSuchFolder:
        """

    async def set_metadata(self, name: str, values: Sequence[tuple[str, bytes | None]]) -> None:
        """Set annotations, or remove those whose value is None, all or none.

        :data:`SPECIAL_USE` of a folder is a use in its canonical spelling; LIST and CREATE know of it.

        :raises NoSuchFolder, SpecialUseRefused, LimitReached:
        """

    async def poll(self) -> int:
        """Move waiting mail in; returns how many messages came.  Cheap when there is none."""

    async def check_consistency(self) -> list[str]:
        """Every invariant of the file that does not hold, as sentences; empty when all is well."""
