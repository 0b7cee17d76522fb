"""Many IMAP sessions that wait: ``python -m bench.crowd PORT SESSIONS ADDRESS USER PASSWORD [USER PASSWORD …]``.

Each is over TLS, logged in, has INBOX selected and is in IDLE.  ``ready SECONDS`` is printed when all are; for each line of the standard
input, ``heard N SECONDS`` when all have been told something, or after a minute; at its end they hang up.
"""

from __future__ import annotations

import resource
import selectors
import socket
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

#: Logins that go on at once.
THREADS = 16

#: Seconds in which all should have heard.
PATIENCE = 60.0


class Crowd:
    """All sessions of this process.

    :param address: of loopback, to come from: one has some 28,000 ports at most, and a limit of the server is for each address.
    """

    def __init__(self, port: int, address: str, users: list[tuple[str, str]]) -> None:
        self._port = port
        self._address = address
        self._users = users
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._lock = threading.Lock()
        self._sockets: list[ssl.SSLSocket] = []

    def enter(self, sessions: int) -> float:
        """So many sessions; the seconds that it took."""
        began = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._session, range(sessions)))
        return time.perf_counter() - began

    def _session(self, number: int) -> None:
        plain = socket.create_connection(("127.0.0.1", self._port), 300, source_address=(self._address, 0))
        connection = self._context.wrap_socket(plain)
        user, password = self._users[number % len(self._users)]
        self._until(connection, b"* OK")
        for command, answer in ((f"a LOGIN {user} {password}", b"a OK"), ("b SELECT INBOX", b"b OK"), ("c IDLE", b"+ ")):
            connection.sendall(command.encode() + b"\r\n")
            self._until(connection, answer)
        connection.setblocking(False)
        with self._lock:
            self._sockets.append(connection)

    @staticmethod
    def _until(connection: ssl.SSLSocket, begin: bytes) -> None:
        """Read up to a line that begins so.

        :raises RuntimeError: another answer.
        """
        data = b""
        while not any(line.startswith(begin) and data.endswith(b"\n") for line in data.split(b"\r\n")):
            more = connection.recv(16_384)
            if not more or b" NO " in more or b" BAD " in more:
                raise RuntimeError(f"{begin!r} was expected, and not {(data + more)[-200:]!r}")
            data += more

    def listen(self) -> tuple[int, float]:
        """Until all have heard of something: how many have, and the seconds to the last."""
        began = last = time.perf_counter()
        heard: set[int] = set()
        with selectors.DefaultSelector() as selector:
            for each in self._sockets:
                selector.register(each, selectors.EVENT_READ)
            while len(heard) < len(self._sockets) and time.perf_counter() - began < PATIENCE:
                for key, _ in selector.select(1):
                    connection: ssl.SSLSocket = key.fileobj  # type: ignore[assignment]
                    try:
                        data = connection.recv(16_384)
                    except ssl.SSLWantReadError:
                        continue
                    if b"EXISTS" in data:
                        heard.add(key.fd)
                        last = time.perf_counter()
                    if not data:
                        selector.unregister(connection)
        return len(heard), last - began


def main() -> int:
    port, sessions, address, *users = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    crowd = Crowd(int(port), address, list(zip(users[::2], users[1::2], strict=True)))
    print(f"ready {crowd.enter(int(sessions)):.3f}", flush=True)
    for _ in sys.stdin:
        heard, seconds = crowd.listen()
        print(f"heard {heard} {seconds:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
