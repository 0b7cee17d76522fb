"""The mailbox whose file is here and belongs to a primary: what is read here, what is asked, and what becomes of it when either fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fe_twisted.base import errors
from fe_twisted.protocols.cluster.frames import Request, decode
from fe_twisted.protocols.imap.search import All, Header
from fe_twisted.protocols.imap.sort import Algorithm, Criterion, SortKey
from fe_twisted.storage.mailbox import files as files_
from fe_twisted.storage.mailbox import remote, view, words
from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.direct import ASIDE, MOMENT, REST, RETRY, DirectMailbox, Mode, open_direct
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.remote import METHODS, RemoteMailbox
from tests.storage.mailbox.driving import ID, KEY, at_once, collect, run
from tests.storage.mailbox.samples import ALL, add, folder_id, mail, rows
from tests.storage.mailbox.test_remote import GRACE, World


@pytest.fixture
def world(files: MailboxFiles, clock: Clock) -> Iterator[World]:
    world = World(files, clock)
    yield world
    world.network.fault = lambda up, message: False
    world.link.stop()
    clock.advance(GRACE + 1)
    assert len(world.mailboxes) == 0, "somebody kept a mailbox open"
    assert not clock.getDelayedCalls()
    assert [entry.name for entry in files.directory.iterdir()] == [files.path(ID).name], "all was put away"
    assert files.check(ID, KEY) == []


def opened(world: World, mode: Mode = "auto", key: bytes = KEY) -> RemoteMailbox:
    return run(open_direct(world.files, world.link, ID, key, world.evicted.append, at_once, world.clock, mode=mode))


def beside(world: World, mode: Mode = "auto") -> DirectMailbox:
    """One that reads the file."""
    mailbox = opened(world, mode)
    assert isinstance(mailbox, DirectMailbox) and mailbox.direct
    return mailbox


def asked(world: World) -> list[str]:
    """What the primary was asked since it was asked last, by this function."""
    sent = [decode(message) for cable in world.network.cables for up, message in cable.log if up]
    found = [frame.method for frame in sent if isinstance(frame, Request)]
    for cable in world.network.cables:
        cable.log.clear()
    return found


#: Every method that only reads, and how often it asks the primary.
READS: dict[str, Callable[[Any, int], Any]] = {
    "folders": lambda mailbox, inbox: mailbox.folders(),
    "subscriptions": lambda mailbox, inbox: mailbox.subscriptions(),
    "status": lambda mailbox, inbox: mailbox.status("INBOX"),
    "select": lambda mailbox, inbox: mailbox.select("INBOX", claim_recent=True),
    "changes": lambda mailbox, inbox: mailbox.changes(inbox, 1, 1, claim_recent=True),
    "vanished": lambda mailbox, inbox: mailbox.vanished(inbox, 0),
    "fetch": lambda mailbox, inbox: collect(mailbox.fetch(inbox, ALL, ["uid", "content"])),
    "octets": lambda mailbox, inbox: mailbox.octets(1 << 32, 2, 40),
    "search": lambda mailbox, inbox: mailbox.search(inbox, Header("subject", "number")),
    "sort": lambda mailbox, inbox: mailbox.sort(inbox, All(), [Criterion(SortKey.SUBJECT, False)]),
    "thread": lambda mailbox, inbox: mailbox.thread(inbox, All(), Algorithm.REFERENCES),
    "quota": lambda mailbox, inbox: mailbox.quota(),
    "deleted_octets": lambda mailbox, inbox: mailbox.deleted_octets("INBOX"),
    "get_metadata": lambda mailbox, inbox: mailbox.get_metadata("", ["/private/comment"], 0),
}


def filled(world: World, mode: Mode = "auto") -> tuple[DirectMailbox, int]:
    """With three messages that are no longer recent."""
    mailbox = beside(world, mode)
    add(mailbox, *(mail(number) for number in range(3)))
    inbox = run(mailbox.select("INBOX", claim_recent=True)).folder_id
    asked(world)
    return mailbox, inbox


def test_what_only_reads_asks_nobody(world: World) -> None:
    mailbox, inbox = filled(world)
    unkeyed = {name for name, method in METHODS.items() if not method.keyed} - {"poll", "check_consistency"}
    assert set(READS) == unkeyed | {"select", "changes"}
    elsewhere = run(remote.open_remote(world.link, ID, KEY, world.evicted.append))
    for name, read in READS.items():
        there = run(read(elsewhere, inbox))
        asked(world)
        assert run(read(mailbox, inbox)) == there, name
        assert asked(world) == [], name
    run(mailbox.close())
    run(elsewhere.close())


def test_only_the_primary_gives_away_what_is_recent(world: World) -> None:
    mailbox, inbox = filled(world)
    add(mailbox, mail(7))
    asked(world)
    assert run(mailbox.select("INBOX", claim_recent=False)).recent == ((4, 4),)
    assert asked(world) == []
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ((4, 4),)
    assert asked(world) == ["select"]
    add(mailbox, mail(8))
    asked(world)
    assert run(mailbox.changes(inbox, 1, 5, claim_recent=True)).recent == ((5, 5),)
    assert asked(world) == ["changes"]
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ()
    assert asked(world) == []
    run(mailbox.close())


def test_a_setting_forces_either(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    always = opened(world, "link")
    assert not isinstance(always, DirectMailbox)
    run(always.close())
    run(filled(world, "direct")[0].close())
    # The same path, and another machine's file: a copy, or a folder of the network.
    monkeypatch.setattr(files_, "_machine", lambda: b"another machine")
    monkeypatch.setattr(DirectMailbox, "_open_beside", elsewhere(DirectMailbox._open_beside))
    with pytest.raises(errors.StorageFailed):
        opened(world, "direct")
    mailbox = opened(world, "auto")
    assert isinstance(mailbox, DirectMailbox) and not mailbox.direct
    assert run(mailbox.status("INBOX")).messages == 3
    run(mailbox.close())


def elsewhere(function: Callable[[DirectMailbox], Any]) -> Callable[[DirectMailbox], Any]:
    """As if the primary ran on a machine of another name."""

    async def run_there(self: DirectMailbox) -> None:
        self._place = b"named by another machine"
        await function(self)

    return run_there


def test_a_machine_without_a_name_reads_over_the_link(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_, "_machine", lambda: b"")
    mailbox = opened(world)
    assert isinstance(mailbox, DirectMailbox) and not mailbox.direct
    assert run(mailbox.status("INBOX")).messages == 0
    run(mailbox.close())


def test_a_change_is_seen_when_it_is_told(world: World) -> None:
    """Whoever is told of a modseq finds it in the file, in the middle of being told."""
    mailbox, inbox = filled(world)
    seen: list[tuple[int, int]] = []

    def look(folder: int, modseq: int) -> None:
        asked(world)
        found = run(mailbox.changes(inbox, 0, 1, claim_recent=False))
        assert asked(world) == []
        seen.append((modseq, found.modseq))

    stop = mailbox.watch(look)
    local = run(world.mailboxes.open(ID, KEY))
    for number in range(5):
        run(local.append("INBOX", [NewMessage(mail(number))]))
        run(mailbox.store(inbox, ALL, "add" if number % 2 else "remove", frozenset({"\\Seen"})))
    world.mailboxes.release(local)
    assert len(seen) >= 8 and all(told == found for told, found in seen)
    stop()
    run(mailbox.close())


@pytest.mark.parametrize("few", [view.FEW, 0])
def test_a_keyword_is_known_before_a_flag_of_it_is_given(world: World, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """The file may be ahead of what was told: a bit that has no name yet would be lost on the client for good."""
    monkeypatch.setattr(view, "FEW", few)
    mailbox, inbox = filled(world)
    local = run(world.mailboxes.open(ID, KEY))
    world.network.cable.held = True
    run(local.store(inbox, ((1, 1),), "add", frozenset({"First"})))
    assert mailbox.keywords() == ()
    assert run(collect(mailbox.fetch(inbox, ((1, 1),), ["flags"]))) == [(1 << 5,)]
    assert mailbox.keywords() == ("First",)
    run(local.store(inbox, ((1, 1),), "add", frozenset({"Second"})))
    assert run(mailbox.changes(inbox, 1, 4, claim_recent=False)).changed[0][1] == 3 << 5
    assert mailbox.keywords() == ("First", "Second")
    assert mailbox.modseq(inbox) < local.modseq(inbox), "nothing was told"
    world.mailboxes.release(local)
    world.network.cable.held = False
    world.network.cable.move()
    assert mailbox.keywords() == ("First", "Second") and mailbox.modseq(inbox) == local.modseq(inbox)
    run(mailbox.close())


@pytest.mark.parametrize("name", sorted(READS))
def test_a_file_that_lags_behind_is_not_believed(world: World, name: str) -> None:
    """It cannot be by what SQLite promises; if it is all the same, the primary is asked, and the file is left alone for a while."""
    mailbox, inbox = filled(world)
    wanted = run(READS[name](mailbox, inbox))
    local = run(world.mailboxes.open(ID, KEY))
    mailbox.changed(inbox, local.modseq(inbox) + 1, None)
    asked(world)
    assert run(READS[name](mailbox, inbox)) == wanted
    assert asked(world) == [name] and not mailbox.direct
    run(READS[name](mailbox, inbox))
    assert asked(world) == [name]
    mailbox.changed(inbox, local.modseq(inbox), None)
    world.clock.advance(RETRY)
    assert run(READS[name](mailbox, inbox)) == wanted
    assert asked(world) == [] and mailbox.direct
    world.mailboxes.release(local)
    run(mailbox.close())


def test_a_folder_that_is_gone_is_gone(world: World) -> None:
    mailbox, _ = filled(world)
    run(mailbox.create("Short"))
    short = folder_id(mailbox, "Short")
    run(mailbox.delete("Short"))
    asked(world)
    with pytest.raises(errors.NoSuchFolder):
        run(mailbox.search(short, All()))
    with pytest.raises(errors.NoSuchFolder):
        run(mailbox.status("Short"))
    assert not run(mailbox.changes(short, 1, 1, claim_recent=False)).exists
    assert asked(world) == [] and mailbox.direct
    run(mailbox.close())


@pytest.mark.parametrize("name", sorted(READS))
def test_a_newer_schema_is_not_read_on(world: World, name: str) -> None:
    """A primary of a newer version brings the file forward while it is open here."""
    mailbox, inbox = filled(world)
    run(READS[name](mailbox, inbox))
    local = run(world.mailboxes.open(ID, KEY))
    run(READS[name](local, inbox))  # it has all the connections that it will need
    writing = local._writer.connection
    version = int(writing.execute("PRAGMA user_version").get)
    writing.execute(f"PRAGMA user_version = {version + 1}")
    asked(world)
    found = run(READS[name](mailbox, inbox))
    assert asked(world) != [] and not mailbox.direct
    writing.execute(f"PRAGMA user_version = {version}")
    assert found == run(READS[name](local, inbox))
    world.mailboxes.release(local)
    run(mailbox.close())


def test_a_file_that_was_replaced_is_not_read_on(world: World) -> None:
    """The primary was restored from a backup: the old file is open here, and no longer what the name stands for."""
    mailbox, _ = filled(world)
    world.network.down = True
    world.crash()
    world.clock.advance(GRACE + 1)
    copy = world.files.path(ID).with_suffix(".copy")
    os.link(world.files.path(ID), copy)
    world.files.delete(ID)
    world.files.create(ID, KEY)
    results: list[Any] = []
    Deferred.fromCoroutine(mailbox.status("INBOX")).addBoth(results.append)
    assert not results and not mailbox.direct, "it waits for the primary"
    world.network.down = False
    world.clock.advance(10)
    assert results[0].messages == 0
    asked(world)
    assert run(mailbox.status("INBOX")).messages == 0
    assert asked(world) == [] and mailbox.direct, "the new file is read"
    run(mailbox.close())
    copy.unlink()


def test_a_file_that_vanished_is_asked_for(world: World) -> None:
    mailbox, _ = filled(world)
    moved = world.files.path(ID).with_suffix(".moved")
    world.files.path(ID).rename(moved)
    asked(world)
    assert run(mailbox.status("INBOX")).messages == 3, "the primary still has it"
    assert asked(world) == ["status"] and not mailbox.direct
    moved.rename(world.files.path(ID))
    world.clock.advance(RETRY)
    assert run(mailbox.status("INBOX")).messages == 3
    assert asked(world) == [] and mailbox.direct
    run(mailbox.close())


def test_one_message_is_not_read_from_a_file_that_vanished_more_than_a_moment_ago(world: World) -> None:
    mailbox, inbox = filled(world)
    assert mailbox.fetch_one(inbox, 1, ["uid"]) == [(1,)]
    moved = world.files.path(ID).with_suffix(".moved")
    world.files.path(ID).rename(moved)
    world.clock.advance(2 * MOMENT)
    assert mailbox.fetch_one(inbox, 1, ["uid"]) is None
    assert mailbox.fetch_one(inbox, 1, ["uid"]) is None, "and it is remembered that it is not there"
    moved.rename(world.files.path(ID))
    assert mailbox.fetch_one(inbox, 1, ["uid"]) == [(1,)]
    run(mailbox.close())


def test_direct_reading_that_is_forced_fails_rather_than_ask(world: World) -> None:
    mailbox, inbox = filled(world, "direct")
    moved = world.files.path(ID).with_suffix(".moved")
    world.files.path(ID).rename(moved)
    with pytest.raises(errors.StorageFailed):
        run(mailbox.status("INBOX"))
    with pytest.raises(errors.StorageFailed):
        run(collect(mailbox.fetch(inbox, ALL, ["uid"])))
    assert asked(world) == []
    moved.rename(world.files.path(ID))
    assert run(mailbox.status("INBOX")).messages == 3
    assert asked(world) == []
    run(mailbox.close())


def test_while_the_link_is_away_reading_goes_on(world: World) -> None:
    mailbox, inbox = filled(world)
    world.network.down = True
    world.network.cable.break_()
    assert run(mailbox.status("INBOX")).messages == 3
    assert [row[0] for row in rows(mailbox, "INBOX", "uid")] == [1, 2, 3]
    with pytest.raises(errors.PrimaryAway):
        world.drive(mailbox.store(inbox, ALL, "add", frozenset({"\\Seen"})))
    assert run(mailbox.search(inbox, All())) == [1, 2, 3]
    world.network.down = False
    world.clock.advance(10)
    assert len(run(mailbox.store(inbox, ALL, "add", frozenset({"\\Seen"}))).changed) == 3
    run(mailbox.close())


def test_a_primary_that_begins_again_finds_its_reader(world: World) -> None:
    mailbox, _ = filled(world)
    world.crash()
    world.clock.advance(1)
    asked(world)
    add(mailbox, mail(9))
    assert [row[0] for row in rows(mailbox, "INBOX", "uid")] == [1, 2, 3, 4]
    assert asked(world) == ["append"] and mailbox.direct
    run(mailbox.close())


def test_a_damaged_index_is_the_primarys_to_mend(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is asked, although the answer could be found here without the index."""
    mailbox, inbox = filled(world)
    with monkeypatch.context() as patch:
        damaged: list[apsw.Connection] = []

        def holding(connection: apsw.Connection, *rest: Any) -> None:
            if not damaged:
                damaged.append(connection)
                raise apsw.CorruptError

        patch.setattr(words, "_holding", holding)
        assert run(mailbox.search(inbox, Header("subject", "number 2"))) == [3]
        assert asked(world) == ["search"]
        assert len(damaged) == 1
    world.clock.advance(RETRY)
    assert run(mailbox.search(inbox, Header("subject", "number 2"))) == [3]
    assert asked(world) == []
    run(mailbox.close())


def test_a_fetch_that_fails_here_goes_on_at_the_primary(world: World) -> None:
    mailbox = beside(world)
    add(mailbox, *(mail(number) for number in range(1200)))
    inbox = run(mailbox.select("INBOX", claim_recent=True)).folder_id
    asked(world)

    async def fetch(columns: list[Any]) -> list[Any]:
        found: list[Any] = []
        async for batch in mailbox.fetch(inbox, ((1, 700), (800, 2000)), columns):
            found += batch
            if mailbox._beside is not None:
                await mailbox._beside.close()
        return found

    wanted = [*range(1, 701), *range(800, 1201)]
    assert [row[0] for row in run(fetch(["uid", "envelope"]))] == wanted
    assert asked(world) == ["fetch"] and not mailbox.direct
    world.clock.advance(RETRY)
    assert len(run(fetch(["envelope"]))) == len(wanted)
    run(mailbox.close())


def test_a_fetch_that_waits_holds_no_snapshot(world: World) -> None:
    """A slow client must not keep the primary from cutting the WAL off."""
    mailbox, inbox = filled(world)
    add(mailbox, *(mail(number, b"x" * 100_000) for number in range(20)))
    batches = mailbox.fetch(inbox, ALL, ["uid", "content"])
    run(batches.__anext__())
    local = run(world.mailboxes.open(ID, KEY))
    done = run(cut_off(local))
    assert done[0] == 0 and world.files.path(ID).with_name(f"{ID}.sqlite-wal").stat().st_size == 0
    world.mailboxes.release(local)
    assert len(run(collect(batches))) > 0
    run(mailbox.close())


async def cut_off(local: Any) -> Any:
    return await local._writer.alone(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())


def test_eviction_closes_the_file(world: World) -> None:
    mailbox, _ = filled(world)
    run(world.mailboxes.evict(ID))
    assert world.evicted == [ID] and not mailbox.direct
    run(mailbox.close())
    # The reader had the file when the primary closed it, so the WAL was left for the next.
    local = run(world.mailboxes.open(ID, KEY))
    world.mailboxes.release(local)


def test_nothing_is_asked_after_the_end(world: World) -> None:
    mailbox, inbox = filled(world)
    run(mailbox.close())
    assert not mailbox.direct and mailbox._key.forgotten
    for name, read in READS.items():
        with pytest.raises(errors.Later):
            run(read(mailbox, inbox))
        assert asked(world) in ([], ["release"]), name


def test_a_file_that_nobody_asks_of_is_closed(world: World) -> None:
    mailbox, inbox = filled(world)
    world.clock.advance(REST - 1)
    assert run(mailbox.status("INBOX")).messages == 3
    world.clock.advance(REST - 1)
    assert mailbox.direct
    batches = mailbox.fetch(inbox, ALL, ["uid"])
    run(batches.__anext__())
    world.clock.advance(3 * REST)
    assert mailbox.direct, "a slow client is in the middle of a FETCH"
    assert world.drive(collect(batches)) == []
    world.clock.advance(2 * REST)
    assert not mailbox.direct and not world.clock.getDelayedCalls()
    asked(world)
    assert run(mailbox.status("INBOX")).messages == 3
    assert asked(world) == [] and mailbox.direct, "it is opened again"
    run(mailbox.close())


def test_waiting_mail_is_seen_here(world: World) -> None:
    """Most commands look for it: that must not cost a question each time, nor may mail be overlooked."""
    mailbox, _ = filled(world)
    assert [run(mailbox.poll()) for _ in range(3)] == [0, 0, 0]
    assert asked(world) == ["poll"], "once, because the primary forgets old deliveries then"
    waiting = world.files.temporary_path(ID)
    waiting.touch()
    run(mailbox.poll())
    assert asked(world) == ["poll"]
    waiting.unlink()
    world.network.down = True
    world.network.cable.break_()
    assert run(mailbox.poll()) == 0
    world.network.down = False
    world.clock.advance(10)
    moved = world.files.path(ID).with_suffix(".moved")
    world.files.path(ID).rename(moved)
    asked(world)
    run(mailbox.poll())
    assert asked(world) == ["poll"], "elsewhere, it may lie elsewhere"
    moved.rename(world.files.path(ID))
    run(mailbox.close())
    with pytest.raises(errors.Later):
        run(mailbox.poll())


def test_waiting_mail_that_was_set_aside_is_seen_here(world: World) -> None:
    """Now and then: it is there only when the primary could not read a damaged file at once."""
    mailbox, _ = filled(world)
    run(mailbox.poll())
    run(mailbox.poll())
    asked(world)
    aside = world.files.directory / f"{ID}-tmp.saving-1"
    aside.touch()
    run(mailbox.poll())
    assert asked(world) == []
    world.clock.advance(ASIDE)
    run(mailbox.poll())
    assert asked(world) == ["poll"]
    run(mailbox.poll())
    assert asked(world) == [], "nor is the primary asked each time while it cannot be read"
    aside.unlink()
    run(mailbox.close())


def test_it_is_opened_once_for_all_who_ask_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox, _ = filled(world)
    threads: list[Callable[[], Any]] = []
    waiting: list[Deferred[Any]] = []

    def later(function: Callable[[], Any]) -> Deferred[Any]:
        threads.append(function)
        waiting.append(Deferred())
        return waiting[-1]

    mailbox._drop()
    monkeypatch.setattr(mailbox, "_run_in_thread", later)
    results: list[Any] = []
    for _ in range(3):
        Deferred.fromCoroutine(mailbox.status("INBOX")).addBoth(results.append)
    assert len(threads) == 1 and not results
    waiting[0].callback(threads[0]())
    assert [found.messages for found in results] == [3, 3, 3] and len(threads) == 1
    mailbox._drop()
    Deferred.fromCoroutine(mailbox.status("INBOX")).addBoth(results.append)
    connection = threads[1]()
    run(mailbox.close())
    waiting[1].callback(connection)
    assert not mailbox.direct and isinstance(results[-1].value, errors.Later), "closed while it was being opened"
    with pytest.raises(Exception, match="closed"):
        connection.execute("SELECT 1")


def test_the_place_of_a_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()
    os.link(one, tmp_path / "again")
    assert files_.place_of(one) == files_.place_of(tmp_path / "again") != files_.place_of(two)
    assert len(files_.place_of(one)) == 32 and files_.place_of(tmp_path / "none") == b""
