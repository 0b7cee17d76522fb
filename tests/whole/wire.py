"""Sockets for dialogues by hand: what no client library would send."""

from __future__ import annotations

import re
import socket
import ssl
import time
from types import TracebackType
from typing import Self

from tests.whole.daemon import PATIENCE, Daemon, Owner, trusting


class Wire:
    """A connection with a reader that returns lines."""

    def __init__(self, port: int, tls: bool = False, timeout: float = PATIENCE) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self._scanned = 0
        if tls:
            self.start_tls()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start_tls(self, context: ssl.SSLContext | None = None) -> None:
        """The client's side of the handshake."""
        self.socket = (context or trusting()).wrap_socket(self.socket, server_hostname="localhost")

    def send(self, data: bytes) -> None:
        """All of it."""
        self.socket.sendall(data)

    def _more(self) -> bool:
        data = self.socket.recv(262144)
        self.buffer += data
        return bool(data)

    def line(self) -> bytes:
        """The next line without its line end; what is left at the end of the connection."""
        while True:
            end = self.buffer.find(b"\n", self._scanned)
            if end >= 0:
                break
            self._scanned = len(self.buffer)
            if not self._more():
                line, self.buffer, self._scanned = bytes(self.buffer), bytearray(), 0
                return line
        line = bytes(self.buffer[: end + 1])
        del self.buffer[: end + 1]
        self._scanned = 0
        return line.removesuffix(b"\n").removesuffix(b"\r")

    def octets(self, count: int) -> bytes:
        """Exactly so many."""
        while len(self.buffer) < count:
            if not self._more():
                raise EOFError
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        self._scanned = 0
        return taken

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        while self._more():
            pass
        rest, self.buffer, self._scanned = bytes(self.buffer), bytearray(), 0
        return rest

    def closed(self) -> bool:
        """Whether the other side ends the connection, within the time-out, and sends nothing before."""
        try:
            return self.rest() == b""
        except (ConnectionResetError, ssl.SSLError):
            return True

    def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for so long."""
        if self.buffer:
            return False
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            return not self._more()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(before)

    def close(self) -> None:
        """End the connection."""
        self.socket.close()


class Smtp(Wire):
    """SMTP by hand: the greeting is read, nothing is sent."""

    def __init__(self, daemon: Daemon, timeout: float = PATIENCE) -> None:
        super().__init__(daemon.port("mx"), timeout=timeout)
        self.greeting = self.reply()

    def reply(self) -> bytes:
        """One reply, its lines joined by LF; empty at the end of the connection."""
        lines = [self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(self.line())
        return b"\n".join(lines)

    def ask(self, command: bytes) -> bytes:
        """One command and its reply."""
        self.send(command + b"\r\n")
        return self.reply()

    def hello(self) -> bytes:
        """EHLO."""
        reply = self.ask(b"EHLO client.example.net")
        assert reply.startswith(b"250"), reply
        return reply

    def envelope(self, *recipients: str, sender: bytes = b"<sender@example.net>") -> None:
        """EHLO, MAIL and RCPT, all accepted."""
        self.hello()
        assert self.ask(b"MAIL FROM:" + sender).startswith(b"250")
        for recipient in recipients:
            reply = self.ask(b"RCPT TO:<" + recipient.encode() + b">")
            assert reply.startswith(b"250"), reply

    def data(self, content: bytes) -> bytes:
        """DATA with a content that needs no dot-stuffing; the reply to its end."""
        assert self.ask(b"DATA").startswith(b"354")
        self.send(content + b".\r\n")
        return self.reply()


class Imap(Wire):
    """IMAP by hand over TLS: the greeting is read."""

    def __init__(
        self, daemon: Daemon, owner: Owner | None = None, folder: str | None = None, timeout: float = PATIENCE, door: str = "imaps"
    ) -> None:
        super().__init__(daemon.port(door), tls=door == "imaps", timeout=timeout)
        self.greeting = self.line()
        self._tag = 0
        if owner is not None:
            answer = self.ask(f"LOGIN {owner.address} {owner.password}".encode())
            assert b"OK" in answer[-1], answer
        if folder is not None:
            answer = self.ask(f'SELECT "{folder}"'.encode())
            assert b"OK" in answer[-1], answer

    def response(self) -> bytes:
        """One response with its literals, without the final line end."""
        whole = self.line()
        while found := re.search(rb"\{(\d+)\}\Z", whole):
            whole += b"\r\n" + self.octets(int(found[1]))
            whole += self.line()
        return whole

    def command(self, text: bytes) -> bytes:
        """Send one with a new tag, which is returned."""
        self._tag += 1
        tag = b"t%d" % self._tag
        self.send(tag + b" " + text + b"\r\n")
        return tag

    def until(self, tag: bytes) -> list[bytes]:
        """Responses up to the one with this tag."""
        answer: list[bytes] = []
        while True:
            answer.append(self.response())
            if answer[-1].startswith(tag + b" ") or not answer[-1]:
                return answer

    def ask(self, text: bytes) -> list[bytes]:
        """One command; all responses up to its tagged one."""
        return self.until(self.command(text))

    def append(self, content: bytes, folder: str = "INBOX", arguments: bytes = b"") -> list[bytes]:
        """APPEND with a synchronising literal."""
        tag = self.command(b'APPEND "' + folder.encode() + b'" ' + arguments + b"{%d}" % len(content))
        first = self.response()
        if not first.startswith(b"+"):
            return [first]
        self.send(content + b"\r\n")
        return self.until(tag)

    def idle(self) -> bytes:
        """Start IDLE; the tag."""
        tag = self.command(b"IDLE")
        while not (line := self.response()).startswith(b"+"):
            assert line.startswith(b"*"), line
        return tag

    def done(self, tag: bytes) -> list[bytes]:
        """End IDLE."""
        self.send(b"DONE\r\n")
        return self.until(tag)

    def wait_for(self, pattern: bytes) -> float:
        """Read responses until one matches; the time at which it came (``time.monotonic``)."""
        while True:
            response = self.response()
            assert response, "the connection ended"
            if re.search(pattern, response):
                return time.monotonic()
