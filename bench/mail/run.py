"""The benchmarks: ``python -m bench.mail [--quick] [--json FILE] [--only WORD] [--ours-only]``; prints a table as it goes.

Everything runs on this machine over loopback, one subject after the other.  Each figure is checked: what was accepted is counted and
compared byte for byte afterwards, so that a fast wrong answer is no answer.  If Debian's Postfix and Dovecot are installed they are
measured in the same run and the ratio is printed (above 1 is better than they are).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.mail import debian, load, reader
from bench.mail.ours import Ours
from bench.mail.reader import Reader
from tests.whole.daemon import ROOT, environment, trusting

#: What mail readers ask for when they open a folder.
ENVELOPE_SET = "(UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)"


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    :param better: ``higher`` or ``lower``.
    """

    name: str
    unit: str
    better: str
    ours: float
    theirs: float | None = None
    whose: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than theirs."""
        if self.theirs is None or not self.ours:
            return None
        return self.ours / self.theirs if self.better == "higher" else self.theirs / self.ours


class Table:
    """Figures as they come, printed at once."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        print(f"{'':58}{'ours':>11}{'theirs':>11}  {'unit':12}{'ratio':>6}")

    def add(self, figure: Figure) -> None:
        """One more line."""
        self.figures.append(figure)
        theirs = f"{figure.theirs:>11,.1f}" if figure.theirs is not None else f"{'':>11}"
        ratio = f"{figure.ratio:>6.2f}  {figure.whose}" if figure.ratio is not None else ""
        print(f"{figure.name:58}{figure.ours:>11,.1f}{theirs}  {figure.unit:12}{ratio}", flush=True)


def send(port: int, to: str, messages: int, *, reuse: bool, lmtp: bool = False, first: int = 0) -> float:
    """Messages a second that a server accepted, by :mod:`bench.load`."""
    options = [*(("--reuse",) if reuse else ()), *(("--lmtp",) if lmtp else ())]
    done = subprocess.run(
        [sys.executable, "-m", "bench.mail.load", "--port", str(port), "--to", to, "--messages", str(messages), "--first", str(first),
         *options],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"bench/load.py: {done.stderr[-500:]}")
    return messages / float(json.loads(done.stdout)["seconds"])


def smtp_source(port: int, to: str, messages: int) -> float:
    """Messages a second by Postfix's own generator: 10 sessions, 10 KB, a connection each; by ours if it is not installed."""
    program = shutil.which("smtp-source")
    if program is None:
        return send(port, to, messages, reuse=False)
    started = time.perf_counter()
    subprocess.run(
        [program, "-s", "10", "-l", "10240", "-m", str(messages), "-f", "sender@example.net", "-t", to, f"127.0.0.1:{port}"], check=True
    )
    return messages / (time.perf_counter() - started)


def expect(what: str, found: object, wanted: object) -> None:
    """End the run when an answer is wrong."""
    if found != wanted:
        raise SystemExit(f"{what}: {found!r} instead of {wanted!r}")


def login(subject: Ours | debian.Dovecot, number: int = 0) -> Reader:
    """A session of one of the owners."""
    owner = subject.owners[number]
    client = Reader(subject.imaps_port)
    client.ask(f"LOGIN {owner.address} {owner.password}")
    return client


# -- accepting ---------------------------------------------------------------------------------------


def accept(table: Table, arguments: argparse.Namespace, theirs: bool) -> None:
    """MX: messages a second, owner away and connected, a connection each and reused, against Postfix."""
    count = 1000 if arguments.quick else 5000
    queued = stored = stored_reuse = queued_reuse = None
    if theirs:
        queued, queued_reuse = _postfix_accepts(count)
        stored, stored_reuse = _postfix_stores(count)
    for connected in (False, True):
        subject = Ours()
        try:
            session = login(subject) if connected else None
            if session is not None:
                session.ask("SELECT INBOX")
                session.start_idle()
            single = smtp_source(subject.smtp_port, subject.owner.address, count)
            reused = send(subject.smtp_port, subject.owner.address, count, reuse=True)
            if session is not None:
                session.close()
            check = login(subject)
            expect("messages stored", reader.exists(check.ask("SELECT INBOX")), 2 * count)
            pool = load.bodies(10240)
            wanted = reader.digests([load.message(number, pool) for number in range(count)])
            answer = check.ask(f"FETCH {count + 1}:* (BODY.PEEK[])")
            expect("messages stored byte for byte", reader.digests(reader.literals(answer)) == wanted, True)
            check.close()
        finally:
            subject.close()
        where = "owner connected (stored, indexed)" if connected else "owner away (sealed)"
        table.add(Figure(f"MX accepts, {where}, a connection each", "messages/s", "higher", single, queued, "× Postfix's acceptance"))
        table.add(
            Figure(f"MX accepts, {where}, connections reused", "messages/s", "higher", reused, queued_reuse, "× Postfix's acceptance")
        )
        if connected and theirs:
            table.add(
                Figure(f"MX stores, {where}, a connection each", "messages/s", "higher", single, stored, "× Postfix + Dovecot stored")
            )
            table.add(
                Figure(
                    f"MX stores, {where}, connections reused", "messages/s", "higher", reused, stored_reuse, "× Postfix + Dovecot stored"
                )
            )


def _postfix_accepts(count: int) -> tuple[float, float]:
    """Into the hold queue: nothing is delivered meanwhile."""
    postfix = debian.Postfix(1, hold=True)
    try:
        single = smtp_source(postfix.smtp_port, "bench@example.com", count)
        reused = send(postfix.smtp_port, "bench@example.com", count, reuse=True)
        expect("messages in Postfix's queue", postfix.queued(), 2 * count)
    finally:
        postfix.close()
    return single, reused


def _postfix_stores(count: int) -> tuple[float, float]:
    """From the first connection until Dovecot has all of them and the queue is empty."""
    dovecot = debian.Dovecot()
    postfix = debian.Postfix(dovecot.lmtp_port, hold=False)
    rates = []
    try:
        for way in (
            lambda: smtp_source(postfix.smtp_port, "bench@example.com", count),
            lambda: send(postfix.smtp_port, "bench@example.com", count, reuse=True),
        ):
            started = time.perf_counter()
            way()
            while postfix.queued():
                time.sleep(0.02)
            rates.append(count / (time.perf_counter() - started))
        check = login(dovecot)
        expect("messages that Dovecot has", reader.exists(check.ask("SELECT INBOX")), 2 * count)
        check.close()
    finally:
        postfix.close()
        dovecot.close()
    return rates[0], rates[1]


# -- reading -----------------------------------------------------------------------------------------


def _first_and_best(client: Reader, command: str, check: Callable[[bytes], None]) -> tuple[float, float]:
    """Seconds for the first time, and the best of three more; every answer is checked."""
    times = []
    for _ in range(4):
        seconds, answer = client.timed(command)
        check(answer)
        times.append(seconds)
    return times[0], min(times[1:])


def _fetches(subject: Ours | debian.Dovecot, count: int, wanted: set[bytes]) -> dict[str, tuple[float, float]]:
    client = login(subject)
    expect("messages", reader.exists(client.ask("SELECT INBOX")), count)

    def whole(answer: bytes) -> None:
        expect("bodies byte for byte", reader.digests(reader.literals(answer)) == wanted, True)

    def lines(answer: bytes) -> None:
        expect("FETCH responses", reader.fetched(answer), count)

    def envelopes(answer: bytes) -> None:
        lines(answer)
        expect("subjects", answer.count(b"of the benchmark about"), count)
        expect("structures", answer.count(b"BODYSTRUCTURE ("), count)

    measured = {
        "FETCH 1:* (FLAGS)": _first_and_best(client, "FETCH 1:* (FLAGS)", lines),
        "FETCH 1:* envelope set": _first_and_best(client, f"FETCH 1:* {ENVELOPE_SET}", envelopes),
        "FETCH 1:* (BODY.PEEK[])": _first_and_best(client, "FETCH 1:* (BODY.PEEK[])", whole),
    }
    client.close()
    return measured


def mailbox(table: Table, arguments: argparse.Namespace, theirs: bool) -> None:
    """Merge of waiting messages, then FETCH on the mailbox that it made."""
    count = 2000 if arguments.quick else 10_000
    pool = load.bodies(10240)
    wanted = reader.digests([load.message(number, pool) for number in range(count)])
    other: dict[str, tuple[float, float]] = {}
    if theirs:
        dovecot = debian.Dovecot()
        try:
            rate = send(dovecot.lmtp_port, "bench@example.com", count, reuse=True, lmtp=True)
            other = _fetches(dovecot, count, wanted)
        finally:
            dovecot.close()
    subject = Ours()
    try:
        send(subject.smtp_port, subject.owner.address, count, reuse=True)
        client = Reader(subject.imaps_port)
        started = time.perf_counter()
        client.ask(f"LOGIN {subject.owner.address} {subject.owner.password}")
        logged_in = time.perf_counter() - started
        expect("messages after the merge", reader.exists(client.ask("SELECT INBOX")), count)
        merged = time.perf_counter() - started
        client.close()
        table.add(Figure(f"merge of {count:,} waiting messages (LOGIN and SELECT)", "seconds", "lower", merged))
        table.add(Figure("  of that LOGIN", "seconds", "lower", logged_in))
        table.add(Figure("  messages a second", "messages/s", "higher", count / merged, rate if theirs else None, "× Dovecot's LMTP alone"))
        for name, (first, best) in _fetches(subject, count, wanted).items():
            there = other.get(name, (None, None))
            table.add(Figure(f"{name} of {count:,}, first", "ms", "lower", first * 1000, there[0] and there[0] * 1000, "× Dovecot"))
            table.add(Figure(f"{name} of {count:,}, again", "ms", "lower", best * 1000, there[1] and there[1] * 1000, "× Dovecot"))
    finally:
        subject.close()


def _logins(subject: Ours | debian.Dovecot, aliases: int) -> dict[str, list[float]]:
    """Milliseconds of LOGIN and SELECT without and with the connection's TLS handshake: first of each mailbox, and again."""
    context = trusting()
    measured: dict[str, list[float]] = {
        "first": [],
        "again": [],
        "first, with connection and TLS": [],
        "again, with connection and TLS": [],
    }
    for when in ("first", "again"):
        for number in range(1, aliases):
            owner = subject.owners[number]
            started = time.perf_counter()
            client = Reader(subject.imaps_port, context)
            connected = time.perf_counter()
            client.ask(f"LOGIN {owner.address} {owner.password}")
            client.ask("SELECT INBOX")
            now = time.perf_counter()
            measured[when].append((now - connected) * 1000)
            measured[f"{when}, with connection and TLS"].append((now - started) * 1000)
            client.close()
    return measured


def logins(table: Table, arguments: argparse.Namespace, theirs: bool) -> None:
    """LOGIN and SELECT of empty mailboxes."""
    aliases = 20 if arguments.quick else 100
    other: dict[str, list[float]] = {}
    if theirs:
        dovecot = debian.Dovecot()
        try:
            other = _logins(dovecot, aliases)
        finally:
            dovecot.close()
    subject = Ours(aliases)
    try:
        for name, times in _logins(subject, aliases).items():
            there = statistics.median(other[name]) if name in other else None
            table.add(Figure(f"LOGIN and SELECT, {name} (median)", "ms", "lower", statistics.median(times), there, "× Dovecot"))
    finally:
        subject.close()


def _idle_memory(subject: Ours | debian.Dovecot, connections: int, aliases: int) -> float:
    """KiB for each connection that idles after login and SELECT."""
    warm = login(subject, 1)
    warm.ask("SELECT INBOX")
    warm.start_idle()
    time.sleep(1)
    before = subject.memory()
    clients = []
    for number in range(connections):
        client = login(subject, 1 + number % (aliases - 1))
        client.ask("SELECT INBOX")
        client.start_idle()
        clients.append(client)
    time.sleep(1)
    used = subject.memory() - before
    for client in (warm, *clients):
        client.close()
    return used / connections / 1024


def memory(table: Table, arguments: argparse.Namespace, theirs: bool) -> None:
    """IMAPS connections in IDLE, spread over mailboxes."""
    connections, aliases = (200, 21) if arguments.quick else (1000, 101)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    there = None
    if theirs:
        dovecot = debian.Dovecot()
        try:
            there = _idle_memory(dovecot, connections, aliases)
        finally:
            dovecot.close()
    subject = Ours(aliases)
    try:
        used = _idle_memory(subject, connections, aliases)
    finally:
        subject.close()
    name = f"memory of an idle IMAPS connection ({connections:,} on {aliases - 1} mailboxes)"
    table.add(Figure(name, "KiB", "lower", used, there, "× Dovecot"))


MEASURES = {"accept": accept, "mailbox": mailbox, "logins": logins, "memory": memory}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.mail", description="measure this server beside Postfix and Dovecot")
    parser.add_argument("--quick", action="store_true", help="fewer messages, for a look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--only", choices=sorted(MEASURES), action="append", help="only this one; may be repeated")
    parser.add_argument("--ours-only", action="store_true", help="leave Postfix and Dovecot out")
    arguments = parser.parse_args()
    why = "--ours-only" if arguments.ours_only else debian.missing()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}; Postfix and Dovecot: {why or 'measured beside'}\n")
    table = Table()
    for name, measure in MEASURES.items():
        if not arguments.only or name in arguments.only:
            measure(table, arguments, not why)
    if arguments.json:
        figures = [asdict(figure) | {"ratio": figure.ratio} for figure in table.figures]
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        arguments.json.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
