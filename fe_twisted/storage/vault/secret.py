"""Reading and making secret files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fe_twisted.base.errors import AlreadyExists, BadSettings

#: Octets.
SERVER_KEY = 32
MAX_SECRET = 65536


def create_server_key(path: str | Path) -> bytes:
    """Make a server key: 32 random octets in a new file, mode 0600, durable when it returns.

    :raises AlreadyExists: the file is there; it is not touched, because another key would lock everybody out.
    :raises BadSettings: the folder is not there or not writable.
    """
    key = os.urandom(SERVER_KEY)
    write_secret(path, key)
    return key


def write_secret(path: str | Path, secret: bytes) -> None:
    """Put a secret into a new file, mode 0600, durable when it returns.

    :raises AlreadyExists: the file is there and stays as it is.
    :raises BadSettings: the folder is not there or not writable.
    """
    path = Path(path)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise AlreadyExists(f"{path.name} exists already and is not overwritten") from error
    except OSError as error:
        raise BadSettings(f"{path} cannot be made: {error.strerror}") from error
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        _sync(path.parent)
    except OSError as error:
        # Half a key must not be taken for one later.
        path.unlink(missing_ok=True)
        raise BadSettings(f"{path} cannot be written: {error.strerror}") from error


def replace_secret(path: str | Path, secret: bytes) -> None:
    """Put a secret into a file in the place of what it had, mode 0600, durable when it returns; nobody sees half of it.

    :raises BadSettings: the folder is not there or not writable.
    """
    path = Path(path)
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        write_secret(fresh, secret)
        fresh.rename(path)
        _sync(path.parent)
    except OSError as error:
        raise BadSettings(f"{path} cannot be written: {error.strerror}") from error


def load_server_key(path: str | Path, *, credentials: str | Path | None = None) -> bytes:
    """The server key.

    :param credentials: see :func:`read_secret`.
    :raises BadSettings: as :func:`read_secret`; also if it does not have 32 octets, or they are all alike.
    """
    key = read_secret(path, credentials=credentials)
    if len(key) != SERVER_KEY:
        raise BadSettings(f"{path} is no server key: it has {len(key)} octets instead of {SERVER_KEY}")
    if len(set(key)) == 1:
        raise BadSettings(f"{path} is no server key: all its octets are the same; restore it from your copy")
    return key


def read_secret(path: str | Path, *, credentials: str | Path | None = None) -> bytes:
    """The octets of a secret file, as they are.

    :param credentials: the folder in which systemd hands credentials over (``$CREDENTIALS_DIRECTORY``), if there is one.  systemd
        grants the service access with an ACL, which shows up in the group bits of the mode, so these are not held against
        files directly in this folder.
    :raises BadSettings: not there, not a regular file, empty, too large, another user's, or open to others.
    """
    path = Path(path)
    try:
        # Non-blocking, so that a FIFO in its place is refused rather than waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from error
    try:
        # The open file is looked at, not the name, so that nothing can change in between.
        _judge(path, os.fstat(fd), granted=credentials is not None and path.parent == Path(credentials))
        secret = os.read(fd, MAX_SECRET + 1)
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    if not secret:
        raise BadSettings(f"{path} is empty")
    return secret


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _judge(path: Path, info: os.stat_result, *, granted: bool) -> None:
    """:raises BadSettings: what is wrong with the file, and the remedy."""
    if not stat.S_ISREG(info.st_mode):
        raise BadSettings(f"{path} is not a regular file")
    if info.st_uid not in (os.geteuid(), 0):
        raise BadSettings(f"{path} belongs to another user; chown it to the user that runs the server")
    open_to = stat.S_IRWXO if granted else stat.S_IRWXG | stat.S_IRWXO
    if info.st_mode & open_to:
        raise BadSettings(f"{path} can be read by others (mode {stat.S_IMODE(info.st_mode):04o}); run: chmod 600 {path}")
    if info.st_size > MAX_SECRET:
        raise BadSettings(f"{path} is too large for a secret")
