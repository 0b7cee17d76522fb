"""The other end of a link by hand: WebSocket frames of any content, over the unix socket or over TLS."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from fe_twisted.protocols.cluster.frames import Error, Frame, Refuse, Request, decode, encode
from fe_twisted.protocols.cluster.handshake import Agreed, Handshake, Identity
from tests.whole.daemon import PATIENCE

_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
)

BINARY, CLOSE = 2, 8


class Peer:
    """One connection.

    :param place: the path of a unix socket, or a port on 127.0.0.1, where TLS is spoken.
    :param source: the address to come from.
    """

    def __init__(self, place: Path | int, *, source: str = "127.0.0.1", patience: float = PATIENCE) -> None:
        self._last = 0
        self.binding = b""
        self._buffer = b""
        if isinstance(place, Path):
            self._socket: Any = socket.socket(socket.AF_UNIX)
            self._wait(self._socket, patience)
            self._socket.connect(str(place))
            return
        plain = socket.create_connection(("127.0.0.1", place), PATIENCE, source_address=(source, 0))
        plain.settimeout(None)
        self._wait(plain, patience)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._socket = SSL.Connection(context, plain)
        self._socket.set_connect_state()
        self._socket.do_handshake()
        self.binding = self._socket.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")

    @staticmethod
    def _wait(connection: socket.socket, seconds: float) -> None:
        """A limit that OpenSSL understands: it works on the descriptor itself."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), 0))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    # -- octets -------------------------------------------------------------------------------------

    def send(self, octets: bytes) -> None:
        """As they are; if nobody is there any more, nothing happens."""
        try:
            self._socket.sendall(octets)
        except (OSError, SSL.Error):
            return

    def receive(self) -> bytes:
        """What has come; empty at the end."""
        try:
            return bytes(self._socket.recv(65_536))
        except (ConnectionError, SSL.ZeroReturnError, SSL.SysCallError, SSL.Error) as error:
            assert not isinstance(error, SSL.WantReadError), "nothing came"
            return b""

    def ended(self) -> bool:
        """Whether the other side hangs up, whatever it says before."""
        while self.receive():
            pass
        return True

    def _octets(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = self.receive()
            if not data:
                raise EOFError
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    # -- WebSocket ----------------------------------------------------------------------------------

    def upgrade(self, subprotocol: bytes = b"forwardemail.link") -> bytes:
        """The WebSocket handshake; the first line of its answer."""
        self.send(_UPGRADE % subprotocol)
        while b"\r\n\r\n" not in self._buffer:
            data = self.receive()
            if not data:
                break
            self._buffer += data
        answer, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return answer.partition(b"\r\n")[0]

    def message(self, content: bytes, opcode: int = BINARY) -> None:
        """One message (RFC 6455 section 5.2), masked with zeros."""
        size = len(content)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big") if size < 65_536 else b"\xff" + size.to_bytes(8)
        self.send(bytes([0x80 | opcode]) + length + bytes(4) + content)

    def next(self) -> bytes:
        """The next binary message.

        :raises EOFError: there is none.
        """
        while True:
            first, size = self._octets(2)
            size = int.from_bytes(self._octets(2 if size == 126 else 8), "big") if size > 125 else size
            content = self._octets(size)
            if first & 15 == BINARY:
                return content

    # -- the link -----------------------------------------------------------------------------------

    def prove(self, secret: bytes, identity: Identity | None = None) -> Agreed | Refuse:
        """The handshake of the link, all of it or up to a refusal."""
        assert self.upgrade().startswith(b"HTTP/1.1 101"), "no WebSocket"
        handshake = Handshake(identity or Identity("peer"), [secret], self.binding, calling=True)
        frames: list[Frame] = handshake.start()
        while handshake.agreed is None:
            for frame in frames:
                self.message(encode(frame))
            answer = self.next()
            frame = decode(answer)
            if isinstance(frame, Refuse):
                return frame
            frames = handshake.receive(frame, answer)
        return handshake.agreed

    def ask(self, method: str, mailbox: str = "", body: bytes = b"") -> Frame:
        """One question and the first frame of its answer."""
        self._last += 1
        self.message(encode(Request(self._last, method, mailbox, os.urandom(16), 1 << 20, len(body), body)))
        while getattr(answer := decode(self.next()), "id", self._last) != self._last:
            pass
        return answer

    def refused(self, questions: Sequence[tuple[str, str, bytes]]) -> list[str]:
        """Ask; the names of the errors, in the same order."""
        found = []
        for question in questions:
            answer = self.ask(*question)
            assert isinstance(answer, Error), f"{question} was answered: {answer}"
            found.append(answer.name)
        return found
