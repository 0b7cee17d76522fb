"""One server at a time for one data folder, and one for one folder of mailboxes, whichever data folder leads to it.

SQLite keeps two processes from damaging a file, but not one from taking an empty temporary mailbox away while the other is about to add a
message to it: that message would be acknowledged and gone.  Two secondaries in one data folder would share the unix socket.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from fe_twisted.base.errors import BadSettings

#: What is locked where a folder cannot be.
LOCK = ".lock"


def claim(folder: Path, what: str = "the mailboxes in") -> int:
    """Claim the folder until the descriptor that is returned is closed, or the process ends in whatever way.

    Processes that it starts do not inherit the claim (``O_CLOEXEC``), so workers that outlive it for a moment keep nobody out.

    The folder itself is locked; on NFS, which locks nothing that is not open for writing, a file in it instead (flock(2), «NFS details»).

    :param what: the folder is, for the refusal.
    :raises BadSettings: another server has claimed it.
    :raises OSError: it is not there or cannot be locked.
    """
    try:
        return _locked(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except BlockingIOError as error:
        raise BadSettings(f"another server is running with {what} {folder}") from error
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
    try:
        return _locked(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except BlockingIOError as error:
        raise BadSettings(f"another server is running with {what} {folder}") from error


def _locked(descriptor: int) -> int:
    """The descriptor with its lock; closed when it cannot be had.

    :raises OSError: why.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
