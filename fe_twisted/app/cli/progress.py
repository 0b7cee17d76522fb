"""Showing how far something is that takes long: one line that changes on a terminal, a line now and then elsewhere.

It goes to the standard error, so that the standard output holds the result and nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click

from fe_twisted.protocols.cluster.values import decode
from fe_twisted.services.cluster.progress import ANSWER, Progress

#: Seconds between two questions, and between two lines where there is no terminal.
EVERY = 1.0
LINE = 10.0

_WORDS = {
    "closed": "copying what has changed meanwhile; clients wait",
    "comparing": "the other primary writes it to its disk and reads it again",
}


class Shown:
    """Shows the answers about one move.

    :param now: seconds, of a clock that only goes on.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._next = now() + LINE
        self._written = False

    def heard(self, octets: bytes) -> None:
        """An answer has come.

        :raises fe_twisted.protocols.cluster.values.BadValue: it is none.
        """
        progress: Progress = decode(ANSWER, octets)
        if not progress.step:
            return
        if sys.stderr.isatty():
            # To the start of the line, and what was there before is erased (ECMA-48 EL).
            click.echo(f"\r\x1b[K{text(progress)}", nl=False, err=True)
            self._written = True
        elif self._now() >= self._next:
            self._next = self._now() + LINE
            click.echo(text(progress), err=True)

    def end(self) -> None:
        """Leave nothing of it on a terminal."""
        if self._written:
            click.echo("\r\x1b[K", nl=False, err=True)


def text(progress: Progress) -> str:
    """One line."""
    if progress.step == "copying" and progress.of:
        done = min(progress.octets, progress.of)
        left = _left(done, progress.of, progress.seconds)
        return f"copying: {done:,} of {progress.of:,} octets ({100 * done // progress.of} %){left}"
    if progress.step == "handing over":
        return f"handing over mail that waits: {progress.messages:,} messages"
    words = {
        "closed": "copying what has changed meanwhile; clients wait",
        "comparing": "the other primary writes it to its disk and reads it again",
    }
    return f"{words.get(progress.step, progress.step)}: {progress.octets:,} octets"


def _left(done: int, of: int, seconds: int) -> str:
    """An estimate from how it went so far; none before there is something to tell from."""
    if seconds < 2 or not done:
        return ""
    left = round(seconds * (of - done) / done)
    minutes, rest = divmod(left, 60)
    return f", about {f'{minutes} min {rest} s' if minutes else f'{rest} s'} left"
