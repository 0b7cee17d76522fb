"""What is away for long is told once."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from fe_twisted.app.rounds import Rounds
from fe_twisted.base.errors import Later


def test_that_it_is_away_is_told_once_and_that_it_is_back() -> None:
    """A database that is stopped for a night made a line a second, of each process."""
    clock: Any = Clock()
    errors: list[Exception | None] = []

    async def look() -> None:
        error = errors.pop(0)
        if error is not None:
            raise error

    rounds = Rounds(1.0, look, clock, "directory")
    errors[:] = [None, Later(reason="refused"), Later(reason="refused"), Later(reason="starting up"), None, None, Later(reason="again")]
    with capturedLogs() as said:
        rounds.startService()
        for _ in range(6):
            clock.advance(1.0)
    assert not errors
    told = [(each["event"], each["fields"]) for each in said if "event" in each]
    assert told == [
        ("directory.away", {"reason": "refused"}),
        ("directory.back", {"seconds": 3}),
        ("directory.away", {"reason": "again"}),
    ]


def test_an_error_of_ours_ends_nothing_and_is_told_each_time() -> None:
    clock: Any = Clock()
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        raise ValueError(looks)

    rounds = Rounds(1.0, look, clock, "directory")
    with capturedLogs() as said:
        rounds.startService()
        clock.advance(1.0)
    assert looks == 2
    assert [each["event"] for each in said if "event" in each] == ["directory.look"] * 2
