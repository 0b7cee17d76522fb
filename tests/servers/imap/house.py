"""A mailbox, a factory and clients in memory: threads run at once and the clock is turned by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from fe_twisted.base.errors import WrongPassword
from fe_twisted.protocols.crypto import scram, slots
from fe_twisted.protocols.sasl.scram import Answer, client_key, server_signature
from fe_twisted.servers.connection import ConnectionLimit
from fe_twisted.servers.imap.factory import ImapFactory
from fe_twisted.servers.imap.limits import ImapLimits
from fe_twisted.servers.imap.protocol import ImapProtocol
from fe_twisted.storage.mailbox.api import Mailbox, NewMessage
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from tests.storage.mailbox.driving import ID, KEY, at_once, run

USER = b"hello@example.com"
PASSWORD = b"secret"


def mail(number: int, body: str = "") -> bytes:
    """A small message; ``number`` makes it distinct."""
    text = body or f"This is message {number}.\r\n"
    return (
        f"From: Sender {number} <sender{number}@example.org>\r\n"
        f"To: hello@example.com\r\n"
        f"Subject: mail {number}\r\n"
        f"Date: Wed, 17 Jul 1996 02:23:{number % 60:02d} -0700\r\n"
        f"Message-ID: <{number}@example.org>\r\n"
        f"\r\n{text}"
    ).encode()


#: The user's other password, which SCRAM works with.
GENERATED = "34679ACDEFGHJKLMNPQRTUVW"


class Attempt:
    """A login by SCRAM with :data:`GENERATED`."""

    def __init__(self, doorman: Doorman, user: str) -> None:
        self._doorman = doorman
        self._known = user.encode() == USER
        made = scram.verifier(scram.extend(slots.make_slot(KEY, GENERATED, mailbox_id=ID).wrapped, KEY, GENERATED, mailbox_id=ID))
        assert made is not None
        self._verifier = made
        self.salt, self.iterations = made.salt, made.iterations

    async def finish(self, answer: Answer | None) -> tuple[str, Mailbox, bytes]:
        key = client_key(answer, self._verifier.stored_key) if answer and self._known else None
        if answer is None or key is None or scram.open_with(self._verifier, key, mailbox_id=ID) != KEY:
            raise WrongPassword
        self._doorman.inside += 1
        return USER.decode(), self._doorman.mailbox, server_signature(answer, self._verifier.server_key)


class Doorman:
    """Lets one user in, and counts who is inside."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.inside = 0
        self.hides: frozenset[str] = frozenset()
        self.asked = 0
        #: Called before the answer to a login; may wait.
        self.before: Callable[[], Any] | None = None

    async def login(self, user: bytes, password: bytes, peer: str) -> tuple[str, Mailbox]:
        self.asked += 1
        if self.before is not None:
            await self.before()
        if (user, password) != (USER, PASSWORD):
            raise WrongPassword
        self.inside += 1
        return user.decode(), self.mailbox

    async def scram(self, user: str, peer: str) -> Attempt:
        return Attempt(self, user)

    def hidden(self, address: str) -> frozenset[str]:
        return self.hides

    def leave(self, mailbox: Mailbox) -> None:
        assert mailbox is self.mailbox
        self.inside -= 1


class Client:
    """The other end of one connection.

    :param chunk: how many octets reach the server at once.
    """

    def __init__(self, protocol: ImapProtocol, transport: StringTransport, chunk: int) -> None:
        self.protocol = protocol
        self.transport = transport
        self.chunk = chunk
        self._tag = 0

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), self.chunk):
            self.protocol.dataReceived(data[start : start + self.chunk])

    def take(self) -> bytes:
        """What the server has sent since the last call."""
        data = self.transport.value()
        self.transport.clear()
        return data

    def ask(self, command: bytes | str) -> list[str]:
        """Send one command and return all lines of its answer; the last is tagged with ``t``."""
        data = command if isinstance(command, bytes) else command.encode()
        self.take()
        self.send(b"t " + data + b"\r\n")
        return self.lines()

    def lines(self) -> list[str]:
        return self.take().decode("latin-1").split("\r\n")[:-1]

    def drop(self) -> None:
        """The network is gone."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def closing(self) -> bool:
        return bool(self.transport.disconnecting)


class Slow(StringTransport):
    """A network that holds 64 KiB and moves only when it is told to."""

    room = 65_536
    #: The most that was ever held.
    most = 0
    held = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        self.held += len(data)
        self.most = max(self.most, self.held)
        if self.held > self.room and self.producer is not None:
            self.producer.pauseProducing()

    def move(self) -> bytes:
        """The client reads all that is there."""
        data = self.value()
        self.clear()
        self.held = 0
        if self.producer is not None:
            self.producer.resumeProducing()
        return bytes(data)


class Threads:
    """Runs functions at once, or, while ``held``, when :meth:`work` is called."""

    def __init__(self) -> None:
        self.held = False
        self._waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, function: Callable[[], Any]) -> Deferred[Any]:
        if not self.held:
            return at_once(function)
        waiting: Deferred[Any] = Deferred()
        self._waiting.append((function, waiting))
        return waiting

    def work(self) -> None:
        """Let everything that waits be done, and what it leads to."""
        while self._waiting:
            function, waiting = self._waiting.pop(0)
            execute(function).addBoth(waiting.callback)


class House:
    """One mailbox and everybody who looks at it."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.threads = Threads()
        self.clock = Clock()
        self.clock.advance(1_790_000_000)
        files = MailboxFiles(path / "mailboxes")
        files.create(ID, KEY)
        self.waiting: list[bytes] = []
        self.polls = 0
        self.mailbox = run(open_mailbox(files, ID, KEY, self.threads.run, self.clock, self._poll))
        self.doorman = Doorman(self.mailbox)
        self.connections = ConnectionLimit(total=100, per_address=50)
        options.setdefault("plaintext_login_from_loopback", True)
        options.setdefault("limits", ImapLimits())
        self.factory = ImapFactory(self.doorman, self.clock, self.connections, **options)
        self.clients: list[Client] = []

    async def _poll(self, mailbox: LocalMailbox) -> int:
        self.polls += 1
        waiting, self.waiting = self.waiting, []
        if waiting:
            await mailbox.append("INBOX", [NewMessage(content) for content in waiting])
        return len(waiting)

    def connect(
        self, *, chunk: int = 1 << 20, peer: str = "127.0.0.1", secure: bool = False, network: type[StringTransport] = StringTransport
    ) -> Client:
        """A new connection; the greeting is still to be taken."""
        transport = network(peerAddress=IPv4Address("TCP", peer, 4711), lenient=True)
        if secure:
            directlyProvides(transport, ISSLTransport)
        protocol = self.factory.buildProtocol(None)
        client = Client(protocol, transport, chunk)
        protocol.makeConnection(transport)
        self.clients.append(client)
        return client

    def login(self, select: str = "", **options: Any) -> Client:
        """A client that is logged in, and has selected a folder if one is named."""
        client = self.connect(**options)
        assert client.ask(b"LOGIN " + USER + b" " + PASSWORD)[-1].startswith("t OK")
        if select:
            assert client.ask(f"SELECT {select}")[-1].startswith("t OK")
        return client

    def fill(self, folder: str, count: int, flags: frozenset[str] = frozenset()) -> None:
        """Put messages 1 … count into a folder."""
        run(self.mailbox.append(folder, [NewMessage(mail(number + 1), flags) for number in range(count)]))

    def close(self) -> None:
        """All clients go; then the mailbox must be whole and nobody may have kept it."""
        self.threads.held = False
        self.threads.work()
        for client in self.clients:
            if not client.protocol._lost:
                client.drop()
        self.clock.advance(0)
        assert self.doorman.inside == 0
        assert not self.factory.live
        assert not self.connections._live
        assert run(self.mailbox.check_consistency()) == []
        assert not self.mailbox._watchers
        run(self.mailbox.close())
        left = [call for call in self.clock.getDelayedCalls() if "imap" in repr(call.func)]
        assert left == []
