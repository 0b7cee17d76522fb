"""How far the moves of this primary are, for whoever waits for one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fe_twisted.base.clock import Clock
from fe_twisted.protocols.cluster.streams import Buffer
from fe_twisted.protocols.cluster.values import Codec, decode, encode

#: The method's name; only the command line may ask.
PROGRESS = "move_progress"


@dataclass(frozen=True, slots=True)
class Watch:
    """Whose move is asked for."""

    mailbox: str


@dataclass(frozen=True, slots=True)
class Progress:
    """One move.

    :param step: ``copying`` while the mailbox is in use, ``closed`` while the rest is copied, ``comparing``, ``handing over`` what waits;
        empty when nothing is being moved.
    :param octets: sent so far, those that were sent again included.
    :param of: of the file when it began; what changes meanwhile comes on top.
    :param messages: that waited, and are handed over.
    :param seconds: since it began.
    """

    step: str = ""
    octets: int = 0
    of: int = 0
    messages: int = 0
    seconds: int = 0


_CODEC = Codec([Watch, Progress])
WATCH, ANSWER = _CODEC.shape(Watch), _CODEC.shape(Progress)


class Board:
    """All moves that go on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moves: dict[str, tuple[float, Progress]] = {}

    def begin(self, mailbox_id: str) -> None:
        """It begins now."""
        self._moves[mailbox_id] = self._clock.seconds(), Progress("copying")

    def end(self, mailbox_id: str) -> None:
        """It is over, whatever came of it."""
        self._moves.pop(mailbox_id, None)

    def step(self, mailbox_id: str, step: str, *, of: int | None = None) -> None:
        """The next step; ``of`` when it is known how much there is."""
        began, now = self._moves[mailbox_id]
        self._moves[mailbox_id] = began, replace(now, step=step, of=now.of if of is None else of)

    def sent(self, mailbox_id: str, *, octets: int = 0, messages: int = 0) -> None:
        """So much more."""
        began, now = self._moves[mailbox_id]
        self._moves[mailbox_id] = began, replace(now, octets=now.octets + octets, messages=now.messages + messages)

    def look(self, mailbox_id: str) -> Progress:
        """How far it is."""
        began, now = self._moves.get(mailbox_id, (self._clock.seconds(), Progress()))
        return replace(now, seconds=int(self._clock.seconds() - began))

    async def serve(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        """Answers :data:`PROGRESS`, see :class:`fe_twisted.services.cluster.desk.Serve`."""
        asked: Watch = decode(WATCH, body)
        return encode(ANSWER, self.look(asked.mailbox))
