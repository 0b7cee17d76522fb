"""What a process counts with others: how it is put together; the counting itself has tests of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.testing import MemoryReactorClock

from fe_twisted.app.links import Links, make_links
from fe_twisted.app.shares import Shares, waiting_mail
from fe_twisted.base.load import load
from fe_twisted.base.settings import Settings
from fe_twisted.protocols.cluster.handshake import Identity
from fe_twisted.services.cluster.status import Report


def settings_of(folder: Path, *lines: str) -> Settings:
    file = folder / "forwardemail.toml"
    file.write_text("\n".join(('hostname = "one.example.org"', *lines)))
    return load(file, {})


def shares(settings: Settings, worker: int) -> tuple[Shares, Links]:
    clock: Any = MemoryReactorClock()
    links = make_links(settings, clock, Identity("x"), [bytes(32), b"s" * 32], worker=bool(worker))
    made = Shares(
        settings, clock, links, Identity("x"), own_secret=b"s" * 32, shared_secret=bytes(32), worker=worker, run_in_thread=execute
    )
    return made, links


@pytest.mark.parametrize(
    ("worker", "lines", "total", "together"),
    [
        (0, ("workers = 0",), 100, False),
        (1, ("workers = 3",), 34, True),
        (0, ("workers = 0", 'redis_url = "redis://127.0.0.1:1/0"'), 100, True),
    ],
)
def test_who_counts_with_others(tmp_path: Path, worker: int, lines: tuple[str, ...], total: int, together: bool) -> None:
    made, _ = shares(settings_of(tmp_path, *lines), worker)
    limit = made.connections("imap", 100, 10)
    assert (limit.total, limit.per_address) == (total, 10)
    assert (limit.teller is not None) is (made.failures._elsewhere is not None) is together


def test_a_worker_of_a_secondary_asks_the_process_above_it(tmp_path: Path) -> None:
    """Not the primary on another box, whose counts are not for others."""
    lines = ('role = "secondary"', 'primary = "wss://two.example.org:7443"', 'directory_url = "postgresql://a@b/c"', "workers = 2")
    made, links = shares(settings_of(tmp_path, *lines), 1)
    assert made._up is not None and made._up not in links.all()
    assert len(made._reporters) == 2, "both are told how it goes"


def test_the_report(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "workers = 0")
    made, _ = shares(settings, 0)
    made.numbers |= {"imap": lambda: 3, "mx": lambda: 1, "mailboxes": lambda: 2, "waiting": lambda: 99}
    settings.mailbox_folder.mkdir()
    (settings.mailbox_folder / f"{'a' * 24}-tmp.sqlite").write_bytes(b"x" * 10)
    found: list[Report] = []
    Deferred.fromCoroutine(made.report()).addCallback(found.append)
    report = found[0]
    assert (report.name, report.role, report.location) == ("one.example.org", "primary", "local")
    assert (report.imap, report.mx, report.mailboxes, report.waiting, report.waiting_octets) == (3, 1, 2, 1, 10)


def test_waiting_mail_is_counted_by_names_and_sizes(tmp_path: Path) -> None:
    mailboxes, queue = tmp_path / "mailboxes", tmp_path / "queue"
    assert waiting_mail(mailboxes, queue) == (0, 0)
    mailboxes.mkdir()
    for name in ("a-tmp.sqlite", "a-tmp.sqlite-wal", "a-tmp.sqlite-shm", "a.sqlite", "a.sqlite-wal", "b-tmp.sqlite"):
        (mailboxes / name).write_bytes(b"x" * 10)
    assert waiting_mail(mailboxes, queue) == (2, 30)
    for number, name in ((1, "b.sqlite"), (2, "c.sqlite"), (2, "c.sqlite-wal")):
        (queue / str(number)).mkdir(parents=True, exist_ok=True)
        (queue / str(number) / name).write_bytes(b"x")
    assert waiting_mail(mailboxes, queue) == (3, 33)
    for name in ("c.saving-1", "d.saving-1", "d.saving-2-wal", "d.damaged-1"):
        (queue / "2" / name).write_bytes(b"x")
    (mailboxes / "e-tmp.saving-1").write_bytes(b"x")
    assert waiting_mail(mailboxes, queue) == (5, 37), "what is still to be read after damage waits as well"
