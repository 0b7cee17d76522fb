"""How many messages a second are accepted durably: 10 KB, ten connections, a connection for each message or used again.

Ours with the owner away (sealed into the temporary mailbox) and connected (stored and indexed in the open one, a session in IDLE),
beside Postfix (into its queue, nothing delivered) and what is stored through Postfix and Dovecot's LMTP.  Postfix and Dovecot keep their
mail in files of the same file system.  The candidates take turns in short runs; the figures are medians of the runs.  Processor time a
message is that of all processes of the server, and much steadier than the rate on a shared machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import dovecot, postfix, process, wire
from bench.dovecot import Dovecot
from bench.ours import ROOT, Ours
from bench.postfix import Postfix
from bench.report import Report, Row

AWAY, CONNECTED = "hello@example.com", "world@example.com"

#: How a client behaves: by name, the command that sends so many messages to a port, and what of its output is the time in seconds.
_LOADS: dict[str, Callable[[int, int, str], list[str]]] = {
    "text, a connection each": lambda port, count, to: _own(port, count, to),
    "text, connections reused": lambda port, count, to: [*_own(port, count, to), "--reuse"],
    "smtp-source, a connection each": lambda port, count, to: [
        "smtp-source", "-s", "10", "-l", "10240", "-m", str(count), "-f", "sender@example.org", "-t", to, f"127.0.0.1:{port}"
    ],
}  # fmt: skip


def _own(port: int, count: int, recipient: str) -> list[str]:
    return [sys.executable, "-m", "bench.load", str(port), str(count), "--recipient", recipient]


class Candidate:
    """Something that takes mail.

    :param settle: waits until everything is where it is to be in the end; None when that is so with the 250.
    :param clean: makes room before the next run.
    """

    def __init__(self, name: str, port: int, pids: Callable[[], list[int]], recipient: str = AWAY) -> None:
        self.name = name
        self.port = port
        self.pids = pids
        self.recipient = recipient
        self.settle: Callable[[], None] = lambda: None
        self.clean: Callable[[], object] = lambda: None
        self.sent = 0
        self.rates: list[float] = []
        self.costs: list[float] = []

    def run(self, load: str, count: int) -> None:
        """One run."""
        command = _LOADS[load](self.port, count, self.recipient)
        used = sum(map(process.cpu, self.pids()))
        began = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {done.stdout}{done.stderr}")
        sent = time.perf_counter() - began
        self.settle()
        settled = time.perf_counter() - began - sent
        seconds = json.loads(done.stdout)["seconds"] if done.stdout.startswith("{") else sent
        self.sent += count
        self.rates.append(count / (seconds + settled))
        self.costs.append(1000 * (sum(map(process.cpu, self.pids())) - used) / count)
        self.clean()


def run(report: Report, options: argparse.Namespace) -> None:
    """See the module's text."""
    count, rounds = (200, 3) if options.quick else (800, 5)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-mx-")))
        folder.chmod(0o755)
        server = _server(folder, stack)
        candidates = _ours(server, stack) + _peers(folder, stack)
        loads = [load for load in _LOADS if not load.startswith("smtp-source") or shutil.which("smtp-source")]
        for load in loads:
            for candidate in candidates:
                candidate.run(load, 50)  # warms up
                candidate.rates.clear()
                candidate.costs.clear()
            for _ in range(rounds):
                for candidate in candidates:
                    candidate.run(load, count)
            for mine in ("ours, away", "ours, connected"):
                compared = [candidate for candidate in candidates if candidate.name == mine or not candidate.name.startswith("ours")]
                names = ["ours" if candidate.name == mine else candidate.name for candidate in compared]
                rates = dict(zip(names, (statistics.median(candidate.rates) for candidate in compared), strict=True))
                costs = dict(zip(names, (statistics.median(candidate.costs) for candidate in compared), strict=True))
                measure = f"{load}, owner {mine.removeprefix('ours, ')}"
                report.add(Row("MX", measure, "messages/s", rates, less_is_better=False))
                report.add(Row("MX", f"{measure}: processor", "ms/message", costs))
        _nothing_lost(report, server, candidates)


def _nothing_lost(report: Report, server: Ours, candidates: list[Candidate]) -> None:
    """Every message that was answered with 250 must be in its mailbox."""
    for candidate in candidates:
        if not candidate.name.startswith("ours"):
            continue
        with wire.Imap(server.ports["imap"]) as client:
            client.login(candidate.recipient, server.passwords[candidate.recipient])
            until = time.monotonic() + 120
            stored = -1
            while stored < candidate.sent and time.monotonic() < until:
                stored = int(re.search(rb"MESSAGES (\d+)", b"".join(client.command("STATUS INBOX (MESSAGES)")))[1])  # type: ignore[index]
            if stored != candidate.sent:
                report.fail(f"{candidate.name}: {candidate.sent} messages accepted, {stored} stored")


def _server(folder: Path, stack: contextlib.ExitStack) -> Ours:
    (folder / "ours").mkdir()
    server = Ours(folder / "ours")
    stack.callback(server.stop)
    return server.start()


def _ours(server: Ours, stack: contextlib.ExitStack) -> list[Candidate]:
    """Ours with the owner away and with the owner connected."""
    client = stack.enter_context(wire.Imap(server.ports["imap"]))
    client.login(CONNECTED, server.passwords[CONNECTED])
    client.command("SELECT INBOX")
    client.send_line("IDLE")
    client.read_line()
    away = Candidate("ours, away", server.ports["mx"], lambda: [server.pid])
    connected = Candidate("ours, connected", server.ports["mx"], lambda: [server.pid], CONNECTED)
    connected.clean = client.drain  # what IDLE told, as a client would read it
    return [away, connected]


def _peers(folder: Path, stack: contextlib.ExitStack) -> list[Candidate]:
    """Postfix, and Postfix with Dovecot behind it, as far as they are installed."""
    found: list[Candidate] = []
    if postfix.missing():
        print(f"  {postfix.missing()}")
        return found
    (folder / "postfix").mkdir()
    alone = Postfix(folder / "postfix").start()
    stack.callback(alone.stop)
    candidate = Candidate("Postfix", alone.port, lambda: [alone.pid])
    candidate.clean = alone.empty
    found.append(candidate)
    certificate, key = folder / "ours/data/tls/certificate.pem", folder / "ours/data/tls/key.pem"
    for variant in ("maildir", "mail_crypt"):
        if dovecot.missing(variant):
            print(f"  {dovecot.missing(variant)}")
            continue
        for name in (variant, f"postfix-{variant}"):
            (folder / name).mkdir()
        store = Dovecot(folder / variant, variant, certificate, key).start()
        stack.callback(store.stop)
        found.append(_through(folder / f"postfix-{variant}", f"Postfix+{variant}", store, stack))
    return found


def _through(folder: Path, name: str, store: Dovecot, stack: contextlib.ExitStack) -> Candidate:
    """Postfix that hands everything to Dovecot."""
    server = Postfix(folder, store.ports["lmtp"]).start()
    stack.callback(server.stop)
    candidate = Candidate(name, server.port, lambda: [server.pid, store.pid])
    candidate.settle = server.drain
    return candidate
