"""One secondary: its requests are served side by side, its answers go out under credit, and what it has open ends with it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fe_twisted.base import errors, log
from fe_twisted.clients.link.conversation import name_of
from fe_twisted.protocols.cluster.connection import Answering, Called, Cancelled, Event, Ready, Room
from fe_twisted.protocols.cluster.handshake import Agreed, Handshake, Identity, Refusal
from fe_twisted.protocols.cluster.streams import Buffer
from fe_twisted.servers.cluster.host import Guest, Host


class Channel(Protocol):
    """What carries the messages."""

    def write(self, message: bytes, /) -> None:
        """Send one message."""

    def close(self) -> None:
        """Close it, after what was written."""


class _Gone(Exception):
    """Nobody wants this answer any more."""


@dataclass(slots=True, eq=False)
class _Job:
    """An answer that is being made."""

    id: int
    gone: bool = False
    waiting: Deferred[None] | None = None

    def wake(self) -> None:
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.callback(None)


class Session:
    """The primary's end of one connection.

    :param secrets: see :class:`~fe_twisted.protocols.cluster.handshake.Handshake`.
    :param binding: names the TLS channel, empty without TLS.
    :param address: where it comes from, for the log.
    """

    def __init__(self, channel: Channel, host: Host, identity: Identity, secrets: Sequence[bytes], binding: bytes, *, address: str) -> None:
        self._channel = channel
        self._host = host
        self._peer = address
        self._guest: Guest | None = None
        self._jobs: dict[int, _Job] = {}
        self._turns: deque[_Job] = deque()
        self._paused = False
        self._over = False
        self._untold: dict[tuple[str, int], int] = {}
        self._new_words: dict[str, tuple[str, ...]] = {}
        self._answering = Answering(Handshake(identity, secrets, binding, calling=False), channel.write)

    @property
    def ready(self) -> bool:
        """Whether the secondary has proved itself."""
        return self._guest is not None

    @property
    def peer(self) -> str:
        """Its name and address, as far as known."""
        return self._peer

    # -- from the channel -------------------------------------------------------------------------

    def received(self, message: bytes) -> None:
        """A message has come."""
        if self._over:
            return
        try:
            events = self._answering.receive(message)
        except Refusal as refusal:
            self.refuse(refusal)
            return
        for event in events:
            self._happened(event)

    def refuse(self, refusal: Refusal) -> None:
        """End the connection for a named reason."""
        by = "secondary" if refusal.told else "us"
        log.warning("cluster.refused", peer=self._peer, reason=refusal.reason, text=str(refusal), by=by)
        self._answering.refuse(refusal)
        self._channel.close()
        self.lost()

    def paused(self) -> None:
        """The channel has its fill."""
        self._paused = True

    def resumed(self) -> None:
        """The channel takes more: tell what was held back, then let the answers go on, each in its turn."""
        self._paused = False
        if not self._over:
            self._tell()
        while self._turns and not self._paused:
            self._turns.popleft().wake()

    def lost(self) -> None:
        """The channel is closed: nothing is answered any more, and nothing stays open for this secondary."""
        if self._over:
            return
        self._over = True
        guest, self._guest = self._guest, None
        for job in list(self._jobs.values()):
            job.gone = True
            job.wake()
        if guest is not None:
            log.event("cluster.left", peer=self._peer)
            guest.leave()

    def _happened(self, event: Event) -> None:
        if isinstance(event, Called) and self._guest is not None:
            job = self._jobs[event.id] = _Job(event.id)
            Deferred.fromCoroutine(self._serve(self._guest, job, event)).addErrback(_bug)
        elif isinstance(event, Room | Cancelled):
            found = self._jobs.get(event.id)
            if found is not None:
                found.gone = found.gone or isinstance(event, Cancelled)
                found.wake()
        elif isinstance(event, Ready):
            self._welcome(event.agreed)

    def _welcome(self, agreed: Agreed) -> None:
        self._peer = f"{agreed.peer.name} ({self._peer})"
        log.event("cluster.joined", peer=self._peer, version=agreed.version, capabilities=",".join(agreed.peer.capabilities))
        self._guest = self._host.welcome(self._peer, self._notify, self._evict, agreed.keys.unwrap)

    # -- answers ----------------------------------------------------------------------------------

    async def _serve(self, guest: Guest, job: _Job, called: Called) -> None:
        try:
            answer = await guest.call(called.method, called.mailbox, called.key, called.body)
            if isinstance(answer, AsyncGenerator):
                await self._stream(job, answer)
            else:
                await self._send(job, answer, last=True)
        except _Gone:
            pass
        except errors.MailError as error:
            # A key that opens nothing was refused by name already.
            if isinstance(error, errors.Ours) and not (called.method == "open" and isinstance(error, errors.DamagedFile)):
                log.failure("cluster.failed", error, peer=self._peer, method=called.method, mailbox=called.mailbox, reason=error.reason)
            self._fail(job, error)
        except Exception as error:
            log.failure("cluster.failed", error, peer=self._peer, method=called.method, mailbox=called.mailbox)
            self._fail(job, errors.Ours())
        finally:
            self._jobs.pop(job.id, None)

    def _fail(self, job: _Job, error: errors.MailError) -> None:
        if not self._over:
            self._tell()
            self._answering.fail(job.id, name_of(error), error.public)

    async def _stream(self, job: _Job, items: AsyncGenerator[Sequence[Buffer], None]) -> None:
        """Send items as they come, one behind, so that the last goes out together with the end."""
        held: Sequence[Buffer] | None = None
        try:
            async for item in items:
                if held is not None:
                    await self._send(job, held, last=False)
                held = item
        finally:
            await items.aclose()
        if held is not None:
            await self._send(job, held, last=True)
        else:
            self._tell()
            self._answering.finish(job.id)
            await self._pump(job)

    async def _send(self, job: _Job, item: Sequence[Buffer], *, last: bool) -> None:
        """Send an item whole, after the news that it may be about.

        :raises _Gone: nobody wants it any more.
        """
        self._tell()
        self._answering.answer(job.id, item, last=last)
        await self._pump(job)

    async def _pump(self, job: _Job) -> None:
        while True:
            if job.gone or self._over:
                raise _Gone
            if self._paused:
                self._turns.append(job)
            else:
                sent = self._answering.pump(job.id)
                if sent is None:
                    return
                if sent:
                    continue
            job.waiting = Deferred()
            await job.waiting

    # -- what is told unasked ---------------------------------------------------------------------

    def _notify(self, mailbox: str, folder: int, modseq: int, keywords: tuple[str, ...] | None) -> None:
        """Tell of a change at once: nobody who has been answered, over whichever link, may find it untold over another.

        While the channel has its fill, remember only the newest of each folder.
        """
        if not self._paused:
            self._answering.notify(mailbox, folder, modseq, keywords)
            return
        self._untold[mailbox, folder] = modseq
        if keywords is not None:
            self._new_words[mailbox] = keywords

    def _tell(self) -> None:
        """Say what was held back.  Before any answer, so that who has the answer also knows of the change."""
        untold, self._untold = self._untold, {}
        words, self._new_words = self._new_words, {}
        for (mailbox, folder), modseq in untold.items():
            self._answering.notify(mailbox, folder, modseq, words.pop(mailbox, None))

    def _evict(self, mailbox: str, again: bool) -> None:
        for held in [held for held in self._untold if held[0] == mailbox]:
            del self._untold[held]
        self._new_words.pop(mailbox, None)
        self._answering.evict(mailbox, again)


def _bug(failure: Failure) -> None:
    log.failure("cluster.bug", failure.value or RuntimeError("unknown"))
