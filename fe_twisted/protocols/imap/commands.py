"""IMAP commands as data: what the parser makes and the server carries out (RFC 3501 section 6, RFC 9051 section 6).

Mailbox names are Unicode (decoded from modified UTF-7, or UTF-8 once enabled), with INBOX in upper case.  Texts that the standard calls
astring are ``bytes`` where any octets may come (user names, passwords) and ``str`` elsewhere.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fe_twisted.protocols.imap.search import Key

#: ``1:3,7,9:*`` as the client wrote it; ``None`` stands for ``*``.
SequenceSet = tuple[tuple[int | None, int | None], ...]

#: ``$``, the result of the last SEARCH RETURN (SAVE) (RFC 5182), where a sequence set may stand; 0 is no number that a client may write.
SAVED: SequenceSet = ((0, 0),)


@dataclass(frozen=True, slots=True)
class Command:
    """One complete, well-formed command.

    :param tag: as sent, to be repeated in the answer.
    :param name: upper case, without UID: ``FETCH``.
    :param uid: it was prefixed with UID.
    :param arguments: one of the classes below, or None for a command that takes none.
    """

    tag: str
    name: str
    uid: bool = False
    arguments: object = None


@dataclass(frozen=True, slots=True)
class BadCommand:
    """A line that the grammar does not allow; the stream is in step again after it.

    :param tag: as sent, or ``*`` when not even a tag could be read.
    :param text: what was wrong and where, for the client.
    :param error_code: a response code such as ``TOOBIG``, or an empty string.
    :param fatal: the stream cannot be brought in step again; answer ``* BYE`` and close.
    :param refused: the syntax is right but the request is not possible: answer NO instead of BAD (``BADCHARSET``, RFC 9051 section 6.4.4).
    """

    tag: str
    text: str
    error_code: str = ""
    fatal: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True)
class NeedContinuation:
    """A synchronising literal was announced and is allowed; answer ``+`` so that the client sends it.

    :param size: octets announced.
    """

    size: int


@dataclass(frozen=True, slots=True)
class ContinuationLine:
    """A line read while the server had asked for one (AUTHENTICATE, IDLE), without CR LF."""

    line: bytes


Event = Command | BadCommand | NeedContinuation | ContinuationLine


@dataclass(frozen=True, slots=True)
class Login:
    """LOGIN."""

    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return "Login(…)"


@dataclass(frozen=True, slots=True)
class Authenticate:
    """AUTHENTICATE; ``initial`` is the still base64-coded initial response (RFC 4959), or None."""

    mechanism: str
    initial: bytes | None

    def __repr__(self) -> str:
        return f"Authenticate({self.mechanism!r}, …)"


@dataclass(frozen=True, slots=True)
class Enable:
    """ENABLE (RFC 5161); names in upper case."""

    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compress:
    """COMPRESS (RFC 4978); the mechanism in upper case."""

    mechanism: str


@dataclass(frozen=True, slots=True)
class Id:
    """ID (RFC 2971); empty for NIL."""

    fields: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Resync:
    """The parameter QRESYNC of SELECT (RFC 7162 section 3.2.5).

    :param modseq: what the client knows of the folder is its state at this modseq.
    :param known: the UIDs that it knows; None for all there ever were.
    :param match: message numbers and the UIDs that they had, pair by pair, as the client wrote them, or None.
    """

    uidvalidity: int
    modseq: int
    known: SequenceSet | None = None
    match: tuple[SequenceSet, SequenceSet] | None = None


@dataclass(frozen=True, slots=True)
class Select:
    """SELECT or EXAMINE."""

    mailbox: str
    condstore: bool = False
    resync: Resync | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """A page of a result (RFC 9394): the ``low``-th to the ``high``-th message, counted from 1.

    :param newest: counted from the last message backwards.
    :param text: as the client wrote it, for the answer.
    """

    low: int
    high: int
    newest: bool
    text: str


@dataclass(frozen=True, slots=True)
class Create:
    """CREATE, with the special uses asked for (RFC 6154)."""

    mailbox: str
    special_use: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mailbox:
    """DELETE, SUBSCRIBE, UNSUBSCRIBE."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Rename:
    """RENAME."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class List:
    """LIST and LSUB; selection and return options (RFC 5258) in upper case, ``status`` the items of RETURN (STATUS (…))."""

    reference: str
    patterns: tuple[str, ...]
    selection: tuple[str, ...] = ()
    returns: tuple[str, ...] = ()
    status: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """STATUS; items in upper case, in the order asked."""

    mailbox: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MessageUrl:
    """A message of one's own, or a part of it, as CATENATE names it (RFC 4469, RFC 5092).

    :param text: as the client wrote it.
    :param mailbox: empty for the selected one.
    :param section: None for the whole message.
    """

    text: str
    mailbox: str
    uidvalidity: int | None
    uid: int
    section: Section | None = None
    partial: tuple[int, int | None] | None = None


@dataclass(frozen=True, slots=True)
class AppendMessage:
    """One message of APPEND.

    :param parts: what CATENATE puts together; then ``content`` is empty.
    """

    content: bytes
    flags: frozenset[str] = frozenset()
    internaldate: datetime.datetime | None = None
    parts: tuple[bytes | MessageUrl, ...] = ()


@dataclass(frozen=True, slots=True)
class Append:
    """APPEND; more than one message only with MULTIAPPEND."""

    mailbox: str
    messages: tuple[AppendMessage, ...]


@dataclass(frozen=True, slots=True)
class Replace:
    """REPLACE and UID REPLACE (RFC 8508).

    :param number: a message number or UID; None for ``*``.
    """

    number: int | None
    mailbox: str
    message: AppendMessage


class Section(NamedTuple):
    """The part of a message that a BODY[…] names (RFC 9051 section 6.4.5.1).

    :param path: part numbers, empty for the message itself.
    :param text: an empty string for the whole part, or ``HEADER``, ``HEADER.FIELDS``, ``HEADER.FIELDS.NOT``, ``TEXT``, ``MIME``.
    :param fields: header field names as the client wrote them.
    """

    path: tuple[int, ...] = ()
    text: str = ""
    fields: tuple[str, ...] = ()


class FetchItem(NamedTuple):
    r"""One data item of FETCH; a tuple, because plans are looked up by it.

    :param name: ``FLAGS``, ``UID``, ``INTERNALDATE``, ``RFC822.SIZE``, ``ENVELOPE``, ``BODY`` (no section), ``BODYSTRUCTURE``, ``BODY[]``
        (with a section), ``RFC822``, ``RFC822.HEADER``, ``RFC822.TEXT``, ``MODSEQ``, ``BINARY[]``, ``BINARY.SIZE[]``, …  ALL, FAST and
        FULL are expanded.
    :param peek: the item must not set ``\Seen``.
    :param partial: ``(origin, octets)`` of ``<origin.octets>``, or None.
    :param label: the octets that the answer names the item with, such as ``BODY[HEADER.FIELDS (DATE)]<0>``.
    """

    name: str
    section: Section | None = None
    peek: bool = True
    partial: tuple[int, int] | None = None
    label: bytes = b""


@dataclass(frozen=True, slots=True)
class Fetch:
    """FETCH and UID FETCH, with modifiers such as CHANGEDSINCE (RFC 4466)."""

    messages: SequenceSet
    items: tuple[FetchItem, ...]
    changed_since: int | None = None
    vanished: bool = False
    partial: Partial | None = None


@dataclass(frozen=True, slots=True)
class EventGroup:
    """Which events of which mailboxes (RFC 5465 section 8).

    :param which: ``SELECTED``, ``SELECTED-DELAYED``, ``INBOXES``, ``PERSONAL``, ``SUBSCRIBED``, ``SUBTREE``, ``SUBTREE-ONE``,
        ``MAILBOXES``.
    :param names: the mailboxes of the last three.
    :param events: in upper case, whatever the client wrote; empty for NONE.
    :param items: what FETCH tells of a new message in the selected mailbox.
    """

    which: str
    names: tuple[str, ...]
    events: frozenset[str]
    items: tuple[FetchItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Notify:
    """NOTIFY SET, or NOTIFY NONE, which has no groups (RFC 5465).

    :param status: STATUS responses of the mailboxes are wanted now.
    """

    groups: tuple[EventGroup, ...]
    status: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """STORE and UID STORE."""

    messages: SequenceSet
    action: Literal["add", "remove", "replace"]
    flags: frozenset[str]
    silent: bool = False
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY and MOVE, with or without UID."""

    messages: SequenceSet
    mailbox: str


@dataclass(frozen=True, slots=True)
class Expunge:
    """UID EXPUNGE (RFC 4315)."""

    messages: SequenceSet


@dataclass(frozen=True, slots=True)
class Search:
    """SEARCH and UID SEARCH.

    :param charset: in upper case; None when the client named none.
    :param returns: the RETURN options of ESEARCH in upper case, or None without RETURN.
    :param partial: the page asked for with PARTIAL among them.
    :param unknown_charset: the charset cannot be read, and neither was the program.
    """

    program: Key
    charset: str | None = None
    returns: tuple[str, ...] | None = None
    partial: Partial | None = None
    unknown_charset: bool = False
