"""One SMTP connection on the server side, whatever the door: greeting, order, timeouts, limits, the last reply.

One command is worked on at a time, in the order they came, and its reply is sent before the next one's (RFC 2920): the loop in
:meth:`Session._pump` takes one event from the parser, and takes no more while a look-up or a delivery is under way.  What the client sends
meanwhile stays in the parser, and above :data:`HIGH_WATER` octets in the network.

A door derives from :class:`Session` and says in :meth:`Session.handle` what the events mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from fe_twisted.base import ids, log
from fe_twisted.base.clock import Clock
from fe_twisted.base.errors import MailError, TooManyConnections
from fe_twisted.protocols.smtp.parse import Bad, Event, Parser
from fe_twisted.protocols.smtp.replies import Reply, reply_to
from fe_twisted.servers.connection import ConnectionLimit, Outlet
from fe_twisted.servers.smtp.limits import MxLimits
from fe_twisted.servers.tls import ServerTLS, TLSInfo, negotiated
from fe_twisted.services.receive.reasons import reason_of

#: Octets buffered behind a command that is being worked on, before the client is told to wait (by TCP).
HIGH_WATER = 65_536

#: A reply, or a coroutine that will have it, or None when there is nothing (more) to say.
Answer = Reply | Coroutine[Any, Any, Reply] | None


class Shared:
    """What all sessions of one door share.

    :param door: the name of the door, which begins the names of its log events.
    :param hostname: our name, in the greeting.
    :param clock: the reactor, or a clock in tests.
    :param tls: for STARTTLS; None offers none.
    :param connections: counts connections, in all and per address.
    """

    def __init__(
        self,
        door: str,
        hostname: str,
        clock: Clock,
        tls: ServerTLS | None,
        connections: ConnectionLimit,
        limits: MxLimits,
    ) -> None:
        self.door = door
        self.hostname = hostname
        self.clock = clock
        self.tls = tls
        self.connections = connections
        self.limits = limits
        self.sessions: set[Session] = set()


@implementer(IHandshakeListener)
class Session(Protocol, TimeoutMixin):
    """One connection.  ``id`` is the connection id of log lines and of replies that report trouble."""

    transport: Any

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.limits = shared.limits
        self.hostname = shared.hostname
        self.id = ids.connection_id()
        self.peer = ""
        self.tls: TLSInfo | None = None
        self.parser = Parser(command_line=self.limits.command_line, text_line=self.limits.text_line, message=self.limits.message_size)
        #: The last reply is on its way, or the client is gone; whatever else comes is not looked at.
        self.closing = False
        self.commands = self.errors = self.messages = 0
        self._out: list[bytes] = []
        self._outlet = Outlet(None)
        self._busy = self._pumping = self._paused = False
        #: Set when the session is to end as soon as the command under way is answered.
        self._ending: Reply | None = None
        self._counted = False
        self._started = self._heard = shared.clock.seconds()
        self._calls: list[Any] = []

    # -- for the door -----------------------------------------------------------------------------

    def handle(self, event: Event) -> Answer:
        """What an event means.

        :raises MailError: becomes the reply.
        """
        raise NotImplementedError

    def let_go(self) -> None:
        """Free what the message that was coming in has taken; may be called more than once."""
        raise NotImplementedError

    def spoiled(self) -> None:
        """The message that is coming in has a flaw and will be refused: free what is kept of it; may be called more than once."""
        raise NotImplementedError

    def receiving(self) -> bool:
        """Whether the client is in the middle of a message."""
        raise NotImplementedError

    def resting(self) -> bool:
        """Whether the client has said who it is and has begun nothing, so that it can be told to come again later."""
        raise NotImplementedError

    def quiet_since(self) -> float:
        """Since when, by the clock, the client is in the middle of nothing; infinity for never."""
        return math.inf if self._busy or self.parser.buffered or not self.resting() else self._heard

    def refused(self, error: MailError, **fields: object) -> None:
        """Log why something was refused."""
        self.log("refused", reason=reason_of(error), why=error.reason or error.public, **fields)

    def log(self, name: str, /, **fields: object) -> None:
        """Log an event of this connection."""
        log.event(f"{self._shared.door}.{name}", conn=self.id, **fields)

    def set_timeout(self, seconds: float | None) -> None:
        """Wait this long for the next octet."""
        self.setTimeout(seconds)  # type: ignore[no-untyped-call]  # TimeoutMixin has no annotations

    def close(self, code: int, enhanced: str, text: str, *, linger: bool = False) -> None:
        """Send a last reply, which begins with our name as RFC 5321 section 4.2 shows it, and close."""
        self.close_with(Reply(code, enhanced, f"{self.hostname} {text}"), linger=linger)

    def close_with(self, reply: Reply, *, linger: bool = False) -> None:
        """Send a last reply and close.

        :param linger: the client is in the middle of sending; were the connection closed at once, its kernel would throw our reply
            away.  What it sends is read and dropped for a while.
        """
        self.closing = True
        self._out.append(reply.tagged(self.id).render())
        self.flush()
        self.let_go()
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()
        self.set_timeout(self.limits.closing)
        if not linger:
            self.transport.loseConnection()

    def end(self, code: int, enhanced: str, text: str) -> None:
        """Say goodbye, after the answer to the command under way if there is one."""
        reply = Reply(code, enhanced, f"{self.hostname} {text}")
        if self.closing:
            return
        if self._busy:
            self._ending = reply
        else:
            self.close_with(reply, linger=self.receiving())

    def start_tls(self, go_ahead: Reply) -> None:
        """Answer STARTTLS and begin the handshake.

        RFC 3207 section 4.2: whatever came before the handshake may be somebody else's, so it is forgotten.
        """
        self._out.append(go_ahead.render())
        self.flush()
        dropped = self.parser.clear()
        if dropped:
            log.warning(f"{self._shared.door}.injection", conn=self.id, peer=self.peer, octets=dropped)
        self.transport.startTLS(self._shared.tls)

    def may_start_tls(self) -> bool:
        """Whether STARTTLS is offered."""
        return self._shared.tls is not None and self.tls is None

    # -- the connection ---------------------------------------------------------------------------

    def callLater(self, period: float, func: Callable[..., Any]) -> Any:
        """For TimeoutMixin: the clock that was handed in."""
        return self._shared.clock.callLater(period, func)

    def connectionMade(self) -> None:
        """Greet, or say that there are too many."""
        self.peer = getattr(self.transport.getPeer(), "host", "")
        self._outlet = Outlet(self.transport)
        self._shared.sessions.add(self)
        self.set_timeout(self.limits.idle)
        try:
            self._shared.connections.acquire(self.peer, self._expelled)
        except TooManyConnections as error:
            self.refused(error, peer=self.peer)
            self.close(error.smtp.code, error.smtp.enhanced, error.public)
            return
        self._counted = True
        self._calls.append(self.callLater(self.limits.session, self._session_over))
        if self.limits.greeting_delay:
            self._busy = True
            self._calls.append(self.callLater(self.limits.greeting_delay, self._greet))
        else:
            self._greet()

    def _greet(self) -> None:
        if self._busy and self.parser.buffered:
            self.errors += 1
            self.log("early", peer=self.peer)
        self._busy = False
        self._out.append(Reply(220, "", f"{self.hostname} ESMTP").render())
        self._pump()

    def dataReceived(self, data: bytes) -> None:
        """Work on it, or keep it until the command under way is done."""
        if self.closing:
            return
        self._heard = self._shared.clock.seconds()
        self.resetTimeout()  # type: ignore[no-untyped-call]
        self.parser.feed(data)
        if not self._busy:
            self._pump()
        elif self.parser.buffered >= HIGH_WATER and not self._paused:
            self._paused = True
            self.transport.pauseProducing()

    def handshakeCompleted(self) -> None:
        """STARTTLS is done (IHandshakeListener)."""
        self.tls = negotiated(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget everything except a delivery that is under way."""
        self.closing = True
        self.set_timeout(None)
        for call in self._calls:
            if call.active():
                call.cancel()
        self.let_go()
        if self._counted:
            self._shared.connections.release(self.peer, self._expelled)
        self._shared.sessions.discard(self)
        why = "" if isinstance(reason.value, ConnectionDone) else reason.getErrorMessage()
        # A connection that did what it came for has said so line by line; the others are worth a line of their own.
        tell = log.event if self.errors or why or not self.messages else log.debug
        tell(
            f"{self._shared.door}.closed",
            conn=self.id,
            peer=self.peer,
            tls=str(self.tls or ""),
            commands=self.commands,
            messages=self.messages,
            errors=self.errors,
            seconds=round(self._shared.clock.seconds() - self._started, 3),
            why=why,
        )

    def timeoutConnection(self) -> None:
        """Nothing came for too long."""
        if self.closing:
            self.transport.abortConnection()
        elif self._busy:
            self.set_timeout(self.limits.idle)
        else:
            self.close(421, "4.4.2", "timeout, closing")

    def _session_over(self) -> None:
        self.end(421, "4.4.2", "session took too long, closing")

    def _expelled(self) -> None:
        """Counted together with other processes it was one too many."""
        error = TooManyConnections(reason="too many live from there, over all processes")
        self.refused(error, peer=self.peer)
        self.end(error.smtp.code, error.smtp.enhanced, error.public)

    def flush(self) -> None:
        """Write the replies that wait."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._outlet.write(data)

    # -- one event after the other ----------------------------------------------------------------

    def _pump(self) -> None:
        """Take events until one has to be waited for; replies of one round go out in one write (RFC 2920 section 3.2)."""
        self._pumping = True
        try:
            while not (self._busy or self.closing):
                event = self.parser.next_event()
                if event is None:
                    break
                self._take(event)
        finally:
            self._pumping = False
        if self.parser.flawed:
            self.spoiled()
        self.flush()
        if self._paused and not self._busy and not self.closing:
            self._paused = False
            self.transport.resumeProducing()

    def _take(self, event: Event) -> None:
        try:
            if type(event) is Bad:
                if event.fatal:
                    self.refused(event.error)
                    self.close_with(reply_to(event.error), linger=True)
                    return
                self.count_command()
                raise event.error
            answer = self.handle(event)
        except MailError as error:
            self.refused(error)
            self._send(reply_to(error))
            return
        if answer is None:
            return
        if isinstance(answer, Reply):
            self._send(answer)
            return
        self._busy = True
        Deferred.fromCoroutine(answer).addCallbacks(self._done, self._failed)

    def count_command(self) -> None:
        """Count one more; above the limit the session ends."""
        self.commands += 1
        if self.commands > self.limits.commands:
            self.close(421, "4.7.0", "too many commands, closing", linger=self.receiving())

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, MailError):
            self.refused(error)
        elif error is not None:
            log.failure(f"{self._shared.door}.failed", error, conn=self.id)
        self._done(reply_to(error))

    def _done(self, reply: Reply) -> None:
        self._busy = False
        if self.closing:
            return
        self._heard = self._shared.clock.seconds()
        self._send(reply)
        if self._ending is not None and not self.closing:
            self.close_with(self._ending)
        if not self._pumping:
            self._pump()

    def _send(self, reply: Reply) -> None:
        """Queue a reply, and count it if it is a refusal for good."""
        if self.closing:
            return
        self._out.append(reply.tagged(self.id).render())
        if reply.code >= 500:
            self.errors += 1
            if self.errors >= self.limits.errors:
                self.close(421, "4.7.0", "too many errors, closing")
