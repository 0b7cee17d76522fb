"""The secondary's end on Autobahn: a WebSocket client without any of the library's unlimited defaults."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from fe_twisted.base import log
from fe_twisted.base.clock import Clock
from fe_twisted.clients.link.conversation import Conversation, LinkLost, Listener
from fe_twisted.clients.link.link import Connect
from fe_twisted.clients.link.tls import binding_of, untrusted
from fe_twisted.protocols.cluster.frames import MAX_MESSAGE
from fe_twisted.protocols.cluster.handshake import Agreed, Identity, Reason, Refusal

#: The WebSocket subprotocol.
SUBPROTOCOL = "forwardemail.link"

#: Seconds between two pings when nothing else comes, and seconds that the answer may take: a peer that was stopped for five seconds keeps
#: its connections, a dead one is noticed.
PING, PONG = 5, 15

#: Seconds for the WebSocket handshake, and for the closing one.
OPEN, CLOSE = 5, 1

#: Octets that are read at once while messages are small: more would be memory that the allocator fetches anew each time, which took longer
#: than all the rest of the reading.
READ = 65_536

#: The same on both sides; see :meth:`autobahn.websocket.protocol.WebSocketClientFactory.setProtocolOptions`.
OPTIONS: dict[str, Any] = {
    "maxFramePayloadSize": MAX_MESSAGE,
    "maxMessagePayloadSize": MAX_MESSAGE,
    "autoPingInterval": PING,
    "autoPingTimeout": PONG,
    "openHandshakeTimeout": OPEN,
    "closeHandshakeTimeout": CLOSE,
    "failByDrop": True,
    "tcpNoDelay": True,
}


class Lean:
    """Autobahn without what it does for every message that is not needed here: that took most of the time of a small message.

    The opening and the closing handshake, pings, everything masked and everything that is not as it should be are Autobahn's.  A whole
    binary message in one frame that is not masked is taken and sent here: its octets are not copied on the way, nor does a socket that
    takes them at once cost a turn of the reactor.
    """

    transport: Any
    #: Whether the socket may be written to without Twisted, which a TLS connection is not.
    _plain = False
    #: Octets of the message under way that have not come yet, and those that have.
    _missing = 0
    _pieces: list[memoryview]
    #: Octets that the next read takes at most.
    _at_once = READ

    def widen(self: Any) -> None:
        """Read and write more at once than Twisted and the kernel do by themselves: a piece in few turns of the reactor."""
        transport = self.transport
        transport.bufferSize = transport.SEND_LIMIT = MAX_MESSAGE
        # isinstance and not hasattr: the TLS wrapper lends out the methods of the socket under it.
        self._plain = isinstance(transport, Connection) and not transport.TLS
        if self._plain:
            transport.doRead = self._read
        if self._plain and transport.socket.family == socket.AF_UNIX:
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                transport.socket.setsockopt(socket.SOL_SOCKET, option, 2 * MAX_MESSAGE)

    # -- octets that come -------------------------------------------------------------------------

    def _read(self: Any) -> Any:
        """In the place of the transport's ``doRead``, whose buffer is as large for a small message as for a piece.

        A read that filled its buffer is followed by one into a large buffer, and one that would not have filled a small one by one into
        that.
        """
        transport = self.transport
        try:
            data = transport.socket.recv(self._at_once)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if len(data) < READ:
            self._at_once = READ
        elif len(data) >= self._at_once:
            self._at_once = MAX_MESSAGE
        return transport._dataReceived(data)

    def dataReceived(self: Any, data: bytes) -> None:
        """Octets have come."""
        at = self._go_on(data) if self._missing else 0
        while at < len(data):
            start, length = self._plain_message(data, at)
            if not start:
                self._dataReceived(data[at:] if at else data)
                return
            at = start + length
            if at > len(data):
                self._pieces, self._missing = [memoryview(data)[start:]], at - len(data)
                return
            self._took(data[start:at])

    def _go_on(self: Any, data: bytes) -> int:
        """Take what belongs to the message under way; returns how many octets that are."""
        length: int = min(self._missing, len(data))
        self._pieces.append(memoryview(data)[:length])
        self._missing -= length
        if not self._missing:
            pieces, self._pieces = self._pieces, []
            self._took(b"".join(pieces))
        return length

    def _plain_message(self: Any, data: bytes, at: int) -> tuple[int, int]:
        """Where a message that can be taken here begins, and its length; or zeros.

        RFC 6455 section 5.2: FIN and opcode 2; no mask; the shortest form of the length.
        """
        busy = self.state != self.STATE_OPEN or self.data or self.current_frame is not None or self.inside_message
        if busy or len(data) < at + 2 or data[at] != 0x82 or (self.factory.isServer and self.requireMaskedClientFrames):
            return 0, 0
        length = data[at + 1]
        start = at + 2
        if length >= 126:
            start += 2 if length == 126 else 8
            least = 126 if length == 126 else 65_536
            if length & 0x80 or len(data) < start:
                return 0, 0
            length = int.from_bytes(data[at + 2 : start], "big")
            if length < least:
                return 0, 0
        return (start, length) if length <= min(self.maxFramePayloadSize, self.maxMessagePayloadSize) else (0, 0)

    def _took(self: Any, message: bytes) -> None:
        """A message is complete."""
        if self.autoPingTimeoutCall:  # whoever sends is there
            self._cancelAutoPingTimeoutCall()
        if self.state == self.STATE_OPEN and not self.failedByMe:
            self.onMessage(message, True)

    def onMessageEnd(self: Any) -> None:
        """A message is complete that Autobahn has put together."""
        pieces = self.message_data
        if not self.failedByMe:
            self.onMessage(b"".join(pieces), self.message_is_binary)

    # -- octets that go ---------------------------------------------------------------------------

    def sendData(self: Any, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Octets are to be sent; the library's ways of sending them slowly are not used here."""
        self._send(b"", data)

    def write(self: Any, message: bytes) -> None:
        """Send a frame of the link as a binary message; after the end, nothing happens."""
        if self.state != self.STATE_OPEN:
            return
        if not self.factory.isServer and self.maskClientFrames:
            self.sendFrame(opcode=2, payload=message)
            return
        length = len(message)
        if length < 126:
            head = bytes((0x82, length))
        elif length < 65_536:
            head = b"\x82\x7e" + length.to_bytes(2, "big")
        else:
            head = b"\x82\x7f" + length.to_bytes(8, "big")
        self._send(head, message)

    def _send(self: Any, head: bytes, body: bytes) -> None:
        """Offer it to the socket at once, unless Twisted still holds something that must go first."""
        transport = self.transport
        waiting = not self._plain or transport.dataBuffer or transport._tempDataLen
        if waiting or not transport.connected or transport.disconnecting:
            transport.write(head)
            transport.write(body)
            return
        try:
            sent = transport.socket.sendmsg((head, body))
        except OSError:  # full; or lost, which Twisted finds out once more, and does then what has to be done
            sent = 0
        if sent < len(head) + len(body):
            transport.write(head[sent:])
            transport.write(body[max(0, sent - len(head)) :])


class LinkClient(Lean, WebSocketClientProtocol):  # type: ignore[misc]  # Autobahn's own two bases do not agree
    """One connection.  What Autobahn calls has Autobahn's names."""

    conversation: Conversation | None = None

    def connectionLost(self, reason: Any = None) -> None:
        """Gone.  A certificate that was refused is told first: Autobahn only knows that there was no WebSocket."""
        text = untrusted(getattr(reason, "value", None))
        if text:
            log.warning("link.refused", peer=self.factory.url, reason=Reason.WRONG_CERTIFICATE, text=text, by="us")
            self.factory.refused(Refusal(Reason.WRONG_CERTIFICATE, text))
        super().connectionLost(reason)

    def onOpen(self) -> None:
        """The WebSocket is there; now the peers prove themselves."""
        self.widen()
        self.registerProducer(self, True)
        self.conversation = self.factory.converse(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """A frame."""
        if self.conversation is not None:
            self.conversation.received(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """The connection is gone, or never came to be."""
        self.factory.closed(str(reason or ""))
        if self.conversation is not None:
            self.conversation.lost()

    # -- Channel ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Hang up."""
        self.dropConnection()

    # -- IPushProducer: the transport's buffer is full, or empty again --------------------------------

    def pauseProducing(self) -> None:
        """Full."""
        if self.conversation is not None:
            self.conversation.paused()

    def resumeProducing(self) -> None:
        """Empty again."""
        if self.conversation is not None:
            self.conversation.resumed()

    def stopProducing(self) -> None:
        """Gone; :meth:`onClose` follows."""


class LinkClientFactory(WebSocketClientFactory):
    """Makes one connection.

    :param ready: fires with its conversation.
    """

    noisy = False

    def __init__(
        self, url: str, clock: Clock, listener: Listener, identity: Identity, secret: bytes, ready: Deferred[Conversation]
    ) -> None:
        super().__init__(url=url, protocols=[SUBPROTOCOL], useragent=None, reactor=clock)
        self.protocol = LinkClient
        # Masking (RFC 6455 section 5.3) is there against proxies on the way; on a unix socket there is no way.
        self.setProtocolOptions(**OPTIONS, maskClientFrames=self.isSecure)
        self._made = (clock, listener, identity, secret)
        self._ready: Deferred[Conversation] | None = ready

    def converse(self, channel: LinkClient) -> Conversation:
        """For the protocol: begin."""
        conversation = Conversation(channel, *self._made, binding_of(channel.transport), peer=self.url)
        conversation.ready.addCallbacks(self._agreed, self._failed, callbackArgs=(conversation,))
        return conversation

    def refused(self, refusal: Refusal) -> None:
        """For the protocol: the other side is not who it should be."""
        self._failed(refusal)

    def closed(self, reason: str) -> None:
        """For the protocol: the connection is gone."""
        self._failed(LinkLost(reason))

    def _agreed(self, _: Agreed, conversation: Conversation) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.callback(conversation)

    def _failed(self, reason: Any) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.errback(reason)


def connector(
    endpoint: Any, clock: Clock, identity: Identity, secret: bytes, *, older: Sequence[bytes] = (), url: str = "ws://primary/"
) -> Connect:
    """Connects through an endpoint, such as :class:`~twisted.internet.endpoints.UNIXClientEndpoint` or
    :func:`~fe_twisted.clients.link.tls.tls_endpoint`.

    :param clock: the reactor.
    :param secret: the link secret.
    :param older: others to try, each in its turn, with a primary that refuses the one before: it may not have the newest yet.
    :param url: what is said in the WebSocket handshake; ``wss://`` for TLS.
    """
    secrets = deque([secret, *older])

    def refused(failure: Failure) -> Failure:
        if isinstance(failure.value, Refusal) and failure.value.reason == Reason.WRONG_SECRET:
            secrets.rotate(-1)
        return failure

    def connect(listener: Listener) -> Deferred[Conversation]:
        protocols: list[LinkClient] = []
        connecting: Any = None

        def give_up(_: Any) -> None:
            connecting.cancel()
            for protocol in protocols:
                protocol.dropConnection(abort=True)

        ready: Deferred[Conversation] = Deferred(give_up)
        ready.addErrback(refused)
        factory = LinkClientFactory(url, clock, listener, identity, secrets[0], ready)
        connecting = endpoint.connect(factory)
        connecting.addCallbacks(protocols.append, factory._failed)
        return ready

    return connect
