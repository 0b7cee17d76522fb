"""A reactor whose timers go by a clock that nobody sets.

Twisted's go by the time of day.  On a box whose clock was wrong and is set back by an hour, a link would not be tried again for an hour;
set forward, everything that waits would have waited too long at once.
"""

from __future__ import annotations

import time
from typing import Any


def steady(reactor: Any) -> None:
    """Have timers, and ``seconds()``, go by the monotonic clock, from the time of day at this moment on.

    Whoever needs the time of day as it is asks :func:`fe_twisted.base.clock.now`, which finds it in ``reactor.wall``.
    """
    if hasattr(reactor, "wall"):
        return
    began = time.time() - time.monotonic()
    reactor.wall = lambda: time.time()  # looked up anew each time, as everybody else does
    reactor.seconds = lambda: time.monotonic() + began
