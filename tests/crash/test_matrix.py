"""kill -9 at every step between DATA and 250, of a merge and of an APPEND; then acknowledged messages are counted against stored ones.

One test a fault point.  Each goes through all scenarios, and in those that reach the point dies at its first, second, … passing.
``FE_TEST_CRASH=long`` tries more passings and more random moments.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable

import pytest

from tests.crash.conftest import Prepared, Run
from tests.crash.forked import APART, CRASH_AT, Forked, Ledger, append, audit, deliver, points
from tests.whole.daemon import Owner, simple
from tests.whole.wire import Imap

LONG = os.environ.get("FE_TEST_CRASH") == "long"

#: At which passing of its point the daemon dies.
PASSINGS = tuple(range(1, 21)) if LONG else (1, 2, 3, 5, 8)

#: Runs with a kill at a random moment.
RANDOM_RUNS = 400 if LONG else 60

FOLDERS = ("INBOX", "Archive")


def _mail(name: str, count: int) -> list[bytes]:
    """Messages of different sizes, each unlike all others."""
    sizes = (10, 3000, 200, 40_000)
    return [simple(f"{name} {number}", f"{name} {number} text\r\n" * (sizes[number % 4] // 20 + 1)) for number in range(count)]


def _load(daemon: Forked, ledger: Ledger, owners: list[Owner], connections: int = 3, count: int = 4) -> list[threading.Thread]:
    """Several connections deliver at once, the first to both owners."""
    threads = [
        threading.Thread(target=deliver, args=(daemon, ledger, owners if n == 0 else owners[:1], _mail(f"connection {n}", count)))
        for n in range(connections)
    ]
    for thread in threads:
        thread.start()
    return threads


def _visit(daemon: Forked, owner: Owner) -> None:
    """Log in, read, poll, leave; the daemon may die at any moment of it."""
    try:
        with Imap(daemon, owner, "INBOX") as imap:
            imap.ask(b"NOOP")
            imap.ask(b"LOGOUT")
    except (OSError, EOFError, AssertionError):
        return


def away(daemon: Forked, ledger: Ledger, owners: list[Owner]) -> None:
    """Nobody is there: everything is sealed."""
    for thread in _load(daemon, ledger, owners):
        thread.join()


def connected(daemon: Forked, ledger: Ledger, owners: list[Owner]) -> None:
    """The first owner idles, the second is away."""
    try:
        with Imap(daemon, owners[0], "INBOX") as imap:
            imap.idle()
            for thread in _load(daemon, ledger, owners):
                thread.join()
    except (OSError, EOFError, AssertionError):
        return


def login(daemon: Forked, ledger: Ledger, owners: list[Owner]) -> None:
    """Mail waits, and both owners come."""
    for owner in owners:
        _visit(daemon, owner)


def coming_and_going(daemon: Forked, ledger: Ledger, owners: list[Owner]) -> None:
    """Mail arrives while the owner comes and goes: deliveries and merges meet."""
    threads = _load(daemon, ledger, owners, connections=2, count=6)
    while any(thread.is_alive() for thread in threads) and daemon.alive():
        _visit(daemon, owners[0])
    for thread in threads:
        thread.join()
    _visit(daemon, owners[0])


def appending(daemon: Forked, ledger: Ledger, owners: list[Owner]) -> None:
    """APPEND and MOVE by the owner while mail arrives."""
    threads = _load(daemon, ledger, owners, connections=1)
    append(daemon, ledger, owners[0], _mail("appended", 8))
    for thread in threads:
        thread.join()


Scenario = Callable[[Forked, Ledger, list[Owner]], None]
SCENARIOS: tuple[tuple[Scenario, str], ...] = (
    (away, "empty"),
    (connected, "empty"),
    (login, "waiting"),
    (coming_and_going, "waiting"),
    (appending, "empty"),
)


@pytest.fixture
def prepared(empty: Prepared, waiting: Prepared) -> dict[str, Prepared]:
    """By the names that scenarios use."""
    return {"empty": empty, "waiting": waiting}


def _die_and_recover(run: Run, start: Prepared, scenario: Scenario, spec: str, again: str = "") -> bool:
    """One run: die at the point, come back (perhaps to die once more on the way), count.  Whether the point was reached."""
    daemon, ledger = run(start)
    daemon.overrides["session_grace_seconds"] = "0"
    daemon.start({CRASH_AT: spec}, wait=False)
    if _ready(daemon):
        scenario(daemon, ledger, start.owners)
        daemon.wait_dead(0.2)
    died = daemon.finish()
    if again:
        daemon.start({CRASH_AT: again}, wait=False)
        if _ready(daemon):
            login(daemon, ledger, start.owners)
            daemon.wait_dead(0.1)
        daemon.finish()
    daemon.start()
    audit(daemon, ledger, start.owners, FOLDERS)
    daemon.kill()
    return died


def _ready(daemon: Forked) -> bool:
    """Whether it listens; not if it died before."""
    try:
        daemon.wait_ready()
    except AssertionError:
        assert not daemon.alive()
        return False
    return True


@pytest.mark.parametrize("point", points())
def test_point(run: Run, prepared: dict[str, Prepared], point: str, record_property: Callable[[str, object], None]) -> None:
    """Die at this point, wherever a message passes it: 0 lost, 0 doubled."""
    runs, crashes = 0, 0
    for scenario, start in SCENARIOS:
        for passing in PASSINGS:
            died = _die_and_recover(run, prepared[start], scenario, f"{point}:{passing}")
            runs += 1
            crashes += died
            if not died:
                break
    record_property("runs", runs)
    record_property("crashes", crashes)
    print(f"{point}: {crashes} crashes in {runs} runs")
    assert crashes, f"no scenario reaches {point}"


@pytest.mark.parametrize("point", [point for point in points() if point.startswith(("merge.", "spool.", "writer."))])
def test_dying_twice(run: Run, prepared: dict[str, Prepared], point: str) -> None:
    """The recovery from a crash in the middle of a merge dies too, at this point."""
    _die_and_recover(run, prepared["waiting"], login, "merge.appended:1", again=f"{point}:1")
    _die_and_recover(run, prepared["waiting"], coming_and_going, "writer.after_commit:4", again=f"{point}:2")


@pytest.mark.parametrize("part", range(4))
def test_random_moments(run: Run, prepared: dict[str, Prepared], part: int) -> None:
    """Killed at any moment under load, several times on the same data."""
    seed = random.randrange(2**32) if LONG else part
    print(f"seed {seed}")
    chance = random.Random(seed)
    start = prepared["waiting"]
    for _ in range(RANDOM_RUNS // 4 // 5):
        daemon, ledger = run(start)
        daemon.overrides["session_grace_seconds"] = "0"
        for life in range(5):
            daemon.start()
            killer = threading.Timer(chance.uniform(0.0, 0.25), daemon.process.kill if daemon.process else None)  # type: ignore[arg-type]
            killer.start()
            mine = Ledger()
            threads = [
                threading.Thread(target=deliver, args=(daemon, mine, start.owners[: 1 + n], _mail(f"life {life} connection {n}", 40)))
                for n in range(2)
            ]
            for thread in threads:
                thread.start()
            while daemon.alive():
                _visit(daemon, chance.choice(start.owners))
            for thread in [*threads, killer]:
                thread.join()
            daemon.process = None
            assert mine.surprises == []
            for book, other in ((ledger.acknowledged, mine.acknowledged), (ledger.unanswered, mine.unanswered)):
                for address, contents in other.items():
                    book.setdefault(address, []).extend(contents)
        daemon.start()
        audit(daemon, ledger, start.owners, FOLDERS)
        daemon.kill()


def test_the_points_are_those_that_the_program_knows() -> None:
    """The list in the program, which checks the variable, and the sources agree."""
    from fe_twisted.base import faults

    assert sorted(point for point in faults.POINTS if not point.startswith(APART)) == points()
