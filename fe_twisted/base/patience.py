"""How long whoever is being answered has waited for a primary already.

One command may have to ask more than once: for news, for itself, for news again.  While no primary can be reached each question would wait
its full time, and the client the sum of them.  :func:`begin` says that what is asked from now on is for one answer.
"""

from __future__ import annotations

from contextvars import ContextVar

#: Seconds that a question waits at least, so that nobody who asks again and again does so without a pause.
LEAST = 0.5


class Spent:
    """What one command has waited in vain."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0

    def left(self, seconds: float) -> float:
        """How long the next question may wait, of so many seconds."""
        return max(min(seconds, LEAST), seconds - self.seconds)


_current: ContextVar[Spent | None] = ContextVar("spent", default=None)


def begin() -> None:
    """One answer is being made from here on, in this context (:mod:`contextvars`)."""
    _current.set(Spent())


def spent() -> Spent:
    """What was waited for this answer; nothing, for whoever has not begun one."""
    return _current.get() or Spent()
