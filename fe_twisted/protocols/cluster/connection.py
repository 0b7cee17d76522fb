"""Both ends of a link after each other's frames: who may say what when, and which call is in which state.

Bytes go in by ``receive``, frames go out by the ``write`` that was handed in, and what has happened is returned as events.  There is no
clock and no socket here.  :class:`Refusal` is the only exception that received bytes can raise; whoever drives the connection then calls
:meth:`Connection.refuse` and closes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fe_twisted.protocols.cluster.frames import (
    MAX_BODY,
    MAX_GREETING,
    MAX_MESSAGE,
    PIECE,
    WINDOW,
    BadFrame,
    Cancel,
    Credit,
    Data,
    Error,
    Evict,
    Flags,
    Frame,
    Notify,
    Refuse,
    Request,
    decode,
    encode,
)
from fe_twisted.protocols.cluster.handshake import Agreed, Handshake, Reason, Refusal
from fe_twisted.protocols.cluster.streams import Buffer, Receiving, Sending

__all__ = ["Answering", "Called", "Calling", "Cancelled", "Connection", "Failed", "Item", "Ready", "Refusal", "Room"]

#: Calls that may be going on at once on one connection.
MAX_CALLS = 16_384

#: Octets of request bodies that are put together at once on one connection, unless a single one is larger.
UPLOADS = 128 * 1024 * 1024

Write = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Ready:
    """Both sides have proved themselves."""

    agreed: Agreed


@dataclass(frozen=True, slots=True)
class Called:
    """A complete request has come."""

    id: int
    method: str
    mailbox: str
    key: bytes
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller wants no more of an answer; nothing more may be sent for it."""

    id: int


@dataclass(frozen=True, slots=True)
class Room:
    """There is new credit for a stream that this side sends."""

    id: int


@dataclass(frozen=True, slots=True)
class Item:
    """Something of an answer has come: look at :meth:`Calling.take`."""

    id: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer is an error."""

    id: int
    name: str
    public: str


Event = Ready | Called | Cancelled | Room | Item | Failed | Notify | Evict


class Connection:
    """What both ends share: the handshake, then frame by frame."""

    def __init__(self, handshake: Handshake, write: Write) -> None:
        self._handshake = handshake
        self._write = write
        self._closed = False
        for frame in handshake.start():
            self._send(frame)

    @property
    def agreed(self) -> Agreed | None:
        """The outcome of the handshake, when it is over."""
        return self._handshake.agreed

    def receive(self, message: bytes) -> list[Event]:
        """Take one message.

        :raises Refusal: see there.
        """
        if self._closed:
            return []
        try:
            if len(message) > (MAX_MESSAGE if self.agreed else MAX_GREETING):
                raise Refusal(Reason.TOO_LARGE, f"a message of {len(message)} octets")
            frame = decode(message)
        except BadFrame as error:
            raise Refusal(Reason.BAD_FRAME, str(error)) from error
        if isinstance(frame, Refuse):
            self._closed = True
            raise Refusal(frame.reason, frame.text, told=True)
        if self.agreed is None:
            for answer in self._handshake.receive(frame, message):
                self._send(answer)
            return [Ready(self.agreed)] if self.agreed else []
        return self._receive(frame)

    def refuse(self, refusal: Refusal) -> None:
        """Say why the connection ends, unless the other side said it; nothing is sent or taken after this."""
        if not self._closed:
            if not refusal.told:
                self._send(Refuse(refusal.reason, str(refusal)[:1000]))
            self._closed = True

    def _receive(self, frame: Frame) -> list[Event]:
        raise NotImplementedError

    def _send(self, frame: Frame) -> None:
        self._send_octets(encode(frame))

    def _send_octets(self, frame: bytes) -> None:
        if not self._closed:
            self._write(frame)


@dataclass(slots=True)
class _Answer:
    """A call as the answering side keeps it: first its body comes in, then its answer goes out."""

    request: Request
    body: Receiving | None
    sending: Sending


class Answering(Connection):
    """The primary's end."""

    def __init__(self, handshake: Handshake, write: Write, *, calls: int = MAX_CALLS) -> None:
        super().__init__(handshake, write)
        self._most = calls
        self._calls: dict[int, _Answer] = {}
        self._last = 0
        self._uploading = 0
        self._queued: deque[int] = deque()

    def answer(self, call: int, item: Sequence[Buffer], *, last: bool) -> None:
        """Queue an item of an answer, the one before being sent; :meth:`pump` sends it.  Of a call that was cancelled, nothing happens."""
        if call in self._calls:
            self._calls[call].sending.push(item, Flags.ITEM | Flags.STREAM if last else Flags.ITEM)

    def finish(self, call: int) -> None:
        """End an answer after the items that it has."""
        if call in self._calls:
            self._calls[call].sending.push((), Flags.STREAM)

    def pump(self, call: int) -> bool | None:
        """Send the next piece of an answer.

        :returns: True: sent, and there may be more.  False: there is no credit; a :class:`Room` event will come.  None: all is sent.
        """
        found = self._calls.get(call)
        if found is None:
            return None
        piece = found.sending.next()
        if piece is None:
            return None if found.sending.done else False
        if piece.flags & Flags.STREAM:
            del self._calls[call]
        self._send_octets(piece.frame)
        return True

    def fail(self, call: int, name: str, public: str) -> None:
        """End an answer with an error."""
        if self._calls.pop(call, None) is not None:
            self._send(Error(call, name, public[:1000]))

    def notify(self, mailbox: str, folder: int, modseq: int, keywords: tuple[str, ...] | None) -> None:
        """Tell of a change."""
        self._send(Notify(mailbox, folder, modseq, keywords))

    def evict(self, mailbox: str, again: bool = False) -> None:
        """Take a mailbox back; see :class:`~fe_twisted.protocols.cluster.frames.Evict`."""
        self._send(Evict(mailbox, again))

    # -- frames -----------------------------------------------------------------------------------

    def _receive(self, frame: Frame) -> list[Event]:
        if isinstance(frame, Request):
            return self._request(frame)
        if isinstance(frame, Credit | Cancel | Data):
            found = self._calls.get(frame.id)
            if found is None:
                if frame.id > self._last:
                    raise Refusal(Reason.UNEXPECTED, f"{type(frame).__name__} for a call that was never made")
                return []  # it ended while this was on its way
            if isinstance(frame, Data):
                return self._data(found, frame)
            if isinstance(frame, Cancel):
                self._forget(frame.id, found)
                return [Cancelled(frame.id)]
            found.sending.allow(frame.octets)
            return [Room(frame.id)]
        raise Refusal(Reason.UNEXPECTED, f"{type(frame).__name__} from a secondary")

    def _request(self, request: Request) -> list[Event]:
        if request.id <= self._last:
            raise Refusal(Reason.REPLAYED, "a request id that was used before")
        if len(self._calls) >= self._most:
            raise Refusal(Reason.TOO_MANY_CALLS, f"more than {self._most} calls at once")
        self._last = request.id
        found = _Answer(request, None, Sending(request.id, request.credit))
        self._calls[request.id] = found
        if len(request.body) == request.size:
            return [_called(request, request.body)]
        found.body = Receiving(0, request.size)
        self._queued.append(request.id)
        self._admit()
        return []

    def _admit(self) -> None:
        """Let bodies come in, the oldest first, as long as they find room."""
        while self._queued:
            found = self._calls.get(self._queued[0])
            if found is None or found.body is None:
                self._queued.popleft()
                continue
            if self._uploading and self._uploading + found.request.size > UPLOADS:
                return
            self._queued.popleft()
            self._uploading += found.request.size
            self._send(Credit(found.request.id, found.body.give(min(WINDOW, found.request.size))))

    def _data(self, found: _Answer, piece: Data) -> list[Event]:
        if found.body is None:
            raise Refusal(Reason.UNEXPECTED, "Data for a request that is complete")
        credit = found.body.feed(piece)
        if not found.body.ended:
            if credit:
                self._send(Credit(piece.id, credit))
            return []
        if len(found.body.waiting) != 1 or len(found.body.waiting[0].data) != found.request.size:
            raise Refusal(Reason.UNEXPECTED, "a body that is not of its size")
        body, _ = found.body.take()
        found.body = None
        self._uploading -= found.request.size
        self._admit()
        return [_called(found.request, body)]

    def _forget(self, call: int, found: _Answer) -> None:
        del self._calls[call]
        if found.body is not None and call not in self._queued:
            self._uploading -= found.request.size
        self._admit()


def _called(request: Request, body: bytes) -> Called:
    return Called(request.id, request.method, request.mailbox, request.key, body)


@dataclass(slots=True)
class _Call:
    """A call as the calling side keeps it."""

    sending: Sending | None
    receiving: Receiving


class Calling(Connection):
    """The secondary's end."""

    def __init__(self, handshake: Handshake, write: Write) -> None:
        super().__init__(handshake, write)
        self._calls: dict[int, _Call] = {}
        self._last = 0

    def __len__(self) -> int:
        """How many calls are going on."""
        return len(self._calls)

    @property
    def next_id(self) -> int:
        """What :meth:`request` will call the next call."""
        return self._last + 1

    def sent(self, call: int) -> bool:
        """Whether the whole request has gone out, or is no more."""
        found = self._calls.get(call)
        return found is None or found.sending is None

    def request(self, method: str, mailbox: str, key: bytes, body: Sequence[Buffer], *, window: int = WINDOW) -> int:
        """Make a call; returns its id.  A body larger than one piece is sent by :meth:`pump` as credit comes.

        :raises ValueError: the body is too large.
        """
        self._last += 1
        size = sum(len(part) for part in body)
        if size > MAX_BODY:
            raise ValueError(f"a request of {size} octets")
        call = _Call(None, Receiving(window))
        self._calls[self._last] = call
        inline = b"".join(body) if size <= PIECE else b""
        if size > PIECE:
            call.sending = Sending(self._last, 0)
            call.sending.push(body, Flags.ITEM | Flags.STREAM)
        self._send(Request(self._last, method, mailbox, key, window, size, inline))
        return self._last

    def pump(self, call: int) -> bool:
        """Send the next piece of a request's body; False when there is nothing to send, or no credit."""
        found = self._calls.get(call)
        if found is None or found.sending is None:
            return False
        piece = found.sending.next()
        if piece is None:
            return False
        if found.sending.done:
            found.sending = None
        self._send_octets(piece.frame)
        return True

    def take(self, call: int) -> tuple[bytes | None, bool]:
        """The next item of an answer, or None if there is none yet; and whether the answer has ended with it."""
        found = self._calls[call]
        receiving = found.receiving
        data = None
        if receiving.waiting:
            data, credit = receiving.take()
            if credit:
                self._send(Credit(call, credit))
        ended = receiving.ended and not receiving.waiting
        if ended:
            del self._calls[call]
        return data, ended

    def cancel(self, call: int) -> None:
        """Want no more of an answer; of one that has ended, nothing happens."""
        if self._calls.pop(call, None) is not None:
            self._send(Cancel(call))

    # -- frames -----------------------------------------------------------------------------------

    def _receive(self, frame: Frame) -> list[Event]:
        if isinstance(frame, Notify | Evict):
            return [frame]
        if isinstance(frame, Data | Error | Credit):
            found = self._calls.get(frame.id)
            if found is None:
                if frame.id > self._last:
                    raise Refusal(Reason.UNEXPECTED, f"{type(frame).__name__} for a call that was never made")
                return []  # it was cancelled while this was on its way
            if isinstance(frame, Data):
                credit = found.receiving.feed(frame)
                if credit:
                    self._send(Credit(frame.id, credit))
                return [Item(frame.id)] if frame.flags else []
            if isinstance(frame, Credit):
                if found.sending is None:
                    return []
                found.sending.allow(frame.octets)
                return [Room(frame.id)]
            del self._calls[frame.id]
            return [Failed(frame.id, frame.name, frame.public)]
        raise Refusal(Reason.UNEXPECTED, f"{type(frame).__name__} from a primary")
