"""The secondary's end on Autobahn: a WebSocket client without any of the library's unlimited defaults."""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred

from fe_twisted.base.clock import Clock
from fe_twisted.clients.link.conversation import Conversation, LinkLost, Listener
from fe_twisted.clients.link.link import Connect
from fe_twisted.clients.link.tls import binding_of
from fe_twisted.protocols.cluster.frames import MAX_MESSAGE, PIECE
from fe_twisted.protocols.cluster.handshake import Agreed, Identity

#: The WebSocket subprotocol.
SUBPROTOCOL = "forwardemail.link"

#: Seconds between two pings when nothing else comes, and seconds that the answer may take: a peer that was stopped for five seconds keeps
#: its connections, a dead one is noticed.
PING, PONG = 5, 15

#: Seconds for the WebSocket handshake, and for the closing one.
OPEN, CLOSE = 5, 1

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
    """Autobahn's hooks without its log arguments and listeners, which took a third of the time of a small message."""

    transport: Any

    def widen(self: Any) -> None:
        """Read and write more at once than Twisted does by itself: a piece in few turns of the reactor."""
        self.transport.bufferSize = self.transport.SEND_LIMIT = PIECE

    def dataReceived(self: Any, data: bytes) -> None:
        """Octets have come."""
        self._dataReceived(data)

    def sendData(self: Any, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Octets are to be sent; the library's ways of sending them slowly are not used here."""
        self.transport.write(data)

    def onMessageEnd(self: Any) -> None:
        """A message is complete."""
        pieces = self.message_data
        if not self.failedByMe:
            self.onMessage(b"".join(pieces), self.message_is_binary)

    def write(self: Any, message: bytes) -> None:
        """Send a frame of the link as a binary message; after the end, nothing happens."""
        if self.state == self.STATE_OPEN:
            self.sendFrame(opcode=2, payload=message)


class LinkClient(Lean, WebSocketClientProtocol):  # type: ignore[misc]  # Autobahn's own two bases do not agree
    """One connection.  What Autobahn calls has Autobahn's names."""

    conversation: Conversation | None = None

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


def connector(endpoint: Any, clock: Clock, identity: Identity, secret: bytes, *, url: str = "ws://primary/") -> Connect:
    """Connects through an endpoint, such as :class:`~twisted.internet.endpoints.UNIXClientEndpoint` or
    :func:`~fe_twisted.clients.link.tls.tls_endpoint`.

    :param clock: the reactor.
    :param secret: the link secret.
    :param url: what is said in the WebSocket handshake; ``wss://`` for TLS.
    """

    def connect(listener: Listener) -> Deferred[Conversation]:
        protocols: list[LinkClient] = []
        connecting: Any = None

        def give_up(_: Any) -> None:
            connecting.cancel()
            for protocol in protocols:
                protocol.dropConnection(abort=True)

        ready: Deferred[Conversation] = Deferred(give_up)
        factory = LinkClientFactory(url, clock, listener, identity, secret, ready)
        connecting = endpoint.connect(factory)
        connecting.addCallbacks(protocols.append, factory._failed)
        return ready

    return connect
