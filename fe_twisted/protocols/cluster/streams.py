"""Octets under credit: items of any size, cut into pieces, and put together again.

The receiver says how many octets may be on their way; the sender never sends more.  A receiver gives new credit when its consumer takes an
item.  While it is still putting the first item together, there is nothing yet to take, so each piece counts as taken at once: else an
item larger than the window would never arrive.

Credit is given back when it has come to half a window, because a frame for each piece would cost both sides more than the piece.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from fe_twisted.protocols.cluster.frames import MAX_BODY, PIECE, WINDOW, Data, Flags, encode_data
from fe_twisted.protocols.cluster.handshake import Reason, Refusal

Buffer = bytes | bytearray | memoryview


class Piece(NamedTuple):
    """A ``Data`` frame, ready for the wire, and the flags that it has."""

    flags: int
    frame: bytes


class Sending:
    """The sending end of one stream.

    :param credit: octets that may be sent before the receiver gives more.
    """

    __slots__ = ("_credit", "_flags", "_id", "_queue")

    def __init__(self, stream: int, credit: int) -> None:
        self._id = stream
        self._credit = credit
        self._queue: deque[memoryview] = deque()
        self._flags = Flags.NOTHING

    def push(self, item: Sequence[Buffer], flags: int) -> None:
        """Queue an item, after the one before has gone out whole.

        :param flags: what ends with it.
        """
        self._queue.extend(memoryview(part) for part in item if len(part))
        self._flags = flags

    def allow(self, octets: int) -> None:
        """The receiver gives more credit."""
        self._credit += octets

    def next(self) -> Piece | None:
        """The next piece, or None: nothing is left, or there is no credit for it."""
        if not self._queue:
            if not self._flags:
                return None
            flags, self._flags = self._flags, Flags.NOTHING
            return Piece(flags, encode_data(self._id, flags, (), 0))
        room = min(self._credit, PIECE)
        if room <= 0:
            return None
        taken: list[memoryview] = []
        before = room
        while self._queue and room:
            part = self._queue.popleft()
            if len(part) > room:
                self._queue.appendleft(part[room:])
                part = part[:room]
            taken.append(part)
            room -= len(part)
        octets = before - room
        self._credit -= octets
        flags = Flags.NOTHING
        if not self._queue:
            flags, self._flags = self._flags, Flags.NOTHING
        return Piece(flags, encode_data(self._id, flags, taken, octets))

    @property
    def done(self) -> bool:
        """Whether everything queued has gone out."""
        return not self._queue and not self._flags


class Item(NamedTuple):
    """A complete item; ``octets`` are to be given back as credit when it is taken."""

    data: bytes
    octets: int


class Receiving:
    """The receiving end of one stream.

    :param window: octets that the sender was allowed.
    :param most: octets of one item at most.
    """

    __slots__ = ("_allowed", "_due", "_most", "_owed", "_pieces", "_size", "_step", "ended", "waiting")

    def __init__(self, window: int = WINDOW, most: int = MAX_BODY) -> None:
        self._allowed = window
        self._most = most
        self._pieces: list[Buffer] = []
        self._size = 0
        #: Octets of the item that is being put together, for which no credit is due yet; and octets for which it is due, but not given.
        self._owed = 0
        self._due = 0
        self._step = (window or WINDOW) // 2
        #: Complete items that were not yet taken.
        self.waiting: deque[Item] = deque()
        #: Whether the stream has ended.
        self.ended = False

    def feed(self, piece: Data) -> int:
        """Take a piece; returns the credit to give back at once.

        :raises Refusal: more than was allowed, or after the end.
        """
        octets = len(piece.data)
        if self.ended:
            raise Refusal(Reason.UNEXPECTED, "data after the end of a stream")
        if octets > self._allowed:
            raise Refusal(Reason.CREDIT_EXCEEDED, "more octets than there was credit for")
        self._allowed -= octets
        self._size += octets
        if self._size > self._most:
            raise Refusal(Reason.TOO_LARGE, f"an item of more than {self._most} octets")
        if octets:
            self._pieces.append(piece.data)
        self._owed += octets
        if piece.flags & Flags.ITEM:
            self.waiting.append(Item(b"".join(self._pieces), self._owed))
            self._pieces, self._size, self._owed = [], 0, 0
        if piece.flags & Flags.STREAM:
            if self._pieces:
                raise Refusal(Reason.UNEXPECTED, "a stream that ends inside an item")
            self.ended = True
            return 0
        return self._release() if not self.waiting else 0

    def take(self) -> tuple[bytes, int]:
        """The next complete item, and the credit to give back; only when there is one waiting."""
        item = self.waiting.popleft()
        self._due += item.octets
        if not self.waiting:
            return item.data, self._release()
        return item.data, self._enough()

    def give(self, octets: int) -> int:
        """Count credit that is being given."""
        self._allowed += octets
        return octets

    def _release(self) -> int:
        """Nothing waits to be taken: what has come of the next item is due too."""
        self._due += self._owed
        self._owed = 0
        return self._enough()

    def _enough(self) -> int:
        """The credit to give now."""
        if self.ended or self._due < self._step:
            return 0
        due, self._due = self._due, 0
        return self.give(due)
