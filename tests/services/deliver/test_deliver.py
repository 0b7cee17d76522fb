"""Delivery: durable in one of two places, whatever the owner does meanwhile."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fe_twisted.base import errors
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.services.deliver.deliver import Deliver
from fe_twisted.services.deliver.merge import REST, Merge
from fe_twisted.storage.directory.api import Alias, AliasState
from fe_twisted.storage.mailbox.api import Appended, NewMessage
from fe_twisted.storage.spool.item import unseal
from fe_twisted.storage.spool.spool import Spool
from tests.storage.mailbox.driving import ID, at_once, run

KEY = SealingKey.generate()
WHEN = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
ALIAS = Alias(1, "hello@example.com", AliasState.ENABLED, ID, KEY.public(), "local", "2026-01-01T00:00:00Z")


class Box:
    """As much of a mailbox as delivery and merge use, in memory."""

    id = ID

    def __init__(self, merge: Merge | None = None) -> None:
        self.messages: list[NewMessage] = []
        self.seen: set[bytes] = set()
        self.error: Exception | None = None
        self.merge = merge
        self.polls = 0
        self.leaving = False

    async def append(self, name: str, messages: Sequence[NewMessage]) -> Appended:
        if self.error is not None:
            raise self.error
        if name != "INBOX":
            raise errors.TryCreate
        uids = []
        for message in messages:
            assert message.delivery_id is not None
            if message.delivery_id in self.seen:
                uids.append(0)
                continue
            self.seen.add(message.delivery_id)
            self.messages.append(message)
            uids.append(len(self.messages))
        return Appended(1, uids)

    async def sealing_key(self) -> SealingKey:
        return KEY

    async def poll(self) -> int:
        self.polls += 1
        return 0 if self.merge is None else await self.merge.poll(self)


class Registry:
    """The open mailbox, if any."""

    def __init__(self) -> None:
        self.box: Any = None

    def get(self, mailbox_id: str) -> Any:
        assert mailbox_id == ID
        return self.box


class Service:
    """Delivery over a temporary folder."""

    def __init__(self, folder: Path, thread: Callable[[Callable[[], Any]], Deferred[Any]] = at_once) -> None:
        self.spool = Spool(lambda mailbox_id: folder / f"{mailbox_id}-tmp.sqlite", bytes(32), thread, Clock())
        self.clock = Clock()
        self.merge = Merge(self.spool, thread, self.clock)
        self.registry = Registry()
        self.there = True
        self.deliver = Deliver(self.registry, self.spool, lambda mailbox_id: self.there)

    def waiting(self) -> list[bytes]:
        rows = run(self.spool.take(ID, 1000, 1 << 30))
        return [unseal(row.sealed, KEY, ID, row.delivery_id).content for row in rows]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_owner_away(service: Service) -> None:
    run(service.deliver.deliver(ALIAS, b"mail", os.urandom(16), WHEN))
    assert service.waiting() == [b"mail"]
    row = run(service.spool.take(ID, 1, 1))[0]
    item = unseal(row.sealed, KEY, ID, row.delivery_id)
    assert (item.folder, item.received_at, item.flags) == ("INBOX", WHEN, frozenset())


def test_owner_connected(service: Service) -> None:
    box = service.registry.box = Box()
    delivery = os.urandom(16)
    run(service.deliver.deliver(ALIAS, b"mail", delivery, WHEN))
    assert box.messages == [NewMessage(b"mail", internaldate=WHEN, delivery_id=delivery)]
    assert not service.spool.waiting(ID)


@pytest.mark.parametrize(
    "error",
    [errors.Later(), errors.Busy(), errors.DamagedFile(), errors.StorageFailed(), errors.DiskFull(), RuntimeError("bug")],
    ids=lambda error: type(error).__name__,
)
def test_open_mailbox_that_cannot_take_it(service: Service, error: Exception) -> None:
    """It's sealed instead, under the same delivery id, so that a half success is not doubled."""
    box = service.registry.box = Box()
    box.error = error
    delivery = os.urandom(16)
    run(service.deliver.deliver(ALIAS, b"mail", delivery, WHEN))
    assert service.waiting() == [b"mail"]
    assert run(service.spool.take(ID, 1, 1))[0].delivery_id == delivery


@pytest.mark.parametrize("error", [errors.OverQuota(), errors.MessageTooLarge()], ids=lambda error: type(error).__name__)
def test_mail_that_the_mailbox_refuses_is_not_sealed(service: Service, error: Exception) -> None:
    service.registry.box = Box()
    service.registry.box.error = error
    with pytest.raises(type(error)):
        run(service.deliver.deliver(ALIAS, b"mail", os.urandom(16), WHEN))
    assert not service.spool.waiting(ID)


def test_alias_without_a_mailbox(service: Service) -> None:
    for alias in (
        Alias(1, "a@example.com", AliasState.ENABLED, None, None, "local", ""),
        Alias(1, "a@example.com", AliasState.ENABLED, ID, None, "local", ""),
        Alias(1, "a@example.com", AliasState.ENABLED, None, KEY.public(), "local", ""),
    ):
        with pytest.raises(errors.NotReady):
            run(service.deliver.deliver(alias, b"mail", os.urandom(16), WHEN))


def test_mail_for_a_mailbox_that_was_discarded_is_not_acknowledged(service: Service) -> None:
    """The alias was looked up at RCPT and has another mailbox at the end of DATA: the sender tries again and reaches that one."""
    service.there = False
    for service.registry.box in (None, Box()):
        with pytest.raises(errors.Later):
            run(service.deliver.deliver(ALIAS, b"mail", os.urandom(16), WHEN))
    assert not service.spool.waiting(ID)


@pytest.mark.parametrize("is_open", [True, False])
def test_mail_stored_while_the_mailbox_is_discarded_is_not_acknowledged(tmp_path: Path, is_open: bool) -> None:
    def thread(job: Callable[[], Any]) -> Deferred[Any]:
        service.there = False
        return at_once(job)

    class Leaving(Box):
        async def append(self, name: str, messages: Sequence[NewMessage]) -> Appended:
            service.there = False
            return await super().append(name, messages)

    service = Service(tmp_path, thread)
    service.registry.box = Leaving() if is_open else None
    with pytest.raises(errors.Later):
        run(service.deliver.deliver(ALIAS, b"mail", os.urandom(16), WHEN))


def test_spool_that_fails_is_told(service: Service, tmp_path: Path) -> None:
    """No 250 without a durable message."""
    run(service.spool.close())
    with pytest.raises(errors.Later):
        run(service.deliver.deliver(ALIAS, b"mail", os.urandom(16), WHEN))


@pytest.mark.parametrize("steps", range(5))
def test_owner_comes_while_it_is_being_sealed(tmp_path: Path, steps: int) -> None:
    """At whatever moment: the message ends in the mailbox without another poll by the owner."""
    jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def thread(job: Callable[[], Any]) -> Deferred[Any]:
        jobs.append((job, Deferred()))
        return jobs[-1][1]

    def step() -> None:
        job, done = jobs.pop(0)
        done.callback(job())

    service = Service(tmp_path, thread)
    results: list[Any] = []
    Deferred.fromCoroutine(service.deliver.deliver(ALIAS, b"mail", os.urandom(16), WHEN)).addBoth(results.append)
    for _ in range(steps):
        if jobs:
            step()
    box = service.registry.box = Box(service.merge)
    login = Deferred.fromCoroutine(box.poll())
    while jobs:
        step()
    assert results == [None]
    assert login.called
    assert [message.content for message in box.messages] == [b"mail"]
    assert not service.spool.waiting(ID)


def test_failed_poll_after_sealing_is_not_the_senders_business(service: Service) -> None:
    box = service.registry.box = Box(service.merge)
    box.error = errors.StorageFailed()
    run(service.deliver.deliver(ALIAS, b"mail", os.urandom(16), WHEN))
    assert box.polls == 1
    assert service.waiting() == [b"mail"]
    box.error = None
    service.clock.advance(REST)
    assert run(box.poll()) == 1
    assert [message.content for message in box.messages] == [b"mail"]
