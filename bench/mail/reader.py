"""An IMAP client that costs little: raw TLS socket, answers read whole and looked at after the clock has stopped."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import time

from tests.whole.daemon import trusting


class Reader:
    """One session."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        plain = socket.create_connection(("127.0.0.1", port), 300)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = (context or trusting()).wrap_socket(plain, server_hostname="localhost")
        self._tag = 0
        self._receive(b"* ")

    def _receive(self, start: bytes) -> bytes:
        """Until the last line begins with ``start``."""
        chunks: list[bytes] = []
        tail = b""
        while True:
            chunk = self.socket.recv(262144)
            if not chunk:
                raise SystemExit(f"the server ended the connection: {tail[-200:]!r}")
            chunks.append(chunk)
            tail = (tail + chunk)[-4096:]
            if tail.endswith(b"\r\n") and tail[tail.rfind(b"\n", 0, -1) + 1 :].startswith(start):
                return b"".join(chunks)

    def ask(self, command: str) -> bytes:
        """One command; its whole answer, which must be OK."""
        self._tag += 1
        tag = f"t{self._tag}"
        self.socket.sendall(f"{tag} {command}\r\n".encode())
        answer = self._receive(f"{tag} ".encode())
        last = answer.rstrip(b"\r\n").rpartition(b"\r\n")[2]
        if not last.startswith(f"{tag} OK".encode()):
            raise SystemExit(f"{command[:40]}: {last!r}")
        return answer

    def timed(self, command: str) -> tuple[float, bytes]:
        """Seconds and the answer."""
        started = time.perf_counter()
        answer = self.ask(command)
        return time.perf_counter() - started, answer

    def start_idle(self) -> None:
        """IDLE, and wait for the continuation."""
        self._tag += 1
        self.socket.sendall(f"t{self._tag} IDLE\r\n".encode())
        self._receive(b"+")

    def close(self) -> None:
        """End it."""
        self.socket.close()


def exists(answer: bytes) -> int:
    """The number of messages that SELECT told."""
    found = re.search(rb"\* (\d+) EXISTS", answer)
    return int(found[1]) if found else -1


def fetched(answer: bytes) -> int:
    """How many FETCH responses an answer without literals holds."""
    return len(re.findall(rb"^\* \d+ FETCH ", answer, re.MULTILINE))


def literals(answer: bytes) -> list[bytes]:
    """The literal of each FETCH response of an answer to ``FETCH … BODY.PEEK[]``."""
    found = []
    at = 0
    while (match := re.compile(rb"\* \d+ FETCH [^\r\n]*\{(\d+)\}\r\n").search(answer, at)) is not None:
        size = int(match[1])
        found.append(answer[match.end() : match.end() + size])
        at = match.end() + size
    return found


def digests(contents: list[bytes], start: bytes = b"From: Sender ") -> set[bytes]:
    """SHA-256 of each message from its first own field on, so that trace fields do not count."""
    return {hashlib.sha256(content[content.index(start) :]).digest() for content in contents}
