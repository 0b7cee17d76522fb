"""Sends mail as fast as a server takes it and prints one JSON object.

A process of its own, with one epoll loop and no TLS, so that it costs the machine little.  A connection for each message as Postfix's
``smtp-source`` makes them, or with ``--reuse`` as many messages on a connection as the server takes, MAIL, RCPT and DATA in one segment.

Messages are unlike each other: text of random words (which compresses as text does), every fourth with an attachment that does not
compress.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import random
import select
import socket
import sys
import time
from dataclasses import dataclass, field

_SYLLABLES = [first + vowel for first in (*"bcdfghklmnprstvw", "st", "tr", "br") for vowel in ("a", "e", "i", "o", "u", "ai", "ou")]


def _vocabulary(count: int) -> list[str]:
    """Words of one to four syllables, always the same."""
    chance = random.Random(1)
    return ["".join(chance.choices(_SYLLABLES, k=chance.choice((1, 2, 2, 3, 3, 4)))) for _ in range(count)]


#: Words and how often each is used, by Zipf's law as in a language.
_WORDS = _vocabulary(8000)
_WEIGHTS = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(_WORDS))))


def bodies(size: int, count: int = 200) -> list[bytes]:
    """Bodies, each of about ``size`` octets with its own MIME header."""
    made = []
    for number in range(count):
        chance = random.Random(number)
        lines: list[str] = []
        room = size - 700
        text = room // 4 if number % 4 == 0 else room
        while text > 0:
            lines.append(" ".join(chance.choices(_WORDS, cum_weights=_WEIGHTS, k=12)))
            text -= len(lines[-1]) + 2
        plain = "\r\n".join(lines) + "\r\n"
        if number % 4:
            made.append(f"Content-Type: text/plain; charset=utf-8\r\n\r\n{plain}".encode())
            continue
        attached = base64.encodebytes(chance.randbytes(room * 3 // 4 * 3 // 4)).replace(b"\n", b"\r\n")
        made.append(
            b"Content-Type: multipart/mixed; boundary=b0undary\r\n\r\n--b0undary\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
            + plain.encode()
            + b"\r\n--b0undary\r\nContent-Type: application/octet-stream; name=data.bin\r\nContent-Transfer-Encoding: base64\r\n"
            + b"Content-Disposition: attachment; filename=data.bin\r\n\r\n"
            + attached
            + b"--b0undary--\r\n"
        )
    return made


def message(number: int, pool: list[bytes]) -> bytes:
    """The ``number``-th message; always the same for the same pool."""
    return (
        f"From: Sender {number % 97} <sender{number % 97}@example.net>\r\nTo: <bench@example.com>\r\n"
        f"Subject: Message {number} of the benchmark about {_WORDS[number % 5000]}\r\nDate: Mon, 01 Jan 2024 {number // 3600 % 24:02d}:"
        f"{number // 60 % 60:02d}:{number % 60:02d} +0000\r\nMessage-ID: <{number}@bench.example.net>\r\n"
        f"References: <{number // 5}@bench.example.net>\r\nMIME-Version: 1.0\r\n"
    ).encode() + pool[number % len(pool)]


@dataclass(slots=True, eq=False)
class Connection:
    """One session: what it still expects, and which message it sends."""

    socket: socket.socket
    state: str = "greeting"
    expected: int = 1
    buffer: bytearray = field(default_factory=bytearray)
    number: int = -1
    sent: int = 0


class Load:
    """All sessions in one epoll loop."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._port, self._to, self._lmtp, self._reuse = arguments.port, arguments.to.encode(), arguments.lmtp, arguments.reuse
        self._count = arguments.messages
        pool = bodies(arguments.size)
        self._messages = [message(number + arguments.first, pool) for number in range(self._count)]
        self._next = 0
        self._left = self._count
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        for _ in range(min(arguments.sessions, self._count)):
            self._open()

    def run(self) -> float:
        """Seconds until every message was accepted."""
        started = time.perf_counter()
        while self._left:
            for descriptor, _ in self._epoll.poll(60) or sys.exit("the server says nothing"):
                connection = self._connections.get(descriptor)
                if connection is not None:
                    self._read(connection)
        return time.perf_counter() - started

    def _open(self) -> None:
        connection = Connection(socket.create_connection(("127.0.0.1", self._port), 60))
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        descriptor = connection.socket.fileno()
        self._connections[descriptor] = connection
        self._epoll.register(descriptor, select.EPOLLIN)

    def _close(self, connection: Connection) -> None:
        descriptor = connection.socket.fileno()
        self._epoll.unregister(descriptor)
        del self._connections[descriptor]
        connection.socket.close()

    def _read(self, connection: Connection) -> None:
        data = connection.socket.recv(65536)
        if not data:
            sys.exit(f"the server ended the connection in state {connection.state}")
        connection.buffer += data
        while (end := connection.buffer.find(b"\n")) >= 0:
            line = bytes(connection.buffer[:end])
            del connection.buffer[: end + 1]
            if line[3:4] == b"-":
                continue
            if line.startswith(b"421") and connection.state == "envelope" and connection.expected == 3:
                # It wants no more messages on this connection.
                self._count_back(connection)
                self._close(connection)
                self._open()
                return
            if line[:1] not in b"23":
                sys.exit(f"in state {connection.state}: {line.decode()}")
            connection.expected -= 1
            if connection.expected == 0 and not self._advance(connection):
                return

    def _count_back(self, connection: Connection) -> None:
        self._messages.append(self._messages[connection.number])
        self._count += 1

    def _advance(self, connection: Connection) -> bool:
        """The next step of a session; False when it is over."""
        state = connection.state
        if state == "greeting":
            self._say(connection, "hello", b"LHLO client.example.net\r\n" if self._lmtp else b"EHLO client.example.net\r\n", 1)
        elif state in ("hello", "content"):
            self._left -= state == "content"
            if state == "content" and not self._reuse:
                self._say(connection, "quit", b"QUIT\r\n", 1)
            elif self._next < self._count:
                self._envelope(connection)
            else:
                self._say(connection, "quit", b"QUIT\r\n", 1)
        elif state == "envelope":
            self._say(connection, "content", self._messages[connection.number] + b".\r\n", 1)
        elif state == "quit":
            self._close(connection)
            if self._next < self._count:
                self._open()
            return False
        return True

    def _envelope(self, connection: Connection) -> None:
        connection.number = self._next
        self._next += 1
        self._say(connection, "envelope", b"MAIL FROM:<sender@example.net>\r\nRCPT TO:<" + self._to + b">\r\nDATA\r\n", 3)

    def _say(self, connection: Connection, state: str, data: bytes, replies: int) -> None:
        connection.state, connection.expected = state, replies
        connection.socket.sendall(data)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="send mail as fast as a server takes it")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", default="bench@example.com")
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first message")
    parser.add_argument("--size", type=int, default=10240, help="octets of a message")
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--lmtp", action="store_true")
    parser.add_argument("--reuse", action="store_true", help="many messages on a connection")
    arguments = parser.parse_args()
    load = Load(arguments)
    seconds = load.run()
    print(json.dumps({"messages": arguments.messages, "seconds": seconds}))


if __name__ == "__main__":
    main()
