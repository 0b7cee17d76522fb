"""Sessions: logging in, hearing of new mail in IDLE, the memory of idle connections, and the merge of waiting mail."""

from __future__ import annotations

import argparse
import contextlib
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import imap, process, wire
from bench.dovecot import Dovecot
from bench.ours import ROOT, Ours
from bench.report import Report, Row
from bench.rows import Account

_PEERS = ("maildir", "sdbox")


def run_login(report: Report, options: argparse.Namespace) -> None:
    """Connecting and LOGIN: ours for the first time after the start, when the mailbox is opened, and again."""
    rounds = 3 if options.quick else 7
    with _folder() as folder, contextlib.ExitStack() as stack:
        servers = imap.start(folder, stack, _PEERS)
        first: list[float] = []
        ours = servers[0][1]
        for _ in range(rounds):
            ours.stop()
            ours.start()
            first.append(sum(_login(ours.ports["imap"], *servers[0][2:])))
        times: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in servers}
        for number in range(10 * rounds + 1):
            for name, server, user, password in servers:
                taken = _login(server.ports["imap"], user, password)
                if number:
                    times[name].append(taken)
        for index, what in enumerate(("connect and greeting", "LOGIN, repeated")):
            figures = {name: statistics.median(pair[index] for pair in pairs) for name, pairs in times.items()}
            report.add(Row("Sessions", what, "ms", figures))
        both = {name: statistics.median(map(sum, pairs)) for name, pairs in times.items()}
        report.add(Row("Sessions", "connect and LOGIN, first", "ms", {**both, "ours": statistics.median(first)}))


def _login(port: int, user: str, password: str) -> tuple[float, float]:
    """Milliseconds to the greeting, and from there to logged in."""
    began = time.perf_counter()
    with wire.Imap(port) as client:
        greeted = time.perf_counter()
        client.login(user, password)
        return 1000 * (greeted - began), 1000 * (time.perf_counter() - greeted)


def run_idle(report: Report, options: argparse.Namespace) -> None:
    """From the end of a message, by SMTP to us and LMTP to Dovecot, to the EXISTS that IDLE sends."""
    rounds = 10 if options.quick else 40
    with _folder() as folder, contextlib.ExitStack() as stack:
        times: dict[str, list[float]] = {}
        listeners: list[tuple[str, wire.Imap, _Door]] = []
        for name, server, user, password in imap.start(folder, stack, _PEERS):
            client = stack.enter_context(wire.Imap(server.ports["imap"]))
            client.login(user, password)
            client.command("SELECT INBOX")
            client.send_line("IDLE")
            client.read_line()
            ours = isinstance(server, Ours)
            door = stack.enter_context(_Door(server.ports["mx" if ours else "lmtp"], b"EHLO" if ours else b"LHLO"))
            listeners.append((name, client, door))
            times[name] = []
        for number in range(rounds):
            for name, client, door in listeners:
                door.deliver(number)
                began = time.perf_counter()
                door.socket.sendall(b".\r\n")
                while b" EXISTS" not in client.read_line():
                    pass
                times[name].append(1000 * (time.perf_counter() - began))
                door.reply()
                time.sleep(0.05)
                client.drain()
        report.add(Row("Sessions", "delivery to IDLE", "ms", {name: statistics.median(taken) for name, taken in times.items()}))


class _Door:
    """An SMTP or LMTP connection, for one message after the other."""

    def __init__(self, port: int, greet: bytes, recipient: str = imap.USER) -> None:
        self._recipient = recipient
        self.socket = socket.create_connection(("127.0.0.1", port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self.socket.makefile("rb")
        self.reply()
        self._say(greet + b" client.example.org")

    def __enter__(self) -> _Door:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self.socket.close()

    def deliver(self, number: int) -> None:
        """Everything up to the final dot."""
        self._say(b"MAIL FROM:<sender@example.org>")
        self._say(b"RCPT TO:<" + self._recipient.encode() + b">")
        self._say(b"DATA")
        self.socket.sendall(b"Subject: message %d\r\nMessage-ID: <%d@example.org>\r\n\r\nText.\r\n" % (number, number))

    def _say(self, line: bytes) -> None:
        self.socket.sendall(line + b"\r\n")
        self.reply()

    def reply(self) -> None:
        """Read one.

        :raises RuntimeError: a refusal.
        """
        while True:
            line = self._lines.readline()
            if line[:1] not in (b"2", b"3"):
                raise RuntimeError(f"refused: {line!r}")
            if line[3:4] != b"-":
                return


def run_memory(report: Report, options: argparse.Namespace) -> None:
    """A thousand TLS connections that have the mailbox of 10,000 messages selected and are in IDLE."""
    connections, count = (200, 1_000) if options.quick else (1_000, 10_000)
    with _folder() as folder, contextlib.ExitStack() as stack:
        servers = imap.start(folder, stack, ("maildir",))
        messages = imap.messages(count)
        figures: dict[str, float] = {}
        for name, server, user, password in servers:
            loader = stack.enter_context(wire.Imap(server.ports["imap"]))
            loader.login(user, password)
            account = Account(name, lambda: loader, server.pid, loader, [], count)  # noqa: B023 - used at once
            for first in range(0, count, imap.BATCH):
                imap.append(account, messages[first : first + imap.BATCH])
            idle = [_idle(server, user, password, stack)]
            before = process.memory(server.pid)
            idle += [_idle(server, user, password, stack) for _ in range(connections)]
            time.sleep(3)
            figures[name] = (process.memory(server.pid) - before) / connections / 1024
            for client in idle:
                client.close()
        report.add(Row("Sessions", f"memory of an idle TLS connection ({connections:,}, {count:,} messages)", "KiB", figures))


#: Aliases that the sessions of a crowd belong to, and processes that hold their other ends.
_ALIASES, _HOLDERS = 4, 4


def run_crowd(report: Report, options: argparse.Namespace) -> None:
    """Ten thousand idle TLS sessions over two workers: their memory, and how soon all of them hear of a message."""
    count = options.sessions or (1_000 if options.quick else 10_000)
    limits = {"workers": "2", "imap_connections": str(2 * count), "imap_connections_per_address": str(2 * count)}
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with _folder() as folder, contextlib.ExitStack() as stack:
        server = Ours(folder, limits)
        owners = [server.owner(f"owner{number}") for number in range(_ALIASES)]
        server.start()
        stack.callback(server.stop)
        with contextlib.ExitStack() as first:
            for user, password in owners * 2:
                first.enter_context(_idle(server, user, password, first))
            time.sleep(3)
            before, used = process.memory(server.pid), process.cpu(server.pid)
        holders = [stack.enter_context(_Holder(server, number, count // _HOLDERS, owners)) for number in range(_HOLDERS)]
        seconds = max(float(holder.says("ready")[0]) for holder in holders)
        time.sleep(3)
        each = (process.memory(server.pid) - before) / count / 1024
        report.add(Row("Sessions", f"memory of an idle TLS session ({count:,} over 2 workers)", "KiB", {"ours": each}))
        report.add(Row("Sessions", "… all logged in", "s", {"ours": seconds}))
        report.add(Row("Sessions", "… processor", "ms/session", {"ours": 1000 * (process.cpu(server.pid) - used) / count}))
        for holder in holders:
            holder.listen()
        for user, _ in owners:
            with _Door(server.ports["mx"], b"EHLO", user) as door:
                door.deliver(1)
                door.socket.sendall(b".\r\n")
                door.reply()
        told = [holder.says("heard") for holder in holders]
        report.add(Row("Sessions", "… all told of a message", "s", {"ours": max(float(last) for _, last in told)}))
        if sum(int(heard) for heard, _ in told) != count:
            report.fail(f"crowd: {sum(int(heard) for heard, _ in told)} of {count} sessions heard of a message")


class _Holder:
    """The other ends of some sessions, in a process of their own."""

    def __init__(self, server: Ours, number: int, sessions: int, owners: list[tuple[str, str]]) -> None:
        users = [word for owner in owners for word in owner]
        command = [sys.executable, "-m", "bench.crowd", str(server.ports["imaps"]), str(sessions), f"127.0.0.{2 + number}", *users]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> _Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def listen(self) -> None:
        """Have it wait for news."""
        if self._process.stdin is not None:
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def says(self, what: str) -> list[str]:
        """The words of its next line, which must begin so.

        :raises RuntimeError: it does not.
        """
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line.startswith(what):
            raise RuntimeError(f"{what} was expected, and not {line!r}")
        return line.split()[1:]


def _idle(server: Ours | Dovecot, user: str, password: str, stack: contextlib.ExitStack) -> wire.Imap:
    client = stack.enter_context(wire.Imap(server.ports["imaps"], tls=True))
    client.login(user, password)
    client.command("SELECT INBOX")
    client.send_line("IDLE")
    client.read_line()
    return client


def run_merge(report: Report, options: argparse.Namespace) -> None:
    """Mail that waited, from the owner's LOGIN until all of it is in the mailbox."""
    count = 1_000 if options.quick else 10_000
    with _folder() as folder, contextlib.ExitStack() as stack:
        (_, server, user, password), *_ = imap.start(folder, stack, ())
        command = [sys.executable, "-m", "bench.load", str(server.ports["mx"]), str(count), "--reuse", "--recipient", user]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        used, began = process.cpu(server.pid), time.perf_counter()
        with wire.Imap(server.ports["imap"]) as client:
            client.login(user, password)
            login = time.perf_counter() - began
            while _messages(client) < count:
                if time.perf_counter() - began > 600:
                    report.fail(f"merge: only {_messages(client)} of {count} messages after ten minutes")
                    return
                time.sleep(0.02)
        seconds = time.perf_counter() - began
        report.add(Row("Sessions", f"merge of {count:,} waiting messages", "s", {"ours": seconds}))
        report.add(Row("Sessions", "… LOGIN meanwhile", "ms", {"ours": 1000 * login}))
        report.add(Row("Sessions", "… processor", "ms/message", {"ours": 1000 * (process.cpu(server.pid) - used) / count}))


def _messages(client: wire.Imap) -> int:
    found = re.search(rb"MESSAGES (\d+)", b"".join(client.command("STATUS INBOX (MESSAGES)")))
    return int(found[1]) if found else -1


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-sessions-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
