r"""What an SMTP client sends, cut into events: bytes in with :meth:`Parser.feed`, events out with :meth:`Parser.next_event`.

Events are pulled, one at a time, because what the next bytes mean depends on the answer to the command before: DATA switches to
message text, STARTTLS throws away what is buffered.  The same bytes cut anywhere give the same events (only the sizes of
:class:`Content` pieces differ).

Rules that keep a message from ever becoming commands, or two messages (SMTP smuggling):

* a command line ends in CR LF; a bare CR or LF in it, or too many octets, make it one bad line up to its CR LF;
* message text ends in CR LF ``.`` CR LF and in nothing else (RFC 5321 section 4.1.1.4).  Whatever is wrong with the text, it is read to
  that end, without being kept, and refused as a whole: a bare CR or LF (section 2.3.8), a line or a message above its limit;
* a BDAT chunk is as long as its command says, whether the command was in order or not (RFC 3030 section 2); a BDAT whose size cannot be
  read, or a message so far above the limit that reading it to its end is a waste, is the end of the connection (``fatal``).

All other octets of message content are passed on as they come, NUL included: RFC 5321 asks clients not to send it, but a message that was
sent is better kept byte for byte than refused.  In a command line control characters are refused.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from fe_twisted.base.errors import BadSyntax, BareNewline, MailError, MessageTooLarge, SmtpStatus, Theirs

TERMINATOR = b"\r\n.\r\n"
#: A message this many times above the limit is not read to its end.
PATIENCE = 4

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CHUNK = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)


class BadCommand(BadSyntax):
    """A command line that is none: empty, with control characters, or not ended by CR LF."""

    default = "syntax error, command unrecognized"
    smtp = SmtpStatus(500, "5.5.2")


class CommandTooLong(Theirs):
    """A command line above the limit (RFC 5321 section 4.5.3.1.4 asks for at least 512 octets)."""

    default = "command line too long"
    smtp = SmtpStatus(500, "5.5.2")


class TextLineTooLong(Theirs):
    """A line of message text above the limit (RFC 5321 section 4.5.3.1.6 asks for at least 1,000 octets)."""

    default = "message contains a line that is too long"
    smtp = SmtpStatus(550, "5.6.0")


class Command(NamedTuple):
    """One command line: the verb in upper case, the argument without the spaces around it."""

    verb: str
    argument: bytes


class Chunk(NamedTuple):
    """A BDAT command: ``size`` octets follow as :class:`Content`, then :class:`End`, whatever the server thinks of it."""

    size: int
    last: bool


class Content(NamedTuple):
    """A piece of message content, dots unstuffed.  Not sent any more once the message has a flaw."""

    data: bytes


class End(NamedTuple):
    """The end of message text or of a chunk.

    :param error: why the message is to be refused, or None.
    :param last: whether the message is complete: always so after DATA, after BDAT only with LAST.
    """

    error: MailError | None
    last: bool


class Bad(NamedTuple):
    """A command line that cannot be used; when ``fatal`` nothing more can be read after it."""

    error: MailError
    fatal: bool


Event = Command | Chunk | Content | End | Bad


class _Mode(enum.Enum):
    COMMAND = enum.auto()
    #: Inside a command line that was already refused, up to its CR LF.
    SKIP = enum.auto()
    TEXT = enum.auto()
    CHUNK = enum.auto()
    DEAD = enum.auto()


class Checker:
    """Looks for bare CRs and LFs, over-long lines and too many octets in content that comes in blocks.

    :param line: most octets of a line, CR LF included.
    :param total: most octets of the message.
    """

    def __init__(self, line: int, total: int) -> None:
        self._limit = line
        self._total = total
        self.octets = 0
        self._line = 0
        self._cr = False
        self._bare = False
        self._long = False

    @property
    def flawed(self) -> bool:
        """Whether the message is to be refused already."""
        return self._bare or self._long or self.octets > self._total

    def error(self, *, complete: bool) -> MailError | None:
        """What is wrong, in an order of its own so that it does not depend on how the content was cut.

        :param complete: no more content comes, so that a CR at the end is a bare one.
        """
        if self.octets > self._total:
            return MessageTooLarge()
        if self._bare or (complete and self._cr):
            return BareNewline()
        return TextLineTooLong() if self._long else None

    def check(self, block: bytes, counted: int) -> None:
        """Take the next block.

        :param counted: how many octets it adds to the message.
        """
        self.octets += counted
        if self._cr:
            block = b"\r" + block
        self._cr = block.endswith(b"\r")
        if self._cr:
            block = block[:-1]
        # Every CR and every LF belongs to a pair when there are as many of each as there are pairs.  Leaving an octet out and looking at
        # the length counts it three times faster than count().
        size = len(block)
        pairs = block.count(b"\r\n")
        if size - len(block.replace(b"\n", b"")) != pairs or size - len(block.replace(b"\r", b"")) != pairs:
            self._bare = True
        if not self._long:
            self._measure(block)

    def _measure(self, block: bytes) -> None:
        """Find a line above the limit by jumping from line end to line end, a whole limit at a time."""
        limit = self._limit
        first = block.find(b"\n") + 1
        if not first:
            self._line += len(block)
            self._long = self._line > limit
            return
        if self._line + first > limit:
            self._long = True
            return
        start, size = first, len(block)
        while size - start > limit:
            start = block.rfind(b"\n", start, start + limit) + 1
            if not start:
                self._long = True
                return
        self._line = size - (block.rfind(b"\n", start) + 1 or start)


class Parser:
    """The reading half of an SMTP server's connection.

    :param command_line: most octets of a command line, CR LF included.
    :param text_line: most octets of a line of message content, CR LF included.
    :param message: most octets of a message.
    """

    def __init__(self, *, command_line: int = 4096, text_line: int = 100_000, message: int = 52_428_800) -> None:
        self._command_line = command_line
        self._text_line = text_line
        self._message = message
        self._data = b""
        #: Where the next event begins, and up to where it was searched for a line end.
        self._position = 0
        self._scanned = 0
        self._mode = _Mode.COMMAND
        self._pending: Event | None = None
        #: Octets of CR LF put before the text by begin_text and not yet taken away.
        self._strip = 0
        #: Octets of the chunk still to come, and whether it is the last.
        self._remaining = 0
        self._last = False
        self._checker = Checker(text_line, message)

    def feed(self, data: bytes) -> None:
        """Take what came from the network."""
        if self._mode is _Mode.DEAD:
            return
        if self._position == len(self._data):
            self._data = data
        else:
            self._data = self._data[self._position :] + data
        self._scanned -= self._position
        self._position = 0

    @property
    def buffered(self) -> int:
        """How many octets wait to become events."""
        return len(self._data) - self._position

    @property
    def flawed(self) -> bool:
        """Whether the message being read will be refused, so that what is kept of it can be let go."""
        return self._checker.flawed

    def begin_text(self) -> None:
        """What follows is message text: the server has answered 354 to DATA."""
        self.reset()
        # The text begins at the beginning of a line.  With a CR LF put before it (and taken away again) that is no special case.
        self._data = b"\r\n" + self._data[self._position :]
        self._position = 0
        self._strip = 2
        self._mode = _Mode.TEXT

    def reset(self) -> None:
        """The next content belongs to a new message."""
        self._checker = Checker(self._text_line, self._message)

    def clear(self) -> int:
        """Throw away all that is buffered (RFC 3207 section 4.2) and begin again; returns how many octets that was."""
        dropped = self.buffered
        self._data = b""
        self._position = self._scanned = 0
        self._mode = _Mode.COMMAND
        self._pending = None
        self.reset()
        return dropped

    def next_event(self) -> Event | None:
        """The next event, or None until more is fed."""
        pending = self._pending
        if pending is not None:
            self._pending = None
            return pending
        if self._mode is _Mode.SKIP:
            self._skip()
        match self._mode:
            case _Mode.COMMAND:
                return self._next_command()
            case _Mode.TEXT:
                return self._next_text()
            case _Mode.CHUNK:
                return self._next_chunk()
            case _:
                return None

    # -- command lines ----------------------------------------------------------------------------

    def _next_command(self) -> Event | None:
        data, start = self._data, self._position
        if start == len(data):
            return None
        end = data.find(b"\n", max(start, self._scanned))
        self._scanned = len(data)
        if (end if end >= 0 else len(data)) - start >= self._command_line:
            self._mode = _Mode.SKIP
            return Bad(CommandTooLong(), False)
        if end < 0:
            return None
        self._position = self._scanned = end + 1
        line = data[start:end]
        if not line.endswith(b"\r"):
            self._mode = _Mode.SKIP
            return Bad(BadCommand("command lines must end in CR LF"), False)
        return self._command(line[:-1])

    def _skip(self) -> None:
        """Move behind the CR LF that ends a refused command line, if it is there."""
        end = self._data.find(b"\r\n", self._position)
        if end < 0:
            self._position = len(self._data) - self._data.endswith(b"\r", self._position)
            return
        self._position = self._scanned = end + 2
        self._mode = _Mode.COMMAND

    def _command(self, line: bytes) -> Event:
        if _CONTROL.search(line):
            return Bad(BadCommand("control characters are not allowed in commands"), False)
        verb, _, argument = line.rstrip(b" \t").partition(b" ")
        if not verb.isalpha():  # bytes.isalpha() knows ASCII letters only
            return Bad(BadCommand(), False)
        name = verb.upper().decode("ascii")
        if name == "BDAT":
            return self._begin_chunk(argument.strip(b" "))
        return Command(name, argument.strip(b" "))

    # -- content ----------------------------------------------------------------------------------

    def _next_text(self) -> Event | None:
        data, start = self._data, self._position
        # In most messages the first dot at the beginning of a line is the one that ends them, so that one search finds both.
        dot = data.find(b"\r\n.", start)
        end = data.find(TERMINATOR, dot) if dot >= 0 else -1
        if end < 0:
            stop = len(data) - _overlap(data, start)
            self._position = stop
        else:
            stop = end + 2
            self._position = self._scanned = end + len(TERMINATOR)
        content = self._take(data[start:stop], 0 <= dot < stop - 2)
        if self._over_patience():
            return self._die(MessageTooLarge())
        if end < 0:
            return content
        self._mode = _Mode.COMMAND
        ending = End(self._checker.error(complete=True), True)
        self.reset()
        if content is None:
            return ending
        self._pending = ending
        return content

    def _take(self, block: bytes, stuffed: bool) -> Content | None:
        """Check a block of text that cuts no line end, and undo the dot-stuffing (RFC 5321 section 4.5.2)."""
        if not block:
            return None
        content = block.replace(b"\r\n.", b"\r\n") if stuffed else block
        if self._strip:
            content = content[self._strip :]
            self._strip = 0
        self._checker.check(block, len(content))
        return Content(content) if content and not self._checker.flawed else None

    def _begin_chunk(self, argument: bytes) -> Event:
        match = _CHUNK.fullmatch(argument)
        if match is None:
            # Where the chunk ends is unknown, and its content must not be read as commands.
            return self._die(BadSyntax("syntax: BDAT size [LAST]"))
        self._remaining = int(match[1])
        if self._checker.octets + self._remaining > PATIENCE * self._message:
            return self._die(MessageTooLarge())
        self._last = match[2] is not None
        self._mode = _Mode.CHUNK
        return Chunk(self._remaining, self._last)

    def _next_chunk(self) -> Event | None:
        start = self._position
        block = self._data[start : start + self._remaining]
        if block:
            self._position = start + len(block)
            self._remaining -= len(block)
            self._checker.check(block, len(block))
            if not self._checker.flawed:
                return Content(block)
        if self._remaining:
            return None
        self._mode = _Mode.COMMAND
        self._scanned = self._position
        error = self._checker.error(complete=self._last)
        if self._last:
            self.reset()
        return End(error, self._last)

    def _over_patience(self) -> bool:
        return self._checker.octets > PATIENCE * self._message

    def _die(self, error: MailError) -> Bad:
        self._mode = _Mode.DEAD
        self._data = b""
        self._position = 0
        return Bad(error, True)


def _overlap(data: bytes, start: int) -> int:
    """How many octets at the end of ``data`` may be the beginning of the terminator."""
    for size in (4, 3, 2, 1):
        if data.endswith(TERMINATOR[:size], start):
            return size
    return 0
