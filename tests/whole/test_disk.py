"""A full disk: 452 or NO, nothing that was promised is lost, and service again once there is room."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.whole.daemon import Daemon, as_sent, simple
from tests.whole.wire import Imap, Smtp

MIB = 1024 * 1024


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose data lies on a disk of 12 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=False).returncode == 0
    )
    if not mounted:
        if os.environ.get("CI"):
            pytest.fail("a small disk cannot be mounted")
        pytest.skip("mounting a small disk needs root")
    try:
        daemon = Daemon(disk / "var")
        daemon.log_outside = tmp_path / "daemon.log"
        daemon.init()
        yield daemon
        daemon.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(daemon: Daemon, leave: int) -> Path:
    """Take all room but so many octets."""
    ballast = daemon.data.parent / "ballast"
    room = os.statvfs(daemon.data)
    # The daemon may take some of it at the same time.
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        file.write(bytes(max(0, room.f_bavail * room.f_frsize - leave)))
    return ballast


def _message(number: int) -> bytes:
    """20 KB that no compression makes smaller."""
    return simple(f"number {number}", random.Random(number).randbytes(10_000).hex(" ", 32).replace(" ", "\r\n") + "\r\n")


def _deliver_until_full(daemon: Daemon, address: str, start: int = 0) -> tuple[list[bytes], bytes]:
    """Messages that were accepted, and the first other reply."""
    accepted = []
    with Smtp(daemon) as smtp:
        smtp.hello()
        for number in range(start, start + 2000):
            replies = [smtp.ask(b"MAIL FROM:<a@example.net>"), smtp.ask(b"RCPT TO:<" + address.encode() + b">")]
            if any(not reply.startswith(b"250") for reply in replies):
                return accepted, next(reply for reply in replies if not reply.startswith(b"250"))
            reply = smtp.data(_message(number))
            if not reply.startswith(b"250"):
                assert smtp.ask(b"NOOP").startswith(b"250"), "the connection goes on"
                return accepted, reply
            accepted.append(_message(number))
    raise AssertionError("the disk never was full")


@pytest.mark.parametrize("connected", [False, True], ids=["away", "connected"])
def test_full_disk(small: Daemon, connected: bool) -> None:
    """Fill it by mail; 452 4.3.1; make room; all that was accepted is there, and new mail comes."""
    owner = small.owner("hello")
    small.expected.append(r"disk|full|Full|storage|deliver|sqlite")
    small.start()
    session = Imap(small, owner, "INBOX") if connected else None
    ballast = _fill(small, 2 * MIB)
    accepted, refusal = _deliver_until_full(small, owner.address)
    assert accepted and refusal.startswith(b"452 4.3.1"), (len(accepted), refusal)
    if session is not None:
        with session as imap:
            answer = imap.append(_message(5000))[-1]
            assert b" NO " in answer, answer
            assert b"OK" in imap.ask(b"NOOP")[-1]
            assert b"OK" in imap.ask(b"FETCH 1:* (FLAGS)")[-1]
    ballast.unlink()
    more = simple("there is room again")
    small.send(owner.address, more)
    assert [as_sent(stored) for stored in small.messages(owner)] == [*accepted, more]
    small.restart()
    assert len(small.messages(owner)) == len(accepted) + 1
    small.cli("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")


def test_full_disk_at_merge(small: Daemon) -> None:
    """Waiting mail that cannot move in stays where it is; the login works or fails clearly, and later all is there once."""
    owner = small.owner("hello")
    small.expected.append(r"disk|full|Full|storage|merge|sqlite|imap")
    small.start()
    sent = [_message(number) for number in range(60)]
    for message in sent:
        small.send(owner.address, message)
    for leave in (0, 20_000, 100_000, 400_000):
        ballast = _fill(small, leave)
        with Imap(small) as imap:
            if b"OK" in imap.ask(f"LOGIN {owner.address} {owner.password}".encode())[-1]:
                imap.ask(b"SELECT INBOX")
                imap.ask(b"NOOP")
        ballast.unlink()
    assert [as_sent(stored) for stored in small.messages(owner)] == sent
    small.cli("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")


@pytest.mark.parametrize("connected", [False, True], ids=["away", "connected"])
def test_enospc_at_every_write(small: Daemon, connected: bool) -> None:
    """The room ends at another octet each time: whatever write fails, what was answered with 250 is there and nothing else."""
    owner = small.owner("hello")
    small.expected.append(r"disk|full|Full|storage|deliver|sqlite|merge")
    small.start()
    session = Imap(small, owner, "INBOX") if connected else None
    accepted: list[bytes] = []
    for step in range(24):
        ballast = _fill(small, step * 4096)
        with Smtp(small) as smtp:
            smtp.hello()
            replies = [smtp.ask(b"MAIL FROM:<a@example.net>"), smtp.ask(b"RCPT TO:<" + owner.address.encode() + b">")]
            if all(reply.startswith(b"250") for reply in replies):
                replies.append(smtp.data(_message(step)))
            assert all(reply[:3] in (b"250", b"452", b"451") for reply in replies), replies
            if replies[-1].startswith(b"250") and len(replies) == 3:
                accepted.append(_message(step))
        ballast.unlink()
    if session is not None:
        session.close()
    assert [as_sent(stored) for stored in small.messages(owner)] == accepted
    small.cli("mailbox", "check", owner.address, "--password-stdin", stdin=owner.password + "\n")


def test_file_size_limit(fresh: Daemon) -> None:
    """A limit of the process instead of the disk (EFBIG): the same, and not the end of the process by SIGXFSZ."""
    owner = fresh.owner("hello")
    fresh.expected.append(r"disk|full|large|storage|deliver|sqlite|spool")
    fresh.start(limits={resource.RLIMIT_FSIZE: 3 * MIB})
    accepted, refusal = _deliver_until_full(fresh, owner.address)
    assert accepted and refusal[:3] in (b"452", b"451"), refusal
    fresh.restart()
    assert [as_sent(stored) for stored in fresh.messages(owner)] == accepted
