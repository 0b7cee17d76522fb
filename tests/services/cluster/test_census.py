"""Connections counted over processes: never more than the limit for longer than a moment, and nobody waits."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from fe_twisted.base.errors import PrimaryAway
from fe_twisted.services.cluster import census as module
from fe_twisted.services.cluster.census import AGAIN, GATHER, RENEW, Census, Teller, naming


class Process:
    """Connections of one process, and its end of the telling."""

    def __init__(self, census: Census, clock: Clock, limit: int = 5) -> None:
        self.census = census
        self.limit = limit
        self.away = False
        self.told: list[tuple[dict[str, int], bool]] = []
        self.connections: dict[str, list[int]] = {}
        self.expelled: list[int] = []
        self.teller = Teller("mx", self.tell, clock)
        self.teller.start(self)

    async def tell(self, counts: Mapping[str, int], whole: bool) -> Mapping[str, int]:
        self.told.append((dict(counts), whole))
        if self.away:
            raise PrimaryAway
        return self.census.report(self, "mx", self.limit, counts, whole=whole)

    def connect(self, network: str, number: int) -> None:
        self.connections.setdefault(network, []).append(number)
        self.teller.changed(network)

    def disconnect(self, network: str) -> None:
        self.connections[network].pop(0)
        self.teller.changed(network)

    def networks(self) -> list[str]:
        return [network for network, held in self.connections.items() if held]

    def live(self, network: str) -> int:
        return len(self.connections.get(network, []))

    def expel(self, network: str, number: int) -> None:
        for _ in range(number):
            self.expelled.append(self.connections[network].pop())


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_newest_go_when_there_are_too_many_together(clock: Clock) -> None:
    census = Census()
    one, two = Process(census, clock), Process(census, clock)
    for number in range(3):
        one.connect("n", number)
    clock.advance(GATHER)
    for number in range(3, 7):
        two.connect("n", number)
    clock.advance(GATHER)
    assert one.expelled == [] and two.expelled == [6, 5]
    assert census.count("mx", "n") == 5
    one.disconnect("n")
    clock.advance(GATHER)
    two.connect("n", 8)
    clock.advance(GATHER)
    assert two.expelled == [6, 5] and census.count("mx", "n") == 5


def test_many_changes_are_one_message(clock: Clock) -> None:
    process = Process(Census(), clock)
    clock.advance(GATHER)
    process.told.clear()
    for number in range(1000):
        process.connect(f"n{number % 10}", number)
        process.disconnect(f"n{number % 10}")
    clock.advance(GATHER)
    assert process.told == [({f"n{number}": 0 for number in range(10)}, False)]
    clock.advance(GATHER)
    assert len(process.told) == 1


def test_a_process_that_is_gone_counts_no_more(clock: Clock) -> None:
    census = Census()
    one, two = Process(census, clock), Process(census, clock)
    for number in range(5):
        one.connect("n", number)
    clock.advance(GATHER)
    census.left(one)
    for number in range(5):
        two.connect("n", number)
    clock.advance(GATHER)
    assert two.expelled == []


def test_who_could_not_tell_tells_everything_when_he_can(clock: Clock) -> None:
    census = Census()
    process = Process(census, clock)
    process.connect("a", 1)
    clock.advance(GATHER)
    process.away = True
    census.left(process)
    process.connect("b", 2)
    clock.advance(GATHER)
    assert census.count("mx", "a") == census.count("mx", "b") == 0
    process.away = False
    clock.advance(AGAIN)
    assert (census.count("mx", "a"), census.count("mx", "b")) == (1, 1)
    assert process.told[-1] == ({"a": 1, "b": 1}, True)


def test_it_is_told_at_once_when_he_is_back(clock: Clock) -> None:
    process = Process(Census(), clock)
    process.away = True
    process.connect("a", 1)
    clock.advance(GATHER)
    process.away = False
    process.told.clear()
    process.teller.renew()
    clock.advance(GATHER)
    assert process.told == [({"a": 1}, True)]


def test_everything_is_told_anew_now_and_then(clock: Clock) -> None:
    process = Process(Census(), clock)
    process.connect("a", 1)
    clock.advance(GATHER)
    process.told.clear()
    clock.advance(RENEW)
    clock.advance(GATHER)
    assert process.told == [({"a": 1}, True)]
    process.teller.stop()
    assert not clock.getDelayedCalls()


def test_whole_forgets_what_is_not_in_it() -> None:
    census = Census()
    census.report("w", "mx", 5, {"a": 2, "b": 1}, whole=False)
    census.report("w", "imap", 5, {"a": 4}, whole=False)
    census.report("w", "mx", 5, {"b": 3}, whole=True)
    assert (census.count("mx", "a"), census.count("mx", "b"), census.count("imap", "a")) == (0, 3, 4)


def test_a_peer_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    census = Census()
    census.report("w", "mx", 5, {f"n{number}": 1 for number in range(10)}, whole=False)
    assert sum(census.count("mx", f"n{number}") for number in range(10)) == 3
    census.report("w", "mx", 5, {"n0": 2, "n9": -7}, whole=False)
    assert census.count("mx", "n0") == 2
    census.left("w")
    assert not census._counts and not census._of


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("ab"), st.integers(-2, 9), st.booleans())))
def test_together_never_above_the_limit(reports: list[tuple[str, str, int, bool]]) -> None:
    census, limit = Census(), 6
    for who, network, count, gone in reports:
        if gone:
            census.left(who)
            assert who not in census._of
            continue
        before = census.count("mx", network)
        excess = census.report(who, "mx", limit, {network: count}, whole=False)
        assert 0 <= census.count("mx", network) <= limit
        assert not excess or (before + count > limit and excess[network] <= count)


def test_names_tell_nothing_and_differ() -> None:
    name = naming(bytes(32))
    made = {
        name("network", "192.0.2.1"),
        name("account", "192.0.2.1"),
        name("proven", "a", "b"),
        name("proven", "ab"),
        name("proven", "a", "c"),
    }
    assert len(made) == 5 and name("network", "192.0.2.1") in made
    assert not any("192" in each for each in made)
    assert naming(bytes([1]) * 32)("network", "192.0.2.1") not in made
