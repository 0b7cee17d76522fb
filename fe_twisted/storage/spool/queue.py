"""Mail that waits at a secondary for its primary: the temporary mailboxes of this box, in a folder of their own.

Each file is as in the rest of :mod:`fe_twisted.storage.spool`: encrypted outside with a key of this box, and each message inside sealed to
its recipient, so that nobody here can read what waits.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from fe_twisted.base.clock import Clock
from fe_twisted.storage.spool.spool import Spool
from fe_twisted.storage.sqlite.writer import RunInThread

#: The file of a mailbox, or one that was set aside and is still to be read.
_NAME = re.compile(r"\A([0-9a-f]{24})\.(?:sqlite|saving-[0-9]+)\Z")


class Queue:
    """A folder of sealed messages by mailbox.

    :param directory: made, with mode 0700, when it is not there.
    :param server_key: 32 octets, of this box.
    """

    def __init__(self, directory: Path, server_key: bytes, run_in_thread: RunInThread, clock: Clock, *, cipher: str = "chacha20") -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        #: Where the messages are.
        self.spool = Spool(lambda mailbox_id: directory / f"{mailbox_id}.sqlite", server_key, run_in_thread, clock, cipher=cipher)

    def ids(self) -> list[str]:
        """All mailboxes that something waits for, sorted."""
        return queued(self._directory)


def queued(directory: Path) -> list[str]:
    """The mailboxes that something waits for in a queue's folder, sorted; nothing is opened.

    :raises OSError: it cannot be read.
    """
    found = (_NAME.match(entry.name) for entry in os.scandir(directory))
    return sorted({match[1] for match in found if match})
