"""Delivery from a secondary: through the link, or into a queue that only the recipient can read, and in the end exactly once."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from fe_twisted.base import errors
from fe_twisted.base.addresses import Address
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.services.cluster.host import Host
from fe_twisted.services.deliver.deliver import Deliver
from fe_twisted.services.deliver.merge import Merge
from fe_twisted.services.deliver.remote import AGAIN, RemoteDeliver
from fe_twisted.storage.directory.api import Alias, AliasState
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.spool.queue import Queue
from fe_twisted.storage.spool.spool import Spool
from tests.storage.mailbox.driving import ID, KEY, at_once, collect, run
from tests.storage.mailbox.linked import Network
from tests.storage.mailbox.samples import ALL

WHEN = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)


class Directory:
    """One alias."""

    def __init__(self, alias: Alias) -> None:
        self.alias: Alias | None = alias

    async def recipient(self, address: Address) -> Alias:
        if self.alias is None or str(address) != self.alias.address:
            raise errors.UnknownRecipient
        return self.alias


class World:
    """A primary with a mailbox and its spool, and a secondary with its queue."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.clock.advance(1_790_000_000)
        self.files = MailboxFiles(path / "mailboxes")
        public = self.files.create(ID, KEY)
        self.alias = Alias(1, "hello@example.com", AliasState.ENABLED, ID, public, "one", "2026-01-01T00:00:00Z")
        self.directory = Directory(self.alias)
        self.spool = Spool(self.files.temporary_path, b"p" * 32, at_once, self.clock)
        merge = Merge(self.spool, at_once, self.clock)
        self.mailboxes: OpenMailboxes[LocalMailbox] = OpenMailboxes(
            lambda mailbox_id, key: open_mailbox(self.files, mailbox_id, key, at_once, self.clock, merge.poll), self.clock, grace=0
        )
        host = Host(self.mailboxes, Deliver(self.mailboxes, self.spool, self.files.exists), self.directory, self.spool, self.files.exists)
        self.network = Network(host, self.clock)
        self.link = self.network.link()
        self.locations: dict[str, str] = {ID: "one"}
        self.begin()

    def begin(self) -> None:
        """The secondary starts."""
        self.queue = Queue(self.path / "queue", b"q" * 32, at_once, self.clock)
        self.deliver = RemoteDeliver(
            lambda location: self.link if location == "one" else None,
            lambda mailbox_id: succeed(self.locations.get(mailbox_id)),
            self.queue,
            self.clock,
        )
        self.link.when_connected(self.deliver.hand_over)
        self.deliver.start()

    def down(self) -> None:
        self.network.down = True
        self.network.cable.break_()

    def up(self) -> None:
        self.network.down = False
        self.pass_(15)

    def pass_(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.clock.advance(0.1)

    def send(self, number: int, delivery_id: bytes | None = None) -> None:
        run(self.deliver.deliver(self.alias, content(number), delivery_id or bytes((number,)) * 16, WHEN))

    def read(self) -> list[bytes]:
        """The owner comes, and reads all."""
        mailbox = run(self.mailboxes.open(ID, KEY))
        run(mailbox.poll())
        inbox = run(mailbox.select("INBOX", claim_recent=False)).folder_id
        found = [row[0] for row in run(collect(mailbox.fetch(inbox, ALL, ["content"])))]
        assert run(mailbox.check_consistency()) == []
        self.mailboxes.release(mailbox)
        self.clock.advance(0)
        return found


def content(number: int) -> bytes:
    return b"Subject: very secret number %d\r\n\r\ntext\r\n" % number


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.network.fault = lambda up, message: False
    run(world.deliver.stop())
    world.link.stop()
    run(world.mailboxes.close_all())
    run(world.spool.close())
    assert not world.clock.getDelayedCalls()


def test_while_the_owner_is_connected_it_goes_straight_in(world: World) -> None:
    mailbox = run(world.mailboxes.open(ID, KEY))
    world.send(1)
    assert run(mailbox.status("INBOX")).messages == 1
    assert not world.spool.waiting(ID) and world.queue.ids() == []
    world.mailboxes.release(mailbox)


def test_while_the_owner_is_away_the_primary_seals_it(world: World) -> None:
    world.send(1)
    assert world.spool.waiting(ID) and world.queue.ids() == []
    assert world.read() == [content(1)]


def test_the_same_delivery_is_stored_once(world: World) -> None:
    for _ in range(3):
        world.send(1)
    assert world.read() == [content(1)]
    world.send(1)
    assert world.read() == [content(1)]


def test_without_a_primary_it_waits_here_and_nobody_here_can_read_it(world: World) -> None:
    world.down()
    for number in range(3):
        world.send(number)
    assert world.queue.ids() == [ID]
    lying = b"".join(path.read_bytes() for path in (world.path / "queue").iterdir())
    assert b"secret" not in lying and b"example.com" not in lying
    [first, *_] = run(world.queue.spool.take(ID, 10, 1 << 20))
    assert b"secret" not in first.sealed, "nor inside of the file, whose key this box has"
    with pytest.raises(ValueError):
        SealingKey.generate().open(first.sealed, b"spool " + ID.encode() + b" " + first.delivery_id)


def test_it_is_handed_over_when_the_link_is_back(world: World) -> None:
    world.down()
    for number in range(5):
        world.send(number)
    world.up()
    assert world.queue.ids() == []
    assert world.read() == [content(number) for number in range(5)]


def test_it_goes_into_the_open_mailbox_when_it_is_handed_over(world: World) -> None:
    world.down()
    world.send(1)
    mailbox = run(world.mailboxes.open(ID, KEY))
    heard: list[int] = []
    mailbox.watch(lambda folder, modseq: heard.append(modseq))
    world.up()
    assert heard and run(mailbox.status("INBOX")).messages == 1
    world.mailboxes.release(mailbox)


def test_it_waits_over_a_restart_of_this_box(world: World) -> None:
    world.down()
    world.send(1)
    run(world.deliver.stop())
    world.begin()
    assert world.queue.ids() == [ID]
    world.up()
    assert world.queue.ids() == [] and world.read() == [content(1)]


@pytest.mark.parametrize("again", [0, 1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("cut", range(1, 5))
@pytest.mark.parametrize("owner", ["away", "here"])
def test_whichever_message_of_the_link_is_lost_it_comes_once(world: World, cut: int, again: int, owner: str) -> None:
    mailbox = run(world.mailboxes.open(ID, KEY)) if owner == "here" else None
    seen = 0

    def fault(up: bool, message: bytes) -> bool:
        nonlocal seen
        seen += 1
        return seen in (cut, cut + again)

    world.network.fault = fault
    results: list[Any] = []
    for number in range(2):
        Deferred.fromCoroutine(world.deliver.deliver(world.alias, content(number), bytes((number,)) * 16, WHEN)).addBoth(results.append)
    world.pass_(30)
    assert results == [None, None]
    assert seen >= cut
    world.pass_(AGAIN + 20)
    if mailbox is not None:
        world.mailboxes.release(mailbox)
    assert world.queue.ids() == []
    assert sorted(world.read()) == [content(0), content(1)]


def test_a_lost_answer_to_the_handover_doubles_nothing(world: World) -> None:
    world.down()
    for number in range(3):
        world.send(number)
    answered = 0

    def fault(up: bool, message: bytes) -> bool:
        nonlocal answered
        answered += not up and world.network.cable.conversation._agreed is not None
        return bool(answered == 1 and not up and world.network.cable.conversation._agreed is not None)

    world.network.fault = fault
    world.up()
    world.pass_(AGAIN + 20)
    assert len(world.network.cables) > 2 and world.queue.ids() == []
    assert world.read() == [content(number) for number in range(3)]


def test_what_the_primary_refuses_is_refused_here(world: World) -> None:
    world.directory.alias = None
    with pytest.raises(errors.UnknownRecipient):
        world.send(1)
    assert world.queue.ids() == []


def test_an_alias_without_a_mailbox_is_not_ready(world: World) -> None:
    bare = Alias(2, "new@example.com", AliasState.ENABLED, None, None, "one", "")
    with pytest.raises(errors.NotReady):
        run(world.deliver.deliver(bare, content(1), os.urandom(16), WHEN))


def test_a_primary_that_does_not_answer_in_time_is_not_waited_for(world: World) -> None:
    world.network.cable.held = True
    results: list[Any] = []
    Deferred.fromCoroutine(world.deliver.deliver(world.alias, content(1), b"1" * 16, WHEN)).addBoth(results.append)
    world.pass_(19)
    assert not results
    world.pass_(2)
    assert results == [None] and world.queue.ids() == [ID]
    world.network.cable.held = False
    world.network.cable.move()
    world.pass_(AGAIN + 10)
    assert world.queue.ids() == [] and world.read() == [content(1)]


def test_what_nobody_takes_stays_and_is_offered_again(world: World) -> None:
    world.down()
    world.send(1)
    world.locations.clear()
    world.up()
    assert world.queue.ids() == [ID]
    world.locations[ID] = "one"
    world.pass_(AGAIN + 1)
    assert world.queue.ids() == [] and world.read() == [content(1)]


def test_a_disk_that_is_full_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.down()

    async def full(*_: Any) -> None:
        raise errors.DiskFull

    monkeypatch.setattr(world.queue.spool, "add", full)
    with pytest.raises(errors.DiskFull):
        world.send(1)
