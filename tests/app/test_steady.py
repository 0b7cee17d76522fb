"""Timers when somebody sets the clock of the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor

from fe_twisted.app.steady import steady
from fe_twisted.base.clock import now


@pytest.fixture
def reactor() -> Iterator[Any]:
    make: Any = EPollReactor
    reactor = make()
    steady(reactor)
    yield reactor
    reactor.removeAll()


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_timer_is_neither_late_nor_early_when_the_clock_is_set(reactor: Any, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Found with a link: a secondary whose clock was set back did not come back to its primary before that time had passed again."""
    called: list[str] = []
    reactor.callLater(0.05, called.append, "soon")
    reactor.callLater(60, called.append, "later")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)
    until = time.monotonic() + 5
    while not called and time.monotonic() < until:
        reactor.iterate(0.05)
    assert called == ["soon"]
    assert abs(now(reactor).timestamp() - real() - seconds) < 5, "the time of day is what the machine says"


def test_it_begins_with_the_time_of_day_and_is_done_once(reactor: Any) -> None:
    assert abs(reactor.seconds() - time.time()) < 1
    before = reactor.seconds
    steady(reactor)
    assert reactor.seconds is before
