"""A mailbox moves while it is used: one copy, where the directory says, and every message once, whatever dies on the way."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from fe_twisted.base import errors, faults
from fe_twisted.protocols.cluster.values import decode, encode
from fe_twisted.protocols.imap.search import All
from fe_twisted.services.cluster.move import AGAIN, DONE, MOVE, MOVING, TIDY, UNLOCK, Done, Move
from fe_twisted.services.cluster.progress import ANSWER, PROGRESS, WATCH, Progress, Watch
from fe_twisted.storage.mailbox import transfer
from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.remote import METHODS
from fe_twisted.storage.mailbox.transfer import BLOCK
from tests.services.cluster.primaries import WHEN, Primary, World, content
from tests.storage.mailbox.driving import ID, KEY, run
from tests.storage.mailbox.samples import ALL, add, folder_id, mail, rows

FILE, WAITING = f"{ID}.sqlite", f"{ID}-tmp.sqlite"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    faults.disarm()
    world.stop()


def fill(world: World, large: int = 0) -> list[bytes]:
    """Five messages in the mailbox, and perhaps some large ones."""
    mailbox = run(world.one.mailboxes.open(ID, KEY))
    contents = [mail(number) for number in range(5)] + [attached() for _ in range(large)]
    add(mailbox, *contents)
    world.one.mailboxes.release(mailbox)
    return contents


def attached() -> bytes:
    """A message that takes as much of the disk as it is long, and has no text to index."""
    data = base64.encodebytes(os.urandom(BLOCK // 2)).replace(b"\n", b"\r\n")
    return b"Subject: file\r\nMIME-Version: 1.0\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" + data


def move(world: World, location: str = "two") -> Done:
    done: Done = world.drive((world.one if location == "two" else world.two).moves.move(ID, location))
    return done


def test_a_mailbox_moves_with_everything_in_it(world: World) -> None:
    contents = fill(world, 20)
    before = (world.one.files.path(ID)).stat().st_size
    done = move(world)
    assert done.tidy and done.messages == 0 and done.octets >= before
    assert world.one.names == [] and world.two.names == [FILE]
    assert world.two.messages() == contents


def test_mail_that_waits_goes_along_sealed(world: World) -> None:
    fill(world)
    world.clock.advance(31)
    for number in range(3):
        world.send(world.one, number)
    assert {FILE, WAITING} <= set(world.one.names)
    done = move(world)
    assert done.messages == 3 and done.tidy
    assert world.one.names == []
    assert world.two.messages()[5:] == [content(0), content(1), content(2)]


def test_whoever_waits_can_ask_how_far_it_is(world: World) -> None:
    fill(world, 20)
    world.clock.advance(31)
    for number in range(3):
        world.send(world.one, number)
    seen: list[Progress] = []
    real = faults.reach

    def watched(name: str) -> None:
        real(name)
        if name in ("move.copied", "move.frozen", "move.verified", "move.handed", "move.done"):
            seen.append(decode(ANSWER, b"".join(run(world.one.moves.methods()[PROGRESS](None, "", b"".join(encode(WATCH, Watch(ID))))))))

    faults.reach = watched
    try:
        done = move(world)
    finally:
        faults.reach = real
    assert [each.step for each in seen] == ["copying", "copying", "comparing", "handing over", "handing over"]
    assert all(each.of == seen[0].of >= 10 * BLOCK for each in seen)
    octets = [each.octets for each in seen]
    assert octets == sorted(octets) and octets[0] >= seen[0].of and octets[-1] <= 2 * done.octets
    assert [each.messages for each in seen] == [0, 0, 0, 0, 3]
    after = run(world.one.moves.methods()[PROGRESS](None, "", b"".join(encode(WATCH, Watch(ID)))))
    assert decode(ANSWER, b"".join(after)) == Progress()


def test_there_and_back(world: World) -> None:
    contents = fill(world)
    for number in range(4):
        assert move(world).tidy
        world.send(world.one, 10 + 2 * number)
        world.send(world.two, 11 + 2 * number)
        assert move(world, "one").tidy
    assert world.one.messages() == contents + [content(10 + number) for number in range(8)]
    assert world.two.names == []


def test_a_session_at_a_secondary_goes_on(world: World) -> None:
    contents = fill(world)
    evicted: list[str] = []
    mailbox = world.open(evicted.append)
    told: list[tuple[int, int]] = []
    mailbox.watch(lambda folder, modseq: told.append((folder, modseq)))
    inbox = folder_id(mailbox)
    assert move(world).tidy and not evicted
    assert world.two.mailboxes.get(ID) is not None, "opened there again without being asked anything"
    assert [row[0] for row in rows(mailbox, "INBOX", "content")] == contents
    world.send(world.one, 7)
    assert told[-1][0] == inbox, "IDLE hears of it"
    stored = world.drive(mailbox.store(inbox, ALL, "add", frozenset(("\\Flagged",))))
    assert [row[0] for row in rows(mailbox, "INBOX", "uid")] == [1, 2, 3, 4, 5, 6] and not stored.modified
    assert move(world, "one").tidy
    assert [row[1] for row in rows(mailbox, "INBOX", "uid", "content")] == [*contents, content(7)]
    world.drive(mailbox.close())
    world.clock.advance(31)
    assert world.one.mailboxes.get(ID) is None and world.two.mailboxes.get(ID) is None


def test_without_a_way_to_the_target_the_sessions_end(world: World) -> None:
    evicted: list[str] = []
    mailbox = world.open(evicted.append)
    world.links.pop(("secondary", "two")).stop()
    assert move(world).tidy
    world.pass_(1)
    assert evicted == [ID]
    world.drive(mailbox.close())


def test_what_is_asked_while_it_moves_is_answered_by_the_target(world: World) -> None:
    """A write that was under way is done once, wherever it is done."""
    fill(world)
    mailbox = world.open()
    inbox = folder_id(mailbox)
    asked: list[Any] = []

    def during(point: str) -> None:
        faults.disarm()
        asked.append(started(mailbox.append("INBOX", [NewMessage(mail(number)) for number in (100, 101)])))
        asked.append(started(mailbox.search(inbox, All())))
        assert not asked[0] and not asked[1], "they wait"

    faults.arm("move.frozen", during)
    assert move(world).tidy
    world.pass_(5)
    assert len(asked[0]) == 1 and list(asked[0][0].uids) == [6, 7]
    assert len(asked[1]) == 1 and len(asked[1][0]) in (5, 7)
    assert len(rows(mailbox, "INBOX", "uid")) == 7
    world.drive(mailbox.close())
    world.clock.advance(31)


def test_a_reader_in_the_middle_of_a_fetch_goes_on_behind_the_last_message(world: World) -> None:
    one = run(world.one.mailboxes.open(ID, KEY))
    contents = [attached() for _ in range(8)]
    add(one, *contents)
    world.one.mailboxes.release(one)
    mailbox = world.open()
    batches = mailbox.fetch(folder_id(mailbox), ALL, ["content"])
    found = [row[0] for row in run(batches.__anext__())]
    assert move(world).tidy
    while (batch := world.drive(_next(batches))) is not None:
        found += [row[0] for row in batch]
    assert found == contents
    world.drive(mailbox.close())
    world.clock.advance(31)


async def _next(batches: Any) -> Any:
    try:
        return await batches.__anext__()
    except StopAsyncIteration:
        return None


def test_what_changes_while_it_is_copied_is_copied_again(world: World) -> None:
    fill(world, 4)
    mailbox = run(world.one.mailboxes.open(ID, KEY))
    added: list[bytes] = []

    def during(point: str) -> None:
        added.append(attached())
        add(mailbox, added[-1])

    faults.arm("move.copied", during)
    assert move(world).tidy
    faults.disarm()
    assert world.two.messages()[-1] == added[0]


@pytest.mark.parametrize("point", ["move.copied", "move.frozen", "move.sent", "move.verified", "move.decided", "move.left"])
def test_mail_that_arrives_meanwhile_is_stored_once(world: World, point: str) -> None:
    """At both primaries, by who looked the alias up before everything, and the same again."""
    contents = fill(world)
    sent: list[Any] = []

    def during(point: str) -> None:
        faults.disarm()
        for number, primary in enumerate((world.one, world.two)):
            for _ in range(2):
                deliver = primary.deliver.deliver(world.stale, content(number), bytes((number,)) * 16, WHEN)
                sent.append(started(deliver))

    faults.arm(point, during)
    assert move(world).tidy
    world.pass_(70)
    assert sent == [[None]] * 4
    assert sorted(world.two.messages()) == sorted([*contents, content(0), content(1)])
    assert world.one.names == []
    assert not world.one.queue.ids() and not world.two.queue.ids()


def test_a_stale_look_up_long_after_the_move(world: World) -> None:
    fill(world)
    move(world)
    world.send(world.one, 1, stale=True)
    assert world.one.names == [] and world.two.messages()[-1] == content(1)


# -- what does not work ---------------------------------------------------------------------------


def test_moves_that_make_no_sense(world: World) -> None:
    fill(world)
    for mailbox_id, location, error in [
        ("f" * 24, "two", errors.NotFound),
        ("../" + ID[3:], "two", errors.NotFound),
        (ID, "one", errors.AlreadyExists),
        (ID, "three", errors.Refused),
    ]:
        with pytest.raises(error):
            world.drive(world.one.moves.move(mailbox_id, location))
    world.links["two", "three"] = world.links["two", "one"]
    with pytest.raises(errors.Refused, match="at one"):
        world.drive(world.two.moves.move(ID, "three"))
    del world.links["two", "three"]
    move(world)
    with pytest.raises(errors.AlreadyExists, match="already"):
        move(world)
    with pytest.raises(errors.AlreadyExists, match="ask the server there"):
        world.drive(world.one.moves.move(ID, "one"))
    world.two.files.delete(ID)
    with pytest.raises(errors.DamagedFile):
        move(world, "one")


def test_a_target_that_cannot_be_reached_or_is_too_old(world: World) -> None:
    contents = fill(world)
    world.two.network.down = True
    for cable in world.two.network.cables:
        cable.break_()
    with pytest.raises(errors.PrimaryAway, match="two cannot be reached"):
        move(world)
    world.two.network.down = False
    world.pass_(20)
    world.two.host.desks = ()
    with pytest.raises(errors.Refused, match="too old"):
        move(world)
    assert world.one.messages() == contents and world.two.names == []


def test_whose_disk_is_full_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever moves a mailbox sits at the source, and its disk has room."""
    contents = fill(world)
    monkeypatch.setattr(transfer, "RESERVE", 1 << 60)
    with pytest.raises(errors.DiskFull, match="the disk of two has no room for it; the mailbox is where it was"):
        move(world)
    assert world.one.messages() == contents and world.two.names == []


def test_another_program_on_the_machine_has_it_open(world: World) -> None:
    fill(world)
    world.clock.advance(31)
    other = world.one.files.open(ID, KEY)
    with pytest.raises(errors.Busy):
        move(world)
    assert world.two.names == []
    other.close()
    assert UNLOCK < 60 and move(world).tidy


def test_a_log_that_a_crash_left_goes_along(world: World, tmp_path: Path) -> None:
    """What was committed and not yet written back."""
    contents = fill(world)
    crashed = tmp_path / "crashed"
    shutil.copytree(world.one.folder, crashed)
    world.take_down(world.one, crashed)
    wal = world.one.files.path(ID).with_name(FILE + "-wal")
    assert wal.stat().st_size > 0
    os.unlink(world.one.files.path(ID).with_name(FILE + "-shm"))
    assert move(world).tidy
    assert world.one.names == [] and FILE + "-wal" in world.two.names
    assert world.two.messages() == contents


@pytest.mark.parametrize("late", [False, True])
def test_a_directory_that_does_not_say_whether_it_was_changed(world: World, late: bool) -> None:
    contents = fill(world)
    world.directory.troubles = [(late, errors.StorageFailed(reason="the connection broke")), (False, errors.Busy())]
    assert move(world).tidy
    assert world.two.messages() == contents


@pytest.mark.parametrize("late", [False, True])
def test_a_directory_that_never_says_it(world: World, late: bool) -> None:
    contents = fill(world)
    world.directory.troubles = [(late, errors.StorageFailed())] + [(False, errors.StorageFailed())] * len(AGAIN)
    with pytest.raises(errors.StorageFailed):
        move(world)
    for primary in (world.one, world.two):
        world.send(primary, 1, stale=True)
    holder, other = (world.two, world.one) if late else (world.one, world.two)
    assert holder.messages() == [*contents, content(1)]
    with pytest.raises(errors.Moved):
        other.messages()
    if late:
        world.pass_(TIDY + 1)
    else:
        assert move(world).tidy
    assert world.one.names == [] and world.two.messages() == [*contents, content(1)]


def test_an_alias_that_is_removed_while_its_mailbox_moves(world: World) -> None:
    fill(world)
    faults.arm("move.verified", lambda point: setattr(world.directory, "alias", None))
    with pytest.raises(errors.NotFound):
        move(world)
    assert run(world.one.mailboxes.open(ID, KEY)) is not None, "nothing was deleted; whoever removed the alias removes the file"


def test_a_target_whose_disk_lost_it_leaves_the_old_copy(world: World) -> None:
    contents = fill(world)
    faults.arm("move.left", lambda point: world.two.files.delete(ID))
    done = move(world)
    faults.disarm()
    assert not done.tidy and world.one.names == [FILE]
    shutil.copy(world.one.files.path(ID), world.two.files.path(ID))
    assert move(world).tidy and world.one.names == []
    assert world.two.messages() == contents


# -- crashes --------------------------------------------------------------------------------------

POINTS = [point for point in faults.POINTS if point.startswith(("move.", "arrive."))]


class Died(BaseException):
    """A process ends here."""


def crash_at(world: World, point: str, count: int = 1) -> Any:
    """Kill the primary that gets to a point, and keep what is on its disk then."""
    side: Primary = world.one if point.startswith("move.") else world.two
    kept = world.path / "kept"

    def die(reached: str) -> None:
        if kept.exists():
            return
        shutil.copytree(side.folder, kept)
        for (caller, name), link in world.links.items():
            if side.name in (caller, name) and link._conversation is not None:
                link._conversation.close()
        raise Died

    faults.arm(f"{point}:{count}", die)
    return side, kept


@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("point", POINTS)
def test_a_crash_leaves_one_mailbox_and_a_repetition_finishes(world: World, point: str, both: bool) -> None:
    contents = fill(world)
    world.clock.advance(31)
    world.send(world.one, 0)
    expected = {*contents, content(0)}
    side, kept = crash_at(world, point)
    results = started(world.one.moves.move(ID, "two"))
    world.pass_(1)
    faults.disarm()
    assert kept.exists(), f"{point} was never reached"
    other = world.two if side is world.one else world.one
    if both:
        shutil.copytree(other.folder, world.path / "other")
        world.take_down(other, world.path / "other")
    world.take_down(side, kept)
    world.pass_(30)
    assert results, "the move goes on without an end"
    assert not any(name.endswith(".incoming") for primary in (world.one, world.two) for name in primary.names)
    for number, primary in ((1, world.one), (2, world.two)):
        world.send(primary, number)
        world.send(primary, number, stale=True)
        expected.add(content(number))
    world.pass_(70)
    holder, none = (world.one, world.two) if world.directory.alias.location == "one" else (world.two, world.one)
    with pytest.raises(errors.Moved):
        run(none.mailboxes.open(ID, KEY))
    before = holder.messages()
    assert sorted(before) == sorted(expected)
    world.clock.advance(31)
    try:
        assert move(world).tidy
    except errors.AlreadyExists:
        assert holder is world.two
    assert world.one.names == [] and [name for name in world.two.names if "-" not in name] == [FILE]
    assert world.two.messages() == before


def started(coroutine: Any) -> list[Any]:
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results


def test_the_command_line_asks_for_it(world: World) -> None:
    """By a name that no method of mailboxes has, which would be taken for it."""
    fill(world)
    assert not METHODS.keys() & (world.one.moves.methods().keys() | world.one.arrivals.methods().keys())
    asked = world.links["secondary", "one"].ask(MOVING, "", encode(MOVE, Move(ID, "two")))
    done = decode(DONE, world.drive(asked))
    assert done.tidy and world.two.names == [FILE]


def test_a_server_that_stops_does_not_wait_for_the_target(world: World) -> None:
    contents = fill(world, 4)
    cable = next(each for each in world.two.network.cables if each.conversation is world.links["one", "two"]._conversation)

    def silence(point: str) -> None:
        cable.held = True

    faults.arm("move.frozen", silence)
    moving = started(world.one.moves.move(ID, "two"))
    world.pass_(1)
    assert not moving
    run(world.one.moves.stop())
    assert isinstance(moving[0], errors.Later) and not isinstance(moving[0], errors.PrimaryAway)
    world.one.moves._running = True
    cable.break_()
    assert world.one.messages() == contents
