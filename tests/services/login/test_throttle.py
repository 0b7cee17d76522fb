"""Counting failures: growing delays, then refusal, in bounded memory."""

from __future__ import annotations

import pytest

from fe_twisted.base.errors import TooManyConnections
from fe_twisted.services.login.throttle import LoginLimits, Throttle

LIMITS = LoginLimits(window=100, per_network=5, per_account=8, first_delay=1, longest_delay=6, entries=50)


def test_delays_grow_and_stay_bounded() -> None:
    throttle = Throttle(LIMITS)
    assert [throttle.failed("n", "a", 0) for _ in range(5)] == [1, 2, 4, 6, 6]


def test_a_network_is_turned_away_until_its_failures_are_old() -> None:
    throttle = Throttle(LIMITS)
    for second in range(5):
        throttle.check("n", f"a{second}", second)
        throttle.failed("n", f"a{second}", second)
    with pytest.raises(TooManyConnections):
        throttle.check("n", "another", 99)
    throttle.check("m", "another", 99)
    throttle.check("n", "another", 100)
    throttle.failed("n", "another", 100)
    with pytest.raises(TooManyConnections):
        throttle.check("n", "another", 100)


def test_a_name_is_protected_from_many_networks() -> None:
    throttle = Throttle(LIMITS)
    for number in range(8):
        throttle.check(f"n{number}", "a", 0)
        throttle.failed(f"n{number}", "a", 0)
    with pytest.raises(TooManyConnections):
        throttle.check("n9", "a", 0)
    throttle.check("n9", "b", 0)


def test_strangers_cannot_lock_the_owner_out() -> None:
    throttle = Throttle(LIMITS)
    throttle.succeeded("home", "a")
    for number in range(20):
        throttle.failed(f"n{number}", "a", 0)
    throttle.check("home", "a", 0)
    assert throttle.failed("home", "a", 0) == 1


def test_success_starts_the_name_afresh_and_not_the_network() -> None:
    throttle = Throttle(LIMITS)
    for _ in range(4):
        throttle.failed("n", "victim", 0)
    throttle.succeeded("n", "mine")
    throttle.failed("n", "victim", 0)
    with pytest.raises(TooManyConnections):
        throttle.check("n", "victim", 0)
    throttle.succeeded("m", "victim")
    assert throttle.failed("o", "victim", 0) == 1


def test_memory_is_bounded() -> None:
    throttle = Throttle(LIMITS)
    for number in range(1000):
        throttle.failed(f"n{number}", f"a{number}", 0)
        throttle.succeeded(f"n{number}", f"b{number}")
    assert len(throttle._networks) == len(throttle._accounts) == len(throttle._proven) == 50
    for _ in range(1000):
        throttle.failed("n", "a", 0)
    assert len(throttle._networks["n"]) == 5
    with pytest.raises(TooManyConnections):
        throttle.check("n", "x", 0)
