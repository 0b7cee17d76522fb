"""A cheap IMAP client: it sends a line and reads up to the tagged answer, and looks at nothing on the way."""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import ssl
from collections.abc import Iterable, Iterator
from types import TracebackType

TAG = b"zq7"
_BLOCK = 256 << 10


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
        self._chunks: list[bytes] = []
        self._end = b""
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

    def command(self, text: str) -> list[bytes]:
        """Send a command; everything up to and with the tagged line, in pieces as they came.

        :raises Refused: NO or BAD.
        """
        self.send_line(text)
        return self.answer()

    def answer(self) -> list[bytes]:
        """Read to the tagged line."""
        while not self.read():
            pass
        return self.taken()

    def read(self) -> bool:
        """Take what is there, waiting if there is nothing; whether the answer is complete.

        :raises Refused: it is complete, and NO or BAD.
        """
        data = self._receive()
        self._chunks.append(data)
        end = self._end = data[-1024:] if len(data) >= 1024 else self._end[-1024:] + data
        if not end.endswith(b"\r\n"):
            return False
        line = end[end.rfind(b"\r\n", 0, -2) + 2 :] if b"\r\n" in end[:-2] else end
        if not line.startswith(TAG + b" "):
            return False
        if not line.startswith(b"OK", len(TAG) + 1):
            self.taken()
            raise Refused(line.decode("latin-1").strip())
        return True

    def taken(self) -> list[bytes]:
        """What was read since the last answer."""
        chunks, self._chunks, self._end = self._chunks, [], b""
        return chunks

    def send_line(self, text: str) -> None:
        """Send a command and do not wait."""
        self.socket.sendall(TAG + b" " + text.encode() + b"\r\n")

    def send(self, data: bytes) -> None:
        """Send octets."""
        self.socket.sendall(data)

    def read_line(self) -> bytes:
        """One line of the answer."""
        data = b"".join(self.taken())
        while b"\r\n" not in data:
            data += self._receive()
        line, _, rest = data.partition(b"\r\n")
        self._chunks = [rest] if rest else []
        return line

    def drain(self) -> int:
        """Throw away what has come; how many octets."""
        octets = sum(map(len, self.taken()))
        while select.select([self.socket], [], [], 0)[0]:
            octets += len(self._receive())
        return octets

    def _receive(self) -> bytes:
        data = self.socket.recv(_BLOCK)
        if not data:
            raise ConnectionError("the server hung up")
        return data


def in_parallel(clients: Iterable[Imap], commands: Iterable[Iterator[str]]) -> list[bytes]:
    """Each client sends its commands one after the other, all clients at once; every client's answers, joined."""
    selector = selectors.DefaultSelector()
    left: dict[Imap, tuple[Iterator[str], list[bytes]]] = {}
    for client, lines in zip(clients, commands, strict=True):
        left[client] = (lines, [])
        client.send_line(next(lines))
        selector.register(client.socket, selectors.EVENT_READ, client)
    while selector.get_map():
        for key, _ in selector.select():
            client = key.data
            if not client.read():
                continue
            lines, answers = left[client]
            answers += client.taken()
            line = next(lines, None)
            if line is None:
                selector.unregister(key.fileobj)
            else:
                client.send_line(line)
    return [b"".join(answers) for _, answers in left.values()]
