"""Time as it is passed in: the reactor in the program, :class:`twisted.internet.task.Clock` in tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall


class Clock(Protocol):
    """What a part needs of the reactor to know the time and to be called later."""

    def seconds(self) -> float:
        """Seconds since the epoch."""

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object) -> IDelayedCall:
        """Call it after ``delay`` seconds, unless cancelled."""
