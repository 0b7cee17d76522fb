"""What waits for primaries, by the names of its files."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock

from fe_twisted.storage.spool.item import Waiting
from fe_twisted.storage.spool.queue import Queue
from tests.storage.mailbox.driving import at_once, run
from tests.storage.spool.test_spool import BOX, KEY, OTHER, SERVER_KEY, WHEN


def test_what_was_set_aside_is_found_and_read(tmp_path: Path) -> None:
    """A crash came before a damaged file was saved from, and since then nothing has come for that mailbox."""
    queue = Queue(tmp_path / "queue", SERVER_KEY, at_once, Clock())
    assert queue.ids() == []
    for mailbox_id in (BOX, OTHER):
        run(queue.spool.add(mailbox_id, KEY.public(), Waiting(os.urandom(16), WHEN, b"x")))
    run(queue.spool.close())
    (tmp_path / "queue" / f"{BOX}.sqlite").rename(tmp_path / "queue" / f"{BOX}.saving-1")
    (tmp_path / "queue" / f"{OTHER}.saving-1").write_bytes(b"x")
    (tmp_path / "queue" / f"{'c' * 24}.damaged-1").write_bytes(b"x")
    queue = Queue(tmp_path / "queue", SERVER_KEY, at_once, Clock())
    assert queue.ids() == sorted([BOX, OTHER]), "each once, and not what is done with"
    [row] = run(queue.spool.take(BOX, 10, 1 << 20))
    run(queue.spool.remove(BOX, [row.delivery_id]))
    assert run(queue.spool.remove_if_empty(BOX)) is True
    assert queue.ids() == [OTHER]
    run(queue.spool.close())
