"""Where the parts are put together, top to bottom; nothing else makes a server or names the reactor.

==================  =====================================  ==============================================
process             has                                    answers
==================  =====================================  ==============================================
primary, no worker  the files                              clients, mail servers, link peers
primary             the files, the workers                 link peers: its workers, secondaries, the command line
worker of primary   links to its primary and the others    clients, mail servers
secondary           links to primaries; or its workers     clients, mail servers; the command line
worker of it        links to primaries                     clients, mail servers
==================  =====================================  ==============================================
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.threadpool import ThreadPool

from fe_twisted import __version__
from fe_twisted.app.claim import claim
from fe_twisted.app.door import DirectoryDoor, Ward
from fe_twisted.app.keymark import QUEUED, TEMPORARY, keep
from fe_twisted.app.links import Links, LinkSocket, make_links
from fe_twisted.app.parts import Listeners, Moving, Parts, Storage, logged
from fe_twisted.app.queues import Queues
from fe_twisted.app.rooms import Rooms
from fe_twisted.app.rounds import Rounds
from fe_twisted.app.secrets import link_secrets
from fe_twisted.app.shares import Shares
from fe_twisted.app.store import Store, open_store
from fe_twisted.app.workers import Sockets, Workers
from fe_twisted.base import faults
from fe_twisted.base.errors import BadSettings, Later, NotFound, PrimaryAway, Refused
from fe_twisted.base.settings import Settings
from fe_twisted.clients.link.link import Link
from fe_twisted.protocols.cluster.handshake import Identity
from fe_twisted.protocols.crypto.derive import SCRAM, derive
from fe_twisted.servers.cluster.websocket import LinkServerFactory
from fe_twisted.servers.imap.factory import ImapFactory
from fe_twisted.servers.imap.limits import ImapLimits
from fe_twisted.servers.smtp.limits import MxLimits
from fe_twisted.servers.smtp.mx import MxFactory
from fe_twisted.servers.tls import ServerTLS
from fe_twisted.services.cluster.arrive import Arrivals
from fe_twisted.services.cluster.desk import Desk
from fe_twisted.services.cluster.home import Home
from fe_twisted.services.cluster.host import Host
from fe_twisted.services.cluster.move import Moves
from fe_twisted.services.cluster.twins import Missing
from fe_twisted.services.deliver.deliver import Deliver
from fe_twisted.services.deliver.gate import Gate
from fe_twisted.services.deliver.merge import Merge
from fe_twisted.services.deliver.remote import RemoteDeliver
from fe_twisted.services.deliver.route import Route
from fe_twisted.services.login.authenticate import Login
from fe_twisted.services.receive.receive import Receive
from fe_twisted.storage.directory.lookup import Lookups
from fe_twisted.storage.mailbox.direct import Mode, open_direct
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.mailbox.remote import RemoteMailbox
from fe_twisted.storage.spool.queue import Queue
from fe_twisted.storage.spool.spool import Spool

#: Seconds between two looks at what the command line changed.
LOOK = 1.0

#: Seconds between two comparisons of the directory with the folder of the mailboxes.
COMPARE = 60.0

#: Seconds that a process without files waits for its links before it answers clients all the same.
SETTLE = 5.0


@dataclass(slots=True)
class Base:
    """What every process has.

    :param secrets: see :func:`fe_twisted.app.secrets.link_secrets`.
    :param tls: of the doors, and of ``link_port``.
    :param claimed: the data folder; None in a worker.
    """

    settings: Settings
    reactor: Any
    store: Store
    lookups: Lookups
    pool: ThreadPool
    run_in_thread: Any
    secrets: Sequence[bytes]
    tls: ServerTLS
    link_tls: ServerTLS
    identity: Identity
    claimed: int | None


@dataclass(slots=True)
class Here:
    """What the process with the files has besides."""

    claimed: int
    spool: Spool
    mailboxes: OpenMailboxes[LocalMailbox]
    deliver: Deliver
    gate: Gate
    home: Home | None


class Sessions:
    """The IMAP sessions of this process, for parts that are made before what answers clients."""

    imap: ImapFactory | None = None

    def end(self, mailbox_id: str) -> None:
        """A mailbox is taken from its sessions."""
        self._end(mailbox_id, "access was changed, log in again")

    def move(self, mailbox_id: str) -> None:
        """A mailbox leaves this process."""
        self._end(mailbox_id, "the mailbox is being moved, log in again")

    def _end(self, mailbox_id: str, why: str) -> None:
        if self.imap is not None:
            self.imap.end_sessions(mailbox_id, why)


def build(
    settings: Settings,
    reactor: Any,
    sockets: Sequence[Sockets],
    *,
    link: Sequence[Any] = (),
    worker: int = 0,
    orders: Mapping[str, Any] | None = None,
) -> Parts:
    """Make everything and connect it.  Files are opened, threads are not yet started and nothing is accepted.

    :param reactor: the reactor; everything below gets only its clock.
    :param sockets: those of each process that answers clients: one if that is this one, else one for each worker.
    :param link: listening sockets for other boxes.
    :param worker: the number of this worker; 0 is a process that has nobody above it.
    :param orders: what workers are told, see :mod:`fe_twisted.app.worker`; None when this process answers clients itself.
    :raises MailError: a secret, certificate or file that cannot be used.
    """
    if settings.development and faults.VARIABLE in os.environ:
        _arm(os.environ[faults.VARIABLE])
    # Workers belong to the process that has claimed it.
    claimed = None if worker else claim(settings.data_folder, "the data folder")
    try:
        base = _base(settings, reactor, worker, claimed)
    except BaseException:
        if claimed is not None:
            os.close(claimed)
        raise
    here: Here | None = None
    try:
        if settings.role == "primary" and not worker:
            here = _here(base)
            if orders is not None or here.home is not None:
                _expect_location(base)
        elif not worker:
            settings.queue_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not worker and settings.queue_folder.is_dir():
            keep(settings.queue_folder, base.store.server_key, QUEUED, settings.server_key_file)
        links = make_links(settings, reactor, base.identity, base.secrets, worker=bool(worker))
        return _connect(base, here, links, sockets, link, worker=worker, orders=orders)
    except BaseException:
        _let_go(base, here)
        raise


def _base(settings: Settings, reactor: Any, worker: int, claimed: int | None) -> Base:
    tls = ServerTLS(settings.certificate_file, settings.certificate_key_file, settings.tls_minimum)
    link_tls = ServerTLS(settings.certificate_file, settings.certificate_key_file, "1.3")
    pool = ThreadPool(0, settings.storage_threads, "storage")
    run_in_thread = partial(deferToThreadPool, reactor, pool)
    store = open_store(settings)
    try:
        secrets = link_secrets(settings, store.server_key)
    except BaseException:
        store.directory.close()
        raise
    name = f"{settings.hostname}/{f'worker-{worker}' if worker else settings.role}/{__version__}"
    lookups = Lookups(store.directory, run_in_thread)
    return Base(settings, reactor, store, lookups, pool, run_in_thread, secrets, tls, link_tls, Identity(name), claimed)


def _here(base: Base) -> Here:
    """The files, claimed for this process."""
    settings, store = base.settings, base.store
    claimed = claim(settings.mailbox_folder)
    try:
        keep(settings.mailbox_folder, store.server_key, TEMPORARY, settings.server_key_file)
    except BaseException:
        os.close(claimed)
        raise
    spool = Spool(store.files.temporary_path, store.server_key, base.run_in_thread, base.reactor, cipher=settings.cipher)
    merge = Merge(spool, base.run_in_thread, base.reactor)

    def opener(mailbox_id: str, key: bytes) -> Awaitable[LocalMailbox]:
        return open_mailbox(store.files, mailbox_id, key, base.run_in_thread, base.reactor, merge.poll)

    # Who knows of no other primary, and is known to none, has all mailboxes.
    home = Home(settings.location, base.lookups) if settings.primaries or settings.link_port else None
    mailboxes = OpenMailboxes(home.guard(opener) if home else opener, base.reactor, grace=settings.session_grace_seconds)
    gate = Gate()
    return Here(claimed, spool, mailboxes, Deliver(mailboxes, spool, store.files.exists, gate), gate, home)


def _expect_location(base: Base) -> None:
    """Where several processes ask the directory whose mailbox is where, it has to know this primary by its name.

    :raises BadSettings: it knows it by another one.
    """
    settings = base.settings
    strays = base.store.accounts.strays(settings.elsewhere().keys())
    if strays:
        name = max(strays, key=lambda each: strays[each])
        number = f"{strays[name]} mailbox" + ("es" if strays[name] > 1 else "")
        # Where the name is taken, that would be refused.
        taken = settings.location in base.store.directory.locations()
        rename = "" if taken else f", or rename it: forwardemail directory rename-location {name} {settings.location}"
        raise BadSettings(
            f"the directory calls the primary with the {number} of this box {name}, and the setting location says {settings.location}; "
            f'write location = "{name}"{rename}'
        )


def _connect(
    base: Base,
    here: Here | None,
    links: Links,
    sockets: Sequence[Sockets],
    link: Sequence[Any],
    *,
    worker: int,
    orders: Mapping[str, Any] | None,
) -> Parts:
    """Servers and services, in the order in which they start; they stop the other way round."""
    settings, reactor = base.settings, base.reactor
    parts = Parts([base.tls, base.link_tls])
    sessions = Sessions()
    away = _away(base, links, sessions) if links.all() else None
    closing: list[Callable[[], Awaitable[None]]] = [away.close_all] if away is not None else []
    if here is not None:
        closing += [here.mailboxes.close_all, here.spool.close]
    Storage(base.pool, closing, lambda: _let_go(base, here)).setServiceParent(parts)
    links.setServiceParent(parts)
    parts.links = links
    shared_secret = base.store.shared_secret()
    shares = Shares(
        settings,
        reactor,
        links,
        base.identity,
        own_secret=base.secrets[-1],
        shared_secret=shared_secret,
        worker=worker,
        run_in_thread=base.run_in_thread,
    )
    shares.setServiceParent(parts)
    registries = [each for each in (here.mailboxes if here is not None else None, away) if each is not None]
    shares.numbers["mailboxes"] = lambda: sum(map(len, registries))
    if not worker:
        _link_servers(base, here, links, link, shares, parts)
    if orders is not None:
        parts.workers = Workers(reactor, sockets, orders, settings.shutdown_seconds)
        parts.workers.setServiceParent(parts)
        return parts
    rooms = Rooms(settings.location, here.mailboxes if here is not None else None, away)
    _doors(base, here, links, rooms, sessions, shares, shared_secret, sockets[0], parts)
    return parts


def _doors(
    base: Base,
    here: Here | None,
    links: Links,
    rooms: Rooms,
    sessions: Sessions,
    shares: Shares,
    shared_secret: bytes,
    sockets: Sockets,
    parts: Parts,
) -> None:
    """What answers mail servers and mail clients, as this process's last parts.

    :param sessions: is given the IMAP sessions that there will be.
    """
    settings, reactor = base.settings, base.reactor
    deliver: Any = here.deliver if here is not None else None
    if links.all():
        queues = _queues(base, links)
        queues.setServiceParent(parts)
        links.when_connected(queues.hand_over)
        deliver = Route(settings.location, deliver, queues.deliver, base.lookups.recipient, reactor)
        shares.numbers["waiting"] = queues.waiting
    login = Login(base.lookups, reactor, None, base.run_in_thread, derive(shared_secret, SCRAM), shares.failures)
    receive = Receive(base.lookups, deliver, hostname=settings.hostname, now=_now, max_hops=settings.hop_limit)
    door = DirectoryDoor(login, base.lookups, rooms, sessions.end)
    mx, imap = _servers(base, receive, door, shares)
    sessions.imap = imap
    if here is not None:
        here.mailboxes.when_frozen(sessions.move)
    Rounds(LOOK, door.look, reactor, "directory").setServiceParent(parts)
    over_tls: Any = TLSMemoryBIOFactory(base.tls, False, cast(Any, imap), clock=reactor)  # type: ignore[arg-type]
    factories = {"mx": mx, "imap": imap, "imaps": over_tls}
    farewells = [lambda: Deferred.fromCoroutine(_end(mx, reactor)), imap.shutdown]
    after = partial(links.settled, reactor, SETTLE) if here is None else None
    parts.doors = Listeners(reactor, sockets, factories, farewells, settings.shutdown_seconds, after, [mx.dismiss, imap.dismiss])
    parts.doors.setServiceParent(parts)


def _away(base: Base, links: Links, sessions: Sessions) -> OpenMailboxes[RemoteMailbox]:
    """Mailboxes that are open over links; their sessions end when the primary takes one back."""

    def evicted(mailbox_id: str) -> None:
        sessions.end(mailbox_id)
        Deferred.fromCoroutine(registry.evict(mailbox_id)).addErrback(logged, "mailbox.evict")

    async def relocate(mailbox_id: str) -> Link | None:
        location = await base.lookups.location_of(mailbox_id)
        return links.of(location) if location is not None else None

    async def opener(mailbox_id: str, key: bytes) -> RemoteMailbox:
        link = await relocate(mailbox_id)
        if link is None:
            raise PrimaryAway(reason=f"no link leads to the mailbox {mailbox_id}")
        mode = cast(Mode, base.settings.mailbox_access)
        try:
            return await open_direct(
                base.store.files, link, mailbox_id, key, evicted, base.run_in_thread, base.reactor, mode=mode, relocate=relocate
            )
        except Refused as error:
            # The directory says that it is there, and the password was right: what is wrong is not this client's fault, and may pass.
            raise Later(reason=f"{mailbox_id} was not opened: {error.public}") from error

    # Its primary keeps it open for the grace.
    registry = OpenMailboxes(opener, base.reactor, grace=0)
    return registry


def _link_servers(base: Base, here: Here | None, links: Links, sockets: Sequence[Any], shares: Shares, parts: Parts) -> None:
    """Where link peers come in: on the unix socket the processes of this box and the command line, on the port other boxes."""
    settings, reactor = base.settings, base.reactor
    arrivals: list[Desk] = []
    moves: list[Desk] = []
    if here is not None:
        ward = Ward(base.lookups, here.mailboxes)
        Rounds(LOOK, ward.look, reactor, "directory").setServiceParent(parts)
    if here is not None and not base.store.directory.embedded:  # one that is can be nobody else's
        missing = Missing(settings.location, base.lookups, base.store.files.ids, base.run_in_thread, shares.troubles)
        Rounds(COMPARE, missing.look, reactor, "location").setServiceParent(parts)
    if here is not None and here.home is not None:
        files = base.store.files
        arrivals.append(Arrivals(here.home, files, here.gate, base.run_in_thread, reactor))
        moving = Moves(here.home, links.of, files, here.mailboxes, here.spool, here.gate, base.run_in_thread, reactor)
        Moving(moving, links).setServiceParent(parts)
        moves.append(moving)
    desks = [*shares.desks(), *arrivals, *moves]
    local = LinkServerFactory(_host(base, here, desks), reactor, base.identity, base.secrets)
    LinkSocket(settings, reactor, local).setServiceParent(parts)
    if sockets:
        networks = [ip_network(each) for each in settings.link_networks]
        # The secret of this box's own processes is not for others.
        host = _host(base, here, [*shares.desks_for_others(), *arrivals])
        remote = LinkServerFactory(host, reactor, base.identity, base.secrets[:-1], networks=networks)
        over_tls: Any = TLSMemoryBIOFactory(base.link_tls, False, cast(Any, remote), clock=reactor)  # type: ignore[arg-type]
        Listeners(reactor, {"link": sockets}, {"link": over_tls}, [remote.shutdown], settings.shutdown_seconds).setServiceParent(parts)


def _host(base: Base, here: Here | None, desks: Sequence[Desk]) -> Host:
    """What link peers are answered by.  A secondary has no mailboxes: its peers are its own processes, and the command line."""
    if here is not None:
        exists_here = base.store.files.exists
        return Host(here.mailboxes, here.deliver, base.lookups, here.spool, exists_here, desks, home=here.home, gate=here.gate)

    async def opener(mailbox_id: str, key: bytes) -> LocalMailbox:
        raise NotFound(reason="no mailbox is here")

    def exists(mailbox_id: str) -> bool:
        return False

    mailboxes = OpenMailboxes(opener, base.reactor)
    spool = Spool(base.store.files.temporary_path, base.store.server_key, base.run_in_thread, base.reactor)
    return Host(mailboxes, Deliver(mailboxes, spool, exists), base.lookups, spool, exists, desks)


def _queues(base: Base, links: Links) -> Queues:
    settings, reactor = base.settings, base.reactor

    def open_queue(folder: Path) -> Queue:
        return Queue(folder, base.store.server_key, base.run_in_thread, reactor, cipher=settings.cipher)

    def location_of(mailbox_id: str) -> Deferred[str | None]:
        return Deferred.fromCoroutine(base.lookups.location_of(mailbox_id))

    def deliver(queue: Queue) -> RemoteDeliver:
        return RemoteDeliver(links.of, location_of, queue, reactor)

    return Queues(settings.queue_folder, open_queue, deliver, reactor)


def _servers(base: Base, receive: Receive, door: DirectoryDoor, shares: Shares) -> tuple[MxFactory, ImapFactory]:
    settings = base.settings
    mx = MxFactory(
        receive,
        hostname=settings.hostname,
        clock=base.reactor,
        tls=base.tls,
        connections=shares.connections("mx", settings.mx_connections, settings.mx_connections_per_address),
        limits=_mx_limits(settings),
    )
    imap = ImapFactory(
        door,
        base.reactor,
        shares.connections("imap", settings.imap_connections, settings.imap_connections_per_address),
        limits=_imap_limits(settings),
        tls=cast(Any, base.tls),
        plaintext_login_from_loopback=settings.plaintext_login_from_loopback,
    )
    shares.numbers |= {"mx": lambda: len(mx.shared.sessions), "imap": lambda: len(imap.live)}
    return mx, imap


def _let_go(base: Base, here: Here | None) -> None:
    """Close what is left when no thread runs any more."""
    base.store.directory.close()
    for claimed in (here.claimed if here is not None else None, base.claimed):
        if claimed is not None:
            os.close(claimed)


async def _end(mx: MxFactory, reactor: Any) -> None:
    """End the MX sessions, and wait until their 421 has left: what is only in a buffer is lost when the reactor stops."""
    await mx.shutdown()
    while mx.shared.sessions:
        await deferLater(reactor, 0.02)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _arm(spec: str) -> None:
    """:raises BadSettings: no such place to crash at."""
    try:
        faults.arm(spec)
    except ValueError as error:
        raise BadSettings(f"{faults.VARIABLE}: {error}") from error


def _mx_limits(settings: Settings) -> MxLimits:
    return MxLimits(
        message_size=settings.message_size_limit,
        recipients=settings.recipients_limit,
        idle=settings.mx_timeout_seconds,
        commands=settings.mx_commands_per_connection,
        errors=settings.mx_errors_per_connection,
        transactions=settings.mx_messages_per_connection,
    )


def _imap_limits(settings: Settings) -> ImapLimits:
    return ImapLimits(
        message_size=settings.message_size_limit,
        login_timeout=settings.imap_login_seconds,
        idle_timeout=settings.imap_timeout_seconds,
        compress=settings.imap_compress,
    )
