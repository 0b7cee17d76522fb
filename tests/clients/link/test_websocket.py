"""Whole messages that are taken and sent without Autobahn: the same messages as with it, in the same order, from any octets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactor, StringTransport

from fe_twisted.clients.link.websocket import OPTIONS, READ, Lean
from fe_twisted.protocols.cluster.frames import MAX_MESSAGE

LIMIT = 70_000
SHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Heard:
    """What a protocol makes of octets."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.heard.append((isBinary, payload))

    def onPing(self, payload: bytes) -> None:
        self.heard.append(("ping", payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.heard.append("closed")


class Ours(Heard, Lean, WebSocketServerProtocol):  # type: ignore[misc]
    """With what is tested."""


class Theirs(Heard, WebSocketServerProtocol):  # type: ignore[misc]
    """Autobahn alone."""


def opened(kind: type, *, masked: bool = False) -> Any:
    factory = WebSocketServerFactory(reactor=Clock())
    factory.protocol = kind
    factory.setProtocolOptions(**OPTIONS | {"autoPingInterval": 0, "maxFramePayloadSize": LIMIT, "maxMessagePayloadSize": LIMIT})
    factory.setProtocolOptions(requireMaskedClientFrames=masked)
    protocol: Any = factory.buildProtocol(None)
    protocol.heard = []
    transport = StringTransport(lenient=True)
    transport.abortConnection = transport.loseConnection  # type: ignore[method-assign]
    transport.unregisterProducer = lambda: None  # type: ignore[method-assign]
    protocol.makeConnection(transport)
    protocol.dataReceived(SHAKE)
    assert b" 101 " in transport.value()
    return protocol


def frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = b"", form: int = 0, rsv: int = 0) -> bytes:
    """Any frame at all.

    :param form: how the length is written: 126 or 127; 0 for the shortest way.
    """
    length = len(payload)
    form = form or (length if length < 126 else 126 if length < 65_536 else 127)
    head = bytes((fin << 7 | rsv << 4 | opcode, (128 if mask else 0) | form))
    head += struct.pack(">H", length) if form == 126 else struct.pack(">Q", length) if form == 127 else b""
    return head + mask + bytes(octet ^ mask[at % 4] for at, octet in enumerate(payload)) if mask else head + payload


payloads = st.binary(max_size=300) | st.sampled_from((125, 126, 127, 65_535, 65_536, LIMIT, LIMIT + 1)).map(lambda size: b"p" * size)
short = st.binary(max_size=125)
plain = st.builds(lambda payload: [frame(2, payload)], payloads)
masked = st.builds(lambda payload, mask: [frame(2, payload, mask=mask)], st.binary(max_size=200), st.binary(min_size=4, max_size=4))
control = st.builds(lambda opcode, payload: [frame(opcode, payload)], st.sampled_from((9, 10)), short)
cut = st.builds(
    lambda first, ping, last: [frame(2, first, fin=False), frame(9, ping), frame(0, last)], st.binary(max_size=99), short, st.binary()
)
odd = st.one_of(
    st.just([frame(2, b"ab", form=126)]),
    st.just([frame(2, b"c" * 200, form=127)]),
    st.just([frame(2, b"rsv", rsv=4)]),
    st.just([frame(3, b"reserved")]),
    st.just([frame(1, b"text")]),
    st.just([frame(0, b"of nothing")]),
    st.just([frame(8, b"")]),
    st.just([frame(2, b"half", fin=False), frame(2, b"another")]),
)
streams = st.lists(st.one_of(plain, plain, masked, control, cut, odd), max_size=8).map(lambda groups: b"".join(chain.from_iterable(groups)))


@given(streams, st.data())
@settings(max_examples=150, deadline=None)
def test_any_octets_in_any_chunks_are_what_the_library_makes_of_them(octets: bytes, data: st.DataObject) -> None:
    theirs = opened(Theirs)
    theirs.dataReceived(octets)
    ends = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=6)))
    ours = opened(Ours)
    for start, end in zip([0, *ends], [*ends, len(octets)], strict=True):
        ours.dataReceived(octets[start:end])
    assert ours.heard == theirs.heard
    assert (ours.state, ours.failedByMe) == (theirs.state, theirs.failedByMe)
    assert ours.transport.value() == theirs.transport.value(), "pongs and closing frames"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, LIMIT])
def test_octet_by_octet(size: int) -> None:
    octets = frame(2, bytes(size)) + frame(9, b"?") + frame(2, b"after")
    ours = opened(Ours)
    first, last = (20, len(octets) - 9) if size > 200 else (len(octets), len(octets))
    singly = [octets[at : at + 1] for at in range(len(octets))]
    for piece in [*singly[:first], octets[first:last], *singly[last:]]:
        ours.dataReceived(piece)
    assert ours.heard == [(True, bytes(size)), ("ping", b"?"), (True, b"after")]


def test_where_masks_are_demanded_none_may_be_missing() -> None:
    ours = opened(Ours, masked=True)
    ours.dataReceived(frame(2, b"bare"))
    assert ours.heard == [] and ours.failedByMe


# -- sending --------------------------------------------------------------------------------------


class Pair:
    """A sender on a real socket whose reactor turns when told, and the other end."""

    def __init__(self) -> None:
        mine, self.far = socket.socketpair()
        mine.setblocking(False)
        self.far.setblocking(False)
        self.reactor = MemoryReactor()
        self.transport = Connection(mine, Protocol(), self.reactor)
        self.transport.connected = 1
        self.ours = opened(Ours)
        self.ours.transport = self.transport
        self.ours.widen()

    def turn(self) -> None:
        """The socket has room, by what Twisted hears."""
        for writer in self.reactor.getWriters():
            writer.doWrite()

    def received(self) -> bytes:
        found = []
        while True:
            try:
                found.append(self.far.recv(1 << 20))
            except BlockingIOError:
                return b"".join(found)
            if not found[-1]:
                return b"".join(found)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.far.close()
    pair.transport.socket.close()


def test_a_message_needs_no_turn_of_the_reactor(pair: Pair) -> None:
    for payload in (b"", b"small", b"m" * 300, b"l" * 66_000):
        pair.ours.write(payload)
        assert pair.received() == frame(2, payload)
    assert not pair.reactor.getWriters()


def test_a_full_socket_keeps_the_order_and_is_used_directly_again(pair: Pair) -> None:
    sent = [bytes([number]) * 40_000 for number in range(200)]
    for number, payload in enumerate(sent):
        pair.ours.write(payload)
        if number == 150:
            pair.ours.sendPing(b"between")
    assert pair.reactor.getWriters(), "more than a socket takes"
    pair.ours.write(b"last")
    found = b""
    while pair.reactor.getWriters():
        found += pair.received()
        pair.turn()
    found += pair.received()
    expected = [frame(2, payload) for payload in sent]
    expected.insert(151, frame(9, b"between"))
    assert found == b"".join(expected) + frame(2, b"last")
    pair.ours.write(b"again")
    assert pair.received() == frame(2, b"again") and not pair.reactor.getWriters()


def test_what_is_lost_twisted_finds_out(pair: Pair) -> None:
    pair.far.close()
    pair.ours.write(b"to nobody")
    assert pair.reactor.getWriters() == [pair.transport]


def test_more_is_read_at_once_while_more_comes(pair: Pair) -> None:
    pair.transport.protocol = pair.ours
    sizes = []
    for length in (200, 60_000, 60_000, 5):
        pair.far.sendall(frame(2, bytes(length)))
    while len(pair.ours.heard) < 4:
        pair.transport.doRead()
        sizes.append(pair.ours._at_once)
    assert sizes == [MAX_MESSAGE, READ]
    assert [len(payload) for _, payload in pair.ours.heard] == [200, 60_000, 60_000, 5]
    assert pair.transport.doRead() is None, "nothing is there"
    pair.far.close()
    assert pair.transport.doRead() is CONNECTION_DONE


def test_a_connection_that_was_cut_is_lost(pair: Pair) -> None:
    pair.transport.socket.close()
    assert pair.transport.doRead() is CONNECTION_LOST
