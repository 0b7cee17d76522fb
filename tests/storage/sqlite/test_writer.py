"""Group commit: how many transactions there are, who fails with whom, and in which order the answers come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from twisted.internet import defer
from twisted.internet.defer import Deferred

from fe_twisted.base import errors
from fe_twisted.storage.sqlite.connect import connect
from fe_twisted.storage.sqlite.writer import Writer

SCHEMA = """
CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT UNIQUE);
CREATE TABLE reply (note INTEGER REFERENCES note DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE bomb (x);
CREATE TRIGGER explode BEFORE INSERT ON bomb BEGIN SELECT RAISE(ROLLBACK, 'everything is undone'); END;
"""


class Thread:
    """A thread that works only when told to: what is submitted meanwhile is «while a batch is running»."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, job: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.jobs.append((job, done))
        return done

    def work(self) -> None:
        """Do jobs until there are none."""
        while self.jobs:
            job, done = self.jobs.pop(0)
            try:
                result = job()
            except Exception as error:
                done.errback(error)
            else:
                done.callback(result)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = connect(tmp_path / "box", key=bytes(32), create=True)
    for _ in connection.execute(SCHEMA):
        pass
    yield connection
    connection.close()


@pytest.fixture
def thread() -> Thread:
    return Thread()


def insert(text: str) -> Callable[[apsw.Connection], str]:
    def work(connection: apsw.Connection) -> str:
        connection.execute("INSERT INTO note (text) VALUES (?)", (text,))
        return text

    return work


def run(sql: str) -> Callable[[apsw.Connection], None]:
    def work(connection: apsw.Connection) -> None:
        connection.execute(sql)

    return work


def outcome(deferred: Deferred[Any]) -> list[Any]:
    """Where the result, or the exception, will be."""
    found: list[Any] = []
    deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
    return found


def texts(connection: apsw.Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM note ORDER BY id")]


def test_work_submitted_meanwhile_shares_one_transaction(connection: apsw.Connection, thread: Thread) -> None:
    commits: list[int] = []
    connection.set_commit_hook(lambda: bool(commits.append(1)))
    writer = Writer(connection, thread.run)
    found = [outcome(writer.submit(insert(str(number)))) for number in range(100)]
    assert not any(found), "nothing is promised before the commit"
    thread.work()
    assert found == [[str(number)] for number in range(100)]
    assert len(commits) == writer.commits == 2, "the first went at once, the other 99 together"


def test_answers_come_after_the_commit_and_in_order(connection: apsw.Connection, thread: Thread, tmp_path: Path) -> None:
    reader = connect(tmp_path / "box", key=bytes(32))
    writer = Writer(connection, thread.run)
    seen: list[tuple[str, int]] = []
    for name in "abc":
        writer.submit(insert(name)).addCallback(lambda text: seen.append((text, reader.execute("SELECT count(*) FROM note").get)))
    thread.work()
    assert [name for name, _ in seen] == ["a", "b", "c"]
    assert [visible >= place for place, (_, visible) in enumerate(seen, 1)] == [True] * 3


def test_hook_runs_between_commit_and_answers(connection: apsw.Connection, thread: Thread) -> None:
    order: list[Any] = []
    writer = Writer(connection, thread.run, after_commit=order.append)
    writer.submit(insert("a")).addCallback(order.append)
    thread.work()
    writer.submit(insert("b")).addCallback(order.append)
    writer.submit(insert("b")).addErrback(lambda failure: order.append("refused"))
    thread.work()
    assert order == [["a"], "a", ["b"], "b", "refused"]


def test_a_hook_that_fails_takes_no_promise_back(connection: apsw.Connection, thread: Thread) -> None:
    def hook(results: Any) -> None:
        raise RuntimeError("bug")

    writer = Writer(connection, thread.run, after_commit=hook)
    found = outcome(writer.submit(insert("a")))
    thread.work()
    assert found == ["a"]


def test_one_failure_takes_nobody_along(connection: apsw.Connection, thread: Thread) -> None:
    writer = Writer(connection, thread.run)
    first = outcome(writer.submit(insert("first")))

    def half(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO note (text) VALUES ('half done')")
        raise errors.TryCreate

    found = [outcome(writer.submit(work)) for work in (insert("a"), insert("first"), half, run("nonsense"), insert("b"))]
    thread.work()
    assert first == ["first"]
    assert found[0] == ["a"] and found[4] == ["b"]
    assert [type(result[0]) for result in found[1:4]] == [errors.StorageFailed, errors.TryCreate, errors.StorageFailed]
    assert texts(connection) == ["first", "a", "b"]
    assert writer.commits == 2


def test_a_lost_transaction_is_done_again_without_the_culprit(connection: apsw.Connection, thread: Thread) -> None:
    """SQLite itself rolls everything back on a full disk; the others must neither fail nor be told a lie."""
    writer = Writer(connection, thread.run)
    writer.submit(insert("first"))
    found = [outcome(writer.submit(work)) for work in (insert("a"), run("INSERT INTO bomb VALUES (1)"), insert("b"))]
    thread.work()
    assert [type(result[0]) for result in found] == [str, errors.StorageFailed, str]
    assert texts(connection) == ["first", "a", "b"]


def test_full_disk(connection: apsw.Connection, thread: Thread) -> None:
    """What fits is stored, what does not is refused, and what was answered is there."""
    writer = Writer(connection, thread.run)
    connection.pragma("max_page_count", connection.pragma("page_count") + 10)
    sizes = [100, 50_000, 200, 60_000, 300]
    found = [outcome(writer.submit(insert(str(size) * (size // len(str(size)))))) for size in sizes]
    thread.work()
    assert [type(result[0]) for result in found] == [str, errors.DiskFull, str, errors.DiskFull, str]
    assert texts(connection) == [result[0] for result in found if isinstance(result[0], str)]


def test_failed_commit_fails_all_and_the_writer_goes_on(connection: apsw.Connection, thread: Thread) -> None:
    writer = Writer(connection, thread.run)
    writer.submit(insert("first"))
    found = [outcome(writer.submit(work)) for work in (insert("a"), run("INSERT INTO reply VALUES (99)"), insert("b"))]
    thread.work()
    assert [type(result[0]) for result in found] == [errors.StorageFailed] * 3
    assert not connection.in_transaction
    after = outcome(writer.submit(insert("c")))
    thread.work()
    assert after == ["c"]
    assert texts(connection) == ["first", "c"]


def test_busy_file_is_an_error_for_now(connection: apsw.Connection, thread: Thread, tmp_path: Path) -> None:
    connection.pragma("busy_timeout", 1)
    other = connect(tmp_path / "box", key=bytes(32))
    other.execute("BEGIN IMMEDIATE")
    writer = Writer(connection, thread.run)
    found = outcome(writer.submit(insert("a")))
    thread.work()
    assert type(found[0]) is errors.Busy
    other.execute("ROLLBACK")
    again = outcome(writer.submit(insert("a")))
    thread.work()
    assert again == ["a"]


def test_number_of_works_is_bounded(connection: apsw.Connection, thread: Thread) -> None:
    writer = Writer(connection, thread.run, max_works=10)
    found = [outcome(writer.submit(insert(str(number)))) for number in range(31)]
    thread.work()
    assert found == [[str(number)] for number in range(31)]
    assert writer.commits == 4


def test_time_of_a_batch_is_bounded(connection: apsw.Connection, thread: Thread) -> None:
    """A second of work for each: after each the batch commits, and the order stays."""
    seconds = iter(range(1000))
    writer = Writer(connection, thread.run, max_seconds=1.5, now=lambda: next(seconds))
    order: list[str] = []
    for number in range(9):
        writer.submit(insert(str(number))).addCallback(order.append)
    thread.work()
    assert order == [str(number) for number in range(9)]
    assert writer.commits == 5, "1 at once, then 2 in each transaction"


def test_work_alone_is_outside_a_transaction_and_in_its_turn(connection: apsw.Connection, thread: Thread) -> None:
    writer = Writer(connection, thread.run)
    results: list[Any] = []
    for name in "ab":
        writer.submit(insert(name)).addCallback(results.append)
    writer.alone(lambda c: (c.in_transaction, len(texts(c)))).addCallback(results.append)
    writer.alone(lambda c: c.execute("BEGIN; nonsense")).addErrback(lambda failure: results.append(type(failure.value)))
    writer.submit(insert("c")).addCallback(results.append)
    thread.work()
    assert results == ["a", "b", (False, 2), errors.StorageFailed, "c"]


def test_with_a_thread_that_answers_at_once(connection: apsw.Connection) -> None:
    """Callbacks that submit again: no disorder."""
    writer = Writer(connection, lambda job: defer.execute(job))
    order: list[str] = []

    def more(text: str) -> None:
        order.append(text)
        if int(text) < 50:
            writer.submit(insert(str(int(text) + 1))).addCallback(more)

    writer.submit(insert("0")).addCallback(more)
    assert order == [str(number) for number in range(51)]


def test_a_long_queue_needs_no_stack(connection: apsw.Connection, thread: Thread) -> None:
    writer = Writer(connection, thread.run, max_works=1)
    found = [outcome(writer.submit(lambda c, n=number: n)) for number in range(3000)]
    thread.work()
    assert found == [[number] for number in range(3000)]


def test_close_finishes_what_was_submitted(connection: apsw.Connection, thread: Thread, tmp_path: Path) -> None:
    writer = Writer(connection, thread.run)
    found = [outcome(writer.submit(insert(name))) for name in "abc"]
    closed = outcome(writer.close())
    twice = outcome(writer.close())
    late = outcome(writer.submit(insert("late")))
    assert type(late[0]) is errors.Later
    thread.work()
    assert found == [["a"], ["b"], ["c"]]
    assert closed == twice == [None]
    assert outcome(writer.close()) == [None]
    assert not (tmp_path / "box-wal").exists()
    with pytest.raises(apsw.ConnectionClosedError):
        connection.execute("SELECT 1")


def test_no_thread_to_be_had(connection: apsw.Connection) -> None:
    """The pool is stopping: everybody is told, nothing hangs."""
    writer = Writer(connection, lambda job: defer.fail(RuntimeError("pool is stopped")))
    found = outcome(writer.submit(insert("a")))
    assert type(found[0]) is errors.StorageFailed
    assert texts(connection) == []


def test_cancelled_waiter_harms_nobody(connection: apsw.Connection, thread: Thread) -> None:
    writer = Writer(connection, thread.run)
    cancelled = writer.submit(insert("a"))
    result = outcome(cancelled)
    other = outcome(writer.submit(insert("b")))
    cancelled.cancel()
    thread.work()
    assert isinstance(result[0], defer.CancelledError)
    assert other == ["b"]
    assert texts(connection) == ["a", "b"]


def test_aside_waits_for_all_others_and_shares_no_transaction(connection: apsw.Connection, thread: Thread) -> None:
    commits: list[int] = []
    connection.set_commit_hook(lambda: bool(commits.append(1)))
    writer = Writer(connection, thread.run, max_works=2)
    order: list[object] = []
    for name in "abc":
        writer.submit(insert(name)).addCallback(order.append)
    writer.aside(insert("chore 1")).addCallback(order.append)
    writer.aside(run("INSERT INTO nothing")).addErrback(lambda failure: order.append(type(failure.value)))
    writer.aside(insert("chore 2")).addCallback(order.append).addCallback(lambda _: writer.submit(insert("d")).addCallback(order.append))
    writer.submit(insert("e")).addCallback(order.append)
    thread.work()
    assert order == ["a", "b", "c", "e", "chore 1", errors.StorageFailed, "chore 2", "d"]
    assert len(commits) == 6, "a; b and c; e; each chore; d"
    assert writer.idle


def test_one_that_is_aside_may_go_before_the_others(connection: apsw.Connection, thread: Thread) -> None:
    """Whoever always submits the next work as soon as one is done would keep all those for ever that are aside."""
    writer = Writer(connection, thread.run)
    done: list[str] = []
    left = 6

    def again(_: object) -> None:
        nonlocal left
        done.append("again")
        left -= 1
        if left == 3:
            writer.relieve()
        if left:
            writer.submit(lambda c: None).addCallback(again)

    writer.submit(lambda c: None).addCallback(again)
    for name in ("first", "second"):
        writer.aside(insert(name)).addCallback(done.append)
    thread.work()
    assert done == ["again"] * 3 + ["first"] + ["again"] * 3 + ["second"]


def test_relief_is_not_saved_up(connection: apsw.Connection, thread: Thread) -> None:
    writer = Writer(connection, thread.run)
    writer.relieve()
    done: list[str] = []
    writer.submit(lambda c: None)
    writer.aside(lambda c: None).addCallback(lambda _: done.append("aside"))
    writer.submit(lambda c: None).addCallback(lambda _: done.append("submitted"))
    thread.work()
    assert done == ["submitted", "aside"]


def test_close_does_what_was_put_aside(connection: apsw.Connection, thread: Thread) -> None:
    writer = Writer(connection, thread.run)
    found = outcome(writer.aside(insert("chore")))
    closed = outcome(writer.close())
    thread.work()
    assert (found, closed) == (["chore"], [None])


class Checkpoints:
    """What the thread did, by the names of the works, with each checkpoint among them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[object] = []
        monkeypatch.setattr("fe_twisted.storage.sqlite.writer._checkpoint", self._checkpoint)

    def _checkpoint(self, connection: apsw.Connection) -> None:
        frames, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        self.log.append("checkpoint" if frames == copied > 0 else (frames, copied))


def large(name: str) -> Callable[[apsw.Connection], str]:
    return insert(name * 4096 * 4)


def test_the_checkpoint_comes_after_the_answers(connection: apsw.Connection, thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(monkeypatch)
    writer = Writer(connection, thread.run, checkpoint_pages=25)
    for name in "abc":
        writer.submit(large(name)).addCallback(lambda text: checkpoints.log.append(text[0]))
    thread.work()
    assert checkpoints.log == ["a", "b", "c", "checkpoint"]
    writer.submit(insert("small")).addCallback(checkpoints.log.append)
    thread.work()
    assert checkpoints.log[4:] == ["small"], "the WAL began anew"


def test_the_checkpoint_does_not_wait_for_ever(connection: apsw.Connection, thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(monkeypatch)
    writer = Writer(connection, thread.run, max_works=1, checkpoint_pages=10)
    for name in "abcdef":
        writer.submit(large(name)).addCallback(lambda text: checkpoints.log.append(text[0]))
    thread.work()
    assert "checkpoint" in checkpoints.log[:-2]
    assert sorted(set(map(str, checkpoints.log))) == ["a", "b", "c", "checkpoint", "d", "e", "f"]


def test_a_checkpoint_that_fails_harms_nobody(connection: apsw.Connection, thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(connection: apsw.Connection) -> None:
        raise apsw.IOError("disk I/O error")

    monkeypatch.setattr("fe_twisted.storage.sqlite.writer._checkpoint", fails)
    writer = Writer(connection, thread.run, checkpoint_pages=2)
    found = [outcome(writer.submit(large(name))) for name in "ab"]
    thread.work()
    assert [text[0] for (text,) in found] == ["a", "b"]
    assert writer.idle
