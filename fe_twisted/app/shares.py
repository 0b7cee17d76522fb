"""What processes count together, and what they tell each other of how it goes.

==================  =====================================  ==================================================
with                failed logins and connections          held over
==================  =====================================  ==================================================
neither             are counted in this process            this process, which is all of the box
workers             are counted by the process above them  all workers of the box
``redis_url``       are counted on Redis                   all boxes with that Redis and the same directory
==================  =====================================  ==================================================

Whichever cannot be reached is done without: each process then goes by its own counts.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred

from fe_twisted import __version__
from fe_twisted.app.links import Links
from fe_twisted.app.parts import logged
from fe_twisted.base.settings import Settings
from fe_twisted.clients.link.link import Link
from fe_twisted.clients.link.unix import unix_endpoint
from fe_twisted.clients.link.websocket import connector
from fe_twisted.clients.redis import Redis
from fe_twisted.protocols.cluster.handshake import Identity
from fe_twisted.protocols.crypto.derive import LIMITS, derive
from fe_twisted.servers.connection import ConnectionLimit
from fe_twisted.services.cluster.census import Census, CensusOverRedis, Teller, naming
from fe_twisted.services.cluster.counts import CountsDesk, OverLink, tell_over_link
from fe_twisted.services.cluster.desk import Desk, Only
from fe_twisted.services.cluster.status import PING, REPORT, Report, Reporter, StatusDesk
from fe_twisted.services.cluster.twins import Troubles
from fe_twisted.services.login.failures import Elsewhere, Failures, OverRedis
from fe_twisted.services.login.throttle import LoginLimits

#: ``number()`` gives how many there are of something, now.
Number = Callable[[], int]


def _none() -> int:
    return 0


class Shares(MultiService):
    """Of one process.

    :param links: of this process; they are started and stopped by others, before and after this.
    :param own_secret: see :func:`fe_twisted.app.secrets.own_link_secret`.
    :param shared_secret: see :meth:`fe_twisted.app.store.Store.shared_secret`.
    :param worker: the number of this worker, or 0.
    :param run_in_thread: for looking at folders.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        links: Links,
        identity: Identity,
        *,
        own_secret: bytes,
        shared_secret: bytes,
        worker: int,
        run_in_thread: Callable[..., Awaitable[Any]],
    ) -> None:
        super().__init__()
        self._settings = settings
        self._reactor = reactor
        self._worker = worker
        self._run = run_in_thread
        self._began = int(reactor.seconds())
        self._name = naming(derive(shared_secret, LIMITS))
        self._redis = Redis(settings.redis_url, reactor) if settings.redis_url else None
        if self._redis is not None:
            self._redis.setServiceParent(self)
        self._own_up: Link | None = None
        self._up = links.of(settings.location) if worker and settings.role == "primary" else None
        if worker and self._up is None:
            endpoint = unix_endpoint(reactor, settings.link_socket)
            self._own_up = self._up = Link(connector(endpoint, reactor, identity, own_secret), reactor, name="box")
        #: Failed logins.
        self.failures = Failures(login_limits(settings), reactor, self._elsewhere())
        self._counted: list[tuple[Teller, ConnectionLimit]] = []
        above = {id(link): link for link in [*links.all(), *([self._up] if self._up else [])]}
        #: What is wrong with locations.
        self.troubles = Troubles()
        # Its workers have the same links, and need not say the same.
        places = {} if worker else {id(links.of(location)): location for location in settings.elsewhere() if location}
        self._reporters = [
            Reporter(link, self.report, reactor, location=places.get(key, ""), troubles=self.troubles) for key, link in above.items()
        ]
        location = settings.location if settings.role == "primary" and not worker else ""
        self._status = StatusDesk(self.report, reactor, location=location, troubles=self.troubles)
        self._counts = CountsDesk(self.failures.throttle, Census(), reactor)
        #: What this process says of itself; whoever has something to count puts it here: ``imap``, ``mx``, ``mailboxes``, ``waiting``.
        self.numbers: dict[str, Number] = {}

    def connections(self, door: str, total: int, per_address: int) -> ConnectionLimit:
        """Counts the connections to one kind of door.

        :param total: of the box; each worker takes its part, as the kernel deals connections out evenly.
        :param per_address: of the box, or of all boxes with the same Redis.
        """
        tell: Any = None
        if self._redis is not None:
            process = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
            tell = CensusOverRedis(self._redis.run, self._name, process, door, per_address).tell
        elif self._up is not None:
            up = self._up
            tell = tell_over_link(lambda: up, door, per_address)
        share = -(-total // max(1, self._settings.processes())) if self._worker else total
        teller = None if tell is None else Teller(door, tell, self._reactor)
        limit = ConnectionLimit(share, per_address, teller)
        if teller is not None:
            self._counted.append((teller, limit))
            if self._redis is None and self._up is not None:
                self._up.when_connected(teller.renew)
        return limit

    def desks(self) -> list[Desk]:
        """What processes of this box, and the command line, may ask."""
        return [self._counts, self._status]

    def desks_for_others(self) -> list[Desk]:
        """What other boxes may: they say how they go, and count for themselves."""
        return [Only(self._status, PING, REPORT)]

    async def report(self) -> Report:
        """How this process goes."""
        settings = self._settings
        numbers = {name: number() for name, number in self.numbers.items()}
        if not self._worker:
            waiting, octets = await self._run(waiting_mail, settings.mailbox_folder, settings.queue_folder)
            numbers |= {"waiting": waiting, "waiting_octets": octets}
        kind = "worker" if self._worker and settings.role == "primary" else settings.role
        return Report(
            name=f"{settings.hostname}/worker-{self._worker}" if self._worker else settings.hostname,
            role=kind,
            version=__version__,
            location=settings.location if settings.role == "primary" else "",
            pid=os.getpid(),
            started=self._began,
            links=tuple(reporter.seen() for reporter in self._reporters),
            **numbers,
        )

    def startService(self) -> None:
        """Begin to tell."""
        super().startService()
        if self._own_up is not None:
            self._own_up.start()
        for teller, limit in self._counted:
            teller.start(limit)
        for reporter in self._reporters:
            reporter.start()

    def stopService(self) -> Deferred[None]:
        """Tell no more."""
        for teller, _ in self._counted:
            teller.stop()
        for reporter in self._reporters:
            reporter.stop()
        if self._own_up is not None:
            self._own_up.stop()
        stopped: Deferred[None] = maybeDeferred(super().stopService).addErrback(logged, "server.stop")
        return stopped

    def _elsewhere(self) -> Elsewhere | None:
        if self._redis is not None:
            return OverRedis(self._redis.run, self._name, login_limits(self._settings), lambda: secrets.token_hex(8))
        if self._up is not None:
            up = self._up
            return OverLink(lambda: up)
        return None


def login_limits(settings: Settings) -> LoginLimits:
    """How many wrong passwords are borne."""
    return LoginLimits(
        window=settings.login_failures_seconds,
        per_network=settings.login_failures_per_network,
        per_account=settings.login_failures_per_alias,
    )


def waiting_mail(mailboxes: Path, queue: Path) -> tuple[int, int]:
    """For how many mailboxes mail waits on this box, and the octets of the files that it is in; looks at names and sizes only."""
    found: set[str] = set()
    octets = 0
    folders = [(mailboxes, "-tmp.sqlite"), *((folder, ".sqlite") for folder in _folders(queue))]
    for folder, suffix in folders:
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            continue
        for entry in entries:
            name = re.sub(r"\.saving-\d+\Z", ".sqlite", entry.name.removesuffix("-wal"))
            if name.endswith(suffix):
                found.add(name.removesuffix(suffix))
                octets += _size(entry)
    return len(found), octets


def _folders(queue: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(queue) if entry.is_dir()]
    except FileNotFoundError:
        return []


def _size(entry: os.DirEntry[str]) -> int:
    """Octets; 0 of a file that has gone meanwhile."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0
