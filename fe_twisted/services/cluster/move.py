"""A mailbox moves from this primary to another while it is being used.

1. The file is copied while it is open, then again what has changed meanwhile.
2. It is closed, and whoever opens it waits.  The rest is copied; the target makes it durable, reads it again, and its digest is compared.
3. The directory is changed, by compare and set.  **From here on the target has the mailbox**, and what waited looks it up there.
4. Mail that waits here for its owner is handed over, sealed as it is.
5. The target is asked whether it holds the mailbox; then the old copy is deleted.

Until 3 nothing has happened but that there is a useless file at the target; after it, 4 and 5 are done as soon as they can be: by this
move, by its repetition, or by :meth:`Moves.tidy` at the next start.  So a crash at any moment leaves one mailbox, where the directory says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

from fe_twisted.base import errors, faults, log
from fe_twisted.base.clock import Clock
from fe_twisted.clients.link.conversation import Conversation, LinkLost
from fe_twisted.clients.link.link import Link
from fe_twisted.protocols.cluster.streams import Buffer
from fe_twisted.protocols.cluster.values import Codec, decode, encode
from fe_twisted.services.cluster import arrive
from fe_twisted.services.cluster.desk import Serve
from fe_twisted.services.cluster.home import Home
from fe_twisted.services.cluster.host import HANDOVER, UNKNOWN, Handover, Sealed
from fe_twisted.services.cluster.progress import PROGRESS, Board
from fe_twisted.services.deliver.gate import Gate
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.mailbox.transfer import AT_ONCE, MAIN, WAL, Outgoing, Piece, Whole
from fe_twisted.storage.spool.spool import Spool
from fe_twisted.storage.sqlite.writer import RunInThread

#: Seconds to wait for a connection to the target.
PATIENCE = 10.0

#: Seconds for a block to be taken, and for the whole file to be made durable and read again.
BLOCK_TIMEOUT = 60.0
END_TIMEOUT = 1800.0

#: Times that the file is copied while it is open, at most; fewer when little has changed the last time.
ROUNDS = 3

#: Seconds for others on this machine to let go of the file.
UNLOCK = 10.0

#: Seconds before the directory is asked again to be changed, when it did not say whether it was.
AGAIN = (1.0, 2.0, 4.0, 8.0)

#: Seconds between two looks for what is left of moves.
TIDY = 300.0

#: One handover: messages at most, and octets at most (a larger message goes alone).
BATCH_MESSAGES = 200
BATCH_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Move:
    """What is asked for."""

    mailbox: str
    location: str


@dataclass(frozen=True, slots=True)
class Done:
    """What has been done.

    :param octets: of the file.
    :param messages: that waited, and were handed over.
    :param tidy: whether nothing is left here; else that is done later.
    """

    octets: int
    messages: int
    tidy: bool


#: What the command line asks; ``move`` is a method of mailboxes.
MOVING = "move_mailbox"

CODEC = Codec([Move, Done])
MOVE, DONE = CODEC.shape(Move), CODEC.shape(Done)


class LinkOf(Protocol):
    """Such as :meth:`fe_twisted.app.links.Links.of`."""

    def __call__(self, location: str, /) -> Link | None:
        """The link to the primary of a location; None where none is known."""


class Moves:
    """All moves away from this primary; a desk of :class:`fe_twisted.services.cluster.host.Host`, for the command line only.

    :param link_of: the links to other primaries.
    :param gate: the one that deliveries go through.
    """

    def __init__(
        self,
        home: Home,
        link_of: LinkOf,
        files: MailboxFiles,
        mailboxes: OpenMailboxes[LocalMailbox],
        spool: Spool,
        gate: Gate,
        run_in_thread: RunInThread,
        clock: Clock,
    ) -> None:
        self._home = home
        self._link_of = link_of
        self._files = files
        self._mailboxes = mailboxes
        self._spool = spool
        self._gate = gate
        self._run_in_thread = run_in_thread
        self._clock = clock
        self._board = Board(clock)
        self._moving: dict[str, list[Deferred[None]]] = {}
        #: What targets have not answered yet.
        self._asked: set[Deferred[bytes]] = set()
        #: What the targets called what they were brought, until it is deleted here.
        self._tokens: dict[str, bytes] = {}
        self._running = False
        self._timer: Any = None

    def methods(self) -> Mapping[str, Serve]:
        """See :class:`fe_twisted.services.cluster.desk.Desk`."""
        return {MOVING: self._move, PROGRESS: self._board.serve}

    def left(self, guest: object) -> None:
        """A move that has begun is finished all the same."""

    def start(self) -> None:
        """Remove what a crash left of mailboxes on their way here, and finish what was begun from here."""
        self._files.drop_incoming()
        self._running = True
        self.look()

    async def stop(self) -> None:
        """Begin nothing more; returns when what is going on has come to a place where it can be left."""
        self._running = False
        self._stop_timer()
        for asked in list(self._asked):
            asked.cancel()
        while self._moving:
            waiting: Deferred[None] = Deferred()
            next(iter(self._moving.values())).append(waiting)
            await waiting

    def look(self) -> None:
        """Tidy now, and again while there is something; to be called when a link is connected."""
        self._stop_timer()
        if self._running:
            Deferred.fromCoroutine(self.tidy()).addBoth(self._tidied)

    async def move(self, mailbox_id: str, location: str) -> Done:
        """Move a mailbox to another primary, or finish that.

        :raises NotFound: nobody has such a mailbox.
        :raises AlreadyExists: it is there, and nothing is left here.
        :raises Refused: it is not here, or there is no such location, or its primary is too old.
        :raises Busy: it is being moved, or somebody on this machine does not let go of the file.
        :raises PrimaryAway: the target cannot be reached, or was lost on the way; the mailbox is where it was.
        :raises fe_twisted.base.errors.MailError: a disk or the directory refused; the directory says where the mailbox is.
        """
        link = await self._check(mailbox_id, location)
        self._begin(mailbox_id)
        try:
            if await self._home.places.location_of(mailbox_id) == location:
                octets = 0
            else:
                octets = await self._copy(link, mailbox_id, location)
            return await self._rest(link, mailbox_id, octets)
        except BaseException:
            self._look_later()  # the directory may have been changed all the same
            raise
        finally:
            self._end(mailbox_id)

    async def tidy(self) -> bool:
        """Finish moves whose mailbox is elsewhere already; False while something is left."""
        here = set(self._files.ids()) | set(self._files.waiting_ids())
        if not here:
            return True
        clean = True
        for mailbox_id, location in (await self._home.places.elsewhere(self._home.location)).items():
            if mailbox_id not in here or mailbox_id in self._home.busy or not self._running:
                continue
            link = self._link_of(location)
            if link is None or not link.connected:
                clean = False
                continue
            self._begin(mailbox_id)
            try:
                # Asked again, because from now on it cannot come back here.
                if await self._home.places.location_of(mailbox_id) == location:
                    clean = (await self._rest(link, mailbox_id, 0)).tidy and clean
            finally:
                self._end(mailbox_id)
        return clean

    # -- what is asked ----------------------------------------------------------------------------

    async def _move(self, guest: object, name: str, body: bytes) -> Sequence[Buffer]:
        asked: Move = decode(MOVE, body)
        log.event("move.asked", mailbox=asked.mailbox, to=asked.location, peer=name)
        return encode(DONE, await self.move(asked.mailbox, asked.location))

    async def _check(self, mailbox_id: str, location: str) -> Link:
        """The link to the target, if the move makes sense.

        :raises fe_twisted.base.errors.MailError: see :meth:`move`.
        """
        if not self._running:
            raise errors.Later("the server is stopping")
        current = await self._home.places.location_of(mailbox_id)
        if current is None:
            raise errors.NotFound("there is no such mailbox")
        if location == self._home.location:
            where = "here already" if current == location else f"at {current}; ask the server there to move it"
            raise errors.AlreadyExists(f"the mailbox is {where}")
        link = self._link_of(location)
        if link is None:
            raise errors.Refused(f"there is no location {location}; the setting primaries names all that this server knows")
        left = self._files.exists(mailbox_id) or self._spool.waiting(mailbox_id)
        if current == location and not left:
            raise errors.AlreadyExists(f"the mailbox is at {location} already")
        if current not in (location, self._home.location):
            raise errors.Refused(f"the mailbox is at {current}; ask the server there to move it")
        if current != location and not self._files.exists(mailbox_id):
            raise errors.DamagedFile("the mailbox has no file here; restore it from a backup")
        if mailbox_id in self._home.busy:
            raise errors.Busy("this mailbox is being moved already")
        return link

    # -- 1, 2: the file ---------------------------------------------------------------------------

    async def _copy(self, link: Link, mailbox_id: str, location: str) -> int:
        """Everything up to the directory; returns the octets of the file."""
        try:
            conversation = await link.conversation(PATIENCE)
            source: Outgoing = await self._run_in_thread(partial(Outgoing, self._files, mailbox_id))
            try:
                return await self._bring(_Target(conversation, mailbox_id, self._ask), source, mailbox_id, location)
            finally:
                await self._run_in_thread(source.close)
        except CancelledError as error:
            raise errors.Later("the server is stopping; the mailbox is where it was") from error
        except errors.DiskFull as error:  # nothing is written here before the directory is changed
            raise errors.DiskFull(f"the disk of {location} has no room for it; the mailbox is where it was", reason=error.reason) from error
        except LinkLost as error:
            raise errors.PrimaryAway(f"the connection to {location} was lost; the mailbox is where it was", reason="moving") from error
        except errors.PrimaryAway as error:
            raise errors.PrimaryAway(f"{location} cannot be reached or does not answer", reason=error.reason) from error

    async def _bring(self, target: _Target, source: Outgoing, mailbox_id: str, location: str) -> int:
        size: int = await self._run_in_thread(source.size)
        self._board.step(mailbox_id, "copying", of=size)
        await target.begin(size)
        try:
            for _ in range(ROUNDS):
                if await self._send(target, source, MAIN) <= AT_ONCE:
                    break
            faults.reach("move.copied")
            async with self._mailboxes.frozen(mailbox_id):
                faults.reach("move.frozen")
                self._board.step(mailbox_id, "closed")
                await self._lock(source)
                for part in (MAIN, WAL):
                    await self._send(target, source, part)
                faults.reach("move.sent")
                self._board.step(mailbox_id, "comparing")
                whole: Whole = await self._run_in_thread(source.whole)
                await target.end(whole)
                self._tokens[mailbox_id] = target.token
                faults.reach("move.verified")
                await self._decide(mailbox_id, location)
                faults.reach("move.decided")
        finally:
            if self._running:
                await target.stop()
        log.event("move.decided", mailbox=mailbox_id, to=location, octets=sum(whole.sizes))
        return sum(whole.sizes)

    async def _send(self, target: _Target, source: Outgoing, part: int) -> int:
        """Send the blocks that are not as they were; returns how many."""
        sent = 0
        at: int | None = 0
        while at is not None:
            if not self._running:
                raise errors.Later("the server is stopping; the mailbox is where it was")
            scanned = await self._run_in_thread(partial(source.scan, part, at))
            await gatherResults([target.block(piece) for piece in scanned.pieces], consumeErrors=True).addErrback(_first)
            sent += len(scanned.pieces)
            self._board.sent(target.mailbox_id, octets=sum(len(piece.octets) for piece in scanned.pieces))
            at = scanned.next
        return sent

    async def _lock(self, source: Outgoing) -> None:
        """:raises Busy: somebody else on this machine has the file open."""
        until = self._clock.seconds() + UNLOCK
        while not await self._run_in_thread(source.lock):
            if self._clock.seconds() >= until:
                raise errors.Busy("another program on this machine has the mailbox open; nothing was moved")
            await self._pause(0.1)

    # -- 3: the directory -------------------------------------------------------------------------

    async def _decide(self, mailbox_id: str, location: str) -> None:
        """Change the directory, with nobody delivering here meanwhile."""
        await self._gate.shut(mailbox_id)
        moved = False
        try:
            await self._set_location(mailbox_id, location)
            moved = True
        finally:
            self._gate.decide(mailbox_id, moved=moved)

    async def _set_location(self, mailbox_id: str, location: str) -> None:
        """Ask until there is an answer, because a commit may have gone through whose answer was lost.

        If there is none, that does no harm: whoever opens the mailbox asks the directory first, and what is delivered here meanwhile is
        handed over by :meth:`tidy`.

        :raises Theirs: it was not changed.
        :raises Later, Ours: nobody knows.
        """
        for pause in (*AGAIN, None):
            try:
                return await self._home.places.set_location(mailbox_id, location, self._home.location)
            except errors.Theirs:
                raise
            except errors.MailError as error:
                log.warning("move.undecided", mailbox=mailbox_id, to=location, reason=error.reason or error.public)
                if pause is None or not self._running:
                    raise type(error)("the directory did not say whether it was changed; repeat this later", reason=error.reason) from error
            await self._pause(pause)
        raise AssertionError("the last round returns or raises")

    # -- 4, 5: what is left here ------------------------------------------------------------------

    async def _rest(self, link: Link, mailbox_id: str, octets: int) -> Done:
        """Hand over what waits, and delete the old copy; what cannot be done now is done later."""
        messages = 0
        self._board.step(mailbox_id, "handing over")
        try:
            await self._gate.shut(mailbox_id)
            self._gate.decide(mailbox_id, moved=True)
            await self._spool.retry(mailbox_id)
            while rows := await self._spool.take(mailbox_id, BATCH_MESSAGES, BATCH_BYTES):
                body = encode(HANDOVER, Handover(tuple(Sealed(row.delivery_id, row.sealed) for row in rows)))
                await self._ask(Deferred.fromCoroutine(link.ask("handover", mailbox_id, body, patience=PATIENCE)))
                faults.reach("move.handed")
                await self._spool.remove(mailbox_id, [row.delivery_id for row in rows])
                messages += len(rows)
                self._board.sent(mailbox_id, messages=len(rows))
            tidy = await self._spool.remove_if_empty(mailbox_id)
            faults.reach("move.left")
            tidy = tidy and await self._delete(link, mailbox_id)
        except (errors.MailError, CancelledError) as error:
            reason = error.reason or error.public if isinstance(error, errors.MailError) else "the server is stopping"
            log.warning("move.left", mailbox=mailbox_id, link=link.name, reason=reason)
            tidy = False
        if tidy:
            self._gate.forget(mailbox_id)
            log.event("move.done", mailbox=mailbox_id, link=link.name, octets=octets, messages=messages)
            faults.reach("move.done")
        else:
            self._look_later()
        return Done(octets, messages, tidy)

    async def _delete(self, link: Link, mailbox_id: str) -> bool:
        """Delete the old copy if the target has the mailbox."""
        body = encode(arrive.NAMED, arrive.Named(mailbox_id, self._tokens.get(mailbox_id, b"")))
        answer = await self._ask(Deferred.fromCoroutine(link.ask("holds", "", body, patience=PATIENCE)))
        if not decode(arrive.BOOL, answer):
            log.warning("move.kept", mailbox=mailbox_id, link=link.name, reason="the target does not have it; the copy here stays")
            return False
        async with self._mailboxes.frozen(mailbox_id):
            await self._run_in_thread(partial(self._files.discard, mailbox_id))
        self._tokens.pop(mailbox_id, None)
        return True

    # -- how it is done ---------------------------------------------------------------------------

    def _begin(self, mailbox_id: str) -> None:
        """From now on nobody else moves it, and it does not come here."""
        self._home.busy.add(mailbox_id)
        self._moving[mailbox_id] = []
        self._board.begin(mailbox_id)

    def _end(self, mailbox_id: str) -> None:
        self._home.busy.discard(mailbox_id)
        self._board.end(mailbox_id)
        for waiting in self._moving.pop(mailbox_id):
            waiting.callback(None)

    def _ask(self, asked: Deferred[bytes]) -> Deferred[bytes]:
        """The same answer, unless the server stops before it comes; then CancelledError."""

        def answered(result: Any) -> Any:
            self._asked.discard(asked)
            return result

        self._asked.add(asked)
        return asked.addBoth(answered)

    def _pause(self, seconds: float) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._clock.callLater(seconds, waiting.callback, None)
        return waiting

    def _again(self) -> None:
        self._timer = None
        self.look()

    def _tidied(self, result: Any) -> None:
        if isinstance(result, Failure):
            error = result.value
            reason = error.reason or error.public if isinstance(error, errors.MailError) else repr(error)
            log.warning("move.tidy", reason=reason)
        if result is not True:
            self._look_later()

    def _look_later(self) -> None:
        if self._running and self._timer is None:
            self._timer = self._clock.callLater(TIDY, self._again)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            timer, self._timer = self._timer, None
            timer.cancel()


class _Target:
    """One mailbox at the primary that it is brought to, over one connection: a new one would have to begin anew."""

    def __init__(self, conversation: Conversation, mailbox_id: str, wait: Callable[[Deferred[bytes]], Deferred[bytes]]) -> None:
        self._conversation = conversation
        self.mailbox_id = mailbox_id
        self._wait = wait
        self.token = b""

    async def begin(self, octets: int) -> None:
        """:raises Refused: it does not take it, or is too old to."""
        try:
            answer = await self._ask("arrive", encode(arrive.BEGIN, arrive.Begin(self.mailbox_id, octets)), BLOCK_TIMEOUT)
        except errors.Refused as error:
            if error.public == UNKNOWN:
                raise errors.Refused("the server there is too old to be moved to; update it first") from error
            raise
        self.token = decode(arrive.OCTETS, answer)

    def block(self, piece: Piece) -> Deferred[bytes]:
        """Send a block; fires when it has been written."""
        block = arrive.Block(self.mailbox_id, self.token, piece.part, piece.offset, piece.octets, piece.digest)
        return self._ask("arrive_block", encode(arrive.BLOCK, block), BLOCK_TIMEOUT)

    async def end(self, whole: Whole) -> None:
        """Have it made durable, and compared.

        :raises StorageFailed: it is not the same.
        """
        end = arrive.End(self.mailbox_id, self.token, whole.sizes[MAIN], whole.sizes[WAL], whole.digest)
        found = decode(arrive.OCTETS, await self._ask("arrive_end", encode(arrive.END, end), END_TIMEOUT))
        if found != whole.digest:
            raise errors.StorageFailed("what arrived is not what was sent", reason=f"digest {found.hex()}")

    async def stop(self) -> None:
        """That is all, or nothing more comes."""
        try:
            await self._ask("arrive_stop", encode(arrive.NAMED, arrive.Named(self.mailbox_id, self.token)), BLOCK_TIMEOUT)
        except (LinkLost, errors.MailError) as error:
            # It notices by itself that nothing comes any more.
            log.event("move.stop", mailbox=self.mailbox_id, reason=type(error).__name__)

    def _ask(self, method: str, body: Sequence[Buffer], timeout: float) -> Deferred[bytes]:
        return self._wait(self._conversation.ask(method, "", body, timeout=timeout))


def _first(failure: Failure) -> Failure:
    """What went wrong, in the place of that one of several did."""
    error = failure.value
    return error.subFailure if isinstance(error, FirstError) else failure
