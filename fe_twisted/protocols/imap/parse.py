r"""IMAP input as events: octets in, commands out, no I/O (RFC 3501 sections 2.2, 4.3; RFC 7888).

What makes the events is only the sequence of octets, never how the network cut it.  Work is linear in the octets fed;
what is stored is at most one command (bounded by :class:`Limits`) plus what was fed and not yet asked for.

**Lines end in CR LF and nothing else.**  A bare LF does not end a command, or text that a client took for the inside of a string
would be run as commands; it gets an answer at once (so that somebody typing into ``nc`` sees what is wrong) and everything up to the
next CR LF is thrown away.

**Literals.**  A synchronising literal ``{5}`` that is not allowed is answered with the BadCommand alone: without ``+`` the client
will not send it, and the command is over.  The octets of a refused ``{5+}`` come all the same, so they are counted and dropped, and
so is the rest of that command; nothing of either is ever read as a command.  When the length cannot be believed the stream is lost
and the BadCommand is ``fatal``.

A command is put together first and then read by :mod:`.grammar` in one go, so a literal costs one copy and the grammar needs no state.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from fe_twisted.base.errors import MailError
from fe_twisted.protocols.imap.arguments import COMMANDS, UID_COMMANDS, ReadArguments
from fe_twisted.protocols.imap.commands import BadCommand, Command, ContinuationLine, Event, NeedContinuation
from fe_twisted.protocols.imap.fetch import single
from fe_twisted.protocols.imap.grammar import TAG, Reader

#: Asked before a literal is taken in, with the command's name and the octets announced, after our own limits were kept.  A
#: :class:`BadCommand` refuses the literal and with it the command (the tag in it is filled in); None accepts.
AcceptLiteral = Callable[[str, int], BadCommand | None]

#: The name is looked up and may be anything.
_HEAD = re.compile(rb"(" + TAG + rb") (UID )?([A-Za-z][A-Za-z0-9.-]*+)(?= |\Z)", re.IGNORECASE)
_TAG_ONLY = re.compile(rb"(" + TAG + rb")(?= |\Z)")
_ANNOUNCED = re.compile(rb"\{([0-9]+)(\+?)\}")
#: The end of a line that is thrown away, where only a non-synchronising literal matters.
_ANNOUNCED_LATE = re.compile(rb"(\{?)([0-9]+)\+\}\Z")
#: How much of such a line's end is kept, and the most digits of a length that may be believed (within every limit there is).
_TAIL = 64
_DIGITS = 15
_LONGEST_ECHO = 32
#: Commands with literals that are messages.
_WITH_MESSAGES = frozenset(("APPEND", "REPLACE"))


@dataclass(frozen=True, slots=True)
class Limits:
    """The most octets of each thing.  What is above is refused, not cut off.

    :param line: a command without its literals, all its lines together, CR LF not counted.
    :param literal: one literal that is not a message.
    :param literals: all of those in one command.
    :param append: one message of APPEND.
    :param appends: all messages of one APPEND (RFC 3502).
    :param line_before_login: as ``line`` while ``parser.authenticated`` is False.
    :param literal_before_login: as ``literal``, and of all together, while ``parser.authenticated`` is False; 4,096 is LITERAL-.
    :param answer: a line asked for with :meth:`Parser.expect_line`.
    :param discard: a refused non-synchronising literal that is still read over.
    :param endless: a line that is being thrown away; the stream is given up if it does not end.
    """

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


class _Step(enum.Enum):
    """What a state says when it has made no event."""

    AGAIN = enum.auto()
    WAIT = enum.auto()


class Parser:
    """Octets in, events out.

    :meth:`feed` only stores.  :meth:`next_event` returns one event, or None when it needs more octets (or after :meth:`stop`).  The
    server may call :meth:`discard`, :meth:`expect_line` or set the attributes between two events, also when both came in one segment.

    :ivar authenticated: set it to True after login; until then the small limits hold.
    :ivar utf8: set it to True when the client enabled UTF8=ACCEPT or IMAP4rev2: mailbox names are UTF-8, not modified UTF-7.
    """

    def __init__(self, limits: Limits | None = None, *, accept_literal: AcceptLiteral | None = None) -> None:
        self.authenticated = False
        self.utf8 = False
        self._limits = limits or Limits()
        self._accept_literal = accept_literal
        self._buffer = bytearray()
        self._stopped = False
        self._lost = False
        self._answer_expected = False
        self._reset()

    def _reset(self) -> None:
        """Be ready for the first line of a command."""
        self._state: Callable[[], Event | _Step] = self._line
        self._searched = 0  # the buffer up to here holds no LF
        self._text = b""  # the lines of the command so far, each with CR LF
        self._literals: list[bytes] = []
        self._stored = 0  # octets of literals that are not messages
        self._appended = 0  # octets of messages
        self._awaited = 0  # octets of the literal being read
        self._dropped = 0  # octets of the line being thrown away

    # -- what the server calls --------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Store octets from the network; after a fatal event they are dropped."""
        if not self._lost:
            self._buffer += data

    def next_event(self) -> Event | None:
        """The next event, or None until more is fed."""
        while self._buffer and not self._stopped and not self._lost:
            made = self._state()
            if made is _Step.WAIT:
                return None
            if made is not _Step.AGAIN:
                return made
        return None

    def events(self) -> Iterator[Event]:
        """The events that :meth:`next_event` gives until None."""
        while (event := self.next_event()) is not None:
            yield event

    @property
    def buffered(self) -> int:
        """Octets fed and not yet made into an event; the server pauses its transport when they are too many."""
        return len(self._buffer)

    @property
    def partial(self) -> bool:
        """Whether a command, or an answer, has begun to come in and is not complete."""
        return bool(self._buffer or self._text) or self._state != self._line

    def expect_line(self) -> None:
        """Return the next line as a :class:`ContinuationLine` (RFC 3501 sections 6.2.2, RFC 2177).

        One line only: call it again for another.  A line that is too long or holds a bare LF is a :class:`BadCommand` with tag ``*``,
        and counts as the line.
        """
        self._answer_expected = True

    def discard(self) -> None:
        """Throw away all that was fed and begin with a new command.

        STARTTLS needs it: what came before the handshake was not protected by it (RFC 3501 section 6.2.1, CVE-2011-0411).
        """
        self._buffer.clear()
        self._answer_expected = False
        self._reset()

    def stop(self) -> None:
        """Only store from now on; :meth:`next_event` returns None until :meth:`resume`."""
        self._stopped = True

    def resume(self) -> None:
        """Undo :meth:`stop`."""
        self._stopped = False

    # -- lines ------------------------------------------------------------------------------------

    def _line(self) -> Event | _Step:
        """State: a line of a command, or an answer."""
        room = self._room()
        end = self._buffer.find(b"\n", self._searched)
        if end < 0 and len(self._buffer) < room + 2:
            self._searched = len(self._buffer)
            return _Step.WAIT
        if end < 0 or end > room + 1:
            # a tag without a space after it may be cut short here, so it counts for none
            return self._give_up(bytes(self._buffer[: room + 2]) + b"\n", "line too long", "LIMIT")
        if not end or self._buffer[end - 1] != 0x0D:
            seen = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            return self._give_up(seen, "bare LF: lines must end in CR LF")
        line = bytes(self._buffer[: end - 1])
        del self._buffer[: end + 1]
        self._searched = 0
        if self._answer_expected:
            self._answer_expected = False
            return ContinuationLine(line)
        if line.endswith(b"}"):
            start = line.rfind(b"{")
            announced = _ANNOUNCED.fullmatch(line, start) if start >= 0 else None
            if announced:
                return self._announced(line, announced[1], waits=not announced[2], at=start)
        if not self._text:
            return self._command(line, [])
        text, literals = self._text + line, self._literals
        self._reset()
        return self._command(text, literals)

    def _room(self) -> int:
        """How long the line may be, CR LF not counted."""
        if self._answer_expected:
            return self._limits.answer
        return max(0, (self._limits.line if self.authenticated else self._limits.line_before_login) - len(self._text))

    def _give_up(self, seen: bytes, problem: str, code: str = "") -> BadCommand:
        """The line that begins with ``seen`` is no good: answer now, throw away the rest of the command."""
        tag = "*" if self._answer_expected else _tag(self._text + seen)
        self._answer_expected = False
        self._start_dropping()
        return BadCommand(tag, problem, code)

    def _start_dropping(self) -> None:
        self._reset()
        self._state = self._drop_line

    def _drop_line(self) -> Event | _Step:
        """State: throw away up to CR LF, or up to the literal that the line announces."""
        buffer = self._buffer
        end = buffer.find(b"\r\n", self._searched)
        length = self._dropped + (len(buffer) - 1 if end < 0 else end)
        if length > self._limits.endless:
            return self._lose("*", "line without end", "LIMIT")
        if end < 0:
            excess = len(buffer) - _TAIL
            if excess > 0:
                del buffer[:excess]
                self._dropped += excess
            self._searched = max(0, len(buffer) - 1)
            return _Step.WAIT
        late = _ANNOUNCED_LATE.search(buffer[max(0, end - _TAIL) : end])
        del buffer[: end + 2]
        if late and not late[1] and late.start() == 0:
            return self._lose("*", "a literal whose length cannot be known", "TOOBIG")
        self._reset()
        return self._start_skipping("*", bytes(late[2])) if late and late[1] else _Step.AGAIN

    # -- literals ---------------------------------------------------------------------------------

    def _announced(self, line: bytes, digits: bytes, *, waits: bool, at: int) -> Event | _Step:
        """A line ended in ``{digits}`` (``waits``) or ``{digits+}``, which begins at ``at``."""
        text = self._text + line
        size = _size(digits)
        bad = self._refusal(text, len(self._text) + at, size)
        if bad is None:
            self._text = text + b"\r\n"
            self._awaited = size or 0
            self._state = self._literal
            return NeedContinuation(self._awaited) if waits else _Step.AGAIN
        self._reset()
        if waits:
            return bad
        lost = self._start_skipping(bad.tag, digits)
        return lost if isinstance(lost, BadCommand) else bad

    def _refusal(self, text: bytes, at: int, size: int | None) -> BadCommand | None:
        """Why this literal is not wanted, or None after counting it in."""
        head = _read_head(text)
        if isinstance(head, BadCommand):
            return head
        tag, name, limits = head.tag, head.name, self._limits
        if name in _WITH_MESSAGES and self.authenticated and at > _mailbox_at(head, text):
            if size is None or size > limits.append or self._appended + size > limits.appends:
                return BadCommand(tag, f"message larger than {limits.append} octets", "TOOBIG", refused=True)
            counted = "message"
        else:
            one, all_of_them = (limits.literal, limits.literals) if self.authenticated else (limits.literal_before_login,) * 2
            if size is None or size > one or self._stored + size > all_of_them:
                if name == "SETMETADATA" and self.authenticated:  # the syntax is right (RFC 5464 section 4.3)
                    return BadCommand(tag, f"a value is longer than {one} octets", f"METADATA MAXSIZE {one}", refused=True)
                return BadCommand(tag, f"literal larger than {one} octets", "TOOBIG")
            counted = "string"
        refused = self._accept_literal(name, size) if self._accept_literal else None
        if refused:
            return replace(refused, tag=tag)
        if counted == "message":
            self._appended += size
        else:
            self._stored += size
        return None

    def _literal(self) -> Event | _Step:
        """State: the octets of an accepted literal."""
        if len(self._buffer) < self._awaited:
            return _Step.WAIT
        with memoryview(self._buffer) as view:
            self._literals.append(bytes(view[: self._awaited]))
        del self._buffer[: self._awaited]
        self._state = self._line
        return _Step.AGAIN

    def _start_skipping(self, tag: str, digits: bytes) -> BadCommand | _Step:
        """The octets of a refused literal come next."""
        size = _size(digits)
        if size is None or size > self._limits.discard:
            return self._lose(tag, "literal too large to be passed over", "TOOBIG")
        self._awaited = size
        self._state = self._skip_literal
        return _Step.AGAIN

    def _skip_literal(self) -> Event | _Step:
        """State: the octets of a refused literal, counted and dropped; then the rest of its command."""
        gone = min(self._awaited, len(self._buffer))
        del self._buffer[:gone]
        self._awaited -= gone
        if self._awaited:
            return _Step.WAIT
        self._start_dropping()
        return _Step.AGAIN

    # -- results ----------------------------------------------------------------------------------

    def _lose(self, tag: str, problem: str, code: str) -> BadCommand:
        self._buffer.clear()
        self._lost = True
        return BadCommand(tag, problem, code, fatal=True)

    def _command(self, text: bytes, literals: list[bytes]) -> Event:
        """A whole command."""
        command = single(text) if not literals else None
        if command is not None:
            return command
        head = _read_head(text)
        if isinstance(head, BadCommand):
            return head
        if head.read is None and head.end == len(text):
            return Command(head.tag, head.name, head.uid)
        reader = Reader(text, literals, utf8=self.utf8, at=head.end)
        try:
            arguments = head.read(reader) if head.read else None
            reader.end()
        except MailError as error:
            condition, code = error.imap
            return BadCommand(head.tag, error.public, code, refused=condition == "NO")
        return Command(head.tag, head.name, head.uid, arguments)


class _Head(NamedTuple):
    """Tag and name of a command of ours, where the name ends, and what reads the rest."""

    tag: str
    name: str
    uid: bool
    end: int
    read: ReadArguments | None


def _mailbox_at(head: _Head, text: bytes) -> int:
    """Where the mailbox name of «a APPEND name …» and of «a REPLACE 4 name …» begins; literals after it are messages."""
    at = head.end + 1
    return at if head.name == "APPEND" else text.find(b" ", at) + 1


def _read_head(text: bytes) -> _Head | BadCommand:
    found = _HEAD.match(text)
    if found is None:
        tag = _tag(text)
        return BadCommand(tag, "expected a tag at octet 1" if tag == "*" else f"expected a command at octet {len(tag) + 2}")
    tag, name, uid = found[1].decode("ascii"), found[3].upper().decode("ascii"), bool(found[2])
    table = UID_COMMANDS if uid else COMMANDS
    if name not in table:
        return BadCommand(tag, f"unknown command {'UID ' if uid else ''}{name[:_LONGEST_ECHO]}")
    return _Head(tag, name, uid, found.end(), table[name])


def _tag(text: bytes) -> str:
    """The tag of a line that is otherwise no good, ``*`` when there is none."""
    found = _TAG_ONLY.match(text)
    return found[1].decode("ascii") if found else "*"


def _size(digits: bytes) -> int | None:
    """The length announced, or None when it is beyond everything."""
    digits = digits.lstrip(b"0") or b"0"
    return int(digits) if len(digits) <= _DIGITS else None
