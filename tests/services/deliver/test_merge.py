"""Waiting mail moves in: in order, once, and whatever happens on the way.  With real files on both sides."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fe_twisted.base import errors, faults
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.services.deliver import merge as merging
from fe_twisted.services.deliver import turns
from fe_twisted.services.deliver.deliver import Deliver
from fe_twisted.services.deliver.merge import Merge
from fe_twisted.storage.directory.api import Alias, AliasState
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.spool.item import Waiting, unseal
from fe_twisted.storage.spool.spool import Counts, Spool
from tests.storage.mailbox.driving import ID, KEY, at_once, collect, run

SERVER_KEY = bytes(range(50, 82))
WHEN = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)


class Box:
    """The whole of storage and delivery over one folder, as a process has it."""

    def __init__(self, folder: Path, public: bytes | None = None) -> None:
        self.folder = folder
        self.files = MailboxFiles(folder)
        self.public = public or self.files.create(ID, KEY)
        self.clock = Clock()
        self.clock.advance(time.time())
        self.spool = Spool(self.files.temporary_path, SERVER_KEY, at_once, self.clock)
        self.merge = Merge(self.spool, at_once, self.clock)
        self.registry: OpenMailboxes[LocalMailbox] = OpenMailboxes(self.opened, self.clock)
        self.deliver = Deliver(self.registry, self.spool, self.files.exists)
        self.alias = Alias(1, "hello@example.com", AliasState.ENABLED, ID, self.public, "local", "")

    async def opened(self, mailbox_id: str, key: bytes) -> LocalMailbox:
        return await open_mailbox(self.files, mailbox_id, key, at_once, self.clock, self.merge.poll)

    def receive(self, content: bytes, delivery_id: bytes | None = None) -> None:
        run(self.deliver.deliver(self.alias, content, delivery_id or os.urandom(16), WHEN))

    def login(self) -> LocalMailbox:
        mailbox = run(self.registry.open(ID, KEY))
        run(mailbox.poll())
        return mailbox

    def contents(self, mailbox: LocalMailbox, folder: str = "INBOX") -> list[bytes]:
        selected = run(mailbox.select(folder, claim_recent=False))
        return [content for (content,) in run(collect(mailbox.fetch(selected.folder_id, selected.uids, ["content"])))]

    def close(self) -> None:
        run(self.registry.close_all())
        run(self.spool.close())


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path / "mailboxes")
    yield box
    mailbox = run(box.registry.open(ID, KEY))
    assert run(mailbox.check_consistency()) == []
    box.close()


def mail(number: int, size: int = 100) -> bytes:
    return b"Subject: message %d\r\nDate: Tue, 3 Feb 2026 04:05:06 +0000\r\n\r\nbody %d\r\n" % (number, number) + b"x" * size + b"\r\n"


def test_all_arrive_in_order_and_the_file_goes(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "BATCH_MESSAGES", 7)
    sent = [mail(number) for number in range(30)]
    for content in sent:
        box.receive(content)
    mailbox = box.login()
    assert box.contents(mailbox) == sent
    assert not box.spool.waiting(ID)
    assert {path.name for path in box.folder.iterdir()} == {f"{ID}.sqlite{suffix}" for suffix in ("", "-wal", "-shm")}
    selected = run(mailbox.select("INBOX", claim_recent=False))
    dates = run(collect(mailbox.fetch(selected.folder_id, selected.uids, ["internaldate"])))
    assert set(dates) == {(b" 3-Feb-2026 04:05:06 +0000",)}


def test_straight_in_while_open_and_watchers_hear_of_it(box: Box) -> None:
    mailbox = box.login()
    heard: list[int] = []
    mailbox.watch(lambda folder, modseq: heard.append(folder))
    box.receive(mail(1))
    assert len(heard) == 1
    assert box.contents(mailbox) == [mail(1)]


def test_large_messages_make_batches_of_their_own(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "BATCH_BYTES", 100_000)
    sent = [mail(number, 90_000) for number in range(5)] + [mail(9, 300_000)]
    for content in sent:
        box.receive(content)
    assert box.contents(box.login()) == sent


def test_delivery_repeated_in_both_places_is_stored_once(box: Box) -> None:
    """The sender got no answer and tried again, or the process died between two steps."""
    delivery = bytes(range(16))
    box.receive(mail(1), delivery)
    box.receive(mail(1), delivery)
    mailbox = box.login()
    box.receive(mail(1), delivery)
    run(box.spool.add(ID, box.public, Waiting(delivery, WHEN, mail(1))))
    assert run(mailbox.poll()) == 0
    assert box.contents(mailbox) == [mail(1)]
    assert not box.spool.waiting(ID)


def test_folder_and_flags_are_kept_and_a_lost_folder_is_inbox(box: Box) -> None:
    run(box.spool.add(ID, box.public, Waiting(os.urandom(16), WHEN, mail(1), "Junk", frozenset({"\\Seen", "$Junk"}))))
    run(box.spool.add(ID, box.public, Waiting(os.urandom(16), WHEN, mail(2), "No such folder")))
    mailbox = box.login()
    assert box.contents(mailbox, "Junk") == [mail(1)]
    assert box.contents(mailbox) == [mail(2)]
    assert run(mailbox.status("Junk")).unseen == 0 and "$Junk" in mailbox.keywords()


def test_rows_that_do_not_open_stay_and_stop_nobody(box: Box) -> None:
    box.receive(mail(1))
    run(box.spool.add(ID, SealingKey.generate().public(), Waiting(os.urandom(16), WHEN, mail(2))))
    box.receive(mail(3))
    mailbox = box.login()
    assert box.contents(mailbox) == [mail(1), mail(3)]
    assert run(box.spool.counts(ID)) == Counts(waiting=0, refused=1)
    assert run(mailbox.poll()) == 0
    box.receive(mail(4))
    run(box.spool.add(ID, box.public, Waiting(os.urandom(16), WHEN, mail(5))))
    assert run(mailbox.poll()) == 1
    assert box.contents(mailbox) == [mail(1), mail(3), mail(4), mail(5)]


class Refusing:
    """A mailbox that fails as told, for some messages or for all."""

    def __init__(self, mailbox: LocalMailbox, error: Exception, *bad: bytes) -> None:
        self.mailbox, self.error, self.bad = mailbox, error, bad
        self.asked = self.failed = 0

    async def append(self, name: str, messages: Any) -> Any:
        self.asked += 1
        if not self.bad or any(message.content in self.bad for message in messages):
            self.failed += 1
            raise self.error
        return await self.mailbox.append(name, messages)


@pytest.mark.parametrize(
    "error", [errors.DiskFull(), errors.StorageFailed(), errors.OverQuota(), MemoryError()], ids=lambda e: type(e).__name__
)
def test_a_mailbox_in_trouble_leaves_all_for_the_next_time(box: Box, error: Exception) -> None:
    box.receive(mail(1))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    with pytest.raises(type(error)):
        run(box.merge.merge(ID, Refusing(mailbox, error), key))
    assert run(box.spool.counts(ID)) == Counts(waiting=1, refused=0)
    if isinstance(error, errors.Ours):
        assert run(mailbox.poll()) == 0, "it is left in peace"
        box.clock.advance(turns.REST)
    assert run(mailbox.poll()) == 1
    assert box.contents(mailbox) == [mail(1)]


def test_what_was_refused_is_tried_again_after_a_restart(box: Box) -> None:
    """An update may have mended what refused it; until then it is tried once for each start."""
    box.receive(mail(1))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    broken = Refusing(mailbox, RuntimeError("bug"))
    assert run(box.merge.merge(ID, broken, key)) == run(box.merge.merge(ID, mailbox, key)) == 0
    assert run(box.spool.counts(ID)) == Counts(waiting=0, refused=1)
    assert run(Merge(box.spool, at_once, box.clock).merge(ID, mailbox, key)) == 1
    assert box.contents(mailbox) == [mail(1)]
    assert not box.spool.waiting(ID)


TROUBLE = [errors.MessageTooLarge(), RuntimeError("bug"), errors.StorageFailed(reason="database"), errors.DamagedFile(reason="index")]


@pytest.mark.parametrize("error", TROUBLE, ids=lambda e: type(e).__name__)
def test_one_message_that_cannot_be_stored_holds_no_other_up(box: Box, error: Exception) -> None:
    for number in range(5):
        box.receive(mail(number))
    mailbox = run(box.registry.open(ID, KEY))
    came = run(box.merge.merge(ID, Refusing(mailbox, error, mail(2)), run(mailbox.sealing_key())))
    assert came == 4
    assert box.contents(mailbox) == [mail(0), mail(1), mail(3), mail(4)]
    assert run(box.spool.counts(ID)) == Counts(waiting=0, refused=1)
    run(box.spool.retry(ID))
    assert run(mailbox.poll()) == 1, "once the bug is mended it can come in"


@pytest.mark.parametrize("error", TROUBLE[2:], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("batch", [1, 2, 200])
def test_those_that_raise_an_error_of_ours_are_set_aside_wherever_they_stand(
    box: Box, error: Exception, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First, in the middle and last; also when each is alone in its batch, as large ones are."""
    monkeypatch.setattr(merging, "BATCH_MESSAGES", batch)
    for number in range(7):
        box.receive(mail(number))
    mailbox = run(box.registry.open(ID, KEY))
    broken = Refusing(mailbox, error, mail(0), mail(1), mail(3), mail(6))
    assert run(box.merge.merge(ID, broken, run(mailbox.sealing_key()))) == 3
    assert box.contents(mailbox) == [mail(2), mail(4), mail(5)]
    assert run(box.spool.counts(ID)) == Counts(waiting=0, refused=4)
    box.receive(mail(7))
    assert run(mailbox.poll()) == 0, "those that were set aside are not tried at each poll"
    box.clock.advance(turns.RETRY)
    assert run(mailbox.poll()) == 4, "but again after a while"
    assert sorted(box.contents(mailbox)) == [mail(number) for number in range(8)]
    assert not box.spool.waiting(ID)


def test_a_mailbox_that_takes_nothing_is_not_asked_for_every_message(box: Box) -> None:
    """It is the mailbox that is broken, not ten thousand messages; they are tried again after a while."""
    for number in range(40):
        box.receive(mail(number))
    mailbox = run(box.registry.open(ID, KEY))
    broken = Refusing(mailbox, errors.StorageFailed())
    with pytest.raises(errors.StorageFailed):
        run(box.merge.merge(ID, broken, run(mailbox.sealing_key())))
    assert broken.asked <= merging.PROBES + 1
    assert run(box.spool.counts(ID)) == Counts(waiting=40, refused=0)
    box.clock.advance(turns.REST)
    assert run(mailbox.poll()) == 40
    assert box.contents(mailbox) == [mail(number) for number in range(40)]


def waits(box: Box, *contents: bytes) -> None:
    """As when the mailbox is closed."""
    for content in contents:
        run(box.spool.add(ID, box.public, Waiting(os.urandom(16), WHEN, content)))


def test_what_was_set_aside_never_keeps_newer_mail_out(box: Box) -> None:
    """More than a broken mailbox is asked for, and older than what came after it: again after a while, and after a start."""
    bad = [mail(number) for number in range(0, 60, 2)]
    waits(box, *(mail(number) for number in range(61)))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    broken = Refusing(mailbox, errors.StorageFailed(), *bad)
    assert run(box.merge.merge(ID, broken, key)) == 31
    for number in range(61, 64):
        box.clock.advance(turns.RETRY)
        waits(box, mail(number))
        broken.asked = 0
        assert run(box.merge.merge(ID, broken, key)) == 1
        assert broken.asked <= merging.PROBES + 2
        assert run(box.spool.counts(ID)) == Counts(waiting=0, refused=30)
    waits(box, mail(64))
    box.merge = Merge(box.spool, at_once, box.clock)
    assert run(box.merge.merge(ID, broken, key)) == 1
    broken.bad = tuple(bad[:25])
    box.clock.advance(turns.RETRY)
    assert run(box.merge.merge(ID, broken, key)) == 5, "those behind many that still fail have their turn as well"
    box.clock.advance(turns.RETRY)
    assert run(box.merge.merge(ID, mailbox, key)) == 25
    assert not box.spool.waiting(ID)
    assert sorted(box.contents(mailbox)) == sorted(mail(number) for number in range(65))


def test_many_bad_ones_at_the_head_are_told_from_a_broken_mailbox(box: Box) -> None:
    """By one of the newest that can be stored."""
    bad = [mail(number) for number in range(45)]
    waits(box, *bad, mail(45), mail(46), mail(47))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    broken = Refusing(mailbox, errors.StorageFailed(), *bad, mail(47))
    assert run(box.merge.merge(ID, broken, key)) == 2
    assert run(box.spool.counts(ID)) == Counts(waiting=0, refused=46)


@pytest.mark.parametrize("bad", [1, 30])
def test_those_that_cannot_be_stored_keep_nothing_in_that_was_set_aside(box: Box, bad: int) -> None:
    """What was set aside for a fault that has passed comes in after a while, and proves that the mailbox is not broken."""
    waits(box, mail(0), mail(1))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    assert run(box.merge.merge(ID, Refusing(mailbox, RuntimeError("bug"), mail(0)), key)) == 1
    worse = [mail(number) for number in range(2, 2 + bad)]
    waits(box, *worse)
    broken = Refusing(mailbox, errors.StorageFailed(), *worse)
    with pytest.raises(errors.StorageFailed):
        run(box.merge.merge(ID, broken, key))
    assert run(box.spool.counts(ID)) == Counts(waiting=bad, refused=1)
    box.clock.advance(turns.RETRY)
    assert run(box.merge.merge(ID, broken, key)) == 1
    assert sorted(box.contents(mailbox)) == [mail(0), mail(1)]
    found = run(box.spool.counts(ID))
    assert found.waiting + found.refused == bad
    assert found.refused >= min(bad, merging.PROBES)
    assert run(box.merge.merge(ID, mailbox, key)) == found.waiting, "it is not left in peace for their sake"


def test_a_clock_that_was_set_back_does_not_keep_what_was_set_aside(box: Box) -> None:
    waits(box, mail(0))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    assert run(box.merge.merge(ID, Refusing(mailbox, RuntimeError("bug")), key)) == 0
    box.clock.rightNow -= 86_400 * 365
    assert run(box.merge.merge(ID, mailbox, key)) == 1


@pytest.mark.parametrize("error", TROUBLE[2:], ids=lambda e: type(e).__name__)
def test_one_bad_message_alone_is_not_tried_at_each_poll(box: Box, error: Exception) -> None:
    """Every command of every session polls; but new mail comes in at once, and proves that it is the message."""
    waits(box, mail(1))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    broken = Refusing(mailbox, error, mail(1))
    for turn in range(3):
        broken.asked = 0
        pause = turns.REST * 2**turn
        with pytest.raises(type(error)):
            run(box.merge.merge(ID, broken, key))
        for _ in range(9):
            box.clock.advance(pause / 10)
            assert run(box.merge.merge(ID, broken, key)) == run(box.merge.poll(mailbox)) == 0
        assert broken.asked == 1
        assert run(box.spool.counts(ID)) == Counts(waiting=1, refused=0)
        box.clock.advance(pause / 10)
    waits(box, mail(2))
    assert run(box.merge.merge(ID, broken, key)) == 1
    assert run(box.spool.counts(ID)) == Counts(waiting=0, refused=1)


def polls(box: Box, target: Any, most: int = 100) -> int:
    """Poll as often as something comes of it, or as others are tried; returns how often that was."""
    key = run(target.mailbox.sealing_key())
    for count in range(most):
        target.asked = target.failed = 0
        with contextlib.suppress(errors.MailError):
            run(box.merge.merge(ID, target, key))
        bound = merging.PROBES if isinstance(target.error, errors.Ours) else merging.FAILURES + merging.BATCH_MESSAGES
        assert target.failed <= 2 * bound + 4, "the work of one poll is bounded"
        if not target.asked:
            return count
    raise AssertionError("it never rests")


@pytest.mark.parametrize("error", TROUBLE, ids=lambda e: type(e).__name__)
def test_what_stands_between_many_that_fail_moves_in_with_the_next_polls(
    box: Box, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest and the newest fail, for a reason that does not set them aside, and nothing new comes."""
    monkeypatch.setattr(merging, "BATCH_MESSAGES", 20)
    monkeypatch.setattr(merging, "FAILURES", 20)
    good = [mail(number) for number in (30, 31, 70)]
    waits(box, *(mail(number) for number in range(120)))
    mailbox = run(box.registry.open(ID, KEY))
    broken = Refusing(mailbox, error, *(mail(number) for number in range(120) if mail(number) not in good))
    polls(box, broken)
    assert box.contents(mailbox) == good
    for _ in range(12):
        box.clock.advance(turns.LONGEST)
        polls(box, broken)
    broken.bad = (mail(100),)
    box.clock.advance(turns.LONGEST)
    polls(box, broken)
    assert sorted(box.contents(mailbox)) == sorted(mail(number) for number in range(120) if number != 100)


def test_who_polls_seldom_has_all_tried_as_well(box: Box) -> None:
    """When all pauses are over each time, the oldest are not tried again and again before the others."""
    waits(box, *(mail(number) for number in range(100)))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    broken = Refusing(mailbox, errors.StorageFailed(), *(mail(number) for number in range(100) if number != 60))
    for _ in range(6):
        box.clock.advance(86_400)
        try:
            run(box.merge.merge(ID, broken, key))
        except errors.StorageFailed:
            assert broken.asked
    assert box.contents(mailbox) == [mail(60)]


def test_many_new_ones_that_fail_by_themselves_are_not_all_tried_at_one_poll(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """When many old ones failed, and it may be the mailbox."""
    monkeypatch.setattr(merging, "FAILURES", 30)
    old, new = [mail(number) for number in range(30)], [mail(number) for number in range(30, 130)]
    waits(box, *old, *new)
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())

    class Both(Refusing):
        async def append(self, name: str, messages: Any) -> Any:
            self.asked += len(messages) == 1
            raise errors.StorageFailed() if messages[0].content in old else RuntimeError("bug")

    target = Both(mailbox, errors.StorageFailed())
    for _ in range(10):
        with contextlib.suppress(errors.MailError):
            run(box.merge.merge(ID, target, key))
        assert target.asked <= 2 * 30 + merging.PROBES, "and those that were set aside"
        target.asked = 0
    assert run(box.spool.counts(ID)) == Counts(waiting=30, refused=100)


def test_a_mailbox_that_recovers_between_two_polls_takes_all_in_order(box: Box) -> None:
    """Though some had their turn already, and others not."""
    waits(box, *(mail(number) for number in range(50)))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    broken = Refusing(mailbox, errors.StorageFailed())
    for _ in range(2):
        with pytest.raises(errors.StorageFailed):
            run(box.merge.merge(ID, broken, key))
    assert run(mailbox.poll()) == 50
    assert box.contents(mailbox) == [mail(number) for number in range(50)]
    assert not box.spool.waiting(ID)


def test_pauses_grow_while_nothing_can_be_stored(box: Box) -> None:
    """From one attempt at all to the next; mail that comes meanwhile is tried at once, and does not start over."""
    waits(box, mail(1))
    mailbox = run(box.registry.open(ID, KEY))
    broken = Refusing(mailbox, errors.StorageFailed(), mail(1), mail(2))
    pauses = []
    for _ in range(6):
        assert polls(box, broken) == 1
        began = box.clock.seconds()
        while not polls(box, broken):
            box.clock.advance(turns.REST / 2)
        pauses.append(box.clock.seconds() - began)
        while broken.asked or polls(box, broken):
            broken.asked = 0
        box.clock.advance(turns.RETRY)
    assert pauses == sorted(pauses) and pauses[0] == turns.REST and pauses[-1] == turns.RETRY
    waits(box, mail(3))
    assert run(box.merge.merge(ID, broken, run(mailbox.sealing_key()))) == 1


def test_pauses_grow_for_what_was_set_aside(box: Box) -> None:
    waits(box, mail(1), mail(2))
    mailbox = run(box.registry.open(ID, KEY))
    broken = Refusing(mailbox, RuntimeError("bug"), mail(1))
    polls(box, broken)
    pauses = []
    for _ in range(8):
        began = box.clock.seconds()
        while not polls(box, broken):
            box.clock.advance(turns.RETRY)
        pauses.append(box.clock.seconds() - began)
    assert pauses[:3] == [turns.RETRY, 2 * turns.RETRY, 4 * turns.RETRY] and pauses[-1] == turns.LONGEST


def test_new_mail_that_fails_does_not_keep_what_failed_before_from_its_turn(box: Box) -> None:
    """However often it comes, and though nothing else can be stored."""
    waits(box, mail(0), mail(1))
    mailbox = run(box.registry.open(ID, KEY))
    broken = Refusing(mailbox, errors.StorageFailed(), *(mail(number) for number in range(40)))
    polls(box, broken)
    broken.bad = broken.bad[:1] + broken.bad[2:]
    for number in range(2, 40):
        waits(box, mail(number))
        polls(box, broken)
        box.clock.advance(turns.RETRY / 3)
        if box.contents(mailbox):
            break
    assert box.contents(mailbox) == [mail(1)]


class Small(Refusing):
    """There is no room but for small messages."""

    async def append(self, name: str, messages: Any) -> Any:
        self.asked += 1
        if sum(len(message.content) for message in messages) > 10_000:
            raise self.error
        return await self.mailbox.append(name, messages)


@pytest.mark.parametrize("error", [errors.DiskFull(), errors.OverQuota(), MemoryError()], ids=lambda e: type(e).__name__)
def test_large_ones_that_there_is_no_room_for_keep_no_small_one_out(box: Box, error: Exception) -> None:
    """And are at fault for nothing."""
    waits(box, mail(0), *(mail(number, 20_000 + number) for number in range(1, 9)), mail(9), mail(10, 30_000), mail(11))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    full = Small(mailbox, error)
    for _ in range(2):
        with pytest.raises(type(error)):
            run(box.merge.merge(ID, full, key))
        assert full.asked <= turns.SMALLER + 4
        full.asked = 0
        assert box.contents(mailbox) == [mail(0), mail(9), mail(11)]
        assert run(box.spool.counts(ID)) == Counts(waiting=9, refused=0)
    assert run(box.merge.merge(ID, mailbox, key)) == 9
    assert not box.spool.waiting(ID)


@pytest.mark.parametrize("error", [errors.DiskFull(), errors.OverQuota(), MemoryError()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("batch", [1, 4, 200])
def test_large_ones_each_smaller_than_the_one_before_keep_no_small_one_out(
    box: Box, monkeypatch: pytest.MonkeyPatch, batch: int, error: Exception
) -> None:
    """After some of them the smallest has its turn, and only when there is no room for that one it is over; those set aside, too."""
    monkeypatch.setattr(merging, "BATCH_MESSAGES", batch)
    waits(box, *(mail(number, 90_000 - 2_000 * number) for number in range(30)), mail(30), mail(31, 40_000), mail(32))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    full = Small(mailbox, error)
    for _ in range(2):
        with pytest.raises(type(error)):
            run(box.merge.merge(ID, full, key))
        assert full.asked <= 3 * (turns.SMALLER + 3), "so much for each that was stored, and once more"
        full.asked = 0
        assert sorted(box.contents(mailbox)) == [mail(30), mail(32)]
        assert run(box.spool.counts(ID)) == Counts(waiting=31, refused=0)
    nothing = Refusing(mailbox, error)
    with pytest.raises(type(error)):
        run(box.merge.merge(ID, nothing, key))
    assert nothing.asked <= turns.SMALLER + 3, "it is soon known that there is room for nothing"
    assert run(box.merge.merge(ID, mailbox, key)) == 31
    assert not box.spool.waiting(ID)


def test_small_ones_that_were_set_aside_pass_large_ones_by(box: Box) -> None:
    waits(box, *(mail(number, 90_000 - 5_000 * number) for number in range(9)), mail(9))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    marked = run(box.spool.take(ID, 100, 10**7))
    run(box.spool.refuse(ID, [row.delivery_id for row in marked]))
    assert run(box.merge.merge(ID, Small(mailbox, errors.OverQuota()), key)) == 1
    assert box.contents(mailbox) == [mail(9)]
    box.clock.advance(turns.REST)
    assert run(box.merge.merge(ID, mailbox, key)) == 9


def little_memory(sealed: bytes, *rest: Any) -> Waiting:
    """In the place of :func:`unseal`."""
    if len(sealed) > 40_000:
        raise MemoryError
    return unseal(sealed, *rest)


def test_many_that_memory_does_not_suffice_to_open_keep_no_other_out(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "BATCH_MESSAGES", 7)
    waits(box, *(mail(number, 50_000) for number in range(8)), mail(8))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    with monkeypatch.context() as patch:
        patch.setattr(merging, "unseal", little_memory)
        with pytest.raises(MemoryError):
            run(box.merge.merge(ID, mailbox, key))
    assert box.contents(mailbox) == [mail(8)]
    assert run(box.merge.merge(ID, mailbox, key)) == 8


def test_a_message_that_memory_does_not_suffice_to_open_keeps_no_other_out(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    waits(box, mail(0), mail(1, 50_000), mail(2))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    with monkeypatch.context() as patch:
        patch.setattr(merging, "unseal", little_memory)
        with pytest.raises(MemoryError):
            run(box.merge.merge(ID, mailbox, key))
    assert box.contents(mailbox) == [mail(0), mail(2)]
    assert run(box.spool.counts(ID)) == Counts(waiting=1, refused=0)
    assert run(box.merge.merge(ID, mailbox, key)) == 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_fails_all_that_can_be_stored_is(data: st.DataObject) -> None:
    """Each message fails in its own way or not, small batches, polls after any time: what can be stored is, soon, once and in order."""
    kinds = st.sampled_from([None, None, errors.StorageFailed(), RuntimeError("bug"), errors.MessageTooLarge(), errors.DiskFull()])
    fates = data.draw(st.lists(kinds, min_size=1, max_size=40))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "BATCH_MESSAGES", data.draw(st.sampled_from([1, 3, 200])))
        patch.setattr(merging, "PROBES", 4)
        patch.setattr(merging, "NEWEST", 1)
        box = Box(Path(folder))
        # What there is no room for is larger than the others.
        sent = [mail(number, 5_000 if isinstance(fate, errors.DiskFull) else 100) for number, fate in enumerate(fates)]
        waits(box, *sent)
        mailbox = run(box.registry.open(ID, KEY))
        key = run(mailbox.sealing_key())
        failing = dict(zip(sent, fates, strict=True))

        class Fated(Refusing):
            async def append(self, name: str, messages: Any) -> Any:
                self.asked += 1
                for message in messages:
                    if (error := failing[message.content]) is not None:
                        raise error
                return await self.mailbox.append(name, messages)

        fated = Fated(mailbox, RuntimeError())
        for _ in range(len(sent)):
            box.clock.advance(data.draw(st.sampled_from([0, 1, 100, 10_000])))
            with contextlib.suppress(errors.MailError):
                run(box.merge.merge(ID, fated, key))
        good = [content for content, fate in failing.items() if fate is None]
        assert box.contents(mailbox) == good
        counts = run(box.spool.counts(ID))
        assert counts.waiting + counts.refused == len(sent) - len(good)
        failing = dict.fromkeys(sent)
        for _ in range(len(sent)):
            box.clock.advance(turns.LONGEST)
            run(box.merge.merge(ID, fated, key))
        assert sorted(box.contents(mailbox)) == sorted(sent)
        assert not box.spool.waiting(ID)
        box.close()


def test_mail_that_comes_while_a_mailbox_fails_is_not_kept_waiting(box: Box) -> None:
    """The next poll tries again at once."""
    waits(box, mail(1))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())

    class Meanwhile(Refusing):
        async def append(self, name: str, messages: Any) -> Any:
            if self.asked == 0:
                self.asked = 1
                await box.spool.add(ID, box.public, Waiting(os.urandom(16), WHEN, mail(2)))
            return await super().append(name, messages)

    failing = Meanwhile(mailbox, errors.StorageFailed())
    with pytest.raises(errors.StorageFailed):
        run(box.merge.merge(ID, failing, key))
    assert run(mailbox.poll()) == 2


def test_trouble_that_passes_while_those_set_aside_are_tried_again_is_nobodys(box: Box) -> None:
    """The others are in by then; and it does not take as long as otherwise until the next attempt."""
    waits(box, mail(1), mail(2))
    mailbox = run(box.registry.open(ID, KEY))
    key = run(mailbox.sealing_key())
    assert run(box.merge.merge(ID, Refusing(mailbox, errors.StorageFailed(), mail(1)), key)) == 1
    box.clock.advance(turns.RETRY)
    waits(box, mail(3))
    assert run(box.merge.merge(ID, Refusing(mailbox, errors.DiskFull(), mail(1)), key)) == 1
    assert run(box.spool.counts(ID)) == Counts(waiting=0, refused=1)
    box.clock.advance(turns.REST)
    assert run(mailbox.poll()) == 1
    assert not box.spool.waiting(ID)


def test_a_full_disk_sets_nothing_aside(box: Box) -> None:
    """Nor does anything else that passes: it may come with the second message as well."""
    for number in range(3):
        box.receive(mail(number))
    mailbox = run(box.registry.open(ID, KEY))
    with pytest.raises(errors.DiskFull):
        run(box.merge.merge(ID, Refusing(mailbox, errors.DiskFull(), mail(1)), run(mailbox.sealing_key())))
    assert run(box.spool.counts(ID)).refused == 0
    assert run(mailbox.poll()) == 3 or box.contents(mailbox) == [mail(number) for number in range(3)]


class Leaving(Box):
    """The owner is back, and gone before the threads have done anything: each job waits until somebody lets it run."""

    def __init__(self, folder: Path) -> None:
        self.jobs: list[tuple[Any, Deferred[Any]]] = []
        self.held = False
        super().__init__(folder)
        self.spool = Spool(self.files.temporary_path, SERVER_KEY, self.thread, self.clock)
        self.merge = Merge(self.spool, self.thread, self.clock)
        self.registry = OpenMailboxes(self.opened, self.clock, grace=0)
        self.deliver = Deliver(self.registry, self.spool, self.files.exists)

    async def opened(self, mailbox_id: str, key: bytes) -> LocalMailbox:
        return await open_mailbox(self.files, mailbox_id, key, self.thread, self.clock, self.merge.poll)

    def thread(self, job: Any) -> Deferred[Any]:
        if not self.held:
            return at_once(job)
        self.jobs.append((job, Deferred()))
        return self.jobs[-1][1]

    def work(self) -> None:
        while self.jobs:
            job, done = self.jobs.pop(0)
            at_once(job).addBoth(done.callback)

    def come_and_go(self) -> None:
        """A login and a logout, without a moment for anything between them."""
        mailbox = run(self.registry.open(ID, KEY))
        self.held = True
        Deferred.fromCoroutine(mailbox.poll()).addErrback(lambda failure: failure.trap(errors.Later))
        self.registry.release(mailbox)
        self.clock.advance(0)
        self.work()
        self.held = False
        assert self.registry.get(ID) is None


def test_waiting_mail_moves_in_however_soon_the_owner_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each login brings in a batch at least, and no more: who is gone is not waited for."""
    monkeypatch.setattr(merging, "BATCH_MESSAGES", 2)
    box = Leaving(tmp_path / "mailboxes")
    for number in range(5):
        box.receive(mail(number))
    left = []
    for _ in range(3):
        box.come_and_go()
        left.append(run(box.spool.counts(ID)).waiting)
    assert left == [3, 1, 0]
    mailbox = box.login()
    assert box.contents(mailbox) == [mail(number) for number in range(5)]
    assert not box.spool.waiting(ID)
    box.close()


def test_who_comes_back_meanwhile_finds_the_rest_moving_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mailbox is being closed while a batch is being stored: the next session waits for that, and goes on."""
    monkeypatch.setattr(merging, "BATCH_MESSAGES", 2)
    box = Leaving(tmp_path / "mailboxes")
    for number in range(5):
        box.receive(mail(number))
    mailbox = run(box.registry.open(ID, KEY))
    box.held = True
    Deferred.fromCoroutine(mailbox.poll()).addErrback(lambda failure: failure.trap(errors.Later))
    box.registry.release(mailbox)
    box.clock.advance(0)
    again: list[Any] = []
    Deferred.fromCoroutine(box.registry.open(ID, KEY)).addBoth(again.append)
    assert not again
    box.work()
    box.held = False
    assert run(again[0].poll()) == 3
    assert box.contents(again[0]) == [mail(number) for number in range(5)]
    box.close()


def test_two_polls_at_once_are_one_merge(tmp_path: Path) -> None:
    """The second waits, and finds nothing left to do; or does what came meanwhile."""
    box = Box(tmp_path / "mailboxes")
    for number in range(3):
        box.receive(mail(number))
    mailbox = run(box.registry.open(ID, KEY))
    jobs: list[tuple[Any, Deferred[Any]]] = []

    def thread(job: Any) -> Deferred[Any]:
        jobs.append((job, Deferred()))
        return jobs[-1][1]

    slow = Merge(box.spool, thread, box.clock)
    results: list[Any] = []
    for _ in range(3):
        Deferred.fromCoroutine(slow.poll(mailbox)).addBoth(results.append)
    assert len(jobs) == 1 and not results, "one unseals, the others wait"
    run(box.spool.add(ID, box.public, Waiting(os.urandom(16), WHEN, mail(3))))
    while jobs:
        job, done = jobs.pop(0)
        done.callback(job())
    assert sorted(results) == [0, 0, 4]
    assert box.contents(mailbox) == [mail(number) for number in range(4)]
    box.close()


# -- crashes --------------------------------------------------------------------------------------


def a_day(box: Box, acknowledged: list[bytes]) -> None:
    """Mail comes, the owner logs in, more comes, the owner leaves, more comes, the owner is back."""
    numbers = iter(range(100))

    def receive() -> None:
        content = mail(next(numbers), 3000)
        box.receive(content)
        acknowledged.append(content)

    for _ in range(4):
        receive()
    mailbox = box.login()
    receive()
    box.registry.release(mailbox)
    box.clock.advance(60)
    for _ in range(3):
        receive()
    box.login()


@pytest.mark.parametrize("nth", [1, 2, 3, 5])
@pytest.mark.parametrize("point", [point for point in faults.POINTS if point.startswith(("deliver.", "spool.", "writer.", "merge."))])
def test_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, nth: int) -> None:
    """The disk as it is at that moment is what the next process finds: nothing acknowledged is lost, nothing is doubled."""
    monkeypatch.setattr(merging, "BATCH_MESSAGES", 2)
    before = Box(tmp_path / "mailboxes")
    acknowledged: list[bytes] = []
    promised: list[bytes] = []
    image = tmp_path / "image"

    def crash(name: str) -> None:
        shutil.copytree(before.folder, image, ignore=shutil.ignore_patterns("*-shm"))
        promised.extend(acknowledged)

    faults.arm(f"{point}:{nth}", crash)
    try:
        a_day(before, acknowledged)
    finally:
        faults.disarm()
    before.close()
    if not image.exists():
        assert nth > 1, "every point is reached at least once"
        return
    after = Box(image, before.public)
    mailbox = after.login()
    stored = after.contents(mailbox)
    assert len(stored) == len(set(stored)), "doubled"
    assert set(promised) <= set(stored), "lost"
    assert set(stored) <= set(acknowledged)
    assert not after.spool.waiting(ID)
    assert run(mailbox.check_consistency()) == []
    after.receive(mail(1000))
    assert after.contents(mailbox)[-1] == mail(1000)
    after.close()
