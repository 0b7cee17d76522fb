"""Real TLS over memory: STARTTLS and implicit TLS without a socket."""

from __future__ import annotations

import datetime
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import directlyProvides

from fe_twisted.app.certificates import create_certificate
from fe_twisted.servers.imap.protocol import ImapProtocol
from fe_twisted.servers.tls import ServerTLS


def server_tls(path: Path) -> ServerTLS:
    certificate, key = path / "cert.pem", path / "key.pem"
    create_certificate(certificate, key, "mail.example.com", datetime.datetime.now(datetime.UTC))
    return ServerTLS(certificate, key)


class Wire(StringTransport):
    """What the server sees as its socket; once TLS has begun, octets pass through it like in ``twisted.internet.tcp``."""

    def __init__(self, protocol: ImapProtocol) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.1", 4711), lenient=True)
        self.protocol = protocol
        self._tls: TLSMemoryBIOProtocol | None = None
        self._raw = StringTransport(lenient=True)

    def startTLS(self, creator: ServerTLS) -> None:
        # Not the factory's own protocol class, which collects small writes until the reactor's next turn.
        self._tls = TLSMemoryBIOProtocol(TLSMemoryBIOFactory(creator, False, None), self.protocol, False)
        directlyProvides(self, ISSLTransport)
        self._tls.makeConnection(self._raw)

    def getHandle(self) -> object:
        return self._tls.getHandle() if self._tls else None

    def write(self, data: bytes) -> None:
        if self._tls is None:
            self._raw.write(data)
        else:
            self._tls.write(data)

    def arrive(self, data: bytes) -> None:
        """Octets from the network."""
        (self._tls or self.protocol).dataReceived(data)

    def departed(self) -> bytes:
        """Octets to the network."""
        data = self._raw.value()
        self._raw.clear()
        return bytes(data)


class TlsClient:
    """The client's end of a :class:`Wire`: plain until :meth:`handshake`."""

    def __init__(self, protocol: ImapProtocol) -> None:
        self.wire = Wire(protocol)
        protocol.makeConnection(self.wire)
        self.connection: SSL.Connection | None = None

    def handshake(self) -> None:
        """A client's TLS handshake, to its end."""
        context = SSL.Context(SSL.TLS_METHOD)
        self.connection = SSL.Connection(context, None)
        self.connection.set_connect_state()
        for _ in range(10):
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                self._exchange()
            else:
                self._exchange()
                return
        raise AssertionError("the handshake did not end")

    def _exchange(self) -> None:
        assert self.connection is not None
        try:
            while True:
                self.wire.arrive(self.connection.bio_read(65_536))
        except SSL.WantReadError:
            pass
        if data := self.wire.departed():
            self.connection.bio_write(data)

    def send(self, data: bytes) -> None:
        if self.connection is None:
            self.wire.arrive(data)
        else:
            self.connection.send(data)
            self._exchange()

    def take(self) -> bytes:
        if self.connection is None:
            return self.wire.departed()
        self._exchange()
        received = b""
        try:
            while True:
                received += self.connection.recv(65_536)
        except (SSL.WantReadError, SSL.ZeroReturnError):
            return received
