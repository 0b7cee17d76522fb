"""The MX server: takes mail from other servers for our aliases, and from nobody for anybody else.

Not a subclass of ``twisted.mail.smtp.ESMTP``: that is a LineOnlyReceiver, which has no byte mode for BDAT, turns an over-long line of
message text into commands, keeps what was pipelined before the TLS handshake, and answers out of order.

A connection that is lost before the end of the message stores nothing.  One that is lost during the delivery changes nothing: the message
is delivered, and the client, which saw no 250, will send it again (RFC 5321 section 4.5.4.1 prefers that to losing it).
"""

from __future__ import annotations

import enum
import io
import re
from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from fe_twisted.base.clock import Clock
from fe_twisted.base.errors import DiskFull, LimitReached, MailError
from fe_twisted.protocols.smtp.address import BadParameter, Sender, parse_mail, parse_rcpt
from fe_twisted.protocols.smtp.parse import Chunk, Command, Content, End, Event
from fe_twisted.protocols.smtp.replies import Reply, reply_to
from fe_twisted.servers.connection import QUIET, ConnectionLimit
from fe_twisted.servers.smtp.limits import Budget, MxLimits
from fe_twisted.servers.smtp.session import Answer, Session, Shared
from fe_twisted.servers.tls import ServerTLS
from fe_twisted.services.receive.receive import Client, Receive, Recipient, Transaction

#: A BDAT chunk of at least this size counts by its octets, a smaller one as a command.
SMALL_CHUNK = 4096

#: The last reply of a process that ends (RFC 5321 section 3.8).
_LATER = (421, "4.3.2", "shutting down, closing")

#: What a name in HELO may look like: wider than RFC 5321 section 4.1.1.1, for it decides nothing, but no space, parenthesis or control.
_HELO = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
#: A browser that was lured here; what follows are its headers and body, and perhaps commands in it.
_WEB = frozenset({"GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH", "TRACE"})


class State(enum.Enum):
    """Where a session is; :data:`COMMANDS` says what is allowed there."""

    #: No HELO or EHLO yet, or none since STARTTLS.
    NEW = enum.auto()
    READY = enum.auto()
    MAIL = enum.auto()
    RCPT = enum.auto()
    #: At least one BDAT chunk of the message has come.
    CHUNKS = enum.auto()
    #: A chunk was refused; only the end of the transaction helps (RFC 3030 section 2).
    BROKEN = enum.auto()


class Incoming:
    """The content of one message while it comes in, counted against what all sessions may hold."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._data = io.BytesIO()
        self._octets = 0
        self.error: MailError | None = None

    def add(self, data: bytes) -> None:
        """Keep a piece, unless the message will be refused anyway."""
        if self.error is not None:
            return
        if not self._budget.take(len(data)):
            self.drop()
            self.error = DiskFull("too much mail at once, try again later", reason="in-flight octets used up")
            return
        self._octets += len(data)
        self._data.write(data)

    def content(self) -> bytes:
        """All of it."""
        return self._data.getvalue()

    def drop(self) -> None:
        """Let go of the content and of its share of the budget."""
        self._budget.give(self._octets)
        self._octets = 0
        self._data = io.BytesIO()


class MxProtocol(Session):
    """One connection from another mail server."""

    def __init__(self, mx: MxFactory) -> None:
        super().__init__(mx.shared)
        self._mx = mx
        self._state = State.NEW
        self._helo = ""
        self._extended = False
        self._sender = Sender(None)
        self._recipients: dict[str, Recipient] = {}
        self._incoming: Incoming | None = None
        self._chunk_refused = False
        self._transactions = 0

    def handle(self, event: Event) -> Answer:
        """See :class:`Session`."""
        match event:
            case Content():
                if self._incoming is not None:
                    self._incoming.add(event.data)
            case Command():
                return self._command(event)
            case Chunk():
                self._chunk(event)
            case End():
                return self._end_of_content(event)
        return None

    def let_go(self) -> None:
        """See :class:`Session`."""
        if self._incoming is not None:
            self._incoming.drop()
            self._incoming = None

    def spoiled(self) -> None:
        """See :class:`Session`."""
        if self._incoming is not None:
            self._incoming.drop()

    def receiving(self) -> bool:
        """See :class:`Session`."""
        return self._incoming is not None

    def resting(self) -> bool:
        """See :class:`Session`."""
        return self._state is State.READY

    def _reset(self, state: State) -> None:
        """End the transaction, if there is one."""
        self._state = state
        self._sender = Sender(None)
        self._recipients = {}
        self.parser.reset()
        self.let_go()

    # -- commands ---------------------------------------------------------------------------------

    def _command(self, command: Command) -> Answer:
        verb, argument = command
        self.count_command()
        if self.closing:
            return None
        rule = COMMANDS.get(verb)
        if rule is None:
            return self._unknown(verb)
        if self._state not in rule.states:
            return Reply(503, "5.5.1", "bad sequence of commands")
        if argument and not rule.argument:
            return Reply(501, "5.5.4", f"{verb} takes no argument")
        return rule.run(self, argument)

    def _unknown(self, verb: str) -> Reply | None:
        if verb in _WEB:
            self.log("web", peer=self.peer)
            self.close(421, "4.7.0", "this is no web server")
            return None
        if verb in NOT_IMPLEMENTED:
            return Reply(502, "5.5.1", "command not implemented")
        return Reply(500, "5.5.1", "command unrecognized")

    def do_helo(self, argument: bytes) -> Reply:
        """HELO: no extensions are announced."""
        self._greeted(argument, extended=False)
        return Reply(250, "", self.hostname)

    def do_ehlo(self, argument: bytes) -> Reply:
        """EHLO, with what we can do."""
        self._greeted(argument, extended=True)
        offers = ["PIPELINING", f"SIZE {self.limits.message_size}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING"]
        if self.may_start_tls():
            offers.append("STARTTLS")
        return Reply(250, "", self.hostname, (*offers, "HELP"))

    def _greeted(self, argument: bytes, *, extended: bool) -> None:
        if not _HELO.fullmatch(argument):
            raise BadParameter("the argument must be your host name or address literal")
        self._helo = argument.decode("ascii")
        self._extended = extended
        self._reset(State.READY)  # RFC 5321 section 4.1.4: a new greeting ends the transaction

    def do_starttls(self, argument: bytes) -> Reply | None:
        """STARTTLS (RFC 3207); the session begins anew."""
        if self.tls is not None:
            return Reply(503, "5.5.1", "TLS is active already")
        if not self.may_start_tls():
            return Reply(502, "5.5.1", "command not implemented")
        self._reset(State.NEW)
        self._helo = ""
        self.start_tls(Reply(220, "2.0.0", "ready to start TLS"))
        return None

    def do_mail(self, argument: bytes) -> Reply | None:
        """MAIL begins a transaction."""
        if self._transactions >= self.limits.transactions:
            self.close(421, "4.7.0", "too many messages in one session, closing")
            return None
        sender = parse_mail(argument, self.limits.message_size)
        self._transactions += 1
        self._reset(State.MAIL)
        self._sender = sender
        return Reply(250, "2.1.0", "sender ok")

    async def do_rcpt(self, argument: bytes) -> Reply:
        """RCPT names one recipient; the same one twice is one."""
        if len(self._recipients) >= self.limits.recipients:
            raise LimitReached("too many recipients, send the others in another transaction")
        address = parse_rcpt(argument, self._sender.smtputf8)
        try:
            recipient = await self._mx.receive.recipient(address)
        except MailError as error:
            self.refused(error, recipient=str(address), sender=self._sender_text())
            return reply_to(error)
        self._recipients[str(recipient.address)] = recipient
        self._state = State.RCPT
        return Reply(250, "2.1.5", "recipient ok")

    def do_data(self, argument: bytes) -> Reply:
        """DATA: message text comes next."""
        self._incoming = Incoming(self._mx.budget)
        self.parser.begin_text()
        self.set_timeout(self.limits.data_idle)
        return Reply(354, "", "end data with <CR><LF>.<CR><LF>")

    def do_rset(self, argument: bytes) -> Reply:
        """RSET ends the transaction."""
        self._reset(State.READY if self._helo else State.NEW)
        return Reply(250, "2.0.0", "ok")

    def do_noop(self, argument: bytes) -> Reply:
        """NOOP."""
        return Reply(250, "2.0.0", "ok")

    def do_vrfy(self, argument: bytes) -> Reply:
        """VRFY does not tell who is here (RFC 5321 section 7.3)."""
        return Reply(252, "2.0.0", "cannot verify, send the message and see")

    def do_help(self, argument: bytes) -> Reply:
        """HELP lists the commands."""
        return Reply(214, "2.0.0", f"commands: {' '.join(sorted((*COMMANDS, 'BDAT')))}")

    def do_quit(self, argument: bytes) -> None:
        """QUIT, after the answers to all that came before."""
        self.close(221, "2.0.0", "bye")

    # -- content ----------------------------------------------------------------------------------

    def _chunk(self, chunk: Chunk) -> None:
        """BDAT: the octets come in any case, the reply follows them (RFC 3030 section 2)."""
        if chunk.size < SMALL_CHUNK or self._state not in (State.RCPT, State.CHUNKS):
            self.count_command()
            if self.closing:
                return
        self._chunk_refused = self._state not in (State.RCPT, State.CHUNKS)
        if not self._chunk_refused:
            self._state = State.CHUNKS
            self._incoming = self._incoming or Incoming(self._mx.budget)
            self.set_timeout(self.limits.data_idle)

    def _end_of_content(self, end: End) -> Answer:
        """The message, or a chunk of it, is complete."""
        self.set_timeout(self.limits.idle)
        incoming = self._incoming
        if self._chunk_refused or incoming is None:
            return self._end_of_refused(end)
        error = end.error or incoming.error
        if error is not None:
            self.refused(error, sender=self._sender_text())
            self._reset(State.READY if end.last else State.BROKEN)
            return reply_to(error)
        if not end.last:
            return Reply(250, "2.0.0", "chunk received")
        self.messages += 1
        transaction = Transaction(
            f"{self.id}-{self.messages}", self._client(), self._sender, tuple(self._recipients.values()), incoming.content()
        )
        # Its share of the budget is given back when the delivery is over, whatever becomes of the session.
        self._incoming = None
        self._reset(State.READY)
        return self._accept(transaction, incoming)

    def _end_of_refused(self, end: End) -> Reply:
        """A chunk came where none was allowed, or after one that was refused."""
        self._chunk_refused = False
        if self._state is not State.BROKEN:
            self.parser.reset()
        elif end.last:
            self._reset(State.READY)
        return Reply(503, "5.5.1", "bad sequence of commands")

    async def _accept(self, transaction: Transaction, incoming: Incoming) -> Reply:
        """Deliver; the reply is sent when it is known what became of each recipient."""
        sender = transaction.sender.address
        fields = {"id": transaction.id, "sender": str(sender or ""), "octets": len(transaction.content)}
        began = self._mx.shared.clock.seconds()
        self._mx.delivering += 1
        try:
            failure: MailError | None = (await self._mx.receive.accept(transaction)).failure
        except MailError as error:
            failure = error
        finally:
            incoming.drop()
            self._mx.delivered()
        if failure is not None:
            self.refused(failure, **fields)
            return reply_to(failure)
        took = self._mx.shared.clock.seconds() - began
        # «heard»: whether the client is still there to hear the 250; if not, it will send the message again.
        self.log(
            "accepted", peer=self.peer, recipients=len(transaction.recipients), ms=round(1000 * took, 1), heard=not self.closing, **fields
        )
        return Reply(250, "2.0.0", f"accepted as {transaction.id}")

    def _client(self) -> Client:
        tls = (self.tls.version, self.tls.cipher, self.tls.group) if self.tls else None
        return Client(self.id, self.peer, self._helo, self._extended, tls)

    def _sender_text(self) -> str:
        return str(self._sender.address or "")


class Rule(NamedTuple):
    """In which states a command is allowed, whether it may have an argument, and what does it."""

    run: Callable[[MxProtocol, bytes], Answer]
    states: frozenset[State]
    argument: bool = False


_ANY = frozenset(State)

#: RFC 5321 section 4.1.4.  BDAT is not here: the parser makes it a :class:`Chunk`.
COMMANDS: dict[str, Rule] = {
    "EHLO": Rule(MxProtocol.do_ehlo, _ANY, True),
    "HELO": Rule(MxProtocol.do_helo, _ANY, True),
    "STARTTLS": Rule(MxProtocol.do_starttls, frozenset({State.READY})),
    "MAIL": Rule(MxProtocol.do_mail, frozenset({State.READY}), True),
    "RCPT": Rule(MxProtocol.do_rcpt, frozenset({State.MAIL, State.RCPT}), True),
    "DATA": Rule(MxProtocol.do_data, frozenset({State.RCPT})),
    "RSET": Rule(MxProtocol.do_rset, _ANY),
    "NOOP": Rule(MxProtocol.do_noop, _ANY, True),
    "VRFY": Rule(MxProtocol.do_vrfy, _ANY, True),
    "HELP": Rule(MxProtocol.do_help, _ANY, True),
    "QUIT": Rule(MxProtocol.do_quit, _ANY),
}
#: Known and not offered: there is no login on port 25.
NOT_IMPLEMENTED = frozenset({"EXPN", "TURN", "ETRN", "ATRN", "SEND", "SAML", "SOML", "AUTH", "BURL", "XCLIENT", "XFORWARD"})


class MxFactory(Factory):
    """Makes the sessions of the MX server and holds what they share.

    :param hostname: our name, in the greeting.
    :param clock: the reactor, or a clock in tests.
    :param tls: for STARTTLS; None offers none.
    :param connections: counts connections, in all and per address.
    """

    noisy = False

    def __init__(
        self,
        receive: Receive,
        *,
        hostname: str,
        clock: Clock,
        tls: ServerTLS | None,
        connections: ConnectionLimit,
        limits: MxLimits | None = None,
    ) -> None:
        limits = limits or MxLimits()
        self.receive = receive
        self.shared = Shared("mx", hostname, clock, tls, connections, limits)
        self.budget = Budget(limits.in_flight)
        #: Messages that are being delivered, whether their client is still there or not.
        self.delivering = 0
        self._drained: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> MxProtocol:
        """A new session."""
        return MxProtocol(self)

    def delivered(self) -> None:
        """A delivery is over."""
        self.delivering -= 1
        if not self.delivering:
            waiting, self._drained = self._drained, []
            for deferred in waiting:
                deferred.callback(None)

    def dismiss(self) -> int:
        """End with 421 the sessions that are between two transactions and have been silent for a while.

        To be called again and again by a process that accepts nothing more and has a successor.  Who has only just come is served.

        :returns: how many sessions and deliveries there are, those that have got their 421 included.
        """
        now = self.shared.clock.seconds()
        for session in list(self.shared.sessions):
            if session.quiet_since() <= now - QUIET:
                session.end(*_LATER)
        return len(self.shared.sessions) + self.delivering

    def shutdown(self) -> Deferred[None]:
        """End all sessions with 421 (RFC 5321 section 3.8); fires when the last delivery under way is over."""
        for session in list(self.shared.sessions):
            session.end(*_LATER)
        done: Deferred[None] = Deferred()
        if self.delivering:
            self._drained.append(done)
        else:
            done.callback(None)
        return done
