"""What the link costs: ``python bench/link.py [--messages N] [--megabytes N] [--rounds N] [--json]``.

One mailbox, asked in this process; asked over a unix socket at another process that holds it; and read in its file here, while the other
process holds it; all in turn, so that the ratios are of the same minutes.  Times are milliseconds, by the clock and of the processor (here,
and in the other process).  The processor's say more on a machine that has other work: the slower of the two processes sets the pace when
both have a core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from fe_twisted.app.daemon import settle
from fe_twisted.clients.link.link import Link
from fe_twisted.clients.link.websocket import connector
from fe_twisted.protocols.cluster.handshake import Identity
from fe_twisted.servers.cluster.websocket import LinkServerFactory
from fe_twisted.services.cluster.host import Host
from fe_twisted.storage.mailbox.api import Mailbox, NewMessage
from fe_twisted.storage.mailbox.direct import open_direct
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from fe_twisted.storage.mailbox.registry import OpenMailboxes

reactor: Any = global_reactor
ID, KEY, SECRET = "0123456789abcdef01234567", bytes(range(32)), bytes(32)
ALL = ((1, 0xFFFFFFFF),)
#: Octets that FETCH reads at once of a large message.
STRETCH = 524_288


async def no_mail(mailbox: LocalMailbox) -> int:
    """Nothing waits."""
    return 0


def storage(folder: Path) -> tuple[MailboxFiles, OpenMailboxes[LocalMailbox]]:
    """The mailboxes of a folder, with threads of their own."""
    pool = ThreadPool(0, 4, "storage")
    pool.start()
    reactor.addSystemEventTrigger("during", "shutdown", pool.stop)
    files = MailboxFiles(folder)
    run = partial(deferToThreadPool, reactor, pool)
    return files, OpenMailboxes(lambda mailbox_id, key: open_mailbox(files, mailbox_id, key, run, reactor, no_mail), reactor, grace=0)


def serve(folder: Path, socket: str) -> None:
    """The other process: a primary."""
    files, mailboxes = storage(folder)
    nothing: Any = None
    host = Host(mailboxes, nothing, nothing, nothing, files.exists)
    reactor.listenUNIX(socket, LinkServerFactory(host, reactor, Identity("primary"), [SECRET]))
    reactor.callLater(0, settle)
    print("ready", flush=True)
    reactor.run()


def mail(number: int, size: int) -> bytes:
    """A message whose text does not shrink when it is compressed."""
    head = b"From: a@example.com\r\nTo: b@example.com\r\nSubject: number %d\r\nMessage-ID: <%d@example.com>\r\n\r\n" % (number, number)
    lines = [os.urandom(36).hex().encode() for _ in range(max(1, size // 74))]
    return head + b"\r\n".join(lines) + b"\r\n"


async def fill(mailbox: Mailbox, messages: int, megabytes: int) -> None:
    """Many small messages in Archive, larger ones in INBOX, and in Sent some that are too large to be read at once."""
    for first in range(0, messages, 500):
        await mailbox.append("Archive", [NewMessage(mail(first + number, 200)) for number in range(min(500, messages - first))])
    for number in range(2 * megabytes):
        await mailbox.append("INBOX", [NewMessage(mail(1_000_000 + number, 1 << 19))])
    for number in range(megabytes // 10):
        await mailbox.append("Sent", [NewMessage(mail(2_000_000 + number, 10 << 20))])


class Timing:
    """Milliseconds of rounds: by the clock, and of the processor in processes."""

    def __init__(self, *processes: int) -> None:
        self.processes = processes
        self.clock: list[float] = []
        self.cpu = [0.0] * len(processes)

    async def run(self, rounds: int, work: Callable[[], Awaitable[Any]]) -> None:
        """So many rounds more."""
        before = [cpu(process) for process in self.processes]
        for _ in range(rounds):
            began = time.perf_counter()
            await work()
            self.clock.append((time.perf_counter() - began) * 1000)
        self.cpu = [sum_ + cpu(process) - was for sum_, process, was in zip(self.cpu, self.processes, before, strict=True)]

    def each(self) -> list[float]:
        """Milliseconds of the processor for one round, in each process."""
        return [total / len(self.clock) for total in self.cpu]


def cpu(process: int) -> float:
    """Milliseconds of the processor that a process has used, all its threads."""
    tasks = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


async def rest(*processes: int) -> None:
    """Return when the mailboxes have indexed what was put into them."""
    used, before = sum(map(cpu, processes)), -1.0
    while used - before > 10:
        before = used
        pause: Deferred[None] = Deferred()
        reactor.callLater(1, pause.callback, None)
        await pause
        used = sum(map(cpu, processes))


async def fetch(mailbox: Mailbox, folder: int, columns: list[Any]) -> int:
    """All rows, counted, giving way now and then as a session does."""
    rows = 0
    async for batch in mailbox.fetch(folder, ALL, columns):
        rows += len(batch)
    return rows


async def whole(mailbox: Mailbox, folder: int) -> int:
    """All content, what is large a stretch at a time, as FETCH reads it."""
    octets = 0
    async for batch in mailbox.fetch(folder, ALL, ["uid", "content"]):
        for _, content in batch:
            if isinstance(content, bytes):
                octets += len(content)
                continue
            at = 0
            while piece := await mailbox.octets(content, at, at + STRETCH):
                at += len(piece)
            octets += at
    return octets


async def measure(local: Mailbox, others: dict[str, Mailbox], server: int, rounds: int) -> dict[str, Any]:
    """All in turn."""
    archive = (await local.select("Archive", claim_recent=False)).folder_id
    inbox = (await local.select("INBOX", claim_recent=False)).folder_id
    sent = (await local.select("Sent", claim_recent=False)).folder_id
    kinds: dict[str, tuple[int, Callable[[Mailbox], Awaitable[Any]]]] = {
        "fetch flags": (rounds, lambda mailbox: fetch(mailbox, archive, ["uid", "flags"])),
        "fetch envelopes": (rounds, lambda mailbox: fetch(mailbox, archive, ["uid", "flags", "envelope"])),
        "fetch bodies": (max(3, rounds // 3), lambda mailbox: whole(mailbox, inbox)),
        "fetch 10 MB each": (max(3, rounds // 3), lambda mailbox: whole(mailbox, sent)),
        "status": (rounds * 50, lambda mailbox: mailbox.status("INBOX")),
        "look for mail": (rounds * 50, lambda mailbox: mailbox.poll()),
        "store one flag": (rounds * 5, lambda mailbox: toggle(mailbox, archive)),
    }
    report: dict[str, Any] = {}
    for name, (count, work) in kinds.items():
        here, there = Timing(os.getpid()), {kind: Timing(os.getpid(), server) for kind in others}
        await work(local)
        for other in others.values():
            await work(other)
        for _ in range(5):
            await here.run(max(1, count // 5), partial(work, local))
            for kind, other in others.items():
                await there[kind].run(max(1, count // 5), partial(work, other))
        report[name] = {kind: figures(here, timing) for kind, timing in there.items()}
    return report


def figures(here: Timing, there: Timing) -> dict[str, float]:
    """How the other way compares with the one in this process."""
    a, b = statistics.median(here.clock), statistics.median(there.clock)
    found = {"in process": a, "so": b, "ratio": a / b, "longer by": b - a, "cpu in process": here.each()[0]}
    found |= {"cpu here": there.each()[0], "cpu there": there.each()[1], "cpu ratio": here.each()[0] / max(there.each())}
    return {key: round(value, 3) for key, value in found.items()}


async def toggle(mailbox: Mailbox, folder: int) -> None:
    """One durable change."""
    await mailbox.store(folder, ((1, 1),), "add", frozenset({"\\Flagged"}))
    await mailbox.store(folder, ((1, 1),), "remove", frozenset({"\\Flagged"}))


async def run(arguments: argparse.Namespace, folder: Path, server: list[subprocess.Popen[str]]) -> dict[str, Any]:
    """Two mailboxes with the same content: one here, one there."""
    for name in ("here", "there"):
        files, mailboxes = storage(folder / name)
        files.create(ID, KEY)
        await fill(await mailboxes.open(ID, KEY), arguments.messages, arguments.megabytes)
        await mailboxes.close_all()
    socket = str(folder / "link")
    command = [sys.executable, __file__, "--serve", str(folder / "there"), "--socket", socket]
    server.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    assert server[0].stdout is not None and server[0].stdout.readline() == "ready\n"
    _, mailboxes = storage(folder / "here")
    files, _ = storage(folder / "there")
    link = Link(connector(UNIXClientEndpoint(reactor, socket), reactor, Identity("secondary"), SECRET), reactor)
    link.start()
    local = await mailboxes.open(ID, KEY)
    run_in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    remote = await open_direct(files, link, ID, KEY, print, run_in_thread, reactor, mode="link")
    # A link of its own, because a link tells one mailbox of each name.
    second = Link(connector(UNIXClientEndpoint(reactor, socket), reactor, Identity("second"), SECRET), reactor)
    second.start()
    direct = await open_direct(files, second, ID, KEY, print, run_in_thread, reactor, mode="direct")
    await rest(os.getpid(), server[0].pid)
    settle()  # as the daemon does, or the collection of garbage is most of what is measured
    report = await measure(local, {"link": remote, "direct": direct}, server[0].pid, arguments.rounds)
    await remote.close()
    await direct.close()
    link.stop()
    second.stop()
    await mailboxes.close_all()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--socket", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.socket)
        return
    server: list[subprocess.Popen[str]] = []
    results: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:

        def begin() -> None:
            done = Deferred.fromCoroutine(run(arguments, Path(folder), server))
            done.addBoth(results.append).addBoth(lambda _: reactor.stop())

        reactor.callWhenRunning(begin)
        reactor.run()
        for process in server:
            process.terminate()
            process.wait()
    if not isinstance(results[0], dict):
        results[0].raiseException()
    if arguments.json:
        print(json.dumps(results[0], indent=2))
        return
    for name, kinds in results[0].items():
        for kind, found in kinds.items():
            print(f"{name:16} {kind:7}", "  ".join(f"{key} {value:>9}" for key, value in found.items()))


if __name__ == "__main__":
    main()
