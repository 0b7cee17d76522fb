"""Places where a test may end the process, as a power cut would.

``faults.reach("spool.before_commit")`` does nothing at all, unless :func:`arm` was called; the wiring calls it only in development mode,
with the value of the environment variable ``FORWARDEMAIL_CRASH_AT``.  The crash matrix runs the daemon once for each of :data:`POINTS`.

Call it through the module (``faults.reach``), never by ``from … import reach``: arming replaces the function.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable

#: The environment variable that the wiring hands to :func:`arm` in development mode.
VARIABLE = "FORWARDEMAIL_CRASH_AT"

#: Every point of the program, in the order in which a message passes them; then those of mail and changes that come over a link, at a
#: secondary and at its primary; then those of a mailbox that is moved between primaries, at the one and at the other.  A test compares this
#: with the sources.
POINTS = (
    "deliver.start",
    "spool.before_insert",
    "spool.after_insert",
    "writer.before_commit",
    "writer.after_commit",
    "deliver.sealed",
    "deliver.stored",
    "merge.start",
    "merge.taken",
    "merge.unsealed",
    "merge.appended",
    "merge.removed",
    "spool.before_checkpoint",
    "spool.after_checkpoint",
    "spool.unlinked_main",
    "spool.unlinked_wal",
    "spool.unlinked_all",
    "merge.done",
    "remote.queued",
    "remote.handed",
    "host.delivered",
    "host.taken",
    "host.answered",
    "move.copied",
    "move.frozen",
    "move.sent",
    "move.verified",
    "move.decided",
    "move.handed",
    "move.left",
    "move.done",
    "arrive.begun",
    "arrive.written",
    "arrive.synced",
    "arrive.named_wal",
    "arrive.named",
)


def _nothing(name: str) -> None:
    """Not armed."""


def _die(name: str) -> None:
    """As abruptly as it gets: no handler, no flush, no exit function."""
    os.kill(os.getpid(), signal.SIGKILL)


reach: Callable[[str], None] = _nothing


def arm(spec: str, act: Callable[[str], None] = _die) -> None:
    """Make ``reach`` act at one point.

    :param spec: ``name`` or ``name:n``, for the n-th time it is reached (the first is 1).
    :param act: what happens there; tests in one process may raise instead of dying.
    :raises ValueError: no such point, or not a positive number.
    """
    global reach
    name, _, count = spec.partition(":")
    if name not in POINTS:
        raise ValueError(f"no fault point is named {name!r}")
    target = int(count or 1)
    if target < 1:
        raise ValueError("fault points are counted from 1")
    counter = itertools.count(1)  # next() is atomic, and points are reached from several threads

    def armed(reached: str) -> None:
        if reached == name and next(counter) == target:
            act(name)

    reach = armed


def disarm() -> None:
    """Make ``reach`` harmless again."""
    global reach
    reach = _nothing
