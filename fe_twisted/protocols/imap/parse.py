"""IMAP input as events (skeleton of the interface)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fe_twisted.protocols.imap.commands import BadCommand, Event

#: Asked before a literal is taken in, with the command's name and the octets announced; a :class:`BadCommand` refuses it (its tag is filled in).
AcceptLiteral = Callable[[str, int], BadCommand | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Most octets of … (``append`` for one message, ``appends`` for all messages of one MULTIAPPEND)."""

    line: int = 65_536
    literal: int = 1_048_576
    literals: int = 4_194_304
    append: int = 52_428_800
    appends: int = 104_857_600
    line_before_login: int = 8_192
    literal_before_login: int = 4_096
    answer: int = 65_536
    discard: int = 1 << 30
    endless: int = 10 * 1_048_576


class Parser:
    """Octets in, events out.

    ``feed`` only stores; ``next_event`` returns one event, or None when more octets are needed (or after ``stop``), so that the server
    may call ``discard`` or ``expect_line`` between two commands that came in one segment.
    """

    authenticated: bool
    utf8: bool

    def __init__(self, limits: Limits | None = None, *, accept_literal: AcceptLiteral | None = None) -> None:
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Store octets from the network."""
        raise NotImplementedError

    def next_event(self) -> Event | None:
        """The next event, or None."""
        raise NotImplementedError

    def events(self) -> Iterator[Event]:
        """All events that the octets fed so far make."""
        raise NotImplementedError

    @property
    def buffered(self) -> int:
        """Octets stored and not yet made into events."""
        raise NotImplementedError

    def expect_line(self) -> None:
        """The next line is a :class:`ContinuationLine` (or a BadCommand with tag ``*`` when too long); one line only, call again for the next."""
        raise NotImplementedError

    def discard(self) -> None:
        """Throw away all stored octets and start with a new command (STARTTLS)."""
        raise NotImplementedError

    def stop(self) -> None:
        """Only store from now on; ``next_event`` returns None until ``resume``."""
        raise NotImplementedError

    def resume(self) -> None:
        """Undo ``stop``."""
        raise NotImplementedError
