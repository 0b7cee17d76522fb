"""Attack: spread guesses, or connections, over the processes of a server so that each counts only its part of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fe_twisted.base.errors import TooManyConnections, WrongPassword
from fe_twisted.clients.link.link import Link
from fe_twisted.servers.connection import ConnectionLimit
from fe_twisted.services.cluster.census import GATHER, Census, Teller
from fe_twisted.services.cluster.counts import CountsDesk, OverLink, tell_over_link
from fe_twisted.services.login.authenticate import Login
from fe_twisted.services.login.failures import Failures
from fe_twisted.services.login.throttle import LoginLimits, Throttle
from fe_twisted.storage.directory.lookup import Lookups
from fe_twisted.storage.directory.sql import SqlDirectory, open_directory
from tests.services.cluster.test_status import hosting
from tests.storage.mailbox.linked import Network

LIMITS = LoginLimits(window=900, per_network=6, per_account=8, first_delay=0.5, longest_delay=2)


class Box:
    """A primary that counts, and two workers with their logins."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.directory: SqlDirectory = open_directory(folder / "directory.sqlite", bytes(32))
        self.census = Census()
        self.network = Network(hosting(self.clock, folder, CountsDesk(Throttle(LIMITS), self.census, self.clock)), self.clock)
        self.links: list[Link] = [self.network.link(name=f"worker-{number}") for number in (1, 2)]
        self.logins = [self.login(link) for link in self.links]

    def login(self, link: Link) -> Login:
        failures = Failures(LIMITS, self.clock, OverLink(lambda: link))
        return Login(Lookups(self.directory), self.clock, failures=failures)

    def guess(self, worker: int, name: str, peer: str) -> tuple[type[BaseException], float]:
        """What came of it, and after how many seconds."""
        outcome: list[Any] = []
        began = self.clock.seconds()
        Deferred.fromCoroutine(self.logins[worker].authenticate(name, "guess", peer=peer)).addBoth(outcome.append)
        while not outcome:
            self.clock.advance(0.05)
        assert isinstance(outcome[0], Failure)
        return type(outcome[0].value), self.clock.seconds() - began


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    for link in made.links:
        link.stop()
    made.directory.close()


def test_guesses_from_one_network_over_two_workers_count_together(box: Box) -> None:
    found = [box.guess(number % 2, f"a{number}@example.com", "192.0.2.1") for number in range(8)]
    assert [kind for kind, _ in found] == [WrongPassword] * 6 + [TooManyConnections] * 2
    # And each makes the next one slower, whoever answers it.
    assert [round(seconds, 1) for _, seconds in found[:4]] == [0.5, 1.0, 2.0, 2.0]


def test_guesses_at_one_name_over_two_workers_count_together(box: Box) -> None:
    found = [box.guess(number % 2, "victim@example.com", f"192.0.2.{number}")[0] for number in range(10)]
    assert found == [WrongPassword] * 8 + [TooManyConnections] * 2


def test_a_worker_that_is_started_anew_knows_the_guesses(box: Box) -> None:
    for number in range(6):
        box.guess(0, f"a{number}@example.com", "192.0.2.1")
    box.links[0].stop()
    fresh = box.network.link(name="worker-3")
    box.links.append(fresh)
    box.logins[0] = box.login(fresh)
    assert box.guess(0, "b@example.com", "192.0.2.1")[0] is TooManyConnections


def test_a_primary_that_does_not_answer_costs_a_second_and_not_each_time(box: Box) -> None:
    """A stopped process answers nothing, and its connections stay."""
    for cable in box.network.cables:
        cable.held = True
    first, second = box.guess(0, "a@example.com", "192.0.2.1"), box.guess(0, "a@example.com", "192.0.2.1")
    assert first[0] is second[0] is WrongPassword
    assert 0.95 <= first[1] <= 1.6
    assert second[1] == pytest.approx(1.0, abs=0.11)  # its delay, and no waiting
    for number in range(4):
        box.guess(0, f"b{number}@example.com", "192.0.2.1")
    assert box.guess(0, "c@example.com", "192.0.2.1")[0] is TooManyConnections


def test_without_a_primary_guesses_count_at_each_worker(box: Box) -> None:
    box.network.down = True
    for cable in list(box.network.cables):
        cable.break_()
    found = [box.guess(0, f"a{number}@example.com", "192.0.2.1")[0] for number in range(7)]
    assert found == [WrongPassword] * 6 + [TooManyConnections]


def test_connections_over_two_workers_count_together(box: Box) -> None:
    gone: list[tuple[int, int]] = []
    limits: list[ConnectionLimit] = []
    tellers: list[Teller] = []
    for link in box.links:
        tell: Any = tell_over_link(lambda link=link: link, "imap", 5)  # type: ignore[misc]
        tellers.append(Teller("imap", tell, box.clock))
        limits.append(ConnectionLimit(100, 5, tellers[-1]))
        tellers[-1].start(limits[-1])
    for number in range(4):
        for worker in (0, 1):
            limits[worker].acquire("192.0.2.1", partial(gone.append, (worker, number)))
    box.clock.advance(GATHER)
    assert box.census.count("imap", "192.0.2.1") == 5
    assert len(gone) == 3 and {number for _, number in gone} <= {1, 2, 3}, "the newest had to go"
    for teller in tellers:
        teller.stop()


def test_a_peer_tells_nonsense_and_is_refused_or_bounded(box: Box) -> None:
    """More networks than numbers, negative numbers, texts without end."""
    from fe_twisted.protocols.cluster.values import encode
    from fe_twisted.services.cluster.counts import _CONNECTIONS, LONGEST, Connections

    body = encode(_CONNECTIONS, Connections("imap", 5, False, ("a", "x" * 100_000, "b"), (-5, 2)))
    outcome: list[Any] = []
    Deferred.fromCoroutine(box.links[0].ask("connections", "", body)).addBoth(outcome.append)
    assert isinstance(outcome[0], bytes)
    assert box.census.count("imap", "a") == 0 and box.census.count("imap", "x" * LONGEST) == 2
    for method in ("connections", "failures"):
        outcome.clear()
        Deferred.fromCoroutine(box.links[0].ask(method, "", [b"\xff rubbish"])).addBoth(outcome.append)
        assert "not understood" in str(outcome[0].value)
