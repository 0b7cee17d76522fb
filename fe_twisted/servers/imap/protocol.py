"""Bytes in, bytes out: one IMAP connection.

Commands run one at a time.  While one runs, input is kept by the parser, and above :attr:`ImapLimits.input_buffer` the server stops
reading from the socket.  Output is written in blocks; when the client does not take them, :meth:`ImapProtocol.drained` waits.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from fe_twisted.base import log
from fe_twisted.base.errors import Ours, TooManyConnections
from fe_twisted.base.ids import connection_id
from fe_twisted.protocols.imap import responses
from fe_twisted.protocols.imap.commands import BadCommand, Command, ContinuationLine, Event, NeedContinuation
from fe_twisted.protocols.imap.deflate import Deflate
from fe_twisted.protocols.imap.parse import Parser
from fe_twisted.servers.connection import Outlet, is_loopback
from fe_twisted.servers.imap.capability import capability_code
from fe_twisted.servers.imap.reply import Disconnected, Ended, Reply
from fe_twisted.servers.imap.session import Session, State
from fe_twisted.servers.imap.table import at_once, execute
from fe_twisted.servers.tls import exporter, negotiated

if TYPE_CHECKING:
    from fe_twisted.servers.imap.factory import ImapFactory

#: Commands that write a response in pieces, or wait for the client: nothing may be said in between.
_IN_PIECES = frozenset(("FETCH", "IDLE", "AUTHENTICATE", "LOGIN", "STARTTLS", "COMPRESS", "UNAUTHENTICATE", "LOGOUT"))

#: The address that a client on a unix socket counts as.
LOCAL = "127.0.0.1"


@implementer(IPushProducer)
class ImapProtocol(Protocol, TimeoutMixin):
    """One connection; made by :class:`~fe_twisted.servers.imap.factory.ImapFactory`."""

    factory: ImapFactory
    #: Twisted's interface says what it can do, but not to a type checker.
    transport: Any

    def __init__(self) -> None:
        self.id = connection_id()
        self.peer = LOCAL
        self.secure = False
        self._counted = False
        self._lost = False
        self._closing = False
        self._farewell: str | None = None
        self._running = False
        self._pumping = False
        self.idling = False
        self.amid = False
        self._line: Deferred[bytes] | None = None
        self._drain: Deferred[None] | None = None
        self._paused = False
        self._stall: Any = None
        self._linger: Any = None
        self._outlet = Outlet(None)
        self._again: Any = None
        self._working: Any = None
        self._between = False
        self._out: list[bytes] = []
        self._queued = 0
        self._stopped_reading = False
        self._deflate: Deflate | None = None
        self._bad = 0
        self._bytes_in = 0
        self._bytes_out = 0

    # -- connection -------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Greet, or say that there are too many."""
        factory = self.factory
        self._outlet = Outlet(self.transport)
        self._since = self._heard = factory.clock.seconds()
        self.peer = getattr(self.transport.getPeer(), "host", None) or LOCAL
        self.secure = ISSLTransport.providedBy(self.transport)
        self.limits = factory.limits
        plaintext = factory.plaintext_login_from_loopback and is_loopback(self.peer)
        self.session = Session(self, factory.door, factory.limits, factory.clock, tls=factory.tls is not None, plaintext=plaintext)
        self._parser = Parser(self.limits.parser())
        try:
            factory.connections.acquire(self.peer, self._expelled)
        except TooManyConnections as error:
            log.event("imap.refused", conn=self.id, peer=self.peer, reason=error.reason)
            if self.secure:  # a handshake is more than a client beyond the limit may cost
                self._lost = True
                self.transport.abortConnection()
            else:
                self._goodbye(error.public)
            return
        self._counted = True
        factory.live.add(self)
        log.event("imap.connected", conn=self.id, peer=self.peer, tls=self.secure)
        no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if no_delay is not None:  # output goes in whole answers: waiting for more (Nagle) would only cost 40 ms now and then
            no_delay(True)
        self.transport.registerProducer(self, True)
        self._autologout(self.limits.login_timeout)
        self.write(responses.untagged("OK", f"ready [id {self.id}]", code=capability_code(self.session)))
        self.flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Wake up whoever waits for the client; the mailbox is given back when the running command has ended."""
        self._lost = True
        self._autologout(None)
        self._cancel_working()
        for call in (self._stall, self._linger, self._again):
            if call is not None and call.active():
                call.cancel()
        self._out.clear()
        if not self._running and not self._between:
            self._end()
        for waiting in (self._line, self._drain):
            if waiting is not None:
                waiting.errback(Disconnected())
        self._line = self._drain = None

    def _end(self) -> None:
        if not self._counted:
            return
        self._counted = False
        self.factory.connections.release(self.peer, self._expelled)
        session = self.session
        log.event(
            "imap.logout",
            conn=self.id,
            peer=self.peer,
            address=session.alias,
            received=self._bytes_in,
            sent=self._bytes_out,
            seconds=round(self.factory.clock.seconds() - self._since, 3),
        )
        session.end()
        self.factory.gone(self)

    def callLater(self, period: float, func: Any) -> Any:
        """For :class:`TimeoutMixin`: the clock that was handed in."""
        return self.factory.clock.callLater(period, func)

    def timeoutConnection(self) -> None:
        """Autologout (RFC 3501 section 5.4)."""
        if self._between or (self._running and self._line is None and self.session.state is not State.GREETED):
            self._autologout(self.limits.idle_timeout)  # the server is at work, or output is stalled and has its own limit
            return
        self._goodbye("idle for too long, logged out")

    def bye(self, text: str) -> None:
        """End the session from outside: at once, or when the running command is done."""
        if self._between or (self._running and not self.idling):
            self._farewell = text
        else:
            self._goodbye(text)

    def quiet_since(self) -> float:
        """Since when, by the clock, the client is in the middle of nothing: never (infinity) before login, in a command, or in what is
        being told to it; always (minus infinity) in IDLE, since it hears of its end there at once.
        """
        if self._between or self.amid or self.session.state is State.GREETED:
            return math.inf
        if self.idling:
            return -math.inf
        waiting = self._parser.partial or (self._deflate is not None and self._deflate.waiting)
        return math.inf if self._running or self._again is not None or waiting else self._heard

    def _expelled(self) -> None:
        """Counted together with other processes it was one too many."""
        error = TooManyConnections(reason="too many live from there, over all processes")
        log.event("imap.refused", conn=self.id, peer=self.peer, reason=error.reason)
        if self.secure and not self._bytes_in:  # its handshake may not be over, and is more than it may cost
            self.transport.abortConnection()
        else:
            self.bye(error.public)

    def _goodbye(self, text: str) -> None:
        if self._closing or self._lost:
            return
        self.write(responses.untagged("BYE", text))
        self.close()

    def close(self) -> None:
        """Close after all output is written; a client that does not take it is cut off after a while."""
        if self._closing or self._lost:
            return
        self.flush()
        self._closing = True
        self._autologout(None)
        self._linger = self.factory.clock.callLater(self.limits.linger, self._abort)
        if self._stopped_reading:
            self._stopped_reading = False
            self.transport.resumeProducing()
        if self._counted:
            self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        self._go_on()
        if self._line is not None:
            waiting, self._line = self._line, None
            waiting.errback(Disconnected())

    def _abort(self) -> None:
        if not self._lost:
            self.transport.abortConnection()

    # -- output -----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue output."""
        self._out.append(data)
        self._queued += len(data)
        if self._queued >= self.limits.output_block:
            self.flush()

    def flush(self) -> None:
        """Hand queued output to the transport."""
        if not self._out:
            return
        data = b"".join(self._out)
        self._out.clear()
        self._queued = 0
        if self._closing or self._lost:
            return
        if self._deflate is not None:
            data = self._deflate.compress(data)
        self._bytes_out += len(data)
        self._outlet.write(data)

    async def drained(self) -> None:
        """Wait while the transport holds more than it wants.

        :raises Disconnected:
        """
        if self._lost or self._closing:
            raise Disconnected
        if self._paused:
            self._drain = Deferred()
            await self._drain

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._paused = True
        if self._stall is None and not self._closing:
            self._stall = self.factory.clock.callLater(self.limits.stall, self._stalled)

    def resumeProducing(self) -> None:
        """The transport's buffer has room again."""
        self._outlet.caught_up()
        self._go_on()

    def _go_on(self) -> None:
        self._paused = False
        if self._stall is not None:
            if self._stall.active():
                self._stall.cancel()
            self._stall = None
        if self._drain is not None:
            waiting, self._drain = self._drain, None
            waiting.callback(None)

    def stopProducing(self) -> None:
        """The transport is gone; :meth:`connectionLost` says the rest."""

    def _stalled(self) -> None:
        log.event("imap.stalled", conn=self.id, peer=self.peer, address=self.session.alias)
        self._abort()

    # -- input ------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Feed the parser and carry out what is complete."""
        self._bytes_in += len(data)
        if self._closing or self._lost:
            return
        self._heard = self.factory.clock.seconds()
        if self.session.state is not State.GREETED:
            self._keep()
        if self._deflate is None:
            self._parser.feed(data)
        else:
            self._deflate.feed(data)
        self._pump()
        waiting = self._parser.buffered + (self._deflate.waiting if self._deflate is not None else 0)
        held = self._again is not None or (self._running and self._line is None)
        if held and waiting > self.limits.input_buffer and not (self._stopped_reading or self._closing):
            self._stopped_reading = True
            self.transport.pauseProducing()

    def _pump(self) -> None:
        """Carry out what has been received, until a command has to wait for something."""
        if self._pumping or self._again is not None:
            return
        self._pumping = True
        left = self.limits.commands_per_turn
        try:
            while not (self._closing or self._lost or self._between) and (not self._running or self._line is not None):
                if not left:
                    self._again = self.factory.clock.callLater(0, self._resume)
                    break
                event = self._parser.next_event()
                left -= 1
                if event is not None:
                    self._happened(event)
                elif not self._inflated():
                    self._read_on()
                    break
        finally:
            self._pumping = False
        self.flush()

    def _inflated(self) -> bool:
        """Whether compressed input gave the parser something more to read."""
        if self._deflate is None:
            return False
        try:
            piece = self._deflate.more()
        except ValueError as error:
            self._goodbye(str(error))
            return False
        self._parser.feed(piece)
        return bool(piece)

    def _resume(self) -> None:
        self._again = None
        self._pump()

    def _read_on(self) -> None:
        if self._stopped_reading:
            self._stopped_reading = False
            self.transport.resumeProducing()

    def _happened(self, event: Event) -> None:
        if isinstance(event, Command):
            reply = at_once(self.session, event) if not self._paused else None
            if reply is not None:
                self.write(reply.line(event.tag))
                return
            self._running = True
            Deferred.fromCoroutine(self._run(event)).addErrback(self._failed)
            if self._running and event.name not in _IN_PIECES:
                self._working = self.factory.clock.callLater(self.limits.progress, self._still_working, event.tag)
        elif isinstance(event, NeedContinuation):
            self.write(responses.continuation())
        elif isinstance(event, ContinuationLine):
            waiting, self._line = self._line, None
            if waiting is not None:
                waiting.callback(event.line)
        else:
            self._refused(event)

    def _refused(self, event: BadCommand) -> None:
        waiting, self._line = self._line, None
        if waiting is not None:  # the line that a command waited for was no line
            waiting.callback(b"\x00")
            return
        condition = "NO" if getattr(event, "refused", False) else "BAD"
        self.write(responses.tagged(event.tag, condition, event.text, event.error_code))
        self._count_bad(event.text if event.fatal else None)

    def _count_bad(self, fatal: str | None = None) -> None:
        self._bad += 1
        if fatal is not None:
            self._goodbye(fatal)
        elif self._bad >= self.limits.bad_commands:
            self._goodbye("too many bad commands")

    async def _run(self, command: Command) -> None:
        """One command from its line to its tagged answer."""
        try:
            reply = await execute(self.session, command)
        except Disconnected:
            return
        except Ended as ended:
            self._goodbye(str(ended))
            return
        finally:
            self._running = False
            self._cancel_working()
            if self._lost and not self._between:
                self._end()
        self._answer(command, reply)
        if self._farewell is not None:
            self._goodbye(self._farewell)
        self._rest()
        if not self._pumping:
            self._pump()

    def between(self, work: Coroutine[Any, Any, None]) -> bool:
        """See :class:`~fe_twisted.servers.imap.session.Wire`."""
        if self._between or self._closing or self._lost or (self._running and not self.idling):
            work.close()
            return False
        self._between = True
        Deferred.fromCoroutine(work).addErrback(self._failed).addBoth(self._after_between)
        return True

    def _after_between(self, result: object) -> None:
        self._between = False
        self.flush()
        if self._lost:
            if not self._running:
                self._end()
            return
        if self._farewell is not None and (not self._running or self.idling):
            self._goodbye(self._farewell)
        self._rest()
        if not self._pumping:
            self._pump()

    def _rest(self) -> None:
        if self.session.notifier is not None and not (self._running and not self.idling):
            self.session.notifier.at_rest()

    def _still_working(self, tag: str) -> None:
        """RFC 9585: lest the client, or something between it and us, believes that the connection is dead."""
        self._working = None
        if self._lost or self._closing or "INPROGRESS" in self.session.hidden:
            return
        if not self.amid:
            self.write(responses.untagged("OK", "still working on it", code=f'INPROGRESS ("{tag}" NIL NIL)'))
            self.flush()
        self._working = self.factory.clock.callLater(self.limits.progress, self._still_working, tag)

    def _cancel_working(self) -> None:
        working, self._working = self._working, None
        if working is not None and working.active():
            working.cancel()

    def _answer(self, command: Command, reply: Reply) -> None:
        if self._lost or self._closing:
            return
        self.write(reply.line(command.tag))
        self._heard = self.factory.clock.seconds()
        if self.session.state is not State.GREETED:
            self._keep()
        if reply.then is not None:
            self.flush()
            reply.then()
        if reply.condition == "BAD":
            self._count_bad()

    def _failed(self, failure: Failure) -> None:
        # Nothing should come here: execute() answers every error.  If it does, the client must not wait for ever.
        log.failure("imap.broken", failure.value or Ours(), conn=self.id)
        self._goodbye(f"internal error [conn {self.id}]")

    # -- what commands ask for --------------------------------------------------------------------

    async def line(self, prompt: bytes) -> bytes:
        """Ask the client for one line.

        :raises Disconnected:
        """
        if self._lost or self._closing:
            raise Disconnected
        self.write(b"+ " + prompt + b"\r\n")
        self.flush()
        self._parser.expect_line()
        waiting: Deferred[bytes] = Deferred()
        self._line = waiting
        self._pump()
        return await waiting

    def compress(self) -> None:
        """Begin the compression layer (RFC 4978).  What the client sent before it saw OK was sent against the rules, and is thrown away."""
        self._parser.discard()
        self._deflate = Deflate()

    def channel_binding(self) -> bytes:
        """See :class:`~fe_twisted.servers.imap.session.Wire`."""
        return exporter(self.transport)

    def start_tls(self) -> None:
        """Begin TLS.  What the client sent in the clear after STARTTLS was sent by nobody knows whom (CVE-2011-0411)."""
        self._parser.discard()
        self.secure = True
        self.transport.startTLS(self.factory.tls)

    def logged_in(self) -> None:
        """The client has a name now."""
        self._parser.authenticated = True
        self._autologout(self.limits.idle_timeout)
        info = negotiated(self.transport)
        log.event("imap.login", conn=self.id, peer=self.peer, address=self.session.alias, tls=str(info or ""))

    def logged_out(self) -> None:
        """The client is nobody again (RFC 8437)."""
        self._parser.authenticated = False
        self._parser.utf8 = False
        self._autologout(self.limits.login_timeout)

    def names_in_utf8(self) -> None:
        """Mailbox names are UTF-8, not modified UTF-7, from now on."""
        self._parser.utf8 = True

    def wait_for_client(self, waiting: bool) -> None:
        """IDLE has no autologout: what is sent regularly shows whether the client is there."""
        self.idling = waiting
        if waiting and self.session.notifier is not None:
            self.factory.clock.callLater(0, self._rest)
        self._autologout(None if waiting else self.limits.idle_timeout)

    # TimeoutMixin has no type annotations.

    def _autologout(self, seconds: float | None) -> None:
        if seconds is None or not (self._lost or self._closing):
            self.setTimeout(seconds)  # type: ignore[no-untyped-call]

    def _keep(self) -> None:
        self.resetTimeout()  # type: ignore[no-untyped-call]
