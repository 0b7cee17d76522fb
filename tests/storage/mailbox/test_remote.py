"""The mailbox over a link that breaks: nothing is lost, nothing is done twice, and those who watch catch up."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fe_twisted.base import errors
from fe_twisted.clients.link.conversation import Conversation
from fe_twisted.protocols.cluster.frames import Data, Request, decode
from fe_twisted.protocols.imap.search import All
from fe_twisted.storage.mailbox import answers
from fe_twisted.storage.mailbox.api import FLAGGED, Mailbox, NewMessage
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes
from fe_twisted.storage.mailbox.remote import METHODS, RemoteMailbox, open_remote
from fe_twisted.storage.mailbox.rows import Outcome
from tests.storage.mailbox.driving import ID, KEY, at_once, collect, nothing_waits, run
from tests.storage.mailbox.linked import Network, hosting
from tests.storage.mailbox.samples import ALL, add, folder_id, mail, rows

GRACE = 30.0


class World:
    """One primary with one mailbox, and a network to it."""

    def __init__(self, files: MailboxFiles, clock: Clock) -> None:
        self.files = files
        self.clock = clock
        files.create(ID, KEY)
        self.evicted: list[str] = []
        self.start()
        self.network = Network(hosting(self.mailboxes, files), clock)
        self.link = self.network.link()

    def start(self) -> None:
        """The primary begins, with nothing open."""
        self.mailboxes: OpenMailboxes[LocalMailbox] = OpenMailboxes(
            lambda mailbox_id, key: open_mailbox(self.files, mailbox_id, key, at_once, self.clock, nothing_waits), self.clock, grace=GRACE
        )

    def crash(self) -> None:
        """The primary is killed and begins again: what it had open is not closed, but abandoned."""
        self.network.cable.break_()
        run(self.mailboxes.close_all())  # nothing was under way, so this differs from a crash in nothing that is on the disk
        self.start()
        self.network.host = hosting(self.mailboxes, self.files)

    def open(self, key: bytes = KEY) -> RemoteMailbox:
        return run(open_remote(self.link, ID, key, self.evicted.append))

    def drive(self, coroutine: Coroutine[Any, Any, Any], seconds: float = 100.0) -> Any:
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


@pytest.fixture
def world(files: MailboxFiles, clock: Clock) -> Iterator[World]:
    world = World(files, clock)
    yield world
    world.network.fault = lambda up, message: False
    world.link.stop()
    clock.advance(GRACE + 1)
    assert len(world.mailboxes) == 0, "somebody kept a mailbox open"
    assert not clock.getDelayedCalls()
    assert files.check(ID, KEY) == []


def test_every_method_of_the_interface_can_be_asked_for() -> None:
    here = {"keywords", "modseq", "watch", "fetch_one"}
    interface = {name for name in vars(Mailbox) if not name.startswith("_")} - here
    assert set(METHODS) == interface
    assert all(callable(getattr(RemoteMailbox, name)) for name in interface | here)


async def work(mailbox: Mailbox) -> list[Any]:
    """One of each change, and what was answered."""
    found: list[Any] = []
    await mailbox.create("Work/deep")
    found.append(await mailbox.append("INBOX", [NewMessage(mail(number)) for number in range(4)]))
    selected = await mailbox.select("INBOX", claim_recent=True)
    found.append(selected)
    inbox = selected.folder_id
    found.append(await mailbox.store(inbox, ((1, 2),), "add", frozenset({"\\Flagged", "Work"})))
    found.append(await mailbox.copy(inbox, ((1, 1),), "Work/deep"))
    found.append(await mailbox.move(inbox, ((2, 2),), "Work/deep"))
    found.append(await mailbox.store(inbox, ((3, 3),), "add", frozenset({"\\Deleted"})))
    found.append(await mailbox.expunge(inbox, None))
    found.append(await mailbox.changes(inbox, selected.status.highestmodseq, selected.status.uidnext, claim_recent=True))
    await mailbox.subscribe("Work/deep", True)
    await mailbox.rename("Work", "Play")
    found.append(await collect(mailbox.fetch(inbox, ALL, ["uid", "flags", "content"])))
    found.append([(folder.name, folder.subscribed) for folder in await mailbox.folders()])
    found.append((mailbox.modseq(inbox), mailbox.keywords()))
    await mailbox.delete("Play/deep")
    found.append(await mailbox.search(inbox, All()))
    return found


def expected(files: MailboxFiles, clock: Clock) -> list[Any]:
    """What the work answers when nothing goes wrong."""
    files.create("e" * 24, KEY)
    mailbox = run(open_mailbox(files, "e" * 24, KEY, at_once, clock, nothing_waits))
    found = run(work(mailbox))
    run(mailbox.close())
    return found


def messages_of(world: World) -> int:
    mailbox = world.open()
    run(work(mailbox))
    run(mailbox.close())
    return len(world.network.cable.log)


def test_the_work_can_be_cut_at_every_message(tmp_path: Any, clock: Clock) -> None:
    """Whichever message is the last that does not arrive, in whichever direction: the answers are those of a day without faults."""
    wanted = expected(MailboxFiles(tmp_path / "expected"), clock)
    count = messages_of(World(MailboxFiles(tmp_path / "counted"), clock))
    assert count > 45
    for cut in range(6, count):
        world = World(MailboxFiles(tmp_path / str(cut)), clock)
        mailbox = world.open()
        seen = 0

        def fault(up: bool, message: bytes, cut: int = cut) -> bool:
            nonlocal seen
            seen += 1
            return seen == cut

        world.network.fault = fault
        found = world.drive(work(mailbox))
        # UIDVALIDITY comes from the clock, which went on while the link was down.
        assert without_validity(found) == without_validity(wanted), f"cut at message {cut}"
        assert world.link.connections == 2 or seen < cut
        run(mailbox.close())
        world.link.stop()
        clock.advance(GRACE + 1)
        assert world.files.check(ID, KEY) == []


def without_validity(found: list[Any]) -> str:
    return re.sub(r"uidvalidity=\d+|object_id='\w+'", "", repr(found))


def test_a_primary_that_is_killed_between_a_change_and_its_answer(world: World) -> None:
    mailbox = world.open()
    add(mailbox, mail(1))

    def lose_answer(up: bool, message: bytes) -> bool:
        frame = decode(message) if not up else None
        if isinstance(frame, Data):
            world.network.fault = lambda up, message: False
            return True
        return False

    world.network.fault = lose_answer
    appended: list[Any] = []
    Deferred.fromCoroutine(mailbox.append("INBOX", [NewMessage(mail(2))])).addBoth(appended.append)
    world.crash()
    while not appended:
        world.clock.advance(0.05)
    assert list(appended[0].uids) == [2]
    assert [row[0] for row in rows(mailbox, "INBOX", "uid")] == [1, 2]
    run(mailbox.close())


def test_changes_of_another_secondary_are_told_in_order(world: World) -> None:
    one, two = world.open(), None
    other = world.network.link()
    two = run(open_remote(other, ID, KEY, world.evicted.append))
    heard: list[tuple[int, int]] = []
    one.watch(lambda folder, modseq: heard.append((folder, modseq)))
    inbox = folder_id(one)
    add(two, mail(1))
    run(two.store(inbox, ALL, "add", frozenset({"Fresh"})))
    add(one, mail(2))
    assert [folder for folder, _ in heard] == [inbox] * 3
    assert [modseq for _, modseq in heard] == sorted({modseq for _, modseq in heard})
    assert one.modseq(inbox) == two.modseq(inbox) == heard[-1][1]
    assert one.keywords() == two.keywords() == ("Fresh",)
    run(two.store(inbox, ((9, 9),), "add", frozenset({"Unused"})))
    assert two.keywords() == ("Fresh", "Unused"), "a new keyword that changed no message is known to whoever made it"
    run(one.close())
    run(two.close())
    other.stop()


def test_a_slow_secondary_hears_of_the_newest_only_and_before_its_answers(world: World) -> None:
    one = world.open()
    session = world.network.cable.session
    other = world.network.link()
    two = run(open_remote(other, ID, KEY, world.evicted.append))
    inbox = folder_id(two)
    add(two, mail(1))
    heard: list[int] = []
    one.watch(lambda folder, modseq: heard.append(modseq))
    session.paused()
    for name in ("a", "b", "c"):
        run(two.store(inbox, ALL, "add", frozenset({name})))
    assert heard == []
    session.resumed()
    assert heard == [two.modseq(inbox)] and one.keywords() == ("a", "b", "c")
    run(one.close())
    run(two.close())
    other.stop()


def test_what_flags_mean_is_known_before_a_row_with_them(world: World) -> None:
    """The primary's reader sees a commit before the primary hears of it: here it never does."""
    mailbox = world.open()
    add(mailbox, mail(1))
    inbox = folder_id(mailbox)
    other = run(open_mailbox(world.files, ID, KEY, at_once, world.clock, nothing_waits))
    run(other.store(inbox, ALL, "add", frozenset({"$Word"})))
    run(other.close())
    assert mailbox.keywords() == ()

    async def names() -> list[tuple[str, ...]]:
        return [mailbox.keywords() async for batch in mailbox.fetch(inbox, ALL, ["flags"])]

    assert run(names()) == [("$Word",)]
    run(mailbox.close())


def test_a_keyword_of_an_older_file_may_be_long(world: World) -> None:
    """There was no limit once; what is told of such a mailbox must not end the link, which belongs to everybody."""
    local = run(open_mailbox(world.files, ID, KEY, at_once, world.clock, nothing_waits))
    run(local._write(lambda connection: Outcome(connection.execute("INSERT INTO keywords VALUES(0, ?)", ("k" * 65_000,)).get)))
    run(local.close())
    mailbox = world.open()
    add(mailbox, mail(1))
    run(mailbox.store(folder_id(mailbox), ALL, "add", frozenset({"new"})))
    assert mailbox.keywords() == ("k" * 65_000, "new")
    assert len(world.network.cables) == 1
    run(mailbox.close())


def test_those_who_watch_catch_up_after_the_link_was_down(world: World) -> None:
    mailbox = world.open()
    inbox = folder_id(mailbox)
    heard: list[tuple[int, int]] = []
    mailbox.watch(lambda folder, modseq: heard.append((folder, modseq)))
    run(mailbox.create("Short"))
    short = folder_id(mailbox, "Short")
    heard.clear()
    world.network.cable.break_()
    local = run(world.mailboxes.open(ID, KEY))
    run(local.append("INBOX", [NewMessage(mail(1), frozenset({"New"}))]))
    run(local.delete("Short"))
    world.mailboxes.release(local)
    assert heard == []
    world.clock.advance(1)
    assert world.link.connected
    assert set(heard) == {(inbox, local.modseq(inbox)), (short, 0), (0, 0)}, "names may have changed, too"
    assert mailbox.keywords() == ("New",) and mailbox.modseq(short) == 0
    run(mailbox.close())


def test_while_the_primary_is_away_clients_wait_and_then_are_told(world: World) -> None:
    mailbox = world.open()
    world.network.down = True
    world.network.cable.break_()
    began = world.clock.seconds()
    with pytest.raises(errors.PrimaryAway) as caught:
        world.drive(mailbox.status("INBOX"))
    assert 29 < world.clock.seconds() - began < 31
    assert isinstance(caught.value, errors.Later) and caught.value.imap.code == "UNAVAILABLE" and caught.value.smtp.code == 421
    world.network.down = False
    assert world.drive(mailbox.status("INBOX")).messages == 0
    run(mailbox.close())


def test_a_fetch_goes_on_behind_the_last_row_that_came(world: World) -> None:
    mailbox = world.open()
    add(mailbox, *(mail(number) for number in range(2600)))
    inbox = folder_id(mailbox)

    async def fetch(columns: list[Any], each: int) -> list[Any]:
        found: list[Any] = []
        async for batch in mailbox.fetch(inbox, ((1, 5), (100, 2599)), columns):
            found += batch
            if len(world.network.cables) < each:
                world.network.cable.break_()
        return found

    wanted = [*range(1, 6), *range(100, 2600)]
    found = world.drive(fetch(["uid", "envelope"], 4))
    assert [row[0] for row in found] == wanted and len(world.network.cables) == 4
    found = world.drive(fetch(["envelope"], 8))
    assert [len(row) for row in found] == [1] * len(wanted), "a UID that was not asked for is not given"
    run(mailbox.close())


def test_a_fetch_that_ends_every_connection_is_given_up(world: World) -> None:
    mailbox = world.open()
    add(mailbox, mail(1))
    inbox = folder_id(mailbox)
    fetches = 0

    def fault(up: bool, message: bytes) -> bool:
        nonlocal fetches
        asked = decode(message)
        hit = isinstance(asked, Request) and asked.method == "fetch"
        fetches += hit
        return hit

    world.network.fault = fault
    with pytest.raises(errors.PrimaryAway):
        world.drive(collect(mailbox.fetch(inbox, ALL, ["uid"])))
    assert fetches == 5
    world.network.fault = lambda up, message: False
    run(mailbox.close())


def test_a_fetch_that_is_left_stops_the_work(world: World) -> None:
    mailbox = world.open()
    add(mailbox, *(mail(number, b"x" * 100_000) for number in range(60)))

    async def first() -> int:
        batches = mailbox.fetch(folder_id(mailbox), ALL, ["uid", "content"])
        async for batch in batches:
            await batches.aclose()
            return len(batch)
        return 0

    assert run(first()) < 10
    session = world.network.cable.session
    assert not session._jobs and not session._answering._calls
    sent = sum(len(message) for up, message in world.network.cable.log if not up)
    assert sent < 3_000_000, "no more than the window was sent"
    run(mailbox.close())


def test_a_reader_that_does_not_read_holds_nobody_up(world: World) -> None:
    mailbox = world.open()
    add(mailbox, *(mail(number, b"x" * 100_000) for number in range(60)))
    slow = mailbox.fetch(folder_id(mailbox), ALL, ["uid", "content"])
    first = run(slow.__anext__())
    assert first and world.network.cable.session._jobs, "the rest waits at the primary"
    assert run(mailbox.status("INBOX")).messages == 60
    assert len(rows(mailbox, "INBOX", "uid", "content")) == 60
    rest = run(collect(slow))
    assert len(first) + len(rest) == 60
    run(mailbox.close())


def test_eviction_ends_the_sessions(world: World) -> None:
    mailbox = world.open()
    run(world.mailboxes.evict(ID))
    assert world.evicted == [ID]
    run(mailbox.close())


def test_a_mailbox_that_does_not_open_again_ends_its_sessions(world: World) -> None:
    mailbox = world.open()
    world.crash()
    world.files.delete(ID)
    world.files.create(ID, b"another key".ljust(32))
    world.clock.advance(1)
    assert world.evicted == [ID]
    with pytest.raises(errors.DamagedFile):
        run(mailbox.status("INBOX"))
    run(mailbox.close())
    world.files.delete(ID)
    world.files.create(ID, KEY)


def test_a_mailbox_that_was_replaced_by_an_older_one_ends_its_sessions(world: World) -> None:
    """As after a backup was restored: what sessions have seen is not so any more, and nothing could tell their clients."""
    mailbox = world.open()
    run(mailbox.append("INBOX", [NewMessage(mail(1))]))
    world.network.down = True
    world.crash()
    path = world.files.path(ID)
    older = path.read_bytes()
    local = run(world.mailboxes.open(ID, KEY))
    run(local.append("INBOX", [NewMessage(mail(2))]))
    world.mailboxes.release(local)
    world.network.down = False
    world.clock.advance(10)
    assert mailbox.modseq(folder_id(mailbox)) > 1 and world.evicted == [], "to go on is no reason"
    world.crash()
    path.write_bytes(older)
    world.clock.advance(10)
    assert world.evicted == [ID]
    run(mailbox.close())
    world.clock.advance(GRACE + 1)
    assert len(world.mailboxes) == 0, "it was given back"


def test_what_is_told_before_the_answer_to_opening_is_not_forgotten(world: World) -> None:
    """A connection that had its fill tells what it held back first, and only then that the mailbox is open."""
    mailbox = world.open()
    inbox = folder_id(mailbox)
    world.network.cable.break_()

    def fill(up: bool, message: bytes) -> bool:
        if up and b"open" in message:
            world.network.cable.session.paused()
        return False

    world.network.fault = fill
    world.clock.advance(1)
    assert world.link.connected
    local = run(world.mailboxes.open(ID, KEY))
    run(local.append("INBOX", [NewMessage(mail(1))]))
    newest = local.modseq(inbox)
    world.mailboxes.release(local)
    world.network.cable.session.resumed()
    assert mailbox.modseq(inbox) == newest
    run(mailbox.close())


def test_what_is_open_lapses_with_the_link(world: World) -> None:
    mailbox = world.open()
    world.network.down = True
    world.network.cable.break_()
    assert world.mailboxes.get(ID) is not None, "the grace, in which it may come back"
    world.clock.advance(GRACE + 1)
    assert world.mailboxes.get(ID) is None
    run(mailbox.close())


def test_without_a_session_the_primary_has_no_key(world: World) -> None:
    mailbox = world.open()
    held = world.mailboxes._entries[ID].key
    assert held is not None and not held.forgotten
    run(mailbox.close())
    world.clock.advance(GRACE + 1)
    assert held.forgotten and len(world.mailboxes) == 0
    assert mailbox._key.forgotten


def test_the_key_is_never_seen_on_the_link(world: World) -> None:
    mailbox = world.open()
    add(mailbox, mail(1))
    run(mailbox.close())
    everything = b"".join(message for cable in world.network.cables for _, message in cable.log)
    assert KEY not in everything and KEY.hex().encode() not in everything
    assert b"SELECT" not in everything and b"sqlite" not in everything


def test_a_wrong_key_opens_nothing(world: World) -> None:
    with pytest.raises(errors.DamagedFile):
        world.open(bytes(32))
    mailbox = world.open()
    with pytest.raises(errors.DamagedFile):
        run(open_remote(world.network.link(), ID, bytes(32), world.evicted.append))
    assert run(mailbox.status("INBOX")).messages == 0
    run(mailbox.close())


# -- changes that are made once -------------------------------------------------------------------


def repeat(world: World, method: str, body: list[Any], key: bytes) -> bytes:
    conversation: Conversation = world.network.cable.conversation
    results: list[Any] = []
    conversation.ask(method, ID, body, key, timeout=10).addBoth(results.append)
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return bytes(results[0])


def test_the_same_key_is_answered_from_memory_also_by_another_process(world: World) -> None:
    mailbox = world.open()
    body = METHODS["append"].signature.write(("INBOX", [NewMessage(mail(1))]), {})
    first = repeat(world, "append", body, b"k" * 16)
    assert repeat(world, "append", body, b"k" * 16) == first
    world.crash()
    world.clock.advance(1)
    assert repeat(world, "append", body, b"k" * 16) == first
    assert run(mailbox.status("INBOX")).messages == 1
    assert repeat(world, "append", body, b"l" * 16) != first
    assert run(mailbox.status("INBOX")).messages == 2
    run(mailbox.close())


def test_a_failed_change_is_not_remembered(world: World) -> None:
    mailbox = world.open()
    body = METHODS["append"].signature.write(("Later", [NewMessage(mail(1))]), {})
    with pytest.raises(errors.TryCreate):
        repeat(world, "append", body, b"k" * 16)
    run(mailbox.create("Later"))
    repeat(world, "append", body, b"k" * 16)
    assert run(mailbox.status("Later")).messages == 1
    run(mailbox.close())


def test_who_saw_messages_first_is_remembered(world: World) -> None:
    mailbox = world.open()
    add(mailbox, mail(1))
    body = METHODS["select"].signature.write(("INBOX",), {"claim_recent": True})
    first = repeat(world, "select", body, b"k" * 16)
    assert run(mailbox.select("INBOX", claim_recent=True)).recent == ()
    assert repeat(world, "select", body, b"k" * 16) == first
    run(mailbox.close())


def test_answers_are_forgotten_after_a_day(world: World) -> None:
    mailbox = world.open()
    count = "SELECT count(*) FROM answers"
    local = world.mailboxes.get(ID)
    assert local is not None
    for number in range(3):
        add(mailbox, mail(number))
    assert local._reader.execute(count).get == 3
    world.clock.advance(answers.REMEMBER - 10)
    add(mailbox, mail(3))
    assert local._reader.execute(count).get == 4
    world.clock.advance(answers.PRUNE)
    add(mailbox, mail(4))
    assert local._reader.execute(count).get == 2
    run(mailbox.close())


def test_what_changed_nothing_is_not_remembered_and_not_written(world: World) -> None:
    mailbox = world.open()
    local = world.mailboxes.get(ID)
    assert local is not None
    inbox = folder_id(mailbox)
    add(mailbox, mail(1))
    run(mailbox.store(inbox, ALL, "add", frozenset({"\\Flagged"})))
    before = local._reader.data_version()
    same = run(mailbox.store(inbox, ALL, "add", frozenset({"\\Flagged"})))
    assert [flags for _, flags, _ in same.changed] and local._reader.data_version() == before
    run(mailbox.expunge(inbox, None))
    assert local._reader.execute("SELECT count(*) FROM answers").get == 2
    run(mailbox.close())


def test_those_who_hear_of_a_change_are_not_taken_for_the_one_who_made_it(world: World) -> None:
    """A watcher that changes the mailbox itself, in the middle of a change that has a key, does not use up that key."""
    mailbox = world.open()
    local = world.mailboxes.get(ID)
    assert local is not None
    inbox = folder_id(mailbox)
    done: list[Any] = []

    def flag(folder: int, modseq: int) -> None:
        stop()
        Deferred.fromCoroutine(local.store(inbox, ALL, "add", frozenset({"\\Flagged"}))).addBoth(done.append)

    stop = local.watch(flag)
    body = METHODS["append"].signature.write(("INBOX", [NewMessage(mail(1))]), {})
    first = repeat(world, "append", body, b"k" * 16)
    assert done[0].changed[0][1] == FLAGGED
    assert repeat(world, "append", body, b"k" * 16) == first
    assert rows(mailbox, "INBOX", "uid", "flags") == [(1, FLAGGED)]
    run(mailbox.close())


def test_requests_are_one_for_each_call(world: World) -> None:
    mailbox = world.open()
    add(mailbox, *(mail(number) for number in range(1000)))
    inbox = folder_id(mailbox)
    cable = world.network.cable
    cable.log.clear()
    run(mailbox.store(inbox, ALL, "add", frozenset({"\\Seen"})))
    run(collect(mailbox.fetch(inbox, ALL, ["uid", "flags"])))
    run(mailbox.copy(inbox, ALL, "Archive"))
    asked = [frame.method for frame in (decode(message) for up, message in cable.log if up) if isinstance(frame, Request)]
    assert asked == ["store", "fetch", "copy"]
    run(mailbox.close())
