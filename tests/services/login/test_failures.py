"""Failed logins counted together: over processes, with nobody waiting for who cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fe_twisted.base.errors import PrimaryAway, TooManyConnections
from fe_twisted.services.login.failures import PAUSE, Failures
from fe_twisted.services.login.throttle import Counts, LoginLimits, Throttle

LIMITS = LoginLimits(window=100, per_network=4, per_account=6, first_delay=1, longest_delay=8)


class Together:
    """Everybody's counts in one place; can be away."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.throttle = Throttle(LIMITS)
        self.away = False
        self.asked = 0

    async def counts(self, what: str, network: str, account: str) -> Counts:
        self.asked += 1
        if self.away:
            raise PrimaryAway(reason="down")
        if what == "add":
            return self.throttle.add(network, account, self.clock.seconds())
        if what == "succeeded":
            self.throttle.succeeded(network, account)
        return self.throttle.look(network, account, self.clock.seconds())


def run(coroutine: Any) -> Any:
    outcome: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def together(clock: Clock) -> Together:
    return Together(clock)


@pytest.fixture
def workers(clock: Clock, together: Together) -> list[Failures]:
    return [Failures(LIMITS, clock, together), Failures(LIMITS, clock, together)]


def test_failures_at_two_processes_are_one_count(workers: list[Failures]) -> None:
    delays = [run(workers[number % 2].failed("n", f"a{number}")) for number in range(4)]
    assert delays == [1, 2, 4, 8]
    for worker in workers:
        with pytest.raises(TooManyConnections):
            run(worker.check("n", "another"))
        run(worker.check("m", "another"))


def test_a_name_is_protected_over_processes(workers: list[Failures]) -> None:
    for number in range(6):
        run(workers[number % 2].failed(f"n{number}", "a"))
    for worker in workers:
        with pytest.raises(TooManyConnections):
            run(worker.check("elsewhere", "a"))


def test_who_logged_in_at_one_process_is_known_to_the_others(workers: list[Failures]) -> None:
    workers[0].succeeded("home", "a")
    for number in range(6):
        run(workers[1].failed(f"n{number}", "a"))
    for worker in workers:
        run(worker.check("home", "a"))


def test_the_right_password_starts_the_name_afresh_everywhere(workers: list[Failures]) -> None:
    for number in range(5):
        run(workers[0].failed(f"n{number}", "a"))
    workers[0].succeeded("home", "a")
    assert run(workers[1].failed("new", "a")) == 1


def test_while_nobody_can_be_asked_the_own_count_decides(workers: list[Failures], together: Together, clock: Clock) -> None:
    together.away = True
    for _ in range(4):
        run(workers[0].failed("n", "a"))
    assert together.asked == 1  # and then it was let alone
    with pytest.raises(TooManyConnections):
        run(workers[0].check("n", "b"))
    run(workers[1].check("n", "b"))
    workers[1].succeeded("n", "b")


def test_back_again_both_counts_count(workers: list[Failures], together: Together, clock: Clock) -> None:
    together.away = True
    for _ in range(3):
        run(workers[0].failed("n", "a"))
    together.away = False
    clock.advance(PAUSE)
    run(workers[0].check("n", "a"))
    run(workers[0].failed("n", "a"))
    with pytest.raises(TooManyConnections):
        run(workers[0].check("n", "a"))


def test_it_is_said_once_that_nobody_can_be_asked(workers: list[Failures], together: Together, clock: Clock, logged: list[str]) -> None:
    together.away = True
    for _ in range(5):
        run(workers[0].check("n", "a"))
        clock.advance(PAUSE)
    together.away = False
    run(workers[0].check("n", "a"))
    assert logged == ["login.counts_alone", "login.counts_shared"]


@pytest.fixture
def logged() -> Any:
    from twisted.logger import globalLogPublisher

    names: list[str] = []

    def observe(event: Any) -> None:
        if "event" in event:
            names.append(event["event"])

    globalLogPublisher.addObserver(observe)
    yield names
    globalLogPublisher.removeObserver(observe)
