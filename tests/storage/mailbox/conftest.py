"""A mailbox of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import LocalMailbox, open_mailbox
from tests.storage.mailbox.driving import ID, KEY, at_once, nothing_waits, run


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(1_790_000_000)
    return clock


@pytest.fixture
def files(tmp_path: Path) -> MailboxFiles:
    return MailboxFiles(tmp_path / "mailboxes")


@pytest.fixture
def mailbox(files: MailboxFiles, clock: Clock) -> Iterator[LocalMailbox]:
    """An open mailbox; its consistency is checked when the test is over."""
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    yield mailbox
    assert run(mailbox.check_consistency()) == []
    run(mailbox.close())
    assert files.check(ID, KEY) == []
