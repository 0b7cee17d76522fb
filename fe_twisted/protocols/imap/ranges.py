"""Sets of UIDs and sequence numbers as sorted, disjoint, inclusive ranges, and a session's view of a mailbox made of them.

A set that covers a million messages costs as much as its number of runs, and so does ``1:4294967295``: nothing here counts
through a range unless it is asked to with :func:`iterate`.  "Sorted" ranges are also *merged*: ``1:2,3:4`` is ``1:4``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from fe_twisted.protocols.imap.commands import SequenceSet
from fe_twisted.protocols.imap.search import Ranges

_END = float("inf")


def normalise(items: Iterable[tuple[int, int]]) -> Ranges:
    """Any pairs, in any order, each either way round, made into ranges.  O(n log n) in the number of pairs."""
    ordered = sorted((low, high) if low <= high else (high, low) for low, high in items)
    return _merge(ordered)


def from_sorted(numbers: Iterable[int]) -> Ranges:
    """Ranges of numbers that ascend strictly."""
    made: list[tuple[int, int]] = []
    start = last = -2
    for number in numbers:
        if number != last + 1:
            if start >= 0:
                made.append((start, last))
            start = number
        last = number
    if start >= 0:
        made.append((start, last))
    return tuple(made)


def resolve(items: SequenceSet, maximum: int, *, clamp: bool = False) -> Ranges:
    """What a client's sequence set means where the highest number is ``maximum`` (0 when there is none).

    ``*`` is the maximum, and a range may stand either way round, so ``5:*`` with a maximum of 3 is ``3:5`` (RFC 9051 section 9,
    seq-range).  Without messages every item with ``*`` means nothing.

    :param clamp: leave out what is above the maximum, as sequence numbers need it (UIDs that are not there are passed over anyway).
    """
    pairs: list[tuple[int, int]] = []
    for first, second in items:
        if first is None or second is None:
            if not maximum:
                continue
            first = maximum if first is None else first
            second = maximum if second is None else second
        low, high = (first, second) if first <= second else (second, first)
        if clamp:
            if low > maximum:
                continue
            high = min(high, maximum)
        pairs.append((low, high))
    return normalise(pairs) if len(pairs) > 1 else tuple(pairs)


def contains(ranges: Ranges, number: int) -> bool:
    """Whether the number is in one of the ranges; O(log n)."""
    at = bisect_right(ranges, (number, _END)) - 1
    return at >= 0 and number <= ranges[at][1]


def count(ranges: Ranges) -> int:
    """How many numbers."""
    return sum(high - low + 1 for low, high in ranges)


def union(left: Ranges, right: Ranges) -> Ranges:
    """The numbers in either."""
    if not left or not right:
        return left or right
    return _merge(sorted(chain(left, right)))


def intersect(left: Ranges, right: Ranges) -> Ranges:
    """The numbers in both."""
    made: list[tuple[int, int]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        low = max(left[i][0], right[j][0])
        high = min(left[i][1], right[j][1])
        if low <= high:
            made.append((low, high))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(made)


def subtract(left: Ranges, right: Ranges) -> Ranges:
    """The numbers in ``left`` that are not in ``right``."""
    made: list[tuple[int, int]] = []
    j = 0
    for low, high in left:
        while j < len(right) and right[j][1] < low:
            j += 1
        at = j
        while at < len(right) and right[at][0] <= high:
            if right[at][0] > low:
                made.append((low, right[at][0] - 1))
            low = right[at][1] + 1
            at += 1
        if low <= high:
            made.append((low, high))
        j = max(j, at - 1)
    return tuple(made)


def window(ranges: Ranges, low: int, high: int, *, newest: bool = False) -> Ranges:
    """The ``low``-th to the ``high``-th number, counted from 1; with ``newest`` from the highest number downwards."""
    total = count(ranges)
    if newest:
        low, high = total - high + 1, total - low + 1
    return UidList(ranges).uids(((low, high),)) if high >= 1 else ()


def iterate(ranges: Ranges) -> Iterator[int]:
    """Every number, ascending."""
    return chain.from_iterable(range(low, high + 1) for low, high in ranges)


def render(ranges: Ranges) -> bytes:
    """``1:3,7``; empty for no ranges, which no response may hold."""
    return b",".join([b"%d" % low if low == high else b"%d:%d" % (low, high) for low, high in ranges])


def render_sequence(numbers: Iterable[int]) -> bytes:
    """``7:9,3`` for 7, 8, 9, 3: the order is kept, as COPYUID needs it (RFC 4315 section 3)."""
    return render(in_order(numbers))


def in_order(numbers: Iterable[int]) -> Ranges:
    """The numbers as ascending runs that stand in the order given, so they are not sorted as other ranges are (RFC 5267 section 3)."""
    made: list[tuple[int, int]] = []
    for number in numbers:
        if made and number == made[-1][1] + 1:
            made[-1] = (made[-1][0], number)
        else:
            made.append((number, number))
    return tuple(made)


def _merge(ordered: Iterable[tuple[int, int]]) -> Ranges:
    made: list[tuple[int, int]] = []
    start, end = -1, -2
    for low, high in ordered:
        if low > end + 1 or start < 0:
            if start >= 0:
                made.append((start, end))
            start, end = low, high
        elif high > end:
            end = high
    if start >= 0:
        made.append((start, end))
    return tuple(made)


class UidList:
    """The messages that a session knows, in order: message sequence number ``n`` is the ``n``-th UID.

    Memory goes with the number of runs of UIDs, look-ups cost O(log runs), :meth:`remove` O(runs + removed).
    """

    __slots__ = ("_before", "_count", "_ends", "_starts")

    def __init__(self, uids: Ranges = ()) -> None:
        """:param uids: sorted ranges, as :class:`Ranges` always are."""
        self._set(uids)

    def _set(self, uids: Ranges) -> None:
        self._starts = [low for low, _ in uids]
        self._ends = [high for _, high in uids]
        #: How many messages come before each run.
        self._before: list[int] = []
        total = 0
        for low, high in uids:
            self._before.append(total)
            total += high - low + 1
        self._count = total

    def __len__(self) -> int:
        return self._count

    def __contains__(self, uid: int) -> bool:
        return self.seq(uid) is not None

    @property
    def ranges(self) -> Ranges:
        """All UIDs."""
        return tuple(zip(self._starts, self._ends, strict=True))

    @property
    def last(self) -> int:
        """The highest UID, 0 when there is none: what ``*`` means in a set of UIDs."""
        return self._ends[-1] if self._ends else 0

    def uid(self, seq: int) -> int:
        """The UID of message ``seq``, which counts from 1.

        :raises IndexError: there is no such message.
        """
        if not 1 <= seq <= self._count:
            raise IndexError(f"no message {seq} among {self._count}")
        at = bisect_right(self._before, seq - 1) - 1
        return self._starts[at] + seq - 1 - self._before[at]

    def seq(self, uid: int) -> int | None:
        """The sequence number of a UID, or None when the session does not know it."""
        at = bisect_right(self._starts, uid) - 1
        if at < 0 or uid > self._ends[at]:
            return None
        return self._before[at] + uid - self._starts[at] + 1

    def append(self, uids: Iterable[int]) -> None:
        """Add new messages at the end.

        :raises ValueError: a UID does not ascend; those before it have been added.
        """
        for uid in uids:
            last = self.last
            if uid <= last:
                raise ValueError(f"UID {uid} after {last}")
            if self._ends and uid == last + 1:
                self._ends[-1] = uid
            else:
                self._starts.append(uid)
                self._ends.append(uid)
                self._before.append(self._count)
            self._count += 1

    def remove(self, uids: Ranges) -> list[int]:
        """Forget messages.

        Returns the numbers for untagged EXPUNGE, each counted after the removals before it (RFC 9051 section 7.5.1).
        UIDs that are not here are passed over.
        """
        gone = self.sequences(uids)
        if not gone:
            return []
        self._set(subtract(self.ranges, uids))
        return [seq - before for before, seq in enumerate(iterate(gone))]

    def uids(self, seqs: Ranges) -> Ranges:
        """The UIDs of these sequence numbers; numbers above the last are passed over."""
        made: list[tuple[int, int]] = []
        for low, high in seqs:
            low, high = max(low, 1), min(high, self._count)
            if low > high:
                continue
            at = bisect_right(self._before, low - 1) - 1
            while at < len(self._before) and self._before[at] < high:
                shift = self._starts[at] - self._before[at] - 1
                made.append((max(low + shift, self._starts[at]), min(high + shift, self._ends[at])))
                at += 1
        return _merge(made)

    def known(self, uids: Ranges) -> Ranges:
        """Those of these UIDs that are here; O(log runs) for each range, however many runs there are."""
        made: list[tuple[int, int]] = []
        starts, ends = self._starts, self._ends
        for low, high in uids:
            at = bisect_left(ends, low)
            while at < len(starts) and starts[at] <= high:
                made.append((max(low, starts[at]), min(high, ends[at])))
                at += 1
        return tuple(made)

    def sequences(self, uids: Ranges) -> Ranges:
        """The sequence numbers of these UIDs; UIDs that are not here are passed over."""
        made: list[tuple[int, int]] = []
        for low, high in uids:
            at = bisect_left(self._ends, low)
            while at < len(self._starts) and self._starts[at] <= high:
                shift = self._before[at] + 1 - self._starts[at]
                made.append((max(low, self._starts[at]) + shift, min(high, self._ends[at]) + shift))
                at += 1
        return _merge(made)

    def sequence_numbers(self, uids: Sequence[int]) -> list[int | None]:
        """The sequence number of each UID, None for one that is not here; quick for ascending UIDs, right for any."""
        if not uids:
            return []
        made: list[int | None] = []
        low, high, shift = 1, 0, 0
        at = bisect_right(self._starts, min(uids)) - 1
        if at >= 0 and max(uids) <= self._ends[at]:  # all in one run
            shift = self._before[at] + 1 - self._starts[at]
            return [uid + shift for uid in uids] if shift else [*uids]
        for uid in uids:
            if not low <= uid <= high:
                at = bisect_right(self._starts, uid) - 1
                if at < 0 or uid > self._ends[at]:
                    made.append(None)
                    continue
                low, high = self._starts[at], self._ends[at]
                shift = self._before[at] + 1 - low
            made.append(uid + shift)
        return made
