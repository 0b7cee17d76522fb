"""What a merge of waiting mail (:mod:`fe_twisted.services.deliver.merge`) remembers: how it goes, and whose turn it is at the next poll."""

from __future__ import annotations

from dataclasses import dataclass, field

from fe_twisted.base import errors

#: Messages in a row for which there may be no room, each smaller than the one before, before the smallest of all is tried; if there is none
#: for that one either, all wait.
SMALLER = 5

#: Seconds after which messages that were set aside are tried again; the first poll after a start tries them as well.  Twice as many each
#: time that none of them could be stored, and no more than LONGEST.
RETRY = 900.0
LONGEST = 6 * 3600.0

#: Seconds for which a mailbox that took nothing is left in peace, unless new mail comes: each command of each session polls.  Twice as many
#: each time that it was so again, and no more than RETRY.
REST = 60.0


@dataclass(slots=True)
class Progress:
    """How a merge goes.

    :param limit: messages in a row that may fail by an error of ours.
    :param whole: batches are stored as a whole or not at all, and nobody is told to be at fault.
    :param came: messages that are new in the mailbox.
    :param succeeded: some message was stored.
    :param failures: delivery ids of all that could not be stored.
    :param doubtful: those since the last success, each of which failed alone by an error of ours: it may be the mailbox.
    :param refused: those that are certainly at fault themselves, and are not marked yet.
    :param error: the last of ours.
    :param room: octets of the smallest, sealed, for which there was no room, so that no other of that size is tried.
    :param short: that error, the last.
    :param drained: all that can be tried now had their turn.
    :param shortages: how many of these there were since the last success.
    :param smallest: octets of the smallest message, sealed, while that one has its turn.
    """

    limit: int
    whole: bool = False
    came: int = 0
    succeeded: bool = False
    failures: set[bytes] = field(default_factory=set)
    doubtful: list[bytes] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)
    error: errors.Ours | None = None
    room: int | None = None
    short: errors.Later | MemoryError | None = None
    shortages: int = 0
    smallest: int = 0
    drained: bool = False

    def stored(self, news: int) -> None:
        """Messages were stored, so nothing is wrong with the mailbox, and what failed before them failed by itself."""
        self.came += news
        self.succeeded = True
        self.shortages = self.smallest = 0
        self.settle()

    @property
    def cramped(self) -> bool:
        """There was no room for so many that the smallest is to be tried next, and no other."""
        return self.shortages >= SMALLER

    def fits(self, size: int) -> bool:
        """Whether there may be room for a message of so many octets."""
        return size == self.smallest if self.cramped else self.room is None or size < self.room

    def no_room(self, size: int, error: errors.Later | MemoryError) -> None:
        """There was none, and nothing is wrong with the message.

        :raises Later, MemoryError: nor was there for the smallest.
        """
        self.room = size if self.room is None else min(size, self.room)
        self.short = error
        self.shortages += 1
        if self.shortages > SMALLER:
            raise error

    def settle(self) -> None:
        """It is not the mailbox."""
        self.refused += self.doubtful
        self.doubtful.clear()

    def failed(self, delivery_id: bytes, error: Exception) -> None:
        """A message could not be stored, or not even read.

        :raises Ours: it was one too many.
        """
        self.failures.add(delivery_id)
        if not isinstance(error, errors.Ours):
            self.refused.append(delivery_id)
            return
        self.doubtful.append(delivery_id)
        self.error = error
        if len(self.doubtful) >= self.limit:
            raise error


@dataclass(slots=True)
class Again:
    """When messages that were set aside are tried again.

    :param due: seconds of the clock.
    :param tried: delivery ids of those that had their turn and failed: when one attempt does not come to all, the next goes on behind them.
    :param pause: seconds to the next time, once all had their turn.
    :param came: some of them were stored since all had their turn.
    :param failed: some of them were not.
    """

    due: float
    tried: set[bytes] = field(default_factory=set)
    pause: float = RETRY
    came: bool = False
    failed: bool = False

    def went(self, progress: Progress) -> None:
        """Some had their turn."""
        self.tried |= progress.failures
        self.came = self.came or progress.succeeded
        self.failed = self.failed or bool(progress.failures)

    def end(self, now: float, *, short: bool) -> None:
        """All had their turn.

        :param short: but for those that there was no room for.
        """
        self.tried.clear()
        self.pause = min(2 * self.pause, LONGEST) if self.failed and not self.came else RETRY
        self.due = now + (REST if short else self.pause)
        self.came = self.failed = False


@dataclass(slots=True)
class Round:
    """Messages that failed at earlier polls, and of which nobody knows whether it was they: the polls go on with the others.

    :param tried: delivery ids of those that had their turn.
    :param ended: when all had it, so that nothing is tried for a while; None while there are others.
    :param fruitless: how often that was so, in a row.
    :param news: mail came since.
    """

    tried: set[bytes] = field(default_factory=set)
    ended: float | None = None
    fruitless: int = 0
    news: bool = False

    def resting(self, now: float) -> bool:
        """Whether those that were tried are left in peace; a clock that was set back keeps nothing out."""
        return self.ended is not None and 0 <= now - self.ended < min(REST * 2.0 ** (self.fruitless - 1), RETRY)

    def begin(self, now: float) -> None:
        """A merge begins."""
        self.news = False
        if self.ended is not None and not self.resting(now):
            self.ended = None
            self.tried.clear()

    def end(self, now: float) -> None:
        """All had their turn."""
        if self.ended is None:
            self.ended = now
            self.fruitless = min(self.fruitless + 1, 10)

    def succeeded(self) -> None:
        """It is not the mailbox."""
        self.ended = None
        self.fruitless = 0
