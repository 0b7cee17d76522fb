"""Two primaries with one directory, a link each way, and a secondary, all in one process."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fe_twisted.base import errors
from fe_twisted.base.addresses import Address
from fe_twisted.clients.link.link import Link
from fe_twisted.services.cluster.arrive import Arrivals
from fe_twisted.services.cluster.home import Home
from fe_twisted.services.cluster.host import Host
from fe_twisted.services.cluster.move import Moves
from fe_twisted.services.deliver.deliver import Deliver
from fe_twisted.services.deliver.gate import Gate
from fe_twisted.services.deliver.merge import Merge
from fe_twisted.services.deliver.remote import RemoteDeliver
from fe_twisted.services.deliver.route import Route
from fe_twisted.storage.directory.api import Alias, AliasState
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.mailbox.remote import RemoteMailbox, open_remote
from fe_twisted.storage.spool.queue import Queue
from fe_twisted.storage.spool.spool import Spool
from tests.storage.mailbox.driving import ID, KEY, at_once, collect, run
from tests.storage.mailbox.linked import Network
from tests.storage.mailbox.samples import ALL

WHEN = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
ADDRESS = "hello@example.com"


class Directory:
    """One alias; it may refuse to answer."""

    def __init__(self) -> None:
        self.alias: Alias | None = None
        #: What the next changes of a location come to: an error before it, or after it, as by a connection that breaks.
        self.troubles: list[tuple[bool, Exception]] = []

    async def recipient(self, address: Address) -> Alias:
        if self.alias is None or str(address) != self.alias.address:
            raise errors.UnknownRecipient
        return self.alias

    async def location_of(self, mailbox_id: str) -> str | None:
        return self.alias.location if self.alias is not None and self.alias.mailbox_id == mailbox_id else None

    async def elsewhere(self, location: str) -> dict[str, str]:
        there = self.alias is not None and self.alias.location != location
        return {self.alias.mailbox_id or "": self.alias.location} if there and self.alias is not None else {}

    async def set_location(self, mailbox_id: str, location: str, replaces: str) -> None:
        late, error = self.troubles.pop(0) if self.troubles else (False, None)
        if error is not None and not late:
            raise error
        if self.alias is None or self.alias.mailbox_id != mailbox_id:
            raise errors.NotFound
        if self.alias.location not in (replaces, location):
            raise errors.Refused
        self.alias = dataclasses.replace(self.alias, location=location)
        if error is not None:
            raise error


class Primary:
    """One of the two, and all that its process has."""

    def __init__(self, world: World, name: str, folder: Path) -> None:
        self.world = world
        self.name = name
        self.folder = folder
        self.start()

    def start(self) -> None:
        clock, directory = self.world.clock, self.world.directory
        self.files = MailboxFiles(self.folder / "mailboxes")
        self.spool = Spool(self.files.temporary_path, self.name.ljust(32).encode(), at_once, clock)
        merge = Merge(self.spool, at_once, clock)
        self.home, self.gate = Home(self.name, directory), Gate()

        async def opener(mailbox_id: str, key: bytes) -> LocalMailbox:
            return await open_mailbox(self.files, mailbox_id, key, at_once, clock, merge.poll)

        self.mailboxes: OpenMailboxes[LocalMailbox] = OpenMailboxes(self.home.guard(opener), clock, grace=30)
        here = Deliver(self.mailboxes, self.spool, self.files.exists, self.gate)
        self.arrivals = Arrivals(self.home, self.files, self.gate, at_once, clock)
        self.moves = Moves(self.home, self.world.link_of(self.name), self.files, self.mailboxes, self.spool, self.gate, at_once, clock)
        desks = [self.arrivals, self.moves]
        self.host = Host(self.mailboxes, here, directory, self.spool, self.files.exists, desks, home=self.home, gate=self.gate)
        self.network = Network(self.host, clock)
        self.queue = Queue(self.folder / "queue", b"q" * 32, at_once, clock)
        self.remote = RemoteDeliver(
            self.world.link_of(self.name), lambda mailbox_id: Deferred.fromCoroutine(directory.location_of(mailbox_id)), self.queue, clock
        )
        self.deliver = Route(self.name, here, self.remote, directory.recipient, clock)
        self.remote.start()

    @property
    def names(self) -> list[str]:
        """Its files that are of mailboxes."""
        return sorted(path.name for path in self.files.directory.iterdir())

    def messages(self) -> list[bytes]:
        """The owner comes, and reads all."""
        mailbox = run(self.mailboxes.open(ID, KEY))
        run(mailbox.poll())
        inbox = run(mailbox.select("INBOX", claim_recent=False)).folder_id
        found = [row[0] for row in run(collect(mailbox.fetch(inbox, ALL, ["content"])))]
        assert run(mailbox.check_consistency()) == []
        self.mailboxes.release(mailbox)
        return found

    def stop(self) -> None:
        run(self.moves.stop())
        run(self.remote.stop())
        run(self.mailboxes.close_all())
        run(self.spool.close())


class World:
    """Both, with one alias at the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.clock.advance(1_790_000_000)
        self.directory = Directory()
        self.links: dict[tuple[str, str], Link] = {}
        self.one = Primary(self, "one", path / "one")
        self.two = Primary(self, "two", path / "two")
        self.connect()
        public = self.one.files.create(ID, KEY)
        self.directory.alias = Alias(1, ADDRESS, AliasState.ENABLED, ID, public, "one", "2026-01-01T00:00:00Z")
        self.stale = self.directory.alias
        for each in (self.one, self.two):
            each.moves.start()

    def connect(self) -> None:
        """New links from everybody to everybody, to whoever is there now."""
        for link in self.links.values():
            link.stop()
        primaries = {"one": self.one, "two": self.two}
        for caller in ("one", "two", "secondary"):
            for name, primary in primaries.items():
                if name != caller:
                    self.links[caller, name] = primary.network.link(name=name)

    def link_of(self, caller: str) -> Any:
        """What a process knows of others."""
        return lambda location: self.links.get((caller, location))

    def pass_(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)

    def drive(self, coroutine: Coroutine[Any, Any, Any], seconds: float = 60.0) -> Any:
        """The result of a coroutine that has to wait; time goes on meanwhile."""
        results: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        passed = 0.0
        while not results and passed < seconds:
            self.clock.advance(0.05)
            passed += 0.05
        assert results, "still waiting"
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def send(self, primary: Primary, number: int, *, stale: bool = False) -> None:
        """A message arrives at a primary, which looks its alias up now or did so before everything."""
        alias = self.stale if stale else self.directory.alias
        assert alias is not None
        self.drive(primary.deliver.deliver(alias, content(number), bytes((number,)) * 16, WHEN))

    def open(self, evicted: Any = print) -> RemoteMailbox:
        """The owner's session at the secondary."""
        assert self.directory.alias is not None
        link = self.links["secondary", self.directory.alias.location]

        async def relocate(mailbox_id: str) -> Link | None:
            location = await self.directory.location_of(mailbox_id)
            return self.links.get(("secondary", location or ""))

        mailbox: RemoteMailbox = self.drive(open_remote(link, ID, KEY, evicted, relocate=relocate))
        return mailbox

    def take_down(self, primary: Primary, folder: Path) -> None:
        """A primary as it was at some moment is put in the place of the one that runs now."""
        for (caller, name), link in list(self.links.items()):
            if primary.name in (caller, name):
                link.stop()
        primary.moves._running = False
        primary.moves._stop_timer()
        run(primary.remote.stop())
        run(primary.mailboxes.close_all())
        run(primary.spool.close())
        shutil.rmtree(primary.folder)
        shutil.copytree(folder, primary.folder)
        primary.start()
        self.connect()
        primary.moves.start()

    def stop(self) -> None:
        for each in (self.one, self.two):
            each.stop()
        for link in self.links.values():
            link.stop()
        self.pass_(40)
        assert not self.clock.getDelayedCalls()


def content(number: int) -> bytes:
    return b"Subject: number %d\r\n\r\ntext\r\n" % number
