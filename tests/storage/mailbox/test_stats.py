"""What is stored once, and what compression saves, is counted."""

from __future__ import annotations

import base64
import random

from twisted.internet.task import Clock

from fe_twisted.storage.mailbox.api import NewMessage
from fe_twisted.storage.mailbox.files import MailboxFiles
from fe_twisted.storage.mailbox.local import open_mailbox
from tests.storage.mailbox.driving import ID, KEY, at_once, nothing_waits, run

HEADER = b"Subject: %d\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n"
PART = b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n%b\r\n--b--\r\n"


def test_what_is_saved(files: MailboxFiles, clock: Clock) -> None:
    octets = base64.encodebytes(random.Random(1).randbytes(30_000)).replace(b"\n", b"\r\n")
    contents = [HEADER % number + PART % octets for number in range(3)]
    wordy = b"Subject: words\r\n\r\n" + b"the same words again and again\r\n" * 1000
    files.create(ID, KEY)
    mailbox = run(open_mailbox(files, ID, KEY, at_once, clock, nothing_waits))
    run(mailbox.append("INBOX", [NewMessage(content) for content in (*contents, wordy)]))
    run(mailbox.copy(1, ((4, 4),), "Archive"))
    run(mailbox.close())
    found = files.stats(ID, KEY)
    body = octets.rstrip(b"\r\n")
    assert (found.messages, found.distinct) == (5, 4)
    assert found.logical == sum(map(len, contents)) + 2 * len(wordy)
    assert found.saved_by_copies == len(wordy)
    assert 2 * len(body) <= found.saved_by_attachments <= 2 * len(octets)
    assert found.saved_by_compression > len(wordy) * 0.9
    assert found.on_disk == files.path(ID).stat().st_size
    assert 0 < found.index < found.on_disk
