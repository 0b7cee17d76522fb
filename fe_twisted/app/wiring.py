"""Where the parts are put together, top to bottom; nothing else makes a server or names the reactor."""

from __future__ import annotations

import datetime
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from socket import socket
from typing import Any, cast

from twisted.application.internet import TimerService
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from fe_twisted.app.claim import claim
from fe_twisted.app.door import LocalDoor
from fe_twisted.app.store import Store, open_store
from fe_twisted.base import faults, log
from fe_twisted.base.errors import BadSettings
from fe_twisted.base.settings import Settings
from fe_twisted.protocols.crypto.derive import SCRAM, derive
from fe_twisted.servers.connection import ConnectionLimit
from fe_twisted.servers.imap.factory import ImapFactory
from fe_twisted.servers.imap.limits import ImapLimits
from fe_twisted.servers.smtp.limits import MxLimits
from fe_twisted.servers.smtp.mx import MxFactory
from fe_twisted.servers.tls import ServerTLS
from fe_twisted.services.deliver.deliver import Deliver
from fe_twisted.services.deliver.merge import Merge
from fe_twisted.services.login.authenticate import Login
from fe_twisted.services.login.throttle import LoginLimits
from fe_twisted.services.receive.receive import Receive
from fe_twisted.storage.directory.lookup import Lookups
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.spool.spool import Spool

#: Seconds between two looks at what the command line changed.
LOOK = 1.0

#: Sockets that listen already, by door: ``mx``, ``imap``, ``imaps``.
Sockets = Mapping[str, Sequence[socket]]


def build(settings: Settings, reactor: Any, sockets: Sockets) -> Parts:
    """Make everything and connect it.  Files are opened, threads are not yet started and nothing is accepted.

    :param reactor: the reactor; everything below gets only its clock.
    :param sockets: see :mod:`fe_twisted.app.ports`.
    :raises MailError: a secret, certificate or file that cannot be used.
    """
    if settings.development and faults.VARIABLE in os.environ:
        _arm(os.environ[faults.VARIABLE])
    tls: Any = ServerTLS(settings.certificate_file, settings.certificate_key_file, settings.tls_minimum)
    pool = ThreadPool(0, settings.storage_threads, "storage")
    run_in_thread = partial(deferToThreadPool, reactor, pool)

    # Storage.
    store = open_store(settings)
    try:
        claimed = claim(settings.mailbox_folder)
    except (BadSettings, OSError):
        store.directory.close()
        raise
    lookups = Lookups(store.directory, run_in_thread)
    spool = Spool(store.files.temporary_path, store.server_key, run_in_thread, reactor, cipher=settings.cipher)
    merge = Merge(spool, run_in_thread)

    def opener(mailbox_id: str, key: bytes) -> Awaitable[LocalMailbox]:
        return open_mailbox(store.files, mailbox_id, key, run_in_thread, reactor, merge.poll)

    mailboxes = OpenMailboxes(opener, reactor, grace=settings.session_grace_seconds)

    # Services.
    login = Login(lookups, reactor, _login_limits(settings), run_in_thread, derive(store.server_key, SCRAM))
    deliver = Deliver(mailboxes, spool, store.files.exists)
    receive = Receive(lookups, deliver, hostname=settings.hostname, now=_now, max_hops=settings.hop_limit)
    door = LocalDoor(login, lookups, mailboxes, lambda mailbox_id: imap.end_sessions(mailbox_id, "access was changed, log in again"))

    # Servers.
    mx = MxFactory(
        receive,
        hostname=settings.hostname,
        clock=reactor,
        tls=tls,
        connections=ConnectionLimit(settings.mx_connections, settings.mx_connections_per_address),
        limits=_mx_limits(settings),
    )
    imap = ImapFactory(
        door,
        reactor,
        ConnectionLimit(settings.imap_connections, settings.imap_connections_per_address),
        limits=_imap_limits(settings),
        tls=tls,
        plaintext_login_from_loopback=settings.plaintext_login_from_loopback,
    )
    over_tls: Any = TLSMemoryBIOFactory(tls, False, cast(Any, imap), clock=reactor)
    factories = {"mx": mx, "imap": imap, "imaps": over_tls}

    # In the order in which they start; they stop the other way round.
    parts = Parts(tls)
    Storage(pool, [mailboxes.close_all, spool.close], lambda: _let_go(store, claimed)).setServiceParent(parts)
    look = TimerService(LOOK, _look, door)
    look.clock = reactor
    look.setServiceParent(parts)
    farewells = [lambda: Deferred.fromCoroutine(_end(mx, reactor)), imap.shutdown]
    Listeners(reactor, sockets, factories, farewells, settings.shutdown_seconds).setServiceParent(parts)
    return parts


class Parts(MultiService):
    """Everything that runs, and what can be asked of all of it.  It stops one by one, the last started first."""

    def __init__(self, tls: ServerTLS) -> None:
        super().__init__()
        self._tls = tls

    def reload(self) -> None:
        """Read the certificate again; what cannot be used is logged, and the old one stays."""
        try:
            self._tls.reload()
        except BadSettings as error:
            log.warning("tls.not_reloaded", reason=str(error))
        else:
            log.event("tls.reloaded")

    async def _stop(self) -> None:
        for each in reversed(list(self)):
            await maybeDeferred(each.stopService).addErrback(_logged, "server.stop")

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


class Listeners(Service):
    """The ports.

    :param sockets: by door; they listen already.
    :param shutdown: ends the sessions of one kind; fires when they have ended.
    :param patience: seconds that sessions may take to end.
    """

    def __init__(
        self,
        reactor: Any,
        sockets: Sockets,
        factories: Mapping[str, Factory],
        shutdown: Sequence[Callable[[], Deferred[None]]],
        patience: float,
    ) -> None:
        self._reactor = reactor
        self._sockets = sockets
        self._factories = factories
        self._shutdown = shutdown
        self._patience = patience
        self._ports: list[Any] = []

    def startService(self) -> None:
        """Accept connections."""
        super().startService()
        for door, sockets in self._sockets.items():
            for each in sockets:
                self._ports.append(self._reactor.adoptStreamPort(each.fileno(), each.family, self._factories[door]))
            names = [each.getsockname() for each in sockets]
            log.event("server.listening", door=door, port=names[0][1], interfaces=[name[0] for name in names])
            for each in sockets:
                each.close()  # the port has a descriptor of its own

    def stopService(self) -> Deferred[None]:
        """Accept nothing more and end all sessions, within the time."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        ports, self._ports = self._ports, []
        await DeferredList([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)
        ending = DeferredList([maybeDeferred(shutdown).addErrback(_logged, "server.stop") for shutdown in self._shutdown])
        ending.addTimeout(self._patience, self._reactor)
        try:
            await ending
        except Exception as error:
            log.warning("server.impatient", seconds=self._patience, reason=type(error).__name__)


def _let_go(store: Store, claimed: int) -> None:
    """Close what is left when no thread runs any more."""
    store.directory.close()
    os.close(claimed)


async def _end(mx: MxFactory, reactor: Any) -> None:
    """End the MX sessions, and wait until their 421 has left: what is only in a buffer is lost when the reactor stops."""
    await mx.shutdown()
    while mx.shared.sessions:
        await deferLater(reactor, 0.02)


def _look(door: LocalDoor) -> Deferred[None]:
    """One look; a directory that cannot be asked now is asked again."""
    return Deferred.fromCoroutine(door.look()).addErrback(_logged, "directory.look")


def _logged(failure: Failure, event: str) -> None:
    log.failure(event, cast(BaseException, failure.value))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _arm(spec: str) -> None:
    """:raises BadSettings: no such place to crash at."""
    try:
        faults.arm(spec)
    except ValueError as error:
        raise BadSettings(f"{faults.VARIABLE}: {error}") from error


def _login_limits(settings: Settings) -> LoginLimits:
    return LoginLimits(
        window=settings.login_failures_seconds,
        per_network=settings.login_failures_per_network,
        per_account=settings.login_failures_per_alias,
    )


def _mx_limits(settings: Settings) -> MxLimits:
    return MxLimits(
        message_size=settings.message_size_limit,
        recipients=settings.recipients_limit,
        idle=settings.mx_timeout_seconds,
    )


def _imap_limits(settings: Settings) -> ImapLimits:
    return ImapLimits(
        message_size=settings.message_size_limit,
        login_timeout=settings.imap_login_seconds,
        idle_timeout=settings.imap_timeout_seconds,
        compress=settings.imap_compress,
    )
