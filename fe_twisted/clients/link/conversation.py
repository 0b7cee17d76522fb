"""One connection to a primary: questions, answers, and what it tells unasked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail

from fe_twisted.base import errors, log
from fe_twisted.base.clock import Clock
from fe_twisted.protocols.cluster.connection import Calling, Event, Failed, Item, Ready, Room
from fe_twisted.protocols.cluster.frames import Evict, Notify
from fe_twisted.protocols.cluster.handshake import Agreed, Handshake, Identity, Refusal
from fe_twisted.protocols.cluster.streams import Buffer


class LinkLost(Exception):
    """The connection ended before the answer came; whether the question was heard is not known."""


class Channel(Protocol):
    """What carries the messages."""

    def write(self, message: bytes, /) -> None:
        """Send one message."""

    def close(self) -> None:
        """Close it, after what was written."""


class Listener(Protocol):
    """Who hears what the primary tells unasked."""

    def changed(self, mailbox: str, folder: int, modseq: int, keywords: tuple[str, ...] | None) -> None:
        """See :class:`fe_twisted.protocols.cluster.frames.Notify`."""

    def evicted(self, mailbox: str) -> None:
        """See :class:`fe_twisted.protocols.cluster.frames.Evict`: its sessions must end."""

    def moved(self, mailbox: str) -> None:
        """See :class:`fe_twisted.protocols.cluster.frames.Evict`: it is to be opened again, wherever it is then."""


class Conversation:
    """A connection, from its handshake to its end.

    :param binding: names the TLS channel, empty without TLS.
    :param peer: where it leads, for the log.
    """

    def __init__(
        self, channel: Channel, clock: Clock, listener: Listener, identity: Identity, secret: bytes, binding: bytes, *, peer: str
    ) -> None:
        self._channel = channel
        self._clock = clock
        self._listener = listener
        self._peer = peer
        self._over = False
        self._paused = False
        self._answers: dict[int, Answer] = {}
        self._uploads: dict[int, None] = {}
        self._endings: list[Callable[[], None]] = []
        #: Fires when both sides have proved themselves; fails with Refusal or LinkLost.
        self.ready: Deferred[Agreed] = Deferred()
        self._agreed: Agreed | None = None
        self._calling = Calling(Handshake(identity, [secret], binding, calling=True), channel.write)

    @property
    def agreed(self) -> Agreed:
        """What was agreed on; only after :attr:`ready`."""
        assert self._agreed is not None
        return self._agreed

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over

    # -- questions --------------------------------------------------------------------------------

    def ask(self, method: str, mailbox: str, body: Sequence[Buffer], key: bytes = b"", *, timeout: float) -> Deferred[bytes]:
        """Ask for an answer of one item.

        :param mailbox: 24 hex digits, or empty.
        :param key: the idempotency key, or empty.
        :param timeout: seconds; then it is cancelled.
        :raises LinkLost: there is no connection (any more).
        :raises PrimaryAway: no answer in time.
        :raises fe_twisted.base.errors.MailError: what the primary answered.
        """
        waiting: Deferred[bytes] = Deferred()
        if self._over:
            return fail(LinkLost())
        answer = Answer(self, self._calling.next_id, waiting)
        answer.timer = self._clock.callLater(timeout, answer.late, timeout)
        self._request(answer, method, mailbox, body, key)
        return waiting

    def stream(self, method: str, mailbox: str, body: Sequence[Buffer], key: bytes = b"") -> Answer:
        """Ask for an answer of many items.

        :raises LinkLost: there is no connection (any more).
        """
        if self._over:
            raise LinkLost
        answer = Answer(self, self._calling.next_id)
        self._request(answer, method, mailbox, body, key)
        return answer

    def close(self) -> None:
        """End it."""
        if not self._over:
            self._channel.close()
            self.lost()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` when it ends."""
        self._endings.append(callback)

    # -- from the channel -------------------------------------------------------------------------

    def received(self, message: bytes) -> None:
        """A message has come."""
        try:
            events = self._calling.receive(message)
        except Refusal as refusal:
            log.warning("link.refused", peer=self._peer, reason=refusal.reason, text=str(refusal), by="primary" if refusal.told else "us")
            self._calling.refuse(refusal)
            self._channel.close()
            self.lost(refusal)
            return
        for event in events:
            self._happened(event)

    def paused(self) -> None:
        """The channel has its fill."""
        self._paused = True

    def resumed(self) -> None:
        """The channel takes more."""
        self._paused = False
        for call in list(self._uploads):
            if self._paused:
                return
            self._pump(call)

    def lost(self, reason: Exception | None = None) -> None:
        """The channel is closed, or being closed."""
        if self._over:
            return
        self._over = True
        ready, answers = self._agreed is not None, list(self._answers.values())
        self._answers.clear()
        self._uploads.clear()
        # Before those who wait hear of it, because they ask again at once, and not this connection.
        endings, self._endings = self._endings, []
        for ending in endings:
            ending()
        if not ready:
            self.ready.errback(reason or LinkLost())
        for answer in answers:
            answer.failed(LinkLost())

    # -- inside -----------------------------------------------------------------------------------

    def _request(self, answer: Answer, method: str, mailbox: str, body: Sequence[Buffer], key: bytes) -> None:
        """Everything is in its place before the request is written, because the answer may come while it is being written."""
        self._answers[answer.id] = answer
        self._uploads[answer.id] = None
        self._calling.request(method, mailbox, key, body)
        self._pump(answer.id)

    def _happened(self, event: Event) -> None:
        if isinstance(event, Item):
            answer = self._answers.get(event.id)
            if answer is not None:
                answer.more()
        elif isinstance(event, Notify):
            self._listener.changed(event.mailbox, event.folder, event.modseq, event.keywords)
        elif isinstance(event, Failed):
            failed = self._answers.get(event.id)
            if failed is not None:
                self.forget(event.id)
                failed.failed(error_of(event.name, event.public))
        elif isinstance(event, Room):
            self._pump(event.id)
        elif isinstance(event, Evict):
            (self._listener.moved if event.again else self._listener.evicted)(event.mailbox)
        elif isinstance(event, Ready):
            self._agreed = event.agreed
            self.ready.callback(event.agreed)

    def _pump(self, call: int) -> None:
        """Send of a request's body what there is credit for."""
        while not self._paused and self._calling.pump(call):
            pass
        if self._calling.sent(call):
            self._uploads.pop(call, None)

    def take(self, call: int) -> tuple[bytes | None, bool]:
        """For :class:`Answer`."""
        return self._calling.take(call)

    def forget(self, call: int) -> None:
        """For :class:`Answer`: it has ended."""
        self._answers.pop(call, None)
        self._uploads.pop(call, None)

    def cancel(self, call: int) -> None:
        """For :class:`Answer`: it is not wanted any more."""
        if self._answers.pop(call, None) is not None:
            self._uploads.pop(call, None)
            self._calling.cancel(call)


class Answer:
    """The items of one answer, as an asynchronous iterator; :meth:`close` it when it is not wanted to its end."""

    __slots__ = ("_conversation", "_ended", "_error", "_item", "_waiting", "id", "timer", "whole")

    def __init__(self, conversation: Conversation, call: int, whole: Deferred[bytes] | None = None) -> None:
        self._conversation = conversation
        self._ended = False
        self._error: Exception | None = None
        self._waiting: Deferred[None] | None = None
        self._item: bytes | None = None
        self.id = call
        #: Where an answer of one item goes.
        self.whole = whole
        self.timer: Any = None

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        """The next item.

        :raises LinkLost: the connection ended.
        :raises fe_twisted.base.errors.MailError: what the primary answered.
        """
        while not self._ended:
            if self._error is not None:
                raise self._error
            data, self._ended = self._conversation.take(self.id)
            if self._ended:
                self._conversation.forget(self.id)
            if data is not None:
                return data
            if not self._ended:
                self._waiting = Deferred()
                await self._waiting
        raise StopAsyncIteration

    def close(self) -> None:
        """Want no more; does nothing when it has ended."""
        if not self._ended and self._error is None:
            self._ended = True
            self._conversation.cancel(self.id)

    # -- from the conversation --------------------------------------------------------------------

    def more(self) -> None:
        """Something has come."""
        if self.whole is not None:
            self._collect(self.whole)
        else:
            self._wake()

    def failed(self, error: Exception) -> None:
        """It ends with an error."""
        self._error = error
        self._stop_timer()
        if self.whole is not None:
            whole, self.whole = self.whole, None
            whole.errback(error)
        else:
            self._wake()

    def late(self, seconds: float) -> None:
        """It took too long."""
        self.timer = None
        self._conversation.cancel(self.id)
        self.failed(errors.PrimaryAway(reason=f"no answer within {seconds} seconds"))

    def _collect(self, whole: Deferred[bytes]) -> None:
        """An answer of exactly one item."""
        data, ended = self._conversation.take(self.id)
        self._item = data if data is not None else self._item
        if not ended:
            return
        self._ended = True
        self._conversation.forget(self.id)
        self._stop_timer()
        self.whole = None
        if self._item is None:
            whole.errback(errors.Ours(reason="an answer without an item"))
        else:
            whole.callback(self._item)

    def _wake(self) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def _stop_timer(self) -> None:
        if self.timer is not None:
            timer, self.timer = self.timer, None
            timer.cancel()


def _classes() -> dict[str, type[errors.MailError]]:
    """Every error of :mod:`fe_twisted.base.errors` by its name."""
    return {name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.MailError)}


_CLASSES = _classes()


def error_of(name: str, public: str) -> errors.MailError:
    """The error that a primary named; one that this version does not know is a :class:`~fe_twisted.base.errors.Later`."""
    return _CLASSES.get(name, errors.Later)(public, reason=f"the primary answered {name}")


def name_of(error: errors.MailError) -> str:
    """The name to send for an error: its own class, or the nearest above it that every peer knows."""
    return next(kind.__name__ for kind in type(error).__mro__ if _CLASSES.get(kind.__name__) is kind)
