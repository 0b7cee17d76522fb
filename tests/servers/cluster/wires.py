"""Autobahn against Autobahn without a network: octets move when they are moved, in any chunks, as if by unix socket or TCP."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

ROOM = 65_536


class Owned:
    """As much of a socket as is asked of it; the kernel says who is at the other end."""

    family = socket.AF_UNIX

    def __init__(self, uid: int) -> None:
        self.uid = uid

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_PEERCRED)
        return struct.pack("3i", 1, self.uid, 1)


class Wire(StringTransport):
    """One end; what is written lies here until the network moves it."""

    def __init__(self, peer: Any, owner: Any) -> None:
        super().__init__(peerAddress=peer, lenient=True)
        self.aborted = False
        if owner is not None:
            self.socket = owner

    def write(self, data: bytes) -> None:
        super().write(data)
        if len(self.value()) > ROOM and self.producer is not None:
            self.producer.pauseProducing()

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True

    def unregisterProducer(self) -> None:
        self.producer = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


class Network:
    """A stream endpoint, and what moves octets between its two ends.

    :param chunk: octets that arrive at once.
    :param owner: the user at the other end of the unix socket, or None for TCP from ``address``.
    """

    def __init__(self, factory: Any, clock: Clock, *, chunk: int = 1 << 20, owner: int | None = None, address: str = "127.0.0.1") -> None:
        self.factory = factory
        self.clock = clock
        self.chunk = chunk
        self.owner = owner
        self.address = address
        self.ends: list[tuple[Any, Wire, Any, Wire]] = []
        self.raw: list[bytes] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        client = factory.buildProtocol(None)
        self.attach(client)
        return succeed(client)

    def attach(self, client: Any) -> Any:
        """Put a client's protocol at the other end of a new server's; returns the server's."""
        owner = None if self.owner is None else Owned(self.owner)
        peer: Any = UNIXAddress(None) if owner else IPv4Address("TCP", self.address, 4711)
        server = self.factory.buildProtocol(peer)
        up, down = Wire(peer, owner), Wire(peer, owner)
        self.ends.append((client, up, server, down))
        server.makeConnection(down)
        client.makeConnection(up)
        return server

    def move(self, rounds: int = 10_000) -> None:
        """Until nothing moves any more."""
        for _ in range(rounds):
            self.clock.advance(0)
            moved = False
            for end in list(self.ends):
                client, up, server, down = end
                moved = self._carry(up, server) | self._carry(down, client) or moved
                if up.disconnecting or down.disconnecting:
                    self.ends.remove(end)
                    kind = ConnectionLost if up.aborted or down.aborted else ConnectionDone
                    for each in (client, server):
                        each.connectionLost(Failure(kind()))
                    moved = True
            if not moved:
                return
        raise AssertionError("it never comes to rest")

    def _carry(self, wire: Wire, to: Any) -> bool:
        data = wire.value()
        if not data or wire.aborted:
            return False
        wire.clear()
        self.raw.append(data)
        for start in range(0, len(data), self.chunk):
            to.dataReceived(data[start : start + self.chunk])
        if wire.producer is not None:
            wire.producer.resumeProducing()
        return True


@contextmanager
def logged() -> Iterator[list[dict[str, Any]]]:
    """The events that are logged meanwhile."""
    events: list[dict[str, Any]] = []

    def observe(event: Any) -> None:
        if "event" in event and "fields" in event:
            events.append({"event": event["event"], **event["fields"]})

    globalLogPublisher.addObserver(observe)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(observe)
