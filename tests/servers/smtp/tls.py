"""A client that speaks real TLS with the server, in memory."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from fe_twisted.servers.smtp.mx import MxProtocol
from tests.servers.smtp.world import World


class Upgradable(StringTransport):
    """A transport whose startTLS does what Twisted's TCP transport does: a TLS protocol comes between it and the application."""

    tls: TLSMemoryBIOProtocol | None = None
    protocol: MxProtocol

    def startTLS(self, creator: Any) -> None:
        """Put TLS below the protocol."""
        self.lower = StringTransport()
        self.tls = TLSMemoryBIOProtocol(TLSMemoryBIOFactory(creator, False, None), self.protocol, False)  # type: ignore[arg-type]
        self.getHandle = self.tls.getHandle
        self.tls.makeConnection(self.lower)

    def write(self, data: bytes) -> None:
        """In the clear before startTLS, encrypted after."""
        if self.tls is None:
            super().write(data)
        else:
            self.tls.write(data)

    def loseConnection(self) -> None:
        """As TCP's."""
        super().loseConnection()
        if self.tls is not None:
            self.tls.loseConnection()


class TLSClient:
    """pyOpenSSL over memory buffers against a :class:`World`."""

    def __init__(self, world: World) -> None:
        self.protocol = world.factory.buildProtocol(None)
        self.protocol.id = "c0ffee"
        self.transport = Upgradable(peerAddress=IPv4Address("TCP", "192.0.2.7", 40000))
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)
        self.tls = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        self.tls.set_connect_state()

    def clear(self, data: bytes) -> str:
        """Send before TLS; what the server answers in the clear."""
        self.protocol.dataReceived(data)
        text = self.transport.value().decode()
        self.transport.clear()
        return text

    def _exchange(self) -> None:
        while True:
            try:
                self._below().dataReceived(self.tls.bio_read(65536))
            except SSL.WantReadError:
                break
        answer = self.transport.lower.value()
        self.transport.lower.clear()
        if answer:
            self.tls.bio_write(answer)

    def _below(self) -> TLSMemoryBIOProtocol:
        assert self.transport.tls is not None
        return self.transport.tls

    def handshake(self) -> None:
        """To its end."""
        for _ in range(10):
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self._exchange()
            else:
                self._exchange()
                return
        raise AssertionError("no end of the handshake")

    def send(self, data: bytes) -> str:
        """Send inside TLS (nothing, to hear whether the server says something by itself)."""
        if data:
            self.tls.send(data)
        self._exchange()
        try:
            return self.tls.recv(65536).decode()
        except SSL.WantReadError:
            return ""
