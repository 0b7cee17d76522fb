"""Every key that comes from the server key, one label each (HKDF-SHA256, RFC 5869).

Each box has a server key of its own.  What must be the same on all boxes comes from the directory's shared secret instead: :data:`SCRAM`
and :data:`LIMITS`.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DIRECTORY = "directory"
SPOOL = "spool"
SESSION = "session memory"
COOKIE = "cookie"
SRS = "srs"
CLUSTER = "cluster"
#: No key: by it a folder is known whose files are encrypted under this server key.
MARK = "mark"
SCRAM = "scram"
#: What this box offers as the secret of all boxes with its directory, see :meth:`fe_twisted.storage.directory.api.Directory.shared_secret`.
SHARED = "shared"
#: Of that secret and not of the server key: hides addresses in the names of what is counted on Redis.
LIMITS = "limits"


def derive(server_key: bytes, label: str, length: int = 32) -> bytes:
    """A key for one purpose; it tells nothing about the server key or about any other label's key.

    :param server_key: 32 octets.
    :param label: what the key is for; one of the constants here, or one with an id behind a colon.
    :raises ValueError: a server key of another size, or no label.
    """
    if len(server_key) != 32 or not label:
        raise ValueError("a server key of 32 octets and a label are needed")
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=b"forwardemail " + label.encode()).derive(server_key)


def directory_key(server_key: bytes) -> bytes:
    """Encrypts the embedded directory file."""
    return derive(server_key, DIRECTORY)


def spool_key(server_key: bytes, mailbox_id: str) -> bytes:
    """Encrypts the outside of one temporary mailbox; the messages inside are sealed besides."""
    return derive(server_key, f"{SPOOL}:{mailbox_id}")
