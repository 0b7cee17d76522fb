"""A cheap IMAP client: it sends a line and reads up to the tagged answer, and looks at nothing on the way."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from types import TracebackType

TAG = b"zq7"


class Refused(Exception):
    """The answer was not OK."""


class Imap:
    """One connection.

    :param tls: over TLS; the certificate is not looked at.
    """

    def __init__(self, port: int, *, tls: bool = False) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", port), 300)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
        self._buffer = bytearray()
        self.greeting = self.read_line()

    def __enter__(self) -> Imap:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self.socket.close()

    def login(self, user: str, password: str) -> None:
        """LOGIN."""
        self.command(f"LOGIN {user} {password}")

    def command(self, text: str) -> bytes:
        """Send a command; everything up to and with the tagged line.

        :raises Refused: NO or BAD.
        """
        self.socket.sendall(TAG + b" " + text.encode() + b"\r\n")
        return self.answer()

    def answer(self) -> bytes:
        """Read to the tagged line."""
        buffer, begin = self._buffer, TAG + b" "
        while True:
            if buffer.endswith(b"\r\n"):
                start = buffer.rfind(b"\r\n", 0, -2) + 2 if len(buffer) > 2 else 0
                start = 0 if start == 1 else start
                if buffer.startswith(begin, start):
                    self._buffer = bytearray()
                    if not buffer.startswith(b"OK", start + len(begin)):
                        raise Refused(bytes(buffer[start:]).decode("latin-1"))
                    return bytes(buffer)
            buffer += self._receive()

    def send_line(self, text: str) -> None:
        """Send a command and do not wait."""
        self.socket.sendall(TAG + b" " + text.encode() + b"\r\n")

    def send(self, data: bytes) -> None:
        """Send octets."""
        self.socket.sendall(data)

    def read_line(self) -> bytes:
        """One line of the answer."""
        while b"\r\n" not in self._buffer:
            self._buffer += self._receive()
        line, _, rest = bytes(self._buffer).partition(b"\r\n")
        self._buffer = bytearray(rest)
        return line

    def drain(self) -> int:
        """Throw away what has come; how many octets."""
        octets = len(self._buffer)
        self._buffer = bytearray()
        while select.select([self.socket], [], [], 0)[0]:
            octets += len(self._receive())
        return octets

    def _receive(self) -> bytes:
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server hung up")
        return data
