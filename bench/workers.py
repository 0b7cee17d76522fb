"""One process against several: the same mixed load by many clients, and mail for an owner who is connected to another worker.

The clients share the cores with the server, so they do next to nothing: ready-made commands, and a look for the end of each answer.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import selectors
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from bench import process, wire
from bench.corpus import Words, plain
from bench.imap import append, messages
from bench.ours import Ours
from bench.report import Report, Row
from bench.rows import Account

#: Processes that are compared; the first is what the ratio refers to.
WORKERS = (2, 0)
#: Aliases, IMAP clients of each, and senders of mail.
ALIASES, EACH, SENDERS = 10, 2, 2
#: How often each command comes in a hundred.
MIX = {"body": 40, "overview": 15, "flags": 5, "search": 5, "store": 15, "append": 10, "noop": 10}
#: Different messages of 10 KB that are appended and delivered, and rounds of the mix that a client has ready.
TEXTS, ROUNDS = 300, 4

#: Connections that bring mail for an owner who is connected, and messages in one turn.
CONNECTIONS, TURN = (1, 8), 125

#: Octets that are kept of an answer; longer than any last line.
TAIL = 4096


class _Client:
    """One connection and what it has to say."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.done = 0
        self.connect()

    def connect(self) -> None:
        """Begin with a connection of its own."""
        self.socket = socket.create_connection(("127.0.0.1", self._port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tail = b""

    def say(self) -> None:
        """Send the next command, which may be the first of a new connection."""
        command = self.next()
        self.socket.sendall(command)

    def hear(self) -> bool:
        """Read; whether an answer is complete."""
        data = self.socket.recv(262_144)
        if not data:
            raise RuntimeError(f"hung up after {self._tail!r}")
        self._tail = (self._tail + data)[-TAIL:] if len(data) < TAIL else data[-TAIL:]
        if not self._tail.endswith(b"\r\n") or not self.complete(self._tail[:-2].rpartition(b"\n")[2]):
            return False
        self._tail = b""
        return True

    def next(self) -> bytes:
        """The next command."""
        raise NotImplementedError

    def complete(self, line: bytes) -> bool:
        """Whether that is the last line of an answer."""
        raise NotImplementedError


class _Reader(_Client):
    """An IMAP client."""

    def __init__(self, server: Ours, user: str, password: str, count: int, seed: int, texts: Sequence[bytes]) -> None:
        super().__init__(server.ports["imap"])
        for command in (f"LOGIN {user} {password}", "SELECT INBOX"):
            self.socket.sendall(f"{wire.TAG.decode()} {command}\r\n".encode())
            while not self.hear():
                pass
        self._commands = itertools.cycle(_commands(count, seed, texts))

    def next(self) -> bytes:
        """See :class:`_Client`."""
        return next(self._commands)

    def complete(self, line: bytes) -> bool:
        """See :class:`_Client`."""
        if not line.startswith(wire.TAG):
            return False
        if not line.startswith(wire.TAG + b" OK"):
            raise RuntimeError(line.decode())
        self.done += 1
        return True


def _commands(count: int, seed: int, texts: Sequence[bytes]) -> list[bytes]:
    """A few rounds of the mix for a mailbox of so many messages, ready to be sent."""
    choose = random.Random(seed)
    kinds = [kind for kind, times in MIX.items() for _ in range(times)]
    made: list[bytes] = []
    for _ in range(ROUNDS):
        choose.shuffle(kinds)
        made += (_command(kind, choose.randrange(1, count + 1), choose, texts) for kind in kinds)
    return made


def _command(kind: str, uid: int, choose: random.Random, texts: Sequence[bytes]) -> bytes:
    if kind == "append":
        content = choose.choice(texts)
        return b"%s APPEND Archive {%d+}\r\n%s\r\n" % (wire.TAG, len(content), content)
    text = {
        "body": f"UID FETCH {uid} (FLAGS BODY.PEEK[])",
        "overview": f"FETCH {max(1, uid - 50)}:{uid} (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)",
        "flags": "FETCH 1:* (UID FLAGS)",
        "search": f"UID SEARCH SUBJECT {choose.choice(texts)[2000:].split()[1].decode()} UNSEEN",
        "store": f"UID STORE {uid} {choose.choice('+-')}FLAGS.SILENT (\\Flagged)",
        "noop": "NOOP",
    }[kind]
    return b"%s %s\r\n" % (wire.TAG, text.encode())


class _Sender(_Client):
    """An SMTP client that keeps its connection for some messages."""

    def __init__(self, server: Ours, users: list[str], seed: int, texts: Sequence[bytes]) -> None:
        self._users = users
        self._texts = texts
        self._choose = random.Random(seed)
        self._steps: Iterator[bytes] = iter(())
        self._number = 0
        super().__init__(server.ports["mx"])

    def connect(self) -> None:
        """As any client, after the greeting."""
        super().connect()
        while not self.hear():
            pass

    def next(self) -> bytes:
        """See :class:`_Client`."""
        step = next(self._steps, None)
        if step is None:
            self._steps = self._message()
            step = next(self._steps)
        return step

    def _message(self) -> Iterator[bytes]:
        if self._number % 90 == 0:
            if self._number:
                self.socket.close()
                self.connect()
            yield b"EHLO client.example.org\r\n"
        self._number += 1
        yield b"MAIL FROM:<sender@example.org>\r\n"
        yield b"RCPT TO:<%s>\r\n" % self._choose.choice(self._users).encode()
        yield b"DATA\r\n"
        yield self._choose.choice(self._texts) + b".\r\n"
        self.done += 1

    def complete(self, line: bytes) -> bool:
        """See :class:`_Client`."""
        if line[:1] not in b"23":
            raise RuntimeError(line.decode())
        return line[3:4] == b" "


def run(report: Report, options: argparse.Namespace) -> None:
    """Both, in turns."""
    seconds, rounds, count = (4.0, 2, 200) if options.quick else (10.0, 5, 1000)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-workers-")))
        words = Words(1000)
        texts = [plain(number, 10_000, words) for number in range(TEXTS)]
        servers = {workers: _server(folder, workers, count, stack) for workers in WORKERS}
        rates: dict[int, list[float]] = {workers: [] for workers in WORKERS}
        costs: dict[int, list[float]] = {workers: [] for workers in WORKERS}
        writers: dict[int, list[float]] = {workers: [] for workers in WORKERS}
        for turn in range(rounds + 1):
            for workers, (server, owners) in servers.items():
                used, writing = process.cpu(server.pid), process.cpu(server.pid, alone=True)
                done = _mixed(server, owners, count, seconds, texts)
                if turn:
                    rates[workers].append(done / seconds)
                    costs[workers].append(1000 * (process.cpu(server.pid) - used) / done)
                    writers[workers].append(1000 * (process.cpu(server.pid, alone=True) - writing) / done)
        names = {workers: f"{workers} workers" if workers else "one process" for workers in WORKERS}
        figures = {names[workers]: statistics.median(each) for workers, each in rates.items()}
        report.add(Row("Workers", f"mixed load, {ALIASES * EACH} clients", "commands/s", figures, less_is_better=False))
        figures = {names[workers]: statistics.median(each) for workers, each in costs.items()}
        report.add(Row("Workers", "mixed load: processor", "ms/command", figures))
        # What there is only one of, however many cores: so many commands a second are the most that a box of any size can do.
        figures = {names[workers]: statistics.median(each) for workers, each in writers.items()}
        report.add(Row("Workers", "mixed load: processor, of the process that writes", "ms/command", figures))
        for connections in CONNECTIONS:
            _deliveries(report, servers, names, connections, 4 if options.quick else 16, texts)


def _server(folder: Path, workers: int, count: int, stack: contextlib.ExitStack) -> tuple[Ours, list[tuple[str, str]]]:
    """A server with aliases and mail."""
    place = folder / str(workers)
    place.mkdir()
    server = Ours(place, {"workers": str(workers)})
    stack.callback(server.stop)
    server.start()
    owners = [server.owner(f"owner{number}") for number in range(ALIASES)]
    prepared = messages(count)
    for user, password in owners:
        with wire.Imap(server.ports["imap"]) as client:
            client.login(user, password)
            account = Account("ours", lambda: client, server.pid, client, [], count)
            for first in range(0, count, 100):
                append(account, prepared[first : first + 100])
    return server, owners


def _mixed(server: Ours, owners: list[tuple[str, str]], count: int, seconds: float, texts: Sequence[bytes]) -> int:
    """Commands and messages that were answered in that time."""
    clients: list[_Client] = [
        _Reader(server, *owner, count, 10 * number + turn, texts) for number, owner in enumerate(owners) for turn in range(EACH)
    ]
    clients += [_Sender(server, [user for user, _ in owners], number, texts) for number in range(SENDERS)]
    until = time.monotonic() + seconds
    _go_on(clients, lambda: time.monotonic() < until)
    return sum(client.done for client in clients)


def _go_on(clients: Sequence[_Client], wanted: Callable[[], bool]) -> None:
    """Let them talk for as long as it is wanted, then hang up."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.done = 0
            client.say()
        while wanted():
            for key, _ in selector.select(1):
                client = key.data
                if client.hear():
                    before = client.socket
                    client.say()
                    if client.socket is not before:
                        selector.unregister(before)
                        selector.register(client.socket, selectors.EVENT_READ, client)
    for client in clients:
        client.socket.close()


def _unfinished(senders: Sequence[_Client]) -> bool:
    """Whether the messages of a turn are not all delivered."""
    return sum(sender.done for sender in senders) < TURN


def _deliveries(
    report: Report,
    servers: dict[int, tuple[Ours, list[tuple[str, str]]]],
    names: dict[int, str],
    connections: int,
    rounds: int,
    texts: Sequence[bytes],
) -> None:
    """Mail for an owner who is connected; with several workers the kernel chooses to which.

    In turns, so that both meet the same machine, and over all of them together: every hundred messages or so go into the index at once,
    which takes as long as ten of them, so what one short turn says depends on whether that fell into it.
    """
    spent = dict.fromkeys(servers, 0.0)
    with contextlib.ExitStack() as stack:
        for server, owners in servers.values():
            client = stack.enter_context(wire.Imap(server.ports["imap"]))
            client.login(*owners[0])
            client.command("SELECT INBOX")
        for turn in range(rounds + 1):
            for workers, (server, owners) in servers.items():
                senders = [_Sender(server, [owners[0][0]], 100 * turn + number, texts) for number in range(connections)]
                began = time.perf_counter()
                _go_on(senders, partial(_unfinished, senders))
                spent[workers] += time.perf_counter() - began if turn else 0.0
    figures = {names[workers]: rounds * TURN / seconds for workers, seconds in spent.items()}
    title = f"MX, {connections} connection{'s' * (connections > 1)}, owner connected"
    report.add(Row("Workers", title, "messages/s", figures, less_is_better=False))
