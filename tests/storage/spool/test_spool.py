"""Temporary mailboxes: durable, sealed, emptied without a race, and no damage stops new mail."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fe_twisted.base import errors
from fe_twisted.protocols.crypto.derive import spool_key
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.storage.spool import file as files
from fe_twisted.storage.spool.file import PAGE_SIZE
from fe_twisted.storage.spool.item import Waiting, unseal
from fe_twisted.storage.spool.peek import Peeked, peek
from fe_twisted.storage.spool.spool import Counts, Spool
from fe_twisted.storage.sqlite.connect import connect
from tests.storage.mailbox.driving import at_once, run

SERVER_KEY = bytes(range(100, 132))
KEY = SealingKey.generate()
BOX = "0123456789abcdef01234567"
OTHER = "76543210fedcba9876543210"
WHEN = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)


class Thread:
    """Jobs lie until they are told to run, one at a time."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, job: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.jobs.append((job, done))
        return done

    def step(self) -> bool:
        """Do the oldest job; False if there was none."""
        if not self.jobs:
            return False
        job, done = self.jobs.pop(0)
        try:
            result = job()
        except Exception as error:
            done.errback(error)
        else:
            done.callback(result)
        return True


def spool_in(folder: Path, thread: Callable[[Callable[[], Any]], Deferred[Any]] = at_once, **more: Any) -> Spool:
    return Spool(lambda mailbox_id: folder / f"{mailbox_id}-tmp.sqlite", SERVER_KEY, thread, more.pop("clock", Clock()), **more)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = spool_in(tmp_path)
    yield spool
    run(spool.close())


def item(content: bytes = b"hello", delivery_id: bytes | None = None) -> Waiting:
    return Waiting(delivery_id or os.urandom(16), WHEN, content)


def add(spool: Spool, *contents: bytes, box: str = BOX) -> None:
    for content in contents:
        run(spool.add(box, KEY.public(), item(content)))


def taken(spool: Spool, box: str = BOX) -> list[bytes]:
    """The content of all that waits."""
    return [unseal(row.sealed, KEY, box, row.delivery_id).content for row in run(spool.take(box, 10_000, 1 << 30))]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def found(coroutine: Any) -> list[Any]:
    """Where the result, or the exception, will be."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results


def test_from_nothing_to_nothing(spool: Spool, tmp_path: Path) -> None:
    """No file before the first message, none after the last."""
    assert not spool.waiting(BOX)
    assert run(spool.take(BOX, 10, 1000)) == []
    assert names(tmp_path) == set()
    add(spool, b"one", b"two")
    assert spool.waiting(BOX) and not spool.waiting(OTHER)
    rows = run(spool.take(BOX, 10, 1_000_000))
    assert taken(spool) == [b"one", b"two"]
    run(spool.remove(BOX, [rows[0].delivery_id]))
    assert taken(spool) == [b"two"]
    assert run(spool.remove_if_empty(BOX)) is False
    run(spool.remove(BOX, [rows[1].delivery_id]))
    assert run(spool.remove_if_empty(BOX)) is True
    assert names(tmp_path) == set()
    assert spool.open_files == 0
    add(spool, b"three")
    assert taken(spool) == [b"three"]


def test_nobody_without_the_mailbox_key_reads_it(spool: Spool, tmp_path: Path) -> None:
    """Neither on the disk, nor with the server's key: an operator sees how much waits, not what."""
    needle = b"the needle in the haystack"
    add(spool, needle * 100)
    for path in tmp_path.iterdir():
        assert needle[:10] not in path.read_bytes()
    opened = connect(tmp_path / f"{BOX}-tmp.sqlite", key=spool_key(SERVER_KEY, BOX))
    for row in opened.execute("SELECT * FROM message"):
        for value in row:
            assert not isinstance(value, bytes) or needle[:10] not in value
    plain = tmp_path / "everything"
    plain.write_bytes(b"".join(value for row in opened.execute("SELECT * FROM message") for value in row if isinstance(value, bytes)))
    assert b"INBOX" not in plain.read_bytes() and b"2026" not in plain.read_bytes()
    opened.close()


def test_each_file_has_a_key_of_its_own(spool: Spool, tmp_path: Path) -> None:
    add(spool, b"one")
    with pytest.raises(errors.DamagedFile):
        connect(tmp_path / f"{BOX}-tmp.sqlite", key=spool_key(SERVER_KEY, OTHER))


def test_the_same_delivery_is_stored_once(spool: Spool) -> None:
    again = item(b"once")
    for _ in range(3):
        run(spool.add(BOX, KEY.public(), again))
    assert taken(spool) == [b"once"]


def test_what_was_added_survives_a_copy_of_the_disk(spool: Spool, tmp_path: Path) -> None:
    """As after a power cut: file and WAL as they lie there the moment that add() returned."""
    for number in range(20):
        add(spool, b"%d" % number)
        cut = tmp_path / f"cut{number}"
        cut.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"{BOX}-tmp.sqlite{suffix}", cut)
        after = spool_in(cut)
        assert taken(after) == [b"%d" % n for n in range(number + 1)]
        run(after.close())


def test_take_is_bounded(spool: Spool) -> None:
    add(spool, *(bytes(10_000) for _ in range(10)))
    assert len(run(spool.take(BOX, 3, 1 << 30))) == 3
    assert len(run(spool.take(BOX, 100, 35_000))) == 3
    assert len(run(spool.take(BOX, 100, 1))) == 1, "a message above the limit comes alone"


def test_refused_rows_stay_and_are_passed_over(spool: Spool) -> None:
    add(spool, b"good", b"bad", b"fine")
    rows = run(spool.take(BOX, 10, 1 << 30))
    run(spool.refuse(BOX, [rows[1].delivery_id]))
    assert taken(spool) == [b"good", b"fine"]
    run(spool.remove(BOX, [rows[0].delivery_id, rows[2].delivery_id]))
    assert run(spool.counts(BOX)) == Counts(waiting=0, refused=1)
    assert run(spool.remove_if_empty(BOX)) is False
    assert run(spool.retry(BOX)) == 1
    assert taken(spool) == [b"bad"]


def test_additions_that_come_together_share_a_commit(tmp_path: Path) -> None:
    thread = Thread()
    spool = spool_in(tmp_path, thread.run)
    results = [found(spool.add(BOX, KEY.public(), item(b"%d" % number))) for number in range(50)]
    assert len(thread.jobs) == 1, "one opens the file, the others wait for it"
    jobs = 0
    while thread.step():
        jobs += 1
    assert results == [[None]] * 50
    assert jobs <= 3
    closed = found(spool.close())
    while thread.step():
        pass
    assert closed == [None]


@pytest.mark.parametrize("steps", range(12))
def test_an_addition_during_the_removal_is_not_lost(tmp_path: Path, steps: int) -> None:
    """The message comes after any number of steps of the removal, and is there in the end."""
    thread = Thread()
    spool = spool_in(tmp_path, thread.run)

    def finish(results: list[Any]) -> Any:
        while not results:
            assert thread.step()
        return results[0]

    first = item(b"first")
    finish(found(spool.add(BOX, KEY.public(), first)))
    rows = finish(found(spool.take(BOX, 10, 1 << 20)))
    finish(found(spool.remove(BOX, [rows[0].delivery_id])))
    removal = found(spool.remove_if_empty(BOX))
    for _ in range(steps):
        thread.step()
    addition = found(spool.add(BOX, KEY.public(), item(b"second")))
    assert finish(addition) is None
    finish(removal)
    rows = finish(found(spool.take(BOX, 10, 1 << 20)))
    assert [unseal(row.sealed, KEY, BOX, row.delivery_id).content for row in rows] == [b"second"]
    finish(found(spool.close()))


@pytest.mark.parametrize("kind", ["zeros", "cut", "text", "foreign"])
def test_a_damaged_file_stops_no_new_mail(tmp_path: Path, kind: str) -> None:
    """It's moved aside with all its bytes, and never deleted."""
    before = spool_in(tmp_path)
    add(before, *(bytes(5000) for _ in range(20)))
    add(before, b"other", box=OTHER)
    run(before.close())
    path = tmp_path / f"{BOX}-tmp.sqlite"
    data = path.read_bytes()
    broken = {
        "zeros": bytes(len(data)),
        "cut": data[: len(data) // 2],
        "text": b"not a database\n" * 1000,
        "foreign": (tmp_path / f"{OTHER}-tmp.sqlite").read_bytes(),
    }[kind]
    path.write_bytes(broken)
    spool = spool_in(tmp_path)
    add(spool, b"new")
    assert taken(spool) == [b"new"]
    assert (tmp_path / f"{BOX}-tmp.damaged-1").read_bytes() == broken
    run(spool.close())
    path.write_bytes(broken)
    again = spool_in(tmp_path)
    assert run(again.take(BOX, 10, 1 << 20)) == []
    assert (tmp_path / f"{BOX}-tmp.damaged-2").read_bytes() == broken
    run(again.close())


def test_what_is_readable_in_a_damaged_file_is_saved(tmp_path: Path) -> None:
    """One altered page costs at most the messages on it; all others reach their owner, and the damaged file is kept."""
    contents = [b"%03d" % number + os.urandom(10_000) for number in range(30)]
    whole = tmp_path / "whole"
    whole.mkdir()
    spool = spool_in(whole)
    add(spool, *contents)
    run(spool.close())
    data = (whole / f"{BOX}-tmp.sqlite").read_bytes()
    saved = [len(saved_after(tmp_path / str(page), data, page, contents)) for page in range(1, len(data) // PAGE_SIZE, 4)]
    assert min(saved[1:]) < 30, "the damage was real"
    assert sorted(saved)[2] >= 25, "but for the schema and the root page, nearly all are saved"


def saved_after(folder: Path, data: bytes, page: int, contents: list[bytes]) -> list[bytes]:
    """What a spool finds in a file in which one page (counted from 0) is noise."""
    folder.mkdir()
    noise = data[: page * PAGE_SIZE] + os.urandom(PAGE_SIZE) + data[(page + 1) * PAGE_SIZE :]
    (folder / f"{BOX}-tmp.sqlite").write_bytes(noise)
    spool = spool_in(folder)
    found = taken(spool)
    assert set(found) <= set(contents)
    kept = folder / f"{BOX}-tmp.damaged-1"
    assert len(found) == 30 or kept.read_bytes() == noise
    add(spool, b"new")
    assert taken(spool)[-1] == b"new"
    run(spool.close())
    return found


def test_what_was_taken_from_a_file_that_was_then_replaced_removes_nothing_else(spool: Spool, tmp_path: Path) -> None:
    """The merge holds messages of a file that turns out damaged meanwhile; new mail has other delivery ids and must stay."""
    add(spool, b"old")
    rows = run(spool.take(BOX, 10, 1 << 20))
    run(spool.destroy(BOX))
    add(spool, b"new")
    run(spool.remove(BOX, [row.delivery_id for row in rows]))
    run(spool.refuse(BOX, [row.delivery_id for row in rows]))
    assert taken(spool) == [b"new"]


def test_a_wal_without_its_file_is_not_taken_for_the_new_files(tmp_path: Path) -> None:
    """Only a broken disk does this; still nothing is deleted, and nothing old comes back to life in a new file."""
    spool = spool_in(tmp_path)
    add(spool, b"old")
    wal = tmp_path / f"{BOX}-tmp.sqlite-wal"
    kept = wal.read_bytes()
    run(spool.close())
    (tmp_path / f"{BOX}-tmp.sqlite").unlink()
    wal.write_bytes(kept)
    spool = spool_in(tmp_path)
    add(spool, b"new")
    assert taken(spool) == [b"new"]
    assert (tmp_path / f"{BOX}-tmp.damaged-1-wal").read_bytes() == kept
    run(spool.close())


def test_idle_files_are_closed(tmp_path: Path) -> None:
    clock = Clock()
    spool = spool_in(tmp_path, clock=clock, idle=60.0)
    add(spool, b"one")
    clock.advance(59)
    assert spool.open_files == 1
    add(spool, b"two")
    clock.advance(59)
    assert spool.open_files == 1
    clock.advance(60)
    assert spool.open_files == 0
    assert not clock.getDelayedCalls()
    assert taken(spool) == [b"one", b"two"]
    run(spool.close())
    assert not clock.getDelayedCalls()


def test_number_of_open_files_is_bounded(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, max_open=3)
    boxes = [f"{number:024x}" for number in range(10)]
    for box in boxes:
        add(spool, box.encode(), box=box)
        assert spool.open_files <= 3
    for box in boxes:
        assert taken(spool, box) == [box.encode()]
    run(spool.close())


def test_after_close(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    add(spool, b"one")
    run(spool.close())
    assert names(tmp_path) == {f"{BOX}-tmp.sqlite"}
    with pytest.raises(errors.Later):
        add(spool, b"two")


def test_destroy(spool: Spool, tmp_path: Path) -> None:
    add(spool, b"one")
    run(spool.destroy(BOX))
    assert names(tmp_path) == set()
    run(spool.destroy(BOX))


def test_bad_arguments_are_errors_of_the_caller_only(spool: Spool) -> None:
    with pytest.raises(ValueError, match="delivery id"):
        run(spool.add(BOX, KEY.public(), item(delivery_id=b"short")))
    with pytest.raises(ValueError, match="public sealing key"):
        run(spool.add(BOX, b"no key", item()))
    add(spool, b"good")
    assert taken(spool) == [b"good"]


FILL = """
import datetime, os, sys
from pathlib import Path
from twisted.internet.defer import execute
from twisted.internet.task import Clock
from fe_twisted.base import errors
from fe_twisted.protocols.crypto.seal import SealingKey
from fe_twisted.storage.spool.file import PAGE_SIZE
from fe_twisted.storage.spool.item import Waiting
from fe_twisted.storage.spool.spool import Spool
from tests.storage.mailbox.driving import run

folder, key, box = Path(sys.argv[1]), SealingKey.generate(), "0123456789abcdef01234567"
new = lambda: Spool(lambda i: folder / f"{i}-tmp.sqlite", bytes(32), execute, Clock())
spool, accepted, refused = new(), set(), 0
for size in [1000, 20_000, 300_000, 5000] * 30:
    item = Waiting(os.urandom(16), datetime.datetime.now(datetime.UTC), os.urandom(size))
    try:
        run(spool.add(box, key.public(), item))
        accepted.add(item.delivery_id)
    except errors.DiskFull:
        refused += 1
try:
    run(spool.add("ab" * 12, key.public(), item))
except errors.DiskFull:
    refused += 1
run(spool.close())
stored = {row.delivery_id for row in run(new().take(box, 10_000, 1 << 30))}
print(len(accepted), refused, stored == accepted)
"""


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """A real one, of 2 MB: what was accepted is there after reopening, the rest got «insufficient storage», a new file included."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    script = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" -c "$3" "$1"'
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, script.split("&&")[0], "sh", str(tmp_path)], check=False, capture_output=True).returncode
    ):
        pytest.skip("this system does not let us mount a small file system")
    done = subprocess.run([*command, script, "sh", str(tmp_path), sys.executable, FILL], check=True, capture_output=True, text=True)
    accepted, refused, equal = done.stdout.split()
    assert int(accepted) > 5 and int(refused) > 50
    assert equal == "True"


# -- a crash while a damaged file is being set aside ------------------------------------------------


def damaged(folder: Path, contents: list[bytes], **more: Any) -> Spool:
    """A spool whose file is open, and of which one page with messages is noise now."""
    spool = spool_in(folder)
    add(spool, *contents)
    run(spool.close())
    path = folder / f"{BOX}-tmp.sqlite"
    data = path.read_bytes()
    page = len(data) // PAGE_SIZE - 3
    path.write_bytes(data[: page * PAGE_SIZE] + os.urandom(PAGE_SIZE) + data[(page + 1) * PAGE_SIZE :])
    return spool_in(folder, **more)


class Power(BaseException):
    """It is cut."""


@pytest.mark.parametrize(
    "step", ["os.rename:1", "sync_directory:1", "_open:1", "_copy:1", "_copy:9", "_finish:1", "os.rename:2", "sync_directory:2"]
)
def test_a_crash_while_a_file_is_set_aside_loses_nothing_that_can_be_read(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever had been done of it, the next one who opens the file has all that the damage left, and has it once."""
    contents = [b"%03d" % number + os.urandom(10_000) for number in range(12)]
    (tmp_path / "whole").mkdir()
    readable = set(taken(damaged(tmp_path / "whole", contents)))
    assert 6 < len(readable) < 12
    (tmp_path / "crash").mkdir()
    spool = damaged(tmp_path / "crash", contents)
    name, _, count = step.partition(":")
    left = int(count)
    module: Any = os if name.startswith("os.") else files
    real = getattr(module, name.removeprefix("os."))

    def until(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        if not str(arguments[0]).endswith(".new"):  # the making of a new file has tests of its own
            left -= 1
            if left < 0 or (left == 0 and name != "_open"):
                raise Power
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(module, name.removeprefix("os."), until)
        with pytest.raises(Power):
            taken(spool)
    after = spool_in(tmp_path / "crash")
    assert after.waiting(BOX)
    found = taken(after)
    assert len(found) == len(set(found)) and set(found) == readable
    add(after, b"new")
    assert taken(after)[-1] == b"new"
    run(after.close())
    assert f"{BOX}-tmp.damaged-1" in names(tmp_path / "crash")
    assert not [each for each in names(tmp_path / "crash") if ".saving-" in each]


def test_a_wal_that_a_crash_left_behind_follows_its_file(tmp_path: Path) -> None:
    """The file had been renamed, its WAL with the newest messages had not."""
    spool = spool_in(tmp_path)
    add(spool, b"in the file")
    run(spool.close())
    spool = spool_in(tmp_path)
    add(spool, b"in the WAL")
    main, wal = tmp_path / f"{BOX}-tmp.sqlite", tmp_path / f"{BOX}-tmp.sqlite-wal"
    kept = main.read_bytes(), wal.read_bytes()
    run(spool.close())
    main.unlink()
    (tmp_path / f"{BOX}-tmp.saving-1").write_bytes(kept[0])
    wal.write_bytes(kept[1])
    spool = spool_in(tmp_path)
    assert spool.waiting(BOX)
    assert taken(spool) == [b"in the file", b"in the WAL"]
    run(spool.close())
    assert names(tmp_path) == {f"{BOX}-tmp.sqlite", f"{BOX}-tmp.damaged-1"}


def test_what_was_set_aside_and_moved_in_stays_where_it_is(tmp_path: Path) -> None:
    """Files that are done with are looked at by people only."""
    spool = spool_in(tmp_path)
    add(spool, b"old")
    run(spool.close())
    (tmp_path / f"{BOX}-tmp.sqlite").rename(tmp_path / f"{BOX}-tmp.damaged-1")
    spool = spool_in(tmp_path)
    assert not spool.waiting(BOX)
    assert taken(spool) == []
    run(spool.close())


def test_a_file_that_cannot_be_saved_from_now_keeps_no_new_mail_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again whenever the file is opened."""
    spool = spool_in(tmp_path)
    add(spool, b"old")
    run(spool.close())
    (tmp_path / f"{BOX}-tmp.sqlite").rename(tmp_path / f"{BOX}-tmp.saving-1")

    def full(*arguments: Any) -> int:
        raise OSError(28, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_copy", full)
        spool = spool_in(tmp_path)
        add(spool, b"new")
        assert taken(spool) == [b"new"]
        run(spool.close())
    spool = spool_in(tmp_path)
    assert sorted(taken(spool)) == [b"new", b"old"]
    run(spool.close())


def put_aside(folder: Path, number: int, content: bytes) -> None:
    """A file with one message that was set aside and not yet read."""
    beside = folder / f"making{number}"
    beside.mkdir()
    spool = spool_in(beside)
    add(spool, content)
    run(spool.close())
    (beside / f"{BOX}-tmp.sqlite").rename(folder / f"{BOX}-tmp.saving-{number}")
    beside.rmdir()


def test_files_that_cannot_be_saved_from_now_keep_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for the older one alone: a gap in the numbers would hide the newer one for good."""
    for number in (1, 2):
        put_aside(tmp_path, number, b"%d" % number)
    real = files._copy_all

    def full(aside: Path, *connections: Any) -> None:
        if aside.name.endswith("-2"):
            raise errors.DiskFull(reason="no room")
        real(aside, *connections)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_copy_all", full)
        spool = spool_in(tmp_path)
        assert run(spool.remove_if_empty(BOX)) is False, "the new file is gone, but these are not"
        assert spool.waiting(BOX)
        run(spool.close())
    spool = spool_in(tmp_path)
    assert sorted(taken(spool)) == [b"1", b"2"]
    run(spool.close())
    assert not [each for each in names(tmp_path) if ".saving-" in each]


@pytest.mark.parametrize("statement", ["SELECT id FROM message INDEXED", "SELECT delivery_id"])
def test_what_cannot_be_read_for_a_reason_that_passes_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """Lack of memory says nothing about a row."""
    put_aside(tmp_path, 1, b"old")

    def short_of_memory(path: Path, **more: Any) -> apsw.Connection:
        connection = connect(path, **more)

        def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
            if ".saving-" in connection.filename and sql.startswith(statement):
                raise apsw.NoMemError
            return True

        connection.exec_trace = trace
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(files, "connect", short_of_memory)
        spool = spool_in(tmp_path)
        add(spool, b"new")
        assert taken(spool) == [b"new"]
        run(spool.close())
    spool = spool_in(tmp_path)
    assert sorted(taken(spool)) == [b"new", b"old"]
    run(spool.close())


def test_destroy_takes_what_was_set_aside_with_it(tmp_path: Path) -> None:
    """It is sealed mail of somebody who wants it gone; but for what is done with, and another mailbox's."""
    put_aside(tmp_path, 1, b"one")
    put_aside(tmp_path, 3, b"three")
    (tmp_path / f"{BOX}-tmp.saving-1-wal").write_bytes(b"x")
    kept = {f"{BOX}-tmp.damaged-1", f"{OTHER}-tmp.saving-1"}
    for each in kept:
        (tmp_path / each).write_bytes(b"x")
    spool = spool_in(tmp_path)
    run(spool.destroy(BOX))
    assert names(tmp_path) == kept
    run(spool.close())


# -- an older file, and looking in from outside ------------------------------------------------------


def test_damage_that_only_the_step_to_a_new_version_meets_costs_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a page of the list of free pages: the old version read every message, so the new one must have them too."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "MIGRATIONS", files.MIGRATIONS[:1])
        old = spool_in(tmp_path)
        contents = [b"%02d" % number + os.urandom(20_000) for number in range(40)]
        add(old, *contents)
        run(old.remove(BOX, [row.delivery_id for row in run(old.take(BOX, 30, 1 << 30))[4:]]))
        run(old.close())
        path = tmp_path / f"{BOX}-tmp.sqlite"
        page = free_page(path)
        data = bytearray(path.read_bytes())
        data[(page - 1) * PAGE_SIZE + 100] ^= 255
        path.write_bytes(data)
        old = spool_in(tmp_path)
        kept = contents[:4] + contents[30:]
        assert taken(old) == kept
        run(old.close())
    spool = spool_in(tmp_path)
    assert taken(spool) == kept
    run(spool.close())
    assert f"{BOX}-tmp.damaged-1" in names(tmp_path)


def free_page(path: Path) -> int:
    """The number of the first page in the list of free pages: what a new table gets its page from.

    It is found by trial, because a page says what it is to nobody without the key.
    """
    data = path.read_bytes()
    for page in range(2, len(data) // PAGE_SIZE + 1):
        broken = bytearray(data)
        broken[(page - 1) * PAGE_SIZE + 100] ^= 255
        trial = path.with_name(f"trial{page}")
        trial.write_bytes(broken)
        connection = connect(trial, key=spool_key(SERVER_KEY, BOX))
        try:
            readable = sum(1 for _ in connection.execute("SELECT sealed FROM message")) == 14
        except apsw.Error:
            continue
        finally:
            connection.close()
        connection = connect(trial, key=spool_key(SERVER_KEY, BOX))
        try:
            connection.execute("CREATE TABLE t (a)")
        except apsw.Error:
            if readable:
                return page
        finally:
            connection.close()
            trial.unlink()
    raise AssertionError("there is no such page")


def test_a_file_of_the_first_version_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited while the program was updated: everything is there, and from now on it is known since when."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "MIGRATIONS", files.MIGRATIONS[:1])
        old = spool_in(tmp_path)
        add(old, b"one", b"two")
        run(old.refuse(BOX, [run(old.take(BOX, 1, 1 << 20))[0].delivery_id]))
        run(old.close())
        assert peeked(tmp_path) == Peeked(1, 1, None)
    spool = spool_in(tmp_path)
    assert taken(spool) == [b"two"]
    run(spool.retry(BOX))
    assert taken(spool) == [b"one", b"two"]
    run(spool.close())
    found = peeked(tmp_path)
    assert found is not None and found[:2] == (2, 0) and found.since is not None and abs(found.since - time.time()) < 60


def peeked(folder: Path) -> Peeked | None:
    return peek(folder / f"{BOX}-tmp.sqlite", BOX, SERVER_KEY)


def test_looking_in_from_outside_changes_nothing(tmp_path: Path) -> None:
    """With the file open, closed, gone, damaged and with a WAL that nobody owns."""
    assert peeked(tmp_path) is None
    spool = spool_in(tmp_path)
    add(spool, b"one", b"two")
    looked = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path), BOX, SERVER_KEY.hex()], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert looked.stdout == "2 0\n"
    wal = (tmp_path / f"{BOX}-tmp.sqlite-wal").read_bytes()
    assert wal
    run(spool.close())
    assert names(tmp_path) == {f"{BOX}-tmp.sqlite"}
    found = peeked(tmp_path)
    assert found is not None and found[:2] == (2, 0)
    (tmp_path / f"{BOX}-tmp.sqlite-wal").write_bytes(wal)
    assert peeked(tmp_path) is None
    assert names(tmp_path) == {f"{BOX}-tmp.sqlite", f"{BOX}-tmp.sqlite-wal"}
    (tmp_path / f"{BOX}-tmp.sqlite-wal").unlink()
    (tmp_path / f"{BOX}-tmp.sqlite").write_bytes(b"nothing" * 1000)
    assert peeked(tmp_path) is None


ROOT = Path(__file__).resolve().parents[3]
LOOK = """
import sys
import time
from pathlib import Path
from fe_twisted.storage.spool.peek import peek
found = peek(Path(sys.argv[1]) / f"{sys.argv[2]}-tmp.sqlite", sys.argv[2], bytes.fromhex(sys.argv[3]))
print(found.waiting, found.refused)
"""
