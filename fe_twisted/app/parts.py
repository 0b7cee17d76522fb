"""The services that make up a process, and the order of their start and stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from fe_twisted.app.links import Links
from fe_twisted.app.workers import Sockets, Workers
from fe_twisted.base import log
from fe_twisted.base.errors import BadSettings, Later
from fe_twisted.servers.tls import ServerTLS
from fe_twisted.services.cluster.move import Moves

#: Seconds between two looks at what sessions are left in a process that is being replaced.
LOOK = 0.1

#: Seconds that the sessions which are left then have to hear of their end.
GOODBYE = 1.0


class Parts(MultiService):
    """Everything that runs, and what can be asked of all of it.  It stops one by one, the last started first."""

    def __init__(self, tls: Sequence[ServerTLS]) -> None:
        super().__init__()
        self._tls = tuple(tls)
        #: The links of this process.
        self.links: Links | None = None
        #: What answers clients, in the process that does.
        self.doors: Listeners | None = None
        #: The worker processes of this one.
        self.workers: Workers | None = None

    def reload(self) -> None:
        """Read the certificate again, in all processes; what cannot be used is logged, and the old one stays."""
        try:
            for tls in self._tls:
                tls.reload()
        except BadSettings as error:
            log.warning("tls.not_reloaded", reason=str(error))
        else:
            log.event("tls.reloaded")
        if self.workers is not None:
            self.workers.reload()

    def give_up(self) -> None:
        """Before a stop: the primary of this process has ended, so nobody will answer what it was asked, and nobody need wait for that."""
        if self.links is not None:
            self.links.stopService()

    def replace(self) -> None:
        """Replace the worker processes one by one."""
        if self.workers is not None:
            self.workers.replace()
        else:
            log.event("worker.none", reason="everything is in one process; settings take effect when it is started again")

    def leave(self) -> Deferred[None]:
        """Before a stop, in a process that has a successor: accept nothing more, and let clients finish what they are in the middle of.

        Fires when all have gone, or their time is over, or the stop has come anyway.
        """
        return self.doors.leave() if self.doors is not None else succeed(None)

    async def _stop(self) -> None:
        for each in reversed(list(self)):
            await maybeDeferred(each.stopService).addErrback(logged, "server.stop")

    def stopService(self) -> Deferred[None]:
        """Stop listening, end the sessions, close the files."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())


class Storage(Service):
    """Threads and files.

    :param close: coroutines that let go of files, in their order.
    :param last: called after them.
    """

    def __init__(self, pool: ThreadPool, close: Sequence[Callable[[], Awaitable[None]]], last: Callable[[], None]) -> None:
        self._pool = pool
        self._close = close
        self._last = last

    def startService(self) -> None:
        """Start the threads."""
        super().startService()
        self._pool.start()

    def stopService(self) -> Deferred[None]:
        """Close the files, then the threads."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for close in self._close:
            try:
                await close()
            except Exception as error:
                log.failure("storage.close", error)
        self._pool.stop()
        self._last()


class Moving(Service):
    """Finishes what was begun of moves between primaries, now and whenever there is a link."""

    def __init__(self, moves: Moves, links: Links) -> None:
        self._moves = moves
        links.when_connected(moves.look)

    def startService(self) -> None:
        """Look for what was begun."""
        super().startService()
        self._moves.start()

    def stopService(self) -> Deferred[None]:
        """Begin nothing more."""
        super().stopService()
        return Deferred.fromCoroutine(self._moves.stop())


class Listeners(Service):
    """The ports.

    :param sockets: by door; they listen already.
    :param shutdown: ends the sessions of one kind; fires when they have ended.
    :param patience: seconds that sessions may take to end.
    :param after: begins something that is to be waited for before connections are accepted.
    :param dismiss: ends those sessions of one kind whose clients are in the middle of nothing, and returns how many there are.
    """

    def __init__(
        self,
        reactor: Any,
        sockets: Sockets,
        factories: Mapping[str, Factory],
        shutdown: Sequence[Callable[[], Deferred[None]]],
        patience: float,
        after: Callable[[], Deferred[None]] | None = None,
        dismiss: Sequence[Callable[[], int]] = (),
    ) -> None:
        self._reactor = reactor
        self._after = after
        #: Fires when connections are accepted.
        self.listening: Deferred[None] = Deferred()
        self._sockets = sockets
        self._factories = factories
        self._shutdown = shutdown
        self._patience = patience
        self._dismiss = dismiss
        self._ports: list[Any] = []

    def startService(self) -> None:
        """Accept connections."""
        super().startService()
        if self._after is None:
            self._listen()
        else:
            self._after().addCallback(lambda _: self._listen()).addErrback(logged, "server.listen")

    def _listen(self) -> None:
        if not self.running:
            return
        for door, sockets in self._sockets.items():
            for each in sockets:
                self._ports.append(self._reactor.adoptStreamPort(each.fileno(), each.family, self._factories[door]))
            names = [each.getsockname() for each in sockets]
            log.event("server.listening", door=door, port=names[0][1], interfaces=[name[0] for name in names])
            for each in sockets:
                each.close()  # the port has a descriptor of its own
        self.listening.callback(None)

    def stopService(self) -> Deferred[None]:
        """Accept nothing more and end all sessions, within the time."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def leave(self) -> Deferred[None]:
        """See :meth:`Parts.leave`; the stop that follows then waits for a moment only."""
        return Deferred.fromCoroutine(self._leave())

    async def _leave(self) -> None:
        until = self._reactor.seconds() + self._patience
        # First of all: what has not been accepted yet waits at the socket, for the process that comes after this one.
        await self._close()
        while self.running and sum([dismiss() for dismiss in self._dismiss]) and self._reactor.seconds() < until:
            await deferLater(self._reactor, LOOK)
        if self.running:  # else the stop has come already, and has the whole time
            self._patience = min(self._patience, GOODBYE)

    async def _close(self) -> None:
        ports, self._ports = self._ports, []
        await DeferredList([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)

    async def _stop(self) -> None:
        await self._close()
        ending = DeferredList([maybeDeferred(shutdown).addErrback(logged, "server.stop") for shutdown in self._shutdown])
        ending.addTimeout(self._patience, self._reactor)
        try:
            await ending
        except Exception as error:
            log.warning("server.impatient", seconds=self._patience, reason=type(error).__name__)


def logged(failure: Failure, event: str) -> None:
    """An errback that says so in the log; what is nobody's fault, such as a database that is away, without a traceback.

    What was cancelled is not said: whoever cancelled it knows.
    """
    error = cast(BaseException, failure.value)
    if isinstance(error, Later):
        log.warning(event, reason=error.reason or error.public)
    elif not isinstance(error, CancelledError):
        log.failure(event, error)
