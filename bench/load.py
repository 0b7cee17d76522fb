"""An SMTP or LMTP client that does little but wait: ``python -m bench.load PORT MESSAGES [options]``, one JSON object out.

Like Postfix's ``smtp-source`` it keeps so many sessions busy with the dialogue of a client that does not pipeline; unlike it, its messages
are text with a realistic vocabulary, all different, and a session that is used again is left after as many messages as a server may want.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator

from bench.corpus import Words, plain

#: Messages in one session at most: below the limit of any server here.
PER_SESSION = 90


class _Session:
    """One connection: a list of what is still to be said, each after the reply to the one before."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.socket = socket.create_connection(("127.0.0.1", load.options.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._sent = 0
        self._steps = self._dialogue()

    def _dialogue(self) -> Iterator[bytes]:
        """What to say next; the caller has checked the reply to what was said before."""
        options = self._load.options
        yield b"LHLO client.example.org\r\n" if options.lmtp else b"EHLO client.example.org\r\n"
        limit = PER_SESSION if options.reuse else 1
        while self._sent < limit:
            content = self._load.next_message()
            if content is None:
                break
            self._sent += 1
            began = time.perf_counter()
            yield b"MAIL FROM:<sender@example.org>\r\n"
            yield b"RCPT TO:<" + options.recipient.encode() + b">\r\n"
            yield b"DATA\r\n"
            yield content
            self._load.times.append(time.perf_counter() - began)
        yield b"QUIT\r\n"

    def ready(self) -> bool:
        """Read; True when the session is over."""
        data = self.socket.recv(65536)
        self._buffer += data
        if not data:
            return True
        while True:
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                return False
            self._buffer = rest
            if line[:1] not in (b"2", b"3"):
                raise SystemExit(f"refused: {line.decode('latin-1')}")
            if line[3:4] == b"-":
                continue
            step = next(self._steps, None)
            if step is None:
                return True
            self.socket.sendall(step)


class Load:
    """All sessions together."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        words = Words(options.seed)
        ends = b"\r\n.\r\n"
        self._messages = iter([plain(number, options.size, words).removesuffix(b"\r\n") + ends for number in range(options.messages)])
        self._left = options.messages
        self.times: list[float] = []

    def next_message(self) -> bytes | None:
        """The next one to send, or None when all are under way."""
        self._left -= 1
        return next(self._messages, None)

    def run(self) -> float:
        """Send everything; the seconds that it took."""
        selector = selectors.DefaultSelector()

        def connect() -> None:
            session = _Session(self)
            selector.register(session.socket, selectors.EVENT_READ, session)

        began = time.perf_counter()
        for _ in range(min(self.options.connections, self.options.messages)):
            connect()
        while selector.get_map():
            for key, _ in selector.select():
                if key.data.ready():
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
                    if self._left > 0:
                        connect()
        return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("messages", type=int)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--size", type=int, default=10240, help="octets of each message")
    parser.add_argument("--recipient", default="hello@example.com")
    parser.add_argument("--reuse", action="store_true", help=f"up to {PER_SESSION} messages in a connection")
    parser.add_argument("--lmtp", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    load = Load(options)
    seconds = load.run()
    if len(load.times) != options.messages:
        print(f"{len(load.times)} of {options.messages} messages were accepted", file=sys.stderr)
        return 1
    print(json.dumps({"seconds": seconds, "times": load.times}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
