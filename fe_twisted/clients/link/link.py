"""A link to one primary that is made again whenever it is lost."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from fe_twisted.base import errors, log
from fe_twisted.base.clock import Clock
from fe_twisted.base.patience import spent as patience_spent
from fe_twisted.clients.link.conversation import Conversation, LinkLost, Listener
from fe_twisted.protocols.cluster.handshake import Refusal
from fe_twisted.protocols.cluster.streams import Buffer

#: Makes a connection; fires with it when both sides have proved themselves.  To be cancelled when it takes too long.
Connect = Callable[[Listener], "Deferred[Conversation]"]

#: Seconds that a question waits for a connection.
PATIENCE = 30.0

#: Seconds that an answer may take.
TIMEOUT = 120.0

#: Seconds that an attempt to connect may take, the handshake included.
ATTEMPT = 10.0

#: Seconds before the first new attempt, and at most; each attempt doubles them, and each is scattered by half.
FIRST, MOST = 0.1, 5.0

#: How often a question is asked again at most: one that kills every primary that hears it must come to an end.
REPEATS = 4


class Attached(Protocol):
    """One mailbox that is open over the link."""

    def connected(self, conversation: Conversation) -> None:
        """There is a new connection, on which nothing is open yet."""

    def changed(self, folder: int, modseq: int, keywords: tuple[str, ...] | None) -> None:
        """See :class:`fe_twisted.protocols.cluster.frames.Notify`."""

    def evicted(self) -> None:
        """The primary has taken the mailbox back."""

    def moved(self) -> None:
        """The primary has closed the mailbox because it is being moved: open it again, wherever it is then."""


class Link:
    """Stays connected from :meth:`start` to :meth:`stop`.

    :param connect: makes one connection.
    :param patience: seconds that a question waits while there is no connection.
    :param timeout: seconds that an answer may take.
    :param scatter: a random number between 0 and 1.
    """

    def __init__(
        self,
        connect: Connect,
        clock: Clock,
        *,
        name: str = "primary",
        patience: float = PATIENCE,
        timeout: float = TIMEOUT,
        scatter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._connect = connect
        self._clock = clock
        self._patience = patience
        self._timeout = timeout
        self._scatter = scatter
        self._conversation: Conversation | None = None
        self._attempt: Deferred[Any] | None = None
        self._timer: Any = None
        self._failures = 0
        self._running = False
        self._waiting: list[Deferred[Conversation]] = []
        self._attached: dict[str, Attached] = {}
        self._greeters: list[Callable[[], None]] = []
        #: Connections made so far.
        self.connections = 0

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._conversation is not None and not self._conversation.over

    def start(self) -> None:
        """Connect, and stay so."""
        if not self._running:
            self._running = True
            self._try()

    def stop(self) -> None:
        """End the connection; every question that waits fails."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._attempt is not None:
            self._attempt.cancel()
        if self._conversation is not None:
            self._conversation.close()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(errors.PrimaryAway(reason="the link was stopped"))

    def attach(self, mailbox_id: str, attached: Attached) -> Callable[[], None]:
        """Tell ``attached`` of what concerns a mailbox; returns a function that stops it."""
        self._attached[mailbox_id] = attached

        def stop() -> None:
            if self._attached.get(mailbox_id) is attached:
                del self._attached[mailbox_id]

        return stop

    def when_connected(self, greeter: Callable[[], None]) -> None:
        """Call ``greeter()`` after each new connection."""
        self._greeters.append(greeter)

    async def conversation(self, patience: float | None = None) -> Conversation:
        """The connection, waited for if there is none; what one answer waited in vain before counts (:mod:`fe_twisted.base.patience`).

        :param patience: seconds, if not the link's own.
        :raises PrimaryAway: there was none within the patience.
        """
        if self._conversation is not None and not self._conversation.over:
            return self._conversation
        if not self._running:
            raise errors.PrimaryAway(reason="the link is not running")
        spent = patience_spent()
        seconds = spent.left(self._patience if patience is None else patience)
        waiting: Deferred[Conversation] = Deferred()
        self._waiting.append(waiting)
        timer: Any = self._clock.callLater(seconds, self._impatient, waiting, seconds)
        try:
            conversation = await waiting
            spent.seconds = 0.0
            return conversation
        except errors.PrimaryAway:
            spent.seconds += seconds
            raise
        finally:
            if timer.active():
                timer.cancel()

    async def ask(
        self,
        method: str,
        mailbox: str,
        body: Sequence[Buffer],
        *,
        key: bytes = b"",
        prepare: Callable[[Conversation], Awaitable[None]] | None = None,
        timeout: float | None = None,
        patience: float | None = None,
    ) -> bytes:
        """Ask, and ask again on the next connection if this one ends before the answer.

        So the question must change nothing, or have an idempotency key, or be one that may be heard twice.

        :param prepare: to be awaited on each connection before the question is asked.
        :raises PrimaryAway: no connection, or no answer.
        :raises fe_twisted.base.errors.MailError: what the primary answered.
        """
        for _ in range(1 + REPEATS):
            conversation = await self.conversation(patience)
            try:
                if prepare is not None:
                    await prepare(conversation)
                return await conversation.ask(method, mailbox, body, key, timeout=self._timeout if timeout is None else timeout)
            except LinkLost:
                continue
        raise errors.PrimaryAway(reason=f"the connection was lost {1 + REPEATS} times during {method}")

    # -- what the primary tells -------------------------------------------------------------------

    def changed(self, mailbox: str, folder: int, modseq: int, keywords: tuple[str, ...] | None) -> None:
        """See :class:`~fe_twisted.clients.link.conversation.Listener`."""
        attached = self._attached.get(mailbox)
        if attached is not None:
            attached.changed(folder, modseq, keywords)

    def evicted(self, mailbox: str) -> None:
        """See :class:`~fe_twisted.clients.link.conversation.Listener`."""
        attached = self._attached.get(mailbox)
        if attached is not None:
            attached.evicted()

    def moved(self, mailbox: str) -> None:
        """See :class:`~fe_twisted.clients.link.conversation.Listener`."""
        attached = self._attached.get(mailbox)
        if attached is not None:
            attached.moved()

    def pause(self, seconds: float) -> Deferred[None]:
        """Fires after so many seconds."""
        waiting: Deferred[None] = Deferred()
        self._clock.callLater(seconds, waiting.callback, None)
        return waiting

    # -- staying connected ------------------------------------------------------------------------

    def _try(self) -> None:
        self._timer = None
        attempt = self._attempt = self._connect(self)
        attempt.addTimeout(ATTEMPT, self._clock)  # type: ignore[arg-type]  # Clock is what it needs of IReactorTime
        attempt.addCallbacks(self._made, self._failed).addErrback(_bug)

    def _made(self, conversation: Conversation) -> None:
        self._attempt = None
        if not self._running:
            conversation.close()
            return
        if conversation.over:
            self._later("lost at once")
            return
        self._failures = 0
        self._conversation = conversation
        self.connections += 1
        conversation.when_over(self._lost)
        log.event("link.connected", link=self.name, peer=conversation.agreed.peer.name, version=conversation.agreed.version)
        for attached in list(self._attached.values()):
            attached.connected(conversation)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(conversation)
        for greeter in list(self._greeters):
            greeter()

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        if not self._running:
            return
        if not isinstance(failure.value, Refusal | LinkLost | CancelledError | OSError) and not _is_connection_trouble(failure):
            log.failure("link.connect", failure.value or RuntimeError("unknown"), link=self.name)
        self._later(failure.getErrorMessage())

    def _lost(self) -> None:
        self._conversation = None
        if self._running:
            log.warning("link.lost", link=self.name)
            self._later("")

    def _later(self, reason: str) -> None:
        """Try again after a while, longer each time, and not all secondaries at once."""
        delay: float = min(MOST, FIRST * 2**self._failures) * (0.5 + self._scatter())
        self._failures += 1
        if reason:
            log.event("link.waiting", link=self.name, seconds=round(delay, 2), reason=reason)
        self._timer = self._clock.callLater(delay, self._try)

    def _impatient(self, waiting: Deferred[Conversation], seconds: float) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.errback(errors.PrimaryAway(reason=f"no connection within {seconds} seconds"))


def _is_connection_trouble(failure: Failure) -> bool:
    """Whether it is Twisted's word for a network that does not work, or for TLS that does not agree."""
    return type(failure.value).__module__.startswith(("twisted.internet.error", "twisted.internet.defer", "OpenSSL", "service_identity"))


def _bug(failure: Failure) -> None:
    log.failure("link.bug", failure.value or RuntimeError("unknown"))
