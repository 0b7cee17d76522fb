"""The IMAP commands of a mail client on a mailbox of 10,000 messages (107 MB), beside Debian's Dovecot.

The same messages are appended to every server, the first 500 one by one and the others a hundred at a time; then every command is given
once (``first``), and then in rounds in which the servers take turns.  One connection, plain TCP; the figures are medians.  What the
servers answer is compared: a fast wrong answer is a failure of the run.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import dovecot, process, wire
from bench.corpus import Mailbox
from bench.dovecot import Dovecot
from bench.ours import Ours
from bench.report import Report, Row
from bench.rows import CHAIN, CLIENTS, MEASURES, Account, Measure, crowd

USER = "hello@example.com"
#: Appended one by one, and in a command when not.
SINGLY, BATCH = 500, 100
#: Rounds of a command, and seconds after which a server has had enough of it.
MOST, LEAST, PATIENCE = 15, 3, 1.5
#: Seconds after which fewer rounds have to do.
HOPELESS = 4.0

#: Name, server, user, password; ours is the first.
Servers = list[tuple[str, Ours | Dovecot, str, str]]
Messages = Sequence[tuple[str, bytes]]


def run(report: Report, options: argparse.Namespace) -> None:
    """All variants on a mailbox of 10,000; of 1,000 when it has to be quick."""
    _compare(report, "IMAP", 1_000 if options.quick else 10_000, _peers(options, tuple(dovecot.VARIANTS)))


def run_tls(report: Report, options: argparse.Namespace) -> None:
    """Over TLS, beside the fastest of Dovecot's formats."""
    _compare(report, "IMAP over TLS", 1_000 if options.quick else 10_000, _peers(options, ("maildir", "sdbox")), tls=True)


def run_large(report: Report, options: argparse.Namespace) -> None:
    """With 100,000 messages; 10,000 when it has to be quick."""
    _compare(report, "IMAP, large", 10_000 if options.quick else 100_000, ("sdbox",))


def _peers(options: argparse.Namespace, variants: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the variants that are asked for."""
    return tuple(name for name in variants if not options.peers or name in options.peers.split(","))


def _compare(report: Report, bench: str, count: int, variants: tuple[str, ...], *, tls: bool = False) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-imap-")))
        folder.chmod(0o755)
        servers = start(folder, stack, variants)
        corpus = messages(count)
        octets = sum(len(content) for _, content in corpus)
        print(f"  {count:,} messages, {octets / 1e6:.0f} MB", flush=True)
        accounts = [_account(name, server, user, password, count, tls, stack) for name, server, user, password in servers]
        _load(report, bench, accounts, corpus)
        for account in accounts:
            account.client.command("SELECT INBOX")
            for client in account.crowd:
                client.command("SELECT INBOX")
        _index(report, bench, servers)
        truth: dict[str, object] = {}
        for measure in MEASURES:
            if measure.name not in CHAIN:
                _measure(report, bench, (measure,), accounts, truth)
        _measure(report, bench, [measure for measure in MEASURES if measure.name in CHAIN], accounts, truth)
        _measure_workers(report, bench, servers, accounts, truth, tls, stack)


def _measure_workers(
    report: Report, bench: str, servers: Servers, accounts: list[Account], truth: dict[str, object], tls: bool, stack: contextlib.ExitStack
) -> None:
    """Many clients at once against our server as it is by default, with a worker for each processor, on the same mailbox."""
    name, ours, user, password = servers[0]
    ours.stop()
    ours.settle({"workers": "-1"})  # type: ignore[union-attr]
    ours.start()
    again = _account(name, ours, user, password, accounts[0].count, tls, stack)
    for client in again.crowd:
        client.command("SELECT INBOX")
    measure = next(measure for measure in MEASURES if measure.work is crowd)
    _measure(report, bench, (replace(measure, name=f"{measure.name}, default workers"),), [again, *accounts[1:]], truth)


def start(folder: Path, stack: contextlib.ExitStack, variants: Sequence[str], settings: dict[str, str] | None = None) -> Servers:
    """Our server and the variants of Dovecot that are installed."""
    (folder / "ours").mkdir()
    ours = Ours(folder / "ours", settings)
    stack.callback(ours.stop)
    ours.start()
    servers: Servers = [("ours", ours, USER, ours.passwords[USER])]
    for variant in variants:
        if dovecot.missing(variant):
            print(f"  {dovecot.missing(variant)}")
            continue
        (folder / variant).mkdir()
        peer = Dovecot(folder / variant, variant, ours.data / "tls/certificate.pem", ours.data / "tls/key.pem").start()
        stack.callback(peer.stop)
        servers.append((variant, peer, USER, dovecot.PASSWORD))
    return servers


def messages(count: int) -> Messages:
    """What stands before each literal of APPEND, and the message."""
    return [
        (f"({' '.join(flags)}) \"{date:%d-%b-%Y %H:%M:%S +0000}\" {{{len(content)}+}}", content)
        for date, flags, content in Mailbox(count)
    ]  # fmt: skip


def _account(name: str, server: Ours | Dovecot, user: str, password: str, count: int, tls: bool, stack: contextlib.ExitStack) -> Account:
    port = server.ports["imaps" if tls else "imap"]

    def connect() -> wire.Imap:
        client = stack.enter_context(wire.Imap(port, tls=tls))
        client.login(user, password)
        return client

    return Account(name, connect, server.pid, connect(), [connect() for _ in range(CLIENTS)], count)


def _load(report: Report, bench: str, accounts: list[Account], messages: Messages) -> None:
    """Append everything; the servers take turns every so often."""
    one: dict[str, list[float]] = {account.name: [] for account in accounts}
    bulk = dict.fromkeys(one, 0.0)
    used = {account.name: process.cpu(account.pid) for account in accounts}
    for first in range(0, min(SINGLY, len(messages)), 50):
        for account in accounts:
            for about, content in messages[first : first + 50]:
                one[account.name].append(_timed(lambda: append(account, [(about, content)]))[0])  # noqa: B023 - called at once
    for first in range(SINGLY, len(messages), BATCH):
        for account in accounts:
            bulk[account.name] += _timed(lambda: append(account, messages[first : first + BATCH]))[0]  # noqa: B023
    report.add(Row(bench, "APPEND, one by one", "ms", {name: 1000 * statistics.median(times) for name, times in one.items()}))
    left = len(messages) - SINGLY
    report.add(Row(bench, f"APPEND, {left:,} in bulk", "ms", {name: 1000 * seconds for name, seconds in bulk.items()}))
    # What a server does later is part of the cost, and must not be in the way of what is measured next.
    report.add(Row(bench, "APPEND: at rest after", "s", {account.name: process.rest(account.pid) for account in accounts}))
    costs = {account.name: 1000 * (process.cpu(account.pid) - used[account.name]) / len(messages) for account in accounts}
    report.add(Row(bench, "APPEND: processor", "ms/message", costs))


def _index(report: Report, bench: str, servers: list[tuple[str, Ours | Dovecot, str, str]]) -> None:
    """Make the search index of those who don't make it with APPEND; that takes minutes, and they answer no SEARCH from it before."""
    seconds: dict[str, float] = {}
    for name, server, user, _ in servers:
        if isinstance(server, Dovecot) and "fts" in name:
            print(f"  {name}: making its search index …", flush=True)
            began = time.perf_counter()
            server.doveadm("index", "-u", user, "INBOX")
            seconds[name] = time.perf_counter() - began
    if seconds:
        report.add(Row(bench, "search index made afterwards", "s", {"ours": 0.0, **seconds}))


def append(account: Account, messages: Messages) -> list[bytes]:
    parts = [b"%s APPEND INBOX" % wire.TAG]
    for about, content in messages:
        parts += [b" ", about.encode(), b"\r\n", content]
    parts.append(b"\r\n")
    account.client.send(b"".join(parts))
    return account.client.answer()


def _timed(work: Callable[[], list[bytes]]) -> tuple[float, list[bytes]]:
    began = time.perf_counter()
    answer = work()
    return time.perf_counter() - began, answer


def _measure(report: Report, bench: str, chain: Sequence[Measure], accounts: list[Account], truth: dict[str, object]) -> None:
    """Rounds of a command, or of commands that follow one another; the first round stands apart."""
    times: dict[tuple[str, str], list[float]] = {(measure.name, account.name): [] for measure in chain for account in accounts}
    used = {account.name: process.cpu(account.pid) for account in accounts}
    broken: set[str] = set()
    for number in range(MOST):
        for account in accounts:
            spent = sum(sum(times[measure.name, account.name]) for measure in chain)
            if account.name in broken or (number >= LEAST and spent > PATIENCE) or spent > HOPELESS:
                continue
            for measure in chain:
                try:
                    seconds, answer = _once(measure, account)
                except (wire.Refused, ValueError) as error:
                    report.fail(f"{bench}: {measure.name}: {account.name}: {error}")
                    broken.add(account.name)
                    break
                times[measure.name, account.name].append(seconds)
                if number == 0:
                    _check(report, bench, measure, account, b"".join(answer), truth)
    for measure in chain:
        taken = {account.name: times[measure.name, account.name] for account in accounts if times[measure.name, account.name]}
        figures = {name: 1000 * statistics.median(values[1:] or values) for name, values in taken.items()}
        report.add(Row(bench, measure.name, "ms", figures))
        first = {name: 1000 * values[0] for name, values in taken.items()}
        if first.get("ours", 0) > 1.5 * figures.get("ours", 0) or max(first.values()) > 3 * max(figures.values()):
            report.add(Row(bench, f"{measure.name}, first", "ms", first))
    costs = {
        account.name: 1000 * (process.cpu(account.pid) - used[account.name]) / max(1, len(times[chain[0].name, account.name]))
        for account in accounts
    }
    if costs.get("ours", 0) >= 10:
        report.add(Row(bench, f"{' + '.join(measure.name for measure in chain)}: processor", "ms", costs))


def _once(measure: Measure, account: Account) -> tuple[float, list[bytes]]:
    if measure.before is not None:
        measure.before(account)
    result = _timed(lambda: measure.work(account))
    if measure.after is not None:
        measure.after(account)
    return result


def _check(report: Report, bench: str, measure: Measure, account: Account, answer: bytes, truth: dict[str, object]) -> None:
    """The first server's answer is the one to be like; which of two is wrong, a person has to see."""
    said = measure.says(answer)
    expected = truth.setdefault(measure.name, said)
    if said != expected:
        report.fail(f"{bench}: {measure.name}: {account.name} says {_difference(said, expected)}")


def _difference(said: object, expected: object) -> str:
    """Where two answers part, in short."""
    if isinstance(said, dict) and isinstance(expected, dict):
        for key in sorted(said.keys() | expected.keys()):
            if said.get(key) != expected.get(key):
                return f"of message {key}: {_difference(said.get(key), expected.get(key))}"[:1500]
    if isinstance(said, frozenset) and isinstance(expected, frozenset):
        return f"{sorted(said - expected)[:5]} more and {sorted(expected - said)[:5]} less than ours"
    return f"{str(said)[:700]} where ours says {str(expected)[:700]}"
