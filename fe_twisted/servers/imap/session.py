"""What one client has become: its state, its mailbox, the folder it looks at (RFC 3501 section 3)."""

from __future__ import annotations

import enum
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from fe_twisted.base import log
from fe_twisted.base.clock import Clock
from fe_twisted.base.errors import Later, MailError, Ours
from fe_twisted.protocols.imap.commands import Command
from fe_twisted.protocols.imap.search import Ranges
from fe_twisted.servers.imap.door import Door
from fe_twisted.servers.imap.limits import ImapLimits
from fe_twisted.servers.imap.view import View
from fe_twisted.storage.mailbox.api import Mailbox

Arguments = TypeVar("Arguments")


class State(enum.IntEnum):
    """RFC 3501 section 3.  Several are an ``int``, not a ``Flag``: whether a state is among them is asked for every command."""

    GREETED = 1
    AUTHENTICATED = 2
    SELECTED = 4
    ENDED = 8


class Notifier(Protocol):
    """Tells the client of events (RFC 5465)."""

    #: What it wants to know of its selected folder, upper case; empty for nothing.
    selected: frozenset[str]
    #: EXPUNGE may come at any time, because the client uses no message numbers.
    immediate: bool

    def stop(self) -> None:
        """Tell nothing any more."""

    def at_rest(self) -> None:
        """No command is running now, or one that waits for the client: it is a good time."""

    async def arrived(self, uids: Ranges) -> None:
        """EXISTS was sent for these messages."""


class Wire(Protocol):
    """The connection, as far as commands may use it."""

    #: In every log line and in replies about trouble.
    id: str
    #: The client's address.
    peer: str
    #: TLS is on.
    secure: bool
    #: IDLE waits for the client, so that EXPUNGE may be sent.
    idling: bool
    #: A response is written up to somewhere in the middle: nothing else may be said.
    amid: bool

    def write(self, data: bytes) -> None:
        """Queue output; nothing is lost and nothing overtakes."""

    def flush(self) -> None:
        """Hand queued output to the transport now."""

    async def drained(self) -> None:
        """Wait until the client has taken enough of what was written.

        :raises Disconnected:
        """

    async def line(self, prompt: bytes) -> bytes:
        """Send ``+ prompt`` and wait for one line, without its CR LF.

        :raises Disconnected:
        """

    def bye(self, text: str) -> None:
        """Say BYE and close, as soon as no answer is cut in two by it."""

    def close(self) -> None:
        """Close when everything is written."""

    def compress(self) -> None:
        """Compress everything from now on, in both directions."""

    def channel_binding(self) -> bytes:
        """What only the two ends of this TLS connection know (tls-exporter, RFC 9266); empty without TLS 1.3."""

    def start_tls(self) -> None:
        """Begin the handshake; everything that was received before it is thrown away."""

    def logged_in(self) -> None:
        """Longer timeouts, larger literals."""

    def logged_out(self) -> None:
        """The limits and the language of before login."""

    def names_in_utf8(self) -> None:
        """Read mailbox names as UTF-8 from now on."""

    def between(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do the work while no command runs, or while one waits for the client; the next command waits for its end.

        :returns: False if it is no time for that; the work is then not begun.
        """

    def wait_for_client(self, waiting: bool) -> None:
        """Whether the client may be silent for any length of time (IDLE)."""


class Session:
    """One client's session.

    :param tls: STARTTLS can be offered.
    :param plaintext: a password may come without TLS, because the client is on this machine and the settings say so.
    """

    __slots__ = (
        "_mailbox",
        "alias",
        "binding_told",
        "clock",
        "compressed",
        "condstore",
        "door",
        "failures",
        "hidden",
        "limits",
        "notifier",
        "plaintext",
        "qresync",
        "rev2",
        "state",
        "tls",
        "uid_only",
        "utf8",
        "utf8_accept",
        "view",
        "wire",
    )

    def __init__(self, wire: Wire, door: Door, limits: ImapLimits, clock: Clock, *, tls: bool, plaintext: bool) -> None:
        self.wire = wire
        self.door = door
        self.limits = limits
        self.clock = clock
        self.tls = tls
        self.plaintext = plaintext
        self.state = State.GREETED
        self.alias = ""
        self.failures = 0
        #: The client has been told of SCRAM with channel binding (after the handshake; the greeting of a TLS port comes before).
        self.binding_told = False
        #: There is a compression layer.
        self.compressed = False
        self._mailbox: Mailbox | None = None
        self._forget()

    def _forget(self) -> None:
        """Be as before login."""
        #: Capabilities that the owner of the mailbox wants hidden, in upper case.
        self.hidden: frozenset[str] = frozenset()
        #: MODSEQ and UID stand in every FETCH response that the client did not ask for (RFC 7162 section 3.2.4).
        self.condstore = False
        #: VANISHED takes the place of EXPUNGE (RFC 7162 section 3.2.10).
        self.qresync = False
        #: The client has enabled IMAP4rev2 (RFC 9051).
        self.rev2 = False
        #: No sequence numbers in either direction (RFC 9586).
        self.uid_only = False
        #: Mailbox names are UTF-8, not modified UTF-7.
        self.utf8 = False
        #: The client has enabled UTF8=ACCEPT (RFC 6855).
        self.utf8_accept = False
        #: What the client has asked to be told of without asking again; None for what the base standard says.
        self.notifier: Notifier | None = None
        #: The selected folder, or None.
        self.view: View | None = None

    @property
    def mailbox(self) -> Mailbox:
        """The open mailbox; only after login."""
        if self._mailbox is None:
            raise Ours(reason="a command that needs a mailbox ran before login")
        return self._mailbox

    @property
    def selected(self) -> View:
        """The selected folder; only in the selected state."""
        if self.view is None:
            raise Ours(reason="a command that needs a selected folder ran without one")
        return self.view

    @property
    def mailbox_id(self) -> str:
        """The name of the mailbox, or an empty string before login."""
        return self._mailbox.id if self._mailbox is not None else ""

    def enter(self, alias: str, mailbox: Mailbox) -> None:
        """The password was right."""
        self.alias = alias
        self._mailbox = mailbox
        self.state = State.AUTHENTICATED
        self.wire.logged_in()

    def leave(self) -> None:
        """Give the mailbox back and be as before login (RFC 8437 section 3)."""
        mailbox, self._mailbox = self._mailbox, None
        self._stop_notifying()
        self._forget()
        self.alias = ""
        self.state = State.GREETED
        if mailbox is not None:
            self.door.leave(mailbox)
        self.wire.logged_out()

    def speak_utf8(self) -> None:
        """Mailbox names are UTF-8 from now on, in both directions (RFC 6855 section 3)."""
        self.utf8 = True
        self.wire.names_in_utf8()

    def select(self, view: View) -> None:
        """Look at a folder."""
        self.view = view
        self.state = State.SELECTED

    def deselect(self) -> None:
        """Look at no folder."""
        self.view = None
        if self.state is State.SELECTED:
            self.state = State.AUTHENTICATED

    def end(self) -> None:
        """Give the mailbox back; may be called more than once, never while a command runs."""
        self.view = None
        self._stop_notifying()
        self.state = State.ENDED
        if self._mailbox is not None:
            mailbox, self._mailbox = self._mailbox, None
            self.door.leave(mailbox)

    def _stop_notifying(self) -> None:
        if self.notifier is not None:
            self.notifier.stop()

    async def poll(self) -> None:
        """Move waiting mail in.  Trouble with it is logged: it must not keep anybody from the mail that is there."""
        try:
            await self.mailbox.poll()
        except Later as error:
            log.warning("imap.poll_failed", conn=self.wire.id, reason=error.reason or error.public)
        except MailError as error:
            log.failure("imap.poll_failed", error, conn=self.wire.id, reason=error.reason)


def arguments(command: Command, kind: type[Arguments]) -> Arguments:
    """The command's arguments, of the class that its name promises."""
    if not isinstance(command.arguments, kind):
        raise Ours(reason=f"{command.name} came with {type(command.arguments).__name__}, not {kind.__name__}")
    return command.arguments
