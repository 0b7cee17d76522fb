"""Makes a protocol for each connection, and reaches all of them."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory

from fe_twisted.base.clock import Clock
from fe_twisted.servers.connection import QUIET, ConnectionLimit
from fe_twisted.servers.imap.door import Door
from fe_twisted.servers.imap.limits import ImapLimits
from fe_twisted.servers.imap.protocol import ImapProtocol


class ImapFactory(Factory):
    """All IMAP connections of this process; one factory serves both the TLS and the STARTTLS port.

    :param door: checks passwords and opens mailboxes.
    :param clock: the reactor, or a :class:`twisted.internet.task.Clock`.
    :param connections: counts connections; may be shared with other servers.
    :param tls: what STARTTLS uses; None offers no STARTTLS.
    :param plaintext_login_from_loopback: clients on this machine may log in without TLS.
    """

    noisy = False

    def __init__(
        self,
        door: Door,
        clock: Clock,
        connections: ConnectionLimit,
        *,
        limits: ImapLimits | None = None,
        tls: IOpenSSLServerConnectionCreator | None = None,
        plaintext_login_from_loopback: bool = False,
    ) -> None:
        self.door = door
        self.clock = clock
        self.connections = connections
        self.limits = limits or ImapLimits()
        self.tls = tls
        self.plaintext_login_from_loopback = plaintext_login_from_loopback
        self.live: set[ImapProtocol] = set()
        self._empty: Deferred[None] | None = None

    def buildProtocol(self, addr: object) -> ImapProtocol:  # type: ignore[override]  # Twisted's type wants any factory in it
        """For Twisted: a protocol for a new connection."""
        connection = ImapProtocol()
        connection.factory = self
        return connection

    def end_sessions(self, mailbox_id: str, text: str) -> int:
        """Say BYE to every session of a mailbox, for example because its password was changed.

        :returns: how many there were.
        """
        ending = [connection for connection in self.live if connection.session.mailbox_id == mailbox_id]
        for connection in ending:
            connection.bye(text)
        return len(ending)

    def shutdown(self, text: str = "server is shutting down") -> Deferred[None]:
        """Say BYE to everybody; fires when all commands have ended and all connections are closed."""
        for connection in tuple(self.live):
            connection.bye(text)
        if not self.live:
            return succeed(None)
        if self._empty is None:
            self._empty = Deferred()
        return self._empty

    def dismiss(self, text: str = "this process is being replaced, connect again") -> int:
        """Say BYE to those who are in the middle of nothing: who wait in IDLE, or have logged in and been silent for a while.

        To be called again and again by a process that accepts nothing more and has a successor.  Who has only just come is served.

        :returns: how many connections there are, those that have got their BYE included.
        """
        now = self.clock.seconds()
        for connection in tuple(self.live):
            if connection.quiet_since() <= now - QUIET:
                connection.bye(text)
        return len(self.live)

    def gone(self, connection: ImapProtocol) -> None:
        """A connection has ended, and so has its last command."""
        self.live.discard(connection)
        if self._empty is not None and not self.live:
            waiting, self._empty = self._empty, None
            waiting.callback(None)
