"""Time as it is passed in: the reactor in the program, :class:`twisted.internet.task.Clock` in tests."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall


class Clock(Protocol):
    """What a part needs of the reactor to know the time and to be called later."""

    def seconds(self) -> float:
        """Seconds since the epoch, as they were when the process began: when somebody sets the clock, these go on."""

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object) -> IDelayedCall:
        """Call it after ``delay`` seconds, unless cancelled."""


def now(clock: Clock) -> datetime.datetime:
    """The time of day in UTC, also after somebody has set the clock (see :mod:`fe_twisted.app.steady`)."""
    seconds: Callable[[], float] = getattr(clock, "wall", clock.seconds)
    return datetime.datetime.fromtimestamp(seconds(), datetime.UTC)
