"""A folder is claimed once, also where only files can be locked."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from fe_twisted.app.claim import LOCK, claim
from fe_twisted.base.errors import BadSettings


def as_nfs(descriptor: int, operation: int) -> None:
    """It locks as ``fcntl(F_SETLK)`` does: a lock for one alone needs a file that is open for writing."""
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "bad file descriptor")
    flock(descriptor, operation)


flock = fcntl.flock


@pytest.mark.parametrize("nfs", [False, True])
def test_one_at_a_time(tmp_path: Path, nfs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if nfs:
        monkeypatch.setattr(fcntl, "flock", as_nfs)
    held = claim(tmp_path)
    for _ in range(2):
        with pytest.raises(BadSettings, match="another server is running with the queue"):
            claim(tmp_path, "the queue")
    os.close(held)
    os.close(claim(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ([LOCK] if nfs else [])
    assert not nfs or stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == 0o600


def test_other_trouble_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(OSError, match="no locks available"):
        claim(tmp_path)
    with pytest.raises(FileNotFoundError):
        claim(tmp_path / "missing")
    assert not before or len(os.listdir("/proc/self/fd")) == before
