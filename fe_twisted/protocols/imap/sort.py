"""SORT, THREAD and their arguments (RFC 5256, RFC 5267 section 3, RFC 5957), and the shape of threads."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from fe_twisted.protocols.imap.grammar import Reader
from fe_twisted.protocols.imap.search import Key
from fe_twisted.protocols.imap.searchkeys import converted, returns

#: Criteria of one SORT; there are nine keys, and a key that comes again decides nothing.
MAX_CRITERIA = 32


class SortKey(enum.Enum):
    """What messages are compared by."""

    ARRIVAL = "ARRIVAL"
    CC = "CC"
    DATE = "DATE"
    FROM = "FROM"
    SIZE = "SIZE"
    SUBJECT = "SUBJECT"
    TO = "TO"
    DISPLAYFROM = "DISPLAYFROM"
    DISPLAYTO = "DISPLAYTO"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One key, and whether the order by it is turned round."""

    key: SortKey
    reverse: bool = False


class Algorithm(enum.Enum):
    """How THREAD finds threads."""

    ORDEREDSUBJECT = "ORDEREDSUBJECT"
    REFERENCES = "REFERENCES"


@dataclass(frozen=True, slots=True)
class Sort:
    """SORT and UID SORT.

    :param criteria: the first decides, the others where it does not; each key once.
    :param returns: as in :class:`~fe_twisted.protocols.imap.commands.Search` (RFC 5267 section 3), or None without RETURN.
    :param unknown_charset: as there.
    """

    criteria: tuple[Criterion, ...]
    program: Key
    returns: tuple[str, ...] | None = None
    unknown_charset: bool = False


@dataclass(frozen=True, slots=True)
class Thread:
    """THREAD and UID THREAD."""

    algorithm: Algorithm
    program: Key


#: Messages from top to bottom, each with its depth: ``(uid, 0)`` begins a thread, its replies have depth 1, and so on.  A uid of 0 at
#: depth 0 stands for a message that is not there, of which there are at least two children.
Outline = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads, written once for UIDs and for message sequence numbers alike.

    :param uids: all messages in the order in which the response names them.
    :param shape: the THREAD response (RFC 5256 section 4) with ``%d`` for each number: ``(%d)(%d %d (%d %d)(%d %d %d))``.
    """

    uids: Sequence[int]
    shape: str

    def response(self, numbers: Sequence[int]) -> bytes:
        """``* THREAD (2)(3 6 (4 23)(44 7 96))``, also for no threads.

        :param numbers: what to write for each of :attr:`uids`.
        """
        return ("* THREAD" + (" " if numbers else "") + self.shape % tuple(numbers) + "\r\n").encode("ascii")


def sort(reader: Reader) -> Sort:
    """SORT after its name.

    :raises BadSyntax:
    :raises UnknownCharset:
    """
    reader.space()
    options = returns(reader)
    criteria = reader.parenthesised(_criterion)
    if len(criteria) > MAX_CRITERIA:
        reader.fail(f"more than {MAX_CRITERIA} sort criteria")
    once: dict[SortKey, Criterion] = {}
    for criterion in criteria:
        once.setdefault(criterion.key, criterion)
    reader.space()
    key, unknown = converted(reader, _charset(reader), options)
    return Sort(tuple(once.values()), key, options, unknown)


def thread(reader: Reader) -> Thread:
    """THREAD after its name.

    :raises BadSyntax:
    :raises UnknownCharset:
    """
    reader.space()
    start = reader.at
    name = reader.word("a threading algorithm")
    if name not in Algorithm.__members__:
        reader.fail("expected ORDEREDSUBJECT or REFERENCES", start)
    reader.space()
    return Thread(Algorithm[name], converted(reader, _charset(reader), None)[0])


def _criterion(reader: Reader) -> Criterion:
    start = reader.at
    word = reader.word("a sort criterion")
    reverse = word == "REVERSE"
    if reverse:
        reader.space()
        word = reader.word("a sort criterion")
    if word not in SortKey.__members__:
        reader.fail("expected ARRIVAL, CC, DATE, FROM, SIZE, SUBJECT, TO, DISPLAYFROM or DISPLAYTO", start)
    return Criterion(SortKey[word], reverse)


def _charset(reader: Reader) -> str:
    """It is not optional here; and a space."""
    charset = reader.astring("a charset").decode("ascii", "replace")
    reader.space()
    return charset


def threads(outline: Outline) -> Threads:
    """Write the parentheses.  They are made from the depths, so that no depth is too deep."""
    words: list[str] = []
    only_child = [False] * (max((depth for _, depth in outline), default=0) + 1)  # by depth: what comes below has no siblings
    opened: list[int] = []  # depths whose parenthesis is not closed yet
    for (uid, depth), children in zip(outline, _children(outline), strict=True):
        while opened and opened[-1] >= depth:
            opened.pop()
            words.append(")")
        if depth and only_child[depth - 1]:
            words.append(" %d")
        else:
            # a space between a message and its first branch, and none between branches or after a message that is not there
            if depth and words[-1] not in ("(", ")"):
                words.append(" ")
            words.append("(%d" if uid else "(")
            opened.append(depth)
        only_child[depth] = children == 1
    return Threads([uid for uid, _ in outline if uid], "".join(words) + ")" * len(opened))


def _children(outline: Outline) -> list[int]:
    """How many children each message has."""
    counts = [0] * len(outline)
    last = [0] * (max((depth for _, depth in outline), default=0) + 1)  # by depth: where the last message was
    for position, (_, depth) in enumerate(outline):
        last[depth] = position
        if depth:
            counts[last[depth - 1]] += 1
    return counts
