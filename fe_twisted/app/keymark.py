"""Which server key mail that waits in a folder is encrypted under.

Under another key a file looks as a damaged one does, and a damaged one is set aside.  So a mark beside the files tells whether the key is
still the same, and a server with another one does not start.  The mark comes from the key by HKDF (RFC 5869) and tells nothing about it.
"""

from __future__ import annotations

from pathlib import Path

from fe_twisted.base.errors import BadSettings
from fe_twisted.protocols.crypto.derive import MARK, derive
from fe_twisted.storage.vault.secret import replace_secret

#: The file with the mark.
NAME = ".server-key-mark"

#: Files with waiting mail, in the folder of the mailboxes and in that of the queues.
TEMPORARY, QUEUED = ("*-tmp.sqlite", "*-tmp.saving-*"), ("*/*.sqlite", "*/*.saving-*")


def foreign(folder: Path, server_key: bytes, waiting: tuple[str, ...]) -> bool:
    """Whether mail waits in the folder, and its mark is not of this server key.

    :param server_key: 32 octets.
    :param waiting: patterns of the files with mail: :data:`TEMPORARY` or :data:`QUEUED`.
    :raises OSError: the mark is there and cannot be read.
    """
    # An earlier version has left no mark.
    return _kept(folder) not in (None, _mark(server_key)) and any(True for pattern in waiting for _ in folder.glob(pattern))


def keep(folder: Path, server_key: bytes, waiting: tuple[str, ...], file: Path) -> None:
    """Leave the mark, unless it is there.

    :param file: with the server key, for the refusal.
    :raises BadSettings: what waits is encrypted under another server key, or the mark cannot be written.
    :raises OSError: the mark is there and cannot be read.
    """
    if foreign(folder, server_key, waiting):
        raise BadSettings(refusal(folder, file))
    if _kept(folder) != _mark(server_key):
        replace_secret(folder / NAME, _mark(server_key))


def refusal(folder: Path, file: Path) -> str:
    """What is wrong, and what to do."""
    return (
        f"mail waits in {folder} under another server key than the one in {file}; put that key back from your copy, "
        f"or, if it is lost for good and that mail with it, remove {folder / NAME}"
    )


def _kept(folder: Path) -> bytes | None:
    try:
        return (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None


def _mark(server_key: bytes) -> bytes:
    return derive(server_key, MARK).hex().encode("ascii") + b"\n"
