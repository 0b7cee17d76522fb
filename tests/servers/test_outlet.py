"""Outlet: what is written arrives once, whole and in order, whichever way it takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactor, StringTransport

from fe_twisted.servers.connection import Outlet


class Pair:
    """A connection of Twisted's over a real socket, a reactor that never turns by itself, and the client's end."""

    def __init__(self) -> None:
        mine, self.client = socket.socketpair()
        mine.setblocking(False)
        self.client.settimeout(5)
        self.reactor = MemoryReactor()
        self.transport = Connection(mine, Protocol(), self.reactor)
        self.transport.connected = 1
        self.outlet = Outlet(self.transport)

    def received(self) -> bytes:
        self.client.setblocking(False)
        data = b""
        while True:
            try:
                block = self.client.recv(1 << 20)
            except BlockingIOError:
                return data
            if not block:
                return data
            data += block


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.client.close()
    pair.transport.socket.close()


def test_a_short_answer_needs_no_turn_of_the_reactor(pair: Pair) -> None:
    pair.outlet.write(b"250 ok\r\n")
    pair.outlet.write(b"250 again\r\n")
    assert pair.received() == b"250 ok\r\n250 again\r\n"
    assert not pair.reactor.getWriters()


def test_a_full_socket_keeps_the_order(pair: Pair) -> None:
    """What the socket does not take goes Twisted's way, and so does everything after it, even when there is room again."""
    big = bytes(range(256)) * 8000
    pair.outlet.write(big)
    assert pair.reactor.getWriters()
    data = pair.received()
    pair.outlet.write(b"after")
    while pair.reactor.getWriters():
        pair.transport.doWrite()
        data += pair.received()
    assert data == big + b"after"


def test_a_lost_connection_is_left_to_twisted(pair: Pair) -> None:
    pair.client.close()
    pair.outlet.write(b"250 ok\r\n")
    assert pair.reactor.getWriters(), "doWrite will find it lost and call connectionLost"


def test_nothing_after_the_end(pair: Pair) -> None:
    pair.transport.disconnecting = True
    pair.outlet.write(b"late")
    assert pair.received() == b""


def test_never_past_tls(pair: Pair) -> None:
    """With TLS on the connection, or by a wrapper that lends out the socket's methods, nothing goes to the socket in the clear."""
    pair.transport.TLS = True
    with pytest.raises(AttributeError):  # there is no TLS engine in this test to take it
        pair.outlet.write(b"secret")
    assert pair.received() == b""

    class Wrapper(StringTransport):
        def __getattr__(self, name: str) -> object:
            return getattr(pair.transport, name)

    wrapper = Wrapper()
    Outlet(wrapper).write(b"secret")
    assert wrapper.value() == b"secret"
    assert pair.received() == b""


class Waiting:
    """A producer that tells the outlet when Twisted's buffer is empty."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.pauses = 0

    def pauseProducing(self) -> None:
        self.pauses += 1

    def resumeProducing(self) -> None:
        self.outlet.caught_up()

    def stopProducing(self) -> None:
        """Nothing to stop."""


def test_a_buffer_that_was_emptied_makes_the_way_direct_again(pair: Pair) -> None:
    producer = Waiting(pair.outlet)
    pair.transport.registerProducer(producer, True)
    big = bytes(range(256)) * 8000
    pair.outlet.write(big)
    assert producer.pauses == 1
    received = pair.received()
    while pair.reactor.getWriters():
        pair.outlet.write(b"")
        pair.transport.doWrite()
        received += pair.received()
    pair.outlet.write(b"direct")
    assert not pair.reactor.getWriters()
    assert received + pair.received() == big + b"direct"
