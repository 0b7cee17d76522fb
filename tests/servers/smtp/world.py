"""An MX server in memory, for tests: the real protocol, parser and receive service over a directory and mailboxes that are dictionaries."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from fe_twisted.base.addresses import POSTMASTER, Address
from fe_twisted.base.errors import UnknownDomain, UnknownRecipient
from fe_twisted.servers.connection import ConnectionLimit
from fe_twisted.servers.smtp.limits import MxLimits
from fe_twisted.servers.smtp.mx import MxFactory, MxProtocol
from fe_twisted.servers.tls import ServerTLS
from fe_twisted.services.receive.receive import Receive
from fe_twisted.storage.directory.api import Alias, AliasState

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def alias(address: str, state: AliasState = AliasState.ENABLED, *, mailbox: bool = True) -> Alias:
    """An alias with (or without) a mailbox."""
    return Alias(1, address, state, "0" * 24 if mailbox else None, b"key" if mailbox else None, "local", "2026-01-01T00:00:00Z")


class Directory:
    """Lookups over a dictionary; with ``slow`` set, every answer waits until :meth:`answer`."""

    def __init__(self, aliases: Iterable[Alias]) -> None:
        self.aliases = {entry.address: entry for entry in aliases}
        self.slow = False
        self.waiting: list[Deferred[None]] = []

    async def recipient(self, address: Address) -> Alias:
        """As the real one, as far as the tests need it."""
        if self.slow:
            deferred: Deferred[None] = Deferred()
            self.waiting.append(deferred)
            await deferred
        if address == POSTMASTER:
            address = Address("postmaster", "example.com")
        address = address.normalise()
        if address.domain != "example.com":
            raise UnknownDomain
        found = self.aliases.get(str(address)) or self.aliases.get(str(address.base_address()))
        if found is None:
            raise UnknownRecipient
        return found

    def answer(self) -> None:
        """Let the oldest question have its answer."""
        self.waiting.pop(0).callback(None)


class Mailboxes:
    """Deliver into lists.  ``fails`` gives an error per address; with ``slow`` set, deliveries wait until :meth:`finish`."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, bytes]] = []
        self.ids: set[tuple[str, bytes]] = set()
        self.fails: dict[str, Exception] = {}
        self.slow = False
        self.waiting: list[Deferred[None]] = []
        self.most_at_once = 0

    async def deliver(self, alias: Alias, content: bytes, delivery_id: bytes, received_at: datetime.datetime) -> None:
        """As the real one: once per id, errors raised, durable when it returns."""
        assert len(delivery_id) == 16
        assert received_at == NOW
        if self.slow:
            deferred: Deferred[None] = Deferred()
            self.waiting.append(deferred)
            self.most_at_once = max(self.most_at_once, len(self.waiting))
            await deferred
        if alias.address in self.fails:
            raise self.fails[alias.address]
        if (alias.address, delivery_id) not in self.ids:
            self.ids.add((alias.address, delivery_id))
            self.stored.append((alias.address, content))

    def finish(self) -> None:
        """Let the oldest delivery go on."""
        self.waiting.pop(0).callback(None)


class World:
    """One MX server."""

    def __init__(self, limits: MxLimits | None = None, tls: ServerTLS | None = None, *, total: int = 100, per_address: int = 10) -> None:
        self.clock = Clock()
        self.directory = Directory(
            [
                alias("hello@example.com"),
                alias("world@example.com"),
                alias("postmaster@example.com"),
                alias("gone@example.com", AliasState.REJECT),
                alias("later@example.com", AliasState.DEFER),
                alias("void@example.com", AliasState.DISCARD),
                alias("new@example.com", mailbox=False),
            ]
        )
        self.mailboxes = Mailboxes()
        self.receive = Receive(self.directory, self.mailboxes, hostname="mx.example.com", now=lambda: NOW)
        self.connections = ConnectionLimit(total, per_address)
        self.factory = MxFactory(
            self.receive, hostname="mx.example.com", clock=self.clock, tls=tls, connections=self.connections, limits=limits
        )

    def connect(self, host: str = "192.0.2.7") -> Wire:
        """A new client, which has read the greeting."""
        wire = Wire(self.factory.buildProtocol(None), host)
        return wire


class Transport(StringTransport):
    """A StringTransport that knows when it was aborted and loses the connection as a real one does."""

    aborted = False

    def abortConnection(self) -> None:
        """Remember it."""
        self.aborted = True
        self.loseConnection()


class Wire:
    """The client's end."""

    def __init__(self, protocol: MxProtocol, host: str) -> None:
        self.protocol = protocol
        protocol.id = "c0ffee"
        self.transport = Transport(peerAddress=IPv4Address("TCP", host, 40000))
        protocol.makeConnection(self.transport)

    def send(self, data: bytes, size: int = 0) -> str:
        """Send in pieces of ``size`` octets (0: all at once) and return what the server answers."""
        for start in range(0, len(data), size or len(data) or 1):
            if self.transport.disconnecting:
                break
            self.protocol.dataReceived(data[start : start + (size or len(data))])
        return self.read()

    def read(self) -> str:
        """What the server said since the last time."""
        text = self.transport.value().decode("ascii")
        self.transport.clear()
        return text

    @property
    def closed(self) -> bool:
        """Whether the server has hung up."""
        return bool(self.transport.disconnecting)

    def lose(self) -> None:
        """The connection is gone."""
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        self.protocol.connectionLost(Failure(ConnectionLost()))
