r"""The search program: what SEARCH asks, as a tree (RFC 3501 section 6.4.4, RFC 9051 section 6.4.4).

The parser makes it, the session replaces the keys that only it can answer (message sequence numbers,
``\Recent``, ``$``) by :class:`Uids`, and the mailbox turns it into SQL.  ``NEW`` is ``And(Recent(), Not(Flag))``, and so on: keys
that the RFC defines through others are written that way by the parser.
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass

#: Sorted, disjoint, inclusive ranges of UIDs or sequence numbers.
Ranges = tuple[tuple[int, int], ...]


class Compare(enum.Enum):
    """How a date or a size is compared with the message's."""

    BEFORE = "<"
    ON = "="
    SINCE = ">="
    LARGER = ">"


class DateOf(enum.Enum):
    """Which date of the message: its INTERNALDATE, its Date: header field, or when it was saved here (RFC 8514)."""

    INTERNAL = "internal"
    SENT = "sent"
    SAVED = "saved"


@dataclass(frozen=True, slots=True)
class All:
    """Every message."""


@dataclass(frozen=True, slots=True)
class And:
    """All of the keys."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Either key, or both."""

    left: Key
    right: Key


@dataclass(frozen=True, slots=True)
class Not:
    """Messages that do not match the key."""

    key: Key


@dataclass(frozen=True, slots=True)
class Sequence:
    """Message sequence numbers as the client sees them; ``None`` stands for ``*``.  Resolved by the session."""

    items: tuple[tuple[int | None, int | None], ...]


@dataclass(frozen=True, slots=True)
class UidSequence:
    """UIDs as the client wrote them; ``None`` stands for ``*``.  Resolved by the session."""

    items: tuple[tuple[int | None, int | None], ...]


@dataclass(frozen=True, slots=True)
class Recent:
    r"""Messages that are ``\Recent`` in this session.  Resolved by the session."""


@dataclass(frozen=True, slots=True)
class Saved:
    """The result saved by an earlier SEARCH (``$``, RFC 5182).  Resolved by the session."""


@dataclass(frozen=True, slots=True)
class Uids:
    """Messages with these UIDs."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Flag:
    r"""Messages that have the flag or keyword; compared without case (``\Seen``, ``$Forwarded``)."""

    name: str


@dataclass(frozen=True, slots=True)
class Header:
    """The header field exists and contains the text; an empty text asks only whether it exists.

    FROM, TO, CC, BCC and SUBJECT are this key too.  ``name`` is in lower case, ``value`` is decoded text.
    """

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Body:
    """The text stands in the body."""

    value: str


@dataclass(frozen=True, slots=True)
class Text:
    """The text stands in the header or the body."""

    value: str


@dataclass(frozen=True, slots=True)
class Date:
    """A date, without regard to time and zone (RFC 3501 section 6.4.4)."""

    of: DateOf
    compare: Compare
    day: datetime.date


@dataclass(frozen=True, slots=True)
class Size:
    """RFC822.SIZE in octets: ``LARGER n`` is ``Size(Compare.LARGER, n)``, ``SMALLER n`` is ``Size(Compare.BEFORE, n)``."""

    compare: Compare
    octets: int


@dataclass(frozen=True, slots=True)
class Modseq:
    """Changed at or after this mod-sequence (RFC 7162 section 3.1.5)."""

    value: int


@dataclass(frozen=True, slots=True)
class Within:
    """Received less (``younger``) or more than ``seconds`` ago (RFC 5032)."""

    younger: bool
    seconds: int


@dataclass(frozen=True, slots=True)
class EmailId:
    """Messages with this content, by its object id (RFC 8474 section 6)."""

    value: str


@dataclass(frozen=True, slots=True)
class ThreadId:
    """Messages of this thread (RFC 8474 section 6).

    :param number: what ``T0123456789abcdef`` stands for; 0 for an id that no thread can have.
    """

    number: int


@dataclass(frozen=True, slots=True)
class Regex:
    """The pattern matches somewhere in the field (:mod:`fe_twisted.protocols.imap.regex`).

    ``name`` is ``text``, ``body``, ``subject``, ``from``, ``to``, ``cc`` or ``bcc``.
    """

    name: str
    pattern: str


Key = (
    All
    | And
    | Or
    | Not
    | Sequence
    | UidSequence
    | Recent
    | Saved
    | Uids
    | Flag
    | Header
    | Body
    | Text
    | Date
    | Size
    | Modseq
    | Within
    | EmailId
    | ThreadId
    | Regex
)
